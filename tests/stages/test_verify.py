"""verify_run names each damaged file; what was changed together with its record is found, too."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.stages.verify_contents import Found

pytest.importorskip("tensorflow")


def verify(run, *more):
    return main(["verify-run", "--run-dir", str(run), *more])


@pytest.fixture
def copy(demo_run, tmp_path):
    return shutil.copytree(demo_run, tmp_path / "run")


def test_a_good_run_is_looked_at_in_every_way(demo_run, capsys):
    assert verify(demo_run) == 0
    said = capsys.readouterr().out
    for line in (
        "are as they were written",
        "folds: 18 patients in 2 parts",
        "scores: AUC and calibration of image, tabular, blend follow",
        "names: none of",
        "answers: 2 models of image say of 4 made-up photos",
    ):
        assert line in said  # fmt: skip


DAMAGES = (
    "prepare/folds.csv", "prepare/examples.csv", "image/oof.csv", "image/metrics.json",
    "image/calibration.json", "image/decision.json", "image/config.yaml",
    "image/fold0/model.weights.h5", "image/fold1/model.json", "blend/blend.json",
)  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_changed_byte_is_found(copy, name, capsys):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert verify(copy) == 2
    said = capsys.readouterr()
    assert f"{path} has other content" in said.out and "1 of" in said.err


def swap_two_scores(run):
    path = run / "image" / "oof.csv"
    table = pd.read_csv(path)
    table.loc[[0, 1], "target"] = table.loc[[1, 0], "target"].to_numpy()
    table.to_csv(path, index=False)


def move_a_photo(run):
    path = run / "prepare" / "folds.csv"
    table = pd.read_csv(path)
    patient = table["group_id"].value_counts().index[0]
    row = table.index[table["group_id"] == patient][0]
    table.loc[row, "fold"] = 1 - table.loc[row, "fold"]
    table.to_csv(path, index=False)


def move_a_patient(run):
    path = run / "prepare" / "folds.csv"
    table = pd.read_csv(path)
    rows = table["group_id"] == table["group_id"].iloc[0]
    table.loc[rows, "fold"] = 1 - table.loc[rows, "fold"]
    table.to_csv(path, index=False)


def another_curve(run):
    path = run / "image" / "calibration.json"
    content = json.loads(path.read_text())
    for curve in content["maps"].values():
        curve.update({key: value + 0.5 for key, value in curve.items()})
    path.write_text(json.dumps(content))


def a_better_score(run):
    path = run / "image" / "metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"oof_auc": content["oof_auc"] + 0.05}))


def another_test_mean(run):
    path = run / "image" / "test.csv"
    table = pd.read_csv(path)
    table["target"] = np.clip(table["target"] + 0.01, 0, 1)
    table.to_csv(path, index=False)


def name_a_patient(run):
    table = pd.read_csv(run / "prepare" / "examples.csv")
    path = run / "image" / "evaluation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"worst": table["group_id"].iloc[0]}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap_two_scores, "its scores are not those in"),
        (move_a_photo, "is in more than one fold"),
        (move_a_patient, "was scored by another fold than folds.csv says"),
        (another_curve, "gives another curve"),
        (a_better_score, "metrics.json says AUC"),
        (another_test_mean, "is not the mean of its folds'"),
        (name_a_patient, "evaluation.json names the patient IP_"),
    ],
)
def test_a_change_that_was_written_down_too_is_found(copy, change, says, capsys, monkeypatch):
    monkeypatch.setattr("kaggle_pipeline.stages.verify.ask_again", lambda run: Found())  # seconds
    change(copy)
    assert verify(copy, "--accept-changes") == 0
    capsys.readouterr()
    assert verify(copy) == 2
    assert says in capsys.readouterr().out
    assert verify(copy, "--files-only") == 0


@pytest.mark.ci
def test_weights_that_answer_otherwise_are_found(copy, capsys):
    for name in ("model.weights.h5", "model.json"):
        shutil.copyfile(copy / "image" / "fold1" / name, copy / "image" / "fold0" / name)
    assert verify(copy, "--accept-changes") == 0 and verify(copy) == 2
    assert "image/fold0: its model says target" in capsys.readouterr().out


@pytest.mark.ci
def test_a_strange_file_in_a_bundle_is_found(demo_run, tmp_path, capsys):
    out = tmp_path / "bundle"
    words = ["bundle", "--run-dir", str(demo_run), "--out", str(out), "--licence", "mit"]
    assert main(words) == 0 and verify(out) == 0
    assert "answers: 2 models of image" in capsys.readouterr().out
    (out / "train.csv").write_text("image_name\nISIC_0000001\n")
    assert verify(out) == 2
    assert "train.csv was not put there by bundle" in capsys.readouterr().out
    (out / "train.csv").unlink()
    card = out / "README.md"
    card.write_text(card.read_text() + "Of patient IP_0012345, from /home/me/photos\n")
    assert verify(out, "--accept-changes") == 0 and verify(out) == 2
    said = capsys.readouterr().out
    assert "names the photo, patient or lesion IP_0012345" in said and "folder /home/me" in said
