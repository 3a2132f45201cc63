"""Tests of one model a class: each learns its own question, a stopped fit goes on, ids join."""

import json

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.datasets.isic_2017 import SPEC
from kaggle_pipeline.models.composite import OneModelPerClass


class Prior:
    """A model that answers with the share of positives it saw, its rows in reverse order."""

    selection, inner_share = "inner", 0.3

    def __init__(self, spec, folder, fitted):
        self.spec, self.folder, self.fitted = spec, folder, fitted

    def fit(self, train, valid):
        (name,) = self.spec.classes
        self.share, self.validation = float(train[name].mean()), len(valid)
        self.fitted.append(name)
        return self

    def predict(self, examples):
        (name,) = self.spec.classes
        ids = examples.index[::-1]
        return pd.DataFrame({name: self.share + np.arange(len(ids))[::-1] / 1000}, ids)

    def save(self, folder):
        (folder / "model.json").write_text(json.dumps(self.share))

    def load(self, folder):
        self.share = json.loads((folder / "model.json").read_text())
        return self


@pytest.fixture
def rows():
    ids = pd.Index([f"ISIC_{i}" for i in range(8)], name="image_id")
    columns = {"melanoma": [1, 1, 0, 0, 0, 0, 0, 0], "seborrheic_keratosis": [0] * 4 + [1] * 4}
    return pd.DataFrame(columns, ids, dtype=float)


@pytest.fixture
def make(tmp_path):
    fitted = []

    def build():
        return OneModelPerClass(lambda spec, at: Prior(spec, at, fitted), SPEC, tmp_path)

    build.fitted = fitted
    return build


def test_each_class_has_a_binary_model_of_its_own(make, rows):
    model = make().fit(rows, rows)
    specs = [one.spec for one in model.models_.values()]
    assert [(s.task, s.classes) for s in specs] == [("binary", (name,)) for name in SPEC.classes]
    found = model.predict(rows)
    assert list(found.columns) == list(SPEC.classes) and list(found.index) == list(rows.index)
    np.testing.assert_allclose(found["melanoma"], 0.25 + np.arange(8) / 1000)
    np.testing.assert_allclose(found["seborrheic_keratosis"], 0.5 + np.arange(8) / 1000)


def test_what_is_saved_predicts_the_same_elsewhere(make, rows, tmp_path):
    first = make().fit(rows, rows)
    first.save(tmp_path)
    pd.testing.assert_frame_equal(make().load(tmp_path).predict(rows), first.predict(rows))


def test_a_stopped_fit_does_not_fit_a_finished_class_again(make, rows, tmp_path):
    make().fit(rows, rows)
    (tmp_path / "seborrheic_keratosis" / "model.json").unlink()
    make().fit(rows, rows)
    assert make.fitted == ["melanoma", "seborrheic_keratosis", "seborrheic_keratosis"]


def test_the_rows_an_epoch_may_be_chosen_by_are_the_models(make):
    assert make().selection == "inner" and make().inner_share == 0.3
