"""Tests of the submission: order of the sample, each check, exact and whole files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import write_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.predictions import AVERAGED, Predictions
from kaggle_pipeline.data.spec import SubmissionFormat
from kaggle_pipeline.data.submission import build_submission, check_submission, write_submission

IDS = ["ISIC_3", "ISIC_1", "ISIC_2"]


@pytest.fixture
def predicted():
    table = pd.DataFrame({"target": [0.1, 0.2, 0.3]}, index=["ISIC_1", "ISIC_2", "ISIC_3"])
    return Predictions.build(table, AVERAGED, "test")


@pytest.fixture
def sample():
    return pd.DataFrame({"image_name": IDS, "target": 0})


@pytest.fixture
def submission(predicted, spec, sample):
    return build_submission(predicted, spec, sample)


def refusal(submission, spec, sample):
    with pytest.raises(PipelineError) as caught:
        check_submission(submission, spec, sample)
    return str(caught.value)


def test_rows_come_in_the_order_of_the_sample(submission, spec, sample):
    assert list(submission.columns) == ["image_name", "target"]
    assert submission["image_name"].tolist() == IDS
    assert submission["target"].tolist() == [0.3, 0.1, 0.2]
    check_submission(submission, spec, sample)


def test_without_a_sample_rows_come_in_the_order_of_the_predictions(predicted, spec):
    submission = build_submission(predicted, spec, None)
    assert submission["image_name"].tolist() == ["ISIC_1", "ISIC_2", "ISIC_3"]
    assert submission["target"].tolist() == [0.1, 0.2, 0.3]


def test_several_classes_go_to_the_columns_that_the_format_names(spec):
    layout = SubmissionFormat("image", {"MEL": "melanoma", "NV": "nevus"})
    spec = replace(spec, classes=("nevus", "melanoma"), submission=layout)
    table = pd.DataFrame({"nevus": [0.9, 0.2], "melanoma": [0.1, 0.8]}, index=["a", "b"])
    submission = build_submission(Predictions.build(table, AVERAGED, "test"), spec, None)
    assert submission.to_dict("list") == {"image": ["a", "b"], "MEL": [0.1, 0.8], "NV": [0.9, 0.2]}


def test_sample_ids_that_are_numbers_match(spec):
    table = pd.DataFrame({"target": [0.1, 0.2]}, index=["12", "7"])
    sample = pd.DataFrame({"image_name": [7, 12], "target": 0})
    submission = build_submission(Predictions.build(table, AVERAGED, "test"), spec, sample)
    assert submission["target"].tolist() == [0.2, 0.1]
    check_submission(submission, spec, sample)


def test_sample_id_without_a_prediction_is_named(predicted, spec, sample):
    sample.loc[3] = ["ISIC_9", 0]
    with pytest.raises(PipelineError, match="nothing for ISIC_9"):
        build_submission(predicted, spec, sample)


def test_prediction_that_the_sample_does_not_ask_for_is_named(predicted, spec, sample):
    with pytest.raises(PipelineError, match="predicts ISIC_2"):
        build_submission(predicted, spec, sample.iloc[:2])


@pytest.mark.parametrize(
    "columns", [["image_name", "prediction"], ["target", "image_name"], ["image_name"]]
)
def test_other_columns_are_named(submission, spec, sample, columns):
    changed = submission.assign(prediction=0.5)[columns]
    message = refusal(changed, spec, sample)
    assert str(columns) in message
    assert "['image_name', 'target']" in message


def test_id_listed_twice_is_named(submission, spec, sample):
    submission.loc[1, "image_name"] = "ISIC_3"
    assert "ISIC_3 more than once" in refusal(submission, spec, sample)


def test_missing_row_is_named(submission, spec, sample):
    assert "has no row for ISIC_2" in refusal(submission.iloc[:2], spec, sample)


def test_row_too_many_is_named(submission, spec, sample):
    assert "a row too many, ISIC_3" in refusal(submission, spec, sample.iloc[1:])


def test_wrong_order_names_the_first_row(submission, spec, sample):
    message = refusal(submission.iloc[[0, 2, 1]], spec, sample)
    assert "row 1 is ISIC_2, the sample's ISIC_1" in message


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf, "high"])
def test_value_that_is_no_probability_names_its_row(submission, spec, sample, bad):
    submission = submission.astype({"target": object})
    submission.loc[1, "target"] = bad
    message = refusal(submission, spec, sample)
    assert f"target of ISIC_1 is {bad}, not in [0, 1]" in message


def test_file_is_exact_and_has_no_index(spec, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"target": rng.random(500)}, index=[f"ISIC_{i}" for i in range(500)])
    submission = build_submission(Predictions.build(table, AVERAGED, "test"), spec, None)
    write_submission(submission, tmp_path / "submission.csv")
    back = pd.read_csv(tmp_path / "submission.csv", float_precision="round_trip")
    assert list(back.columns) == ["image_name", "target"]
    np.testing.assert_array_equal(back["target"], table["target"])


def test_failed_write_keeps_the_earlier_submission(submission, tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    path.write_text("earlier")

    def fail(self, temporary, **_):
        temporary.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_submission(submission, path)
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]


# ---------------------------------------------------------------------------- scoring


def scored(tmp_path, submission, truth):
    from kaggle_pipeline.stages.score_submission import score_submission

    for name, table in (("submission", submission), ("truth", truth)):
        pd.DataFrame(table).to_csv(tmp_path / f"{name}.csv", index=False)
    return score_submission(tmp_path / "submission.csv", tmp_path / "truth.csv", seed=0)


def test_every_class_of_a_submission_is_scored(tmp_path):
    ids = ["a", "b", "c", "d"]
    submission = {"image_id": ids, "melanoma": [0.1, 0.2, 0.8, 0.9], "keratosis": [0.5] * 4}
    truth = {"image_id": ids[::-1], "keratosis": [0, 0, 0, 0], "melanoma": [1, 1, 0, 0]}
    lines = scored(tmp_path, submission, truth).splitlines()
    assert lines[0].startswith("test AUC melanoma 1.0000 ") and "4 photos, 2 positive" in lines[0]
    assert lines[1] == "test AUC keratosis: none, all 4 photos are 0"


def test_the_score_of_a_runs_submission_is_kept_and_reported(tmp_path):
    config = Experiment(name="demo", dataset="synthetic")
    write_experiment(tmp_path / "prepare" / "config.yaml", config)
    ids = ["a", "b", "c", "d"]
    scored(tmp_path, {"image_name": ids, "target": [0.1, 0.2, 0.8, 0.9]},
           {"image_name": ids, "target": [0, 0, 1, 1]})  # fmt: skip
    kept = read_json(tmp_path / "test_score.json")
    assert kept["scores"]["target"] == {"value": 1.0, "low": 1.0, "high": 1.0, "positive": 2}
    assert kept["n"] == 4 and kept["truth"] == "truth.csv"
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("submission", "truth", "words"),
    [
        ({"id": ["a"]}, {"id": ["a"]}, "nothing to score"),
        ({"id": ["a"], "y": [0.5]}, {"id": ["a"]}, "no column 'y'"),
        ({"id": ["a"], "y": [1.5]}, {"id": ["a"], "y": [1]}, "y of a is 1.5, not in"),
        ({"id": ["a"], "y": [0.5]}, {"id": ["a"], "y": [0.5]}, "must be 0 or 1"),
        ({"id": ["a"], "y": [0.5]}, {"id": ["b"], "y": [1]}, "only one of"),
        ({"id": ["a", "a"], "y": [0.5, 0.5]}, {"id": ["a"], "y": [1]}, "more than once"),
    ],
)
def test_files_that_cannot_be_scored_are_named(tmp_path, submission, truth, words):
    with pytest.raises(PipelineError, match=words):
        scored(tmp_path, submission, truth)
