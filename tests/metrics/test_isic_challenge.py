"""Our scores are those of the ISIC challenges' own program (kept by ``helpers_isic.py``)."""

import json

import numpy as np
import pytest
from helpers_isic import GOLDENS, SPECS, UNSCORED, made_up, submission_of

from kaggle_pipeline.evaluation.decision.scores import reached
from kaggle_pipeline.evaluation.evaluate import evaluate
from kaggle_pipeline.evaluation.labelled import join_truth
from kaggle_pipeline.stages.score_submission import score_submission

KEPT = json.loads(GOLDENS.read_text())
NAMES = {"auc": "auc", "average_precision": "ap"}


@pytest.mark.parametrize("name", SPECS)
def test_scores_equal_those_of_the_challenges_program(name):
    assert KEPT["isic-challenge-scoring"] == "5.6.0"
    spec, theirs = SPECS[name], KEPT[name]
    truth, found = (one.drop(UNSCORED, errors="ignore") for one in made_up(name))
    assert len(found) == 399, "one image is not scored"
    examples = truth.assign(group_id=truth.index, age_years=np.nan, sex=None, site=None)
    ours = evaluate(examples, found, spec, seed=0, n_replicates=20)
    for our, their in NAMES.items():
        whole = theirs["macro_average"][their]
        assert ours["scores"][our]["value"] == pytest.approx(whole, abs=1e-12)
        for column, of_class in spec.submission.columns.items():
            expected = theirs["per_category"][their][column]
            assert ours["per_class"][of_class][our]["value"] == pytest.approx(expected, abs=1e-12)
    if spec.task == "multiclass":
        expected = theirs["aggregate"]["balanced_accuracy"]
        assert ours["scores"]["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-12)
    labelled = join_truth(examples, found, spec, 0, 20, None)
    for column, of_class in spec.submission.columns.items():
        said = reached(labelled, of_class, found[of_class].to_numpy() > 0.5)  # theirs: above
        for our, their in (("sensitivity", "sensitivity"), ("specificity", "specificity")):
            expected = theirs["per_category"][their][column]
            assert said[our]["value"] == pytest.approx(expected, abs=1e-12)


def test_the_submission_has_the_challenges_columns_and_is_scored_as_there(tmp_path):
    submission = submission_of("ham10000")
    assert list(submission) == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    assert list(submission_of("isic_2017")) == ["image_id", "melanoma", "seborrheic_keratosis"]
    truth, _ = made_up("ham10000")
    truth = truth.rename(columns=str.upper).rename_axis("image").reset_index()
    submission.to_csv(tmp_path / "submission.csv", index=False)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    said = score_submission(tmp_path / "submission.csv", tmp_path / "truth.csv", seed=0)
    assert "left out: 1 of 400 photos" in said
    kept = KEPT["ham10000"]
    assert f"balanced accuracy {kept['overall']:.4f}" in said
    assert f"AUC MEL {kept['per_category']['auc']['MEL']:.4f}" in said
