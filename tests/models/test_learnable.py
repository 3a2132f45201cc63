"""Labels that no model can learn are refused before training, for every kind of task."""

from dataclasses import replace

import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import Experiment, TabularConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.datasets import ham10000, isic_2017
from kaggle_pipeline.models.learnable import require_labels, require_learnable

SPECS = {"multiclass": ham10000.SPEC, "multilabel": isic_2017.SPEC}


def table(task, labels):
    """Six training rows, two in each of three folds; ``labels``: the positive class of each row."""
    spec = SPECS[task]
    ids = pd.Index([f"I{row}" for row in range(6)], name="image_id")
    examples = pd.DataFrame(0, index=ids, columns=list(spec.classes))
    for image_id, name in zip(ids, labels, strict=True):
        if name:
            examples.loc[image_id, name] = 1
    examples = examples.assign(group_id=[f"G{row}" for row in range(6)], split="train")
    folds = pd.DataFrame({"fold": [0, 0, 1, 1, 2, 2], "group_id": examples["group_id"]}, index=ids)
    return spec, examples, Folds(folds)


def experiment(task, *learners):
    config = Experiment(name="labels", dataset=SPECS[task].id)
    return replace(config, tabular=replace(TabularConfig(), learners=learners))


def test_one_class_alone_is_nothing_to_learn():
    spec, examples, _ = table("multiclass", ["nv"] * 6)
    with pytest.raises(PipelineError, match=r"all 6 .* nv"):
        require_labels(examples, spec)
    examples.loc["I0", ["nv", "mel"]] = 0, 1
    require_labels(examples, spec)


@pytest.mark.parametrize("labels", [[None] * 6, ["melanoma"] * 6])
def test_a_label_of_one_value_is_nothing_to_learn(labels):
    spec, examples, _ = table("multilabel", labels)
    with pytest.raises(PipelineError, match="melanoma"):
        require_labels(examples, spec)


def test_a_class_too_rare_for_smote_names_class_and_fold():
    spec, examples, folds = table("multiclass", ["nv", "nv", "nv", "nv", "nv", "mel"])
    config = experiment("multiclass", "dense")
    with pytest.raises(PipelineError, match=r"fold 0.* mel.*resampling=none"):
        list(require_learnable(examples, folds, spec, config, {"tabular"}))


def test_a_class_without_any_image_is_named():
    spec, examples, folds = table("multiclass", ["nv", "nv", "nv", "nv", "mel", "mel"])
    config = experiment("multiclass", "logistic")
    with pytest.raises(PipelineError, match=r"bcc = 0, as all 6 training photos"):
        list(require_learnable(examples, folds, spec, config, {"tabular", "logistic"}))


def test_a_fold_that_holds_all_of_a_class_is_named():
    spec, examples, folds = table("multilabel", [None] * 4 + ["melanoma"] * 2)
    examples.loc[["I0", "I2", "I4"], "seborrheic_keratosis"] = 1
    config = experiment("multilabel", "logistic")
    with pytest.raises(PipelineError, match=r"fold 2.*melanoma = 0; all 2 such photos"):
        list(require_learnable(examples, folds, spec, config, {"tabular", "logistic"}))


def test_an_image_model_of_many_classes_may_lack_one_and_its_score_is_said_to_be_missing():
    spec, examples, folds = table("multiclass", ["nv", "nv", "nv", "mel", "mel", "nv"])
    config = experiment("multiclass", "dense")
    lines = list(require_learnable(examples, folds, spec, config, {"image"}))
    assert len(lines) == len(spec.classes) - 2  # nv and mel have both kinds of rows
    assert all("no AUC" in line for line in lines)
