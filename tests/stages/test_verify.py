"""verify_run names each damaged file; what was changed together with its record is found, too."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.commit import begin, renew
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.hardware.accelerator import choose_accelerator
from kaggle_pipeline.models.cross_validation import MADE_UP
from kaggle_pipeline.stages import ask_again
from kaggle_pipeline.stages.made_up import MadeUp, draw_photos, precision_of
from kaggle_pipeline.stages.verify_contents import Found, Prepared, look_for_names, named_in

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


def another_blend(run):
    path = run / "blend" / "test.csv"
    table = pd.read_csv(path)
    table["target"] = np.clip(table["target"] + 0.01, 0, 1)
    table.to_csv(path, index=False)


def other_ages(run):
    path = run / "prepare" / "examples.csv"
    table = pd.read_csv(path)
    table.assign(age_years=table["age_years"] + 5).to_csv(path, index=False)


def name_a_patient(run):
    table = pd.read_csv(run / "prepare" / "examples.csv")
    path = run / "image" / "evaluation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"worst": table["group_id"].iloc[0]}))


def no_score_at_all(run):
    path = run / "image" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"oof_auc": float("nan")}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap_two_scores, "its scores are not those in"),
        (move_a_photo, "is in more than one fold"),
        (move_a_patient, "was scored by another fold than folds.csv says"),
        (another_curve, "gives another curve"),
        (a_better_score, "metrics.json says AUC"),
        (another_test_mean, "is not the mean of its folds'"),
        (another_blend, "is not the blend of its models' test.csv: run make_submission again"),
        (other_ages, "fold0 learned before the metadata in prepare/ changed"),
        (name_a_patient, "evaluation.json names 1 patient\n"),
        (no_score_at_all, "metrics.json says AUC nan"),
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


def test_answers_in_float32_are_compared_closely(copy, monkeypatch):
    cpu = choose_accelerator("cpu")
    stage = copy / "image"

    def a_little_away(trained):
        then = {place: pd.read_csv(place / MADE_UP) for place in trained.folds.values()}
        return {
            place: Predictions.build(
                table.set_index("image_id")[["target"]] * 0.98, 0, "test"
            ) for place, table in then.items()
        }  # fmt: skip

    def say(precision):
        write_json(stage / "made_up.json", {"precision": precision})
        renew(stage, "made_up.json")

    monkeypatch.setattr(ask_again, "answers_of", a_little_away)
    patched = "kaggle_pipeline.hardware.accelerator.choose_accelerator"
    monkeypatch.setattr(patched, lambda *_: cpu)
    assert (
        read_json(stage / "made_up.json") == {"precision": cpu.policy} == {"precision": "float32"}
    )
    assert len(ask_again.ask_again(copy).faults) == 2
    say("mixed_bfloat16")
    assert not ask_again.ask_again(copy).faults
    say("float32")
    monkeypatch.setattr(patched, lambda *_: replace(cpu, policy="mixed_float16"))
    assert not ask_again.ask_again(copy).faults
    (stage / "made_up.json").unlink()  # of an earlier version
    renew(stage, "made_up.json")
    monkeypatch.setattr(patched, lambda *_: cpu)
    assert not ask_again.ask_again(copy).faults


def test_made_up_photos_are_kept_as_a_whole_and_once(tmp_path, monkeypatch):
    draw_photos(tmp_path / "drawn", 16)
    photos = MadeUp(pd.DataFrame(), tmp_path / "drawn", precision="float32")
    stage = tmp_path / "stage"
    stage.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            photos.keep(stage)
    assert [one.name for one in stage.iterdir()] == ["made_up.json"]
    copy = shutil.copytree

    def another_was_first(one, other):
        copy(one, stage / "made_up")
        copy(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", another_was_first)
        photos.keep(stage)
    kept = {one.name: one.stat().st_ino for one in (stage / "made_up").iterdir()}
    replace(photos, precision="mixed_float16").keep(stage)
    photos.keep(stage)
    assert len(kept) == 4 and sorted(one.name for one in stage.iterdir()) == [
        "made_up",
        "made_up.json",
    ]
    assert kept == {one.name: one.stat().st_ino for one in (stage / "made_up").iterdir()}
    shutil.rmtree(stage / "made_up")  # as of a kernel's output
    photos.keep(stage)
    assert precision_of(stage) == "mixed_float16"


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
    assert "README.md holds 1 id of the ISIC archive" in said and "IP_0012345" not in said
    assert "names 1 folder of a machine" in said and "/home/me" not in said


@pytest.mark.parametrize(
    ("name", "text", "there"),
    [
        ("IP_7279968", "Worst: IP_7279968. Then others", True),
        ("IP_1-x", "seen twice,IP_1-x,0.5", True),
        ("Anna Berg", "of Anna Berg, 2019", True),
        ("IP_72799", "IP_7279968", False),
    ],
)
def test_a_name_is_found_whatever_stands_beside_it(tmp_path, name, text, there):
    path = tmp_path / "page.html"
    path.write_text(text)
    assert list(named_in(tmp_path, {name, "IP_0000000"})) == ([(path, [name])] if there else [])


def test_names_that_cannot_be_looked_for_are_counted(demo_run):
    prepared = Prepared.read(demo_run)
    groups = prepared.examples["group_id"].astype(str)
    first, *others = sorted(set(groups))

    def line(names):
        examples = prepared.examples.assign(group_id=groups.map(names))
        found = look_for_names(demo_run, replace(prepared, examples=examples))
        assert not found.faults
        return found.line

    numbers = {one: str(place) for place, one in enumerate(others)}
    assert f"; {len(others)} more were not looked for" in line({first: first, **numbers})
    said = line({first: "p1", **numbers})
    assert "none of 0 patients" in said and f"{len(others) + 1} more were not" in said
    examples = prepared.examples.assign(group_id=prepared.examples.index)
    for spec in (prepared.spec, replace(prepared.spec, group=None)):
        alone = look_for_names(demo_run, replace(prepared, examples=examples, spec=spec))
        assert "tells no patients" in alone.line


def test_a_run_that_ended_in_its_first_stage_is_no_bundle(tmp_path, capsys):
    prepare = tmp_path / "run" / "prepare"
    prepare.mkdir(parents=True)
    begin(prepare, "run prepare_data again")
    (prepare / "half.csv").write_text("image_id\n")
    assert verify(tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "not finished" in said and "names: not looked at, nothing is prepared" in said
