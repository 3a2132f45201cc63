"""A given test part that shares patients with training, as MLE-bench's: stopped, or noted."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.names import HOME

CONFIG = HOME / "configs" / "siim_isic_2020_mlebench.yaml"
SETS = ("leakage.fingerprints=false", "tabular.learners=[logistic]", "blend.models=[logistic]",
        "folds.k=3")  # fmt: skip
PUBLIC = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]


@pytest.fixture(scope="module")
def bench(competition, tmp_path_factory):
    """Made-up data as that benchmark leaves it: rows divided whoever the patient, answers apart."""
    root = tmp_path_factory.mktemp("bench")
    public = root / "public"
    shutil.copytree(competition / "competition" / "jpeg", public / "jpeg")
    shutil.rmtree(public / "jpeg" / "test")
    (public / "jpeg" / "test").mkdir()
    train = pd.read_csv(competition / "competition" / "train.csv")
    moved = np.random.default_rng(3).random(len(train)) < 0.25
    for name in train.loc[moved, "image_name"]:
        (public / "jpeg" / "train" / f"{name}.jpg").rename(public / "jpeg" / "test" / f"{name}.jpg")
    columns = [*PUBLIC, "diagnosis", "benign_malignant", "target"]
    train.loc[~moved, columns].to_csv(public / "train.csv", index=False)
    train.loc[moved, PUBLIC].to_csv(public / "test.csv", index=False)
    answers = train.loc[moved, ["image_name", "target"]]
    answers.assign(target=0).to_csv(public / "sample_submission.csv", index=False)
    answers.to_csv(root / "answers.csv", index=False)
    return root


def run(bench, place, *changes):
    words = ["--config", str(CONFIG), "--data-dir", str(bench / "public"), "--run-dir", str(place)]
    return main(["run-pipeline", *words, *(w for c in (*SETS, *changes) for w in ("--set", c))])


def shared_patients(bench):
    train, test = (pd.read_csv(bench / "public" / f"{name}.csv") for name in ("train", "test"))
    return set(train["patient_id"]) & set(test["patient_id"])


def test_it_stops_unless_the_experiment_takes_it_as_it_is(bench, tmp_path, capsys):
    assert run(bench, tmp_path, "folds.shared_groups=stop") == 2
    assert "leak: patient in train and test" in capsys.readouterr().err


def test_every_result_notes_it_and_the_graders_number_is_ours(bench, tmp_path, capsys):
    shared = len(shared_patients(bench))
    assert shared > 3
    assert run(bench, tmp_path) == 0, capsys.readouterr().err
    assert f"the test part shares {shared} patients with training" in capsys.readouterr().out
    findings = json.loads((tmp_path / "prepare" / "leakage.json").read_text())["findings"]
    (found,) = (one for one in findings if one["check"] == "patient in train and test")
    assert found["status"] == "note" and f"({shared} such)" in found["detail"]
    folds = pd.read_csv(tmp_path / "prepare" / "folds.csv")
    assert (folds.groupby("group_id")["fold"].nunique() == 1).all()
    for stage in ("logistic", "blend"):
        metrics = json.loads((tmp_path / stage / "metrics.json").read_text())
        assert metrics["groups_shared_with_test"] == shared and not metrics["groups_ignored"]
    assert f"{shared} patients of the test part" in (tmp_path / "report.html").read_text()
    # The grader joins by id and takes scikit-learn's AUC.
    both = pd.read_csv(tmp_path / "submission.csv").merge(
        pd.read_csv(bench / "answers.csv"), "inner", "image_name", suffixes=("_said", "_true")
    )
    graded = roc_auc_score(both["target_true"], both["target_said"])
    words = ["--submission", str(tmp_path / "submission.csv")]
    assert main(["score-submission", *words, "--truth", str(bench / "answers.csv")]) == 0
    ours = float(re.search(r"AUC (\d\.\d+)", capsys.readouterr().out)[1])
    assert ours == pytest.approx(graded, abs=5e-5)


def test_their_training_rows_may_be_learned_from_alone(bench, tmp_path, capsys):
    assert run(bench, tmp_path, "folds.shared_groups=train_only") == 0, capsys.readouterr().err
    folds = pd.read_csv(tmp_path / "prepare" / "folds.csv")
    known = folds["group_id"].isin(shared_patients(bench))
    assert (folds.loc[known, "fold"] == -1).all() and (folds.loc[~known, "fold"] >= 0).all()
    oof = pd.read_csv(tmp_path / "blend" / "oof.csv")
    assert set(oof["image_id"]) == set(folds.loc[~known, "image_id"])
