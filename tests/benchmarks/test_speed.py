"""Tests of what measures conversion and tabular training: the peers do the same work."""

import json

import numpy as np
import pytest
from helpers_image import to_jpeg

from benchmarks.convert import draw_photos, measure_conversion, shrink_photo
from benchmarks.tabular import made_up_rows, measure_tabular
from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.data.examples import validate_examples
from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
from kaggle_pipeline.records.convert import convert_image


@pytest.mark.parametrize("shape", [(120, 200, 3), (40, 90, 3)])
def test_the_bare_loop_makes_the_very_jpeg(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    (tmp_path / "a.jpg").write_bytes(to_jpeg(pixels))
    config = RecordsConfig(image_size_px=32)
    bare = shrink_photo(tmp_path / "a.jpg", 32, smaller=True)
    assert bare == convert_image(tmp_path / "a.jpg", config)


def test_made_up_rows_have_the_competitions_shape():
    examples = validate_examples(made_up_rows(3000, 200), SPEC)
    assert 0.005 < examples["target"].mean() < 0.04
    assert examples["group_id"].nunique() > 190
    old = examples["age_years"] > 50
    assert examples.loc[old, "target"].mean() > examples.loc[~old, "target"].mean()


@pytest.mark.slow
def test_conversion_is_measured(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setattr("benchmarks.convert.PHOTO_PX", (300, 200))
    found = measure_conversion(tmp_path, tmp_path / "found.json", photos=20, size_px=64)["found"]
    assert found["bare loop 1"]["images_per_second"] > 0 and found["convert 1"]["ratio"] > 0
    assert json.loads((tmp_path / "found.json").read_text())["found"] == found
    assert len(draw_photos(tmp_path / "photos_300x200", 20)) == 20


@pytest.mark.slow
def test_tabular_training_is_measured(tmp_path):
    pytest.importorskip("tensorflow")
    examples = validate_examples(made_up_rows(4000, 300), SPEC)
    path = tmp_path / "found.json"
    found = measure_tabular(None, path, epochs=1, beside=3, examples=examples)
    assert found["seconds"] > 0 and set(found["fit"]) == {32, 1024}
    assert abs(found["auc"]["gap"]) < 0.1
    assert json.loads(path.read_text())["rows"] == 4000
