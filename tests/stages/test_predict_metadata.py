"""Photos with their metadata are answered by the very blend that was judged and submitted."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.evaluation.calibration.calibration import read_calibration
from kaggle_pipeline.evaluation.decision.decision import read_decision

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.ci
LENET = "{source: keras:LeNet, weights: null, options: {filters: 4}, image_size_px: 32}"
HEADS = (f"embedding.encoders=[{LENET}]", "embedding.inner_folds=2", "embedding.metadata=true",
         "embedding.context=true", "blend.models=[embedding,logistic]",
         "tabular.learners=[logistic]", "tabular.context=true")  # fmt: skip


@pytest.fixture(scope="module")
def heads_run(competition, tmp_path_factory):
    """A run of heads that read metadata and the patient's other photos, and of their like."""
    run = tmp_path_factory.mktemp("heads") / "run"
    assert main(["run-pipeline", *demo_words(competition / "competition", run, *HEADS)]) == 0
    return run


@pytest.fixture
def predict(competition, tmp_path):
    """``predict(run, drop=())``: what comes of the run's test photos and their metadata."""

    def predict(run, drop=()):
        examples = pd.read_csv(run / "prepare" / "examples.csv", dtype={"image_id": str})
        test = examples[examples["split"] == "test"].rename(columns={"group_id": "patient_id"})
        rows = test[["sex", "image_id", "site", "patient_id", "age_years"]].sample(
            frac=1, random_state=0
        )
        rows.drop(columns=list(drop)).to_csv(tmp_path / "new.csv", index=False)
        images = competition / "competition" / "jpeg" / "test"
        words = ["--run-dir", run, "--images", images, "--metadata", tmp_path / "new.csv",
                 "--out", tmp_path / "out.csv", "--overwrite"]  # fmt: skip
        assert main(["predict", *map(str, words)]) == 0
        return pd.read_csv(tmp_path / "out.csv", index_col="image_id")

    return predict


def require_the_submission(run, found):
    """Raise unless these are the blend's test predictions, calibrated and decided as they were."""
    known = pd.read_csv(run / "blend" / "test.csv", index_col="image_id")[["target"]]
    assert set(found.index) == set(known.index)
    known = known.loc[found.index]
    np.testing.assert_allclose(found["melanoma"], known["target"], atol=1e-5)
    calibrated = read_calibration(run / "blend").apply(known)
    np.testing.assert_allclose(found["melanoma_calibrated"], calibrated["target"], atol=1e-5)
    decided = read_decision(run / "blend").decide(calibrated, {"target": "melanoma"})
    assert (found["decision"] == decided).mean() > 0.98  # ties at 1e-5


def test_network_and_metadata_answer_as_they_were_submitted(
    demo_run, competition, predict, tmp_path, capsys
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    words = demo_words(competition / "competition", run, "blend.weights=equal")
    assert main(["make-submission", *words]) == 0
    found = predict(run)
    require_the_submission(run, found)
    said = capsys.readouterr().out
    assert "the blend (image " in said and "numbers differ" not in said
    alone = pd.read_csv(run / "image" / "test.csv", index_col="image_id")["target"]
    assert np.abs(found["melanoma"] - alone.loc[found.index]).max() > 1e-3


def test_heads_see_the_metadata_and_the_patients_other_photos(heads_run, predict, capsys):
    found = predict(heads_run)
    require_the_submission(heads_run, found)
    assert {"nearest", "nearest_labels"} <= set(found)
    assert "photos come without" not in capsys.readouterr().out
    lonely = predict(heads_run, drop=["patient_id"])
    assert "each photo is taken for its patient's only one" in capsys.readouterr().out
    assert np.abs(lonely["melanoma"] - found["melanoma"].loc[lonely.index]).max() > 1e-3


def test_models_of_all_rows_answer_as_they_were_submitted(
    heads_run, competition, predict, tmp_path, capsys
):
    run = shutil.copytree(heads_run, tmp_path / "run")
    words = demo_words(competition / "competition", run, *HEADS, "train_all=true")
    assert main(["run-pipeline", *words, "--resume"]) == 0
    assert (run / "embedding" / "all").is_dir() and (run / "logistic" / "all").is_dir()
    before = pd.read_csv(heads_run / "blend" / "test.csv", index_col="image_id")["target"]
    now = pd.read_csv(run / "blend" / "test.csv", index_col="image_id")["target"]
    assert np.abs(now - before.loc[now.index]).max() > 1e-3
    require_the_submission(run, predict(run))
    assert "the model of all rows: it is not scored itself" in capsys.readouterr().out


def test_metadata_that_no_model_reads_are_refused(demo_run, competition, tmp_path, capsys):
    run = shutil.copytree(demo_run, tmp_path / "run")
    path = run / "blend" / "blend.json"
    blend = json.loads(path.read_text())
    blend["weights"] = {"image": 1.0, **dict.fromkeys(set(blend["weights"]) - {"image"}, 0.0)}
    path.write_text(json.dumps(blend))
    renew(path.parent, path.name)
    images = competition / "competition" / "jpeg" / "test"
    words = ["--run-dir", run, "--images", images, "--metadata", tmp_path / "new.csv"]
    assert main(["predict", *map(str, words), "--out", str(tmp_path / "o.csv")]) == 2
    assert "error: --metadata: no model of" in capsys.readouterr().err
