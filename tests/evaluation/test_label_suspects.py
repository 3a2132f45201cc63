"""Doubtful labels: those that were turned round are found, and others hardly."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cleanlab")

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.evaluation.label_suspects import find_suspects

IDS = pd.Index([f"i{k}" for k in range(600)], name="image_id")
SIIM, HAM, ISIC_2017 = (get_spec(n) for n in ("siim_isic_2020", "ham10000", "isic_2017"))


def drawn(spec, seed=0):
    """True labels, and probabilities of a good model."""
    rng = np.random.default_rng(seed)
    if spec.task == "multiclass":
        true = rng.integers(0, len(spec.classes), len(IDS))
        logits = (
            rng.normal(size=(len(IDS), len(spec.classes))) + 5 * np.eye(len(spec.classes))[true]
        )
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = np.eye(len(spec.classes))[true]
    else:
        labels = (rng.random((len(IDS), len(spec.classes))) < 0.3).astype(float)
        chances = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + 6 * labels - 3)))
    frame = {"index": IDS, "columns": list(spec.classes)}
    return pd.DataFrame(labels, **frame), pd.DataFrame(chances, **frame)


def turned(labels, spec, count=20):
    """The labels with the first rows' turned to another class."""
    wrong = labels.copy()
    if spec.task == "multiclass":
        wrong.iloc[:count] = np.roll(labels.iloc[:count].to_numpy(), 1, axis=1)
    else:
        wrong.iloc[:count, 0] = 1 - labels.iloc[:count, 0]
    return wrong


@pytest.mark.parametrize("spec", [SIIM, HAM, ISIC_2017], ids=lambda spec: spec.id)
def test_turned_labels_are_found_first(spec):
    labels, oof = drawn(spec)
    found = find_suspects(turned(labels, spec), oof, spec)
    assert set(found.columns) == {"label", "more_likely", "fit"}
    assert found["fit"].is_monotonic_increasing and found["fit"].between(0, 1).all()
    right = set(IDS[:20])
    assert len(right & set(found.index)) >= 17
    assert len(set(found.index[:20]) & right) >= 15
    assert (found["label"] != found["more_likely"]).all()


def test_a_row_without_a_label_is_no_suspect():
    labels, oof = drawn(ISIC_2017)
    wrong = turned(labels, ISIC_2017)
    wrong.iloc[:5, 0] = np.nan
    name = ISIC_2017.class_label(ISIC_2017.classes[0])
    found = find_suspects(wrong, oof, ISIC_2017)
    assert not set(found.index[found["label"].str.contains(name)]) & set(IDS[:5])


def test_a_class_without_an_image_is_named():
    labels, oof = drawn(SIIM)
    with pytest.raises(PipelineError, match="no image of melanoma"):
        find_suspects(labels * 0, oof, SIIM)
