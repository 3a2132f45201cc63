"""What a numeric feature may be."""

from dataclasses import replace

import numpy as np
import pytest

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import MADE_UP_MARK
from kaggle_pipeline.data.spec import AGE_YEARS, Number
from kaggle_pipeline.datasets import MODULES, get_spec, spec_of


@pytest.mark.parametrize(
    ("number", "fine", "odd", "words"),
    [
        (AGE_YEARS, (0, 45.5, 120), (-1, 121, np.nan, "45", None), "a number from 0 to 120"),
        (Number(least=0.5), (0.5, 1e9), (0.4, np.inf), "a number from 0.5"),
        (Number(greatest=7), (-1e9, 7), (7.1, -np.inf), "a number to 7"),
        (Number(), (-3, 1e12), (np.nan, np.inf, "one"), "a number"),
    ],
)
def test_a_number_is_finite_and_within_its_bounds(number, fine, odd, words):
    assert all(number.holds(one) for one in fine)
    assert not any(number.holds(one) for one in odd)
    assert number.describe() == words


def test_a_data_set_says_what_people_call_it_and_what_it_is_about():
    words = {name: get_spec(name) for name in MODULES}
    assert {spec.class_label(spec.main_class) for spec in words.values()} == {"melanoma"}
    for spec in words.values():
        assert set(spec.class_titles) <= set(spec.classes)
        assert spec.made_up == (spec.id == "synthetic")
        assert spec.heading and "_" not in spec.heading
    assert words["synthetic"].feature_label("age_years") == "age in years"
    assert words["isic_2017"].class_label("seborrheic_keratosis") == "seborrheic keratosis"


@pytest.mark.parametrize(
    ("classes", "first"),
    [(("nevus", "Melanoma"), "Melanoma"), (("nv", "MEL"), "MEL"), (("b", "a"), "b")],
)
def test_the_main_class_is_melanoma_or_the_first(spec, classes, first):
    assert replace(spec, classes=classes, class_titles={}).main_class == first


def test_drawn_photos_of_any_set_are_known_by_a_mark_in_their_folder(tmp_path):
    config = Experiment(name="x", dataset="ham10000")
    assert not spec_of(config, None, tmp_path).made_up
    (tmp_path / MADE_UP_MARK).write_text("drawn")
    assert spec_of(config, None, tmp_path).made_up  # the data folder
    assert spec_of(config, tmp_path, None).made_up  # a prepared run
