"""A bundle answers as its run does, says what was changed in it, and names nobody."""

import re
from pathlib import Path

import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.stages.bundle import _require_no_names

pytest.importorskip("tensorflow")


def make(run, out, *more):
    return main(
        ["bundle", "--run-dir", str(run), "--out", str(out), "--licence", "cc-by-nc-4.0", *more]
    )


@pytest.mark.ci
def test_a_bundle_predicts_as_its_run_does(demo_run, competition, tmp_path, capsys):
    assert make(demo_run, tmp_path / "bundle") == 0
    photos = competition / "competition" / "jpeg" / "test"
    found = []
    for run in (demo_run, tmp_path / "bundle"):
        out = tmp_path / f"{run.name}.csv"
        words = ["--run-dir", str(run), "--images", str(photos), "--out", str(out)]
        assert main(["predict", *words]) == 0
        found.append(pd.read_csv(out))
    pd.testing.assert_frame_equal(*found)
    assert make(demo_run, tmp_path / "bundle") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_each_file_of_a_bundle_is_compared(demo_run, tmp_path, capsys):
    out = tmp_path / "bundle"
    licence = tmp_path / "text"
    licence.write_text("CC BY-NC 4.0\n")
    assert make(demo_run, out, "--licence-file", str(licence)) == 0
    assert main(["verify-run", "--run-dir", str(out)]) == 0
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "written.json"]
    assert f"{len(files)} files of" in capsys.readouterr().out and len(files) >= 11
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert main(["verify-run", "--run-dir", str(out)]) == 2
        assert path.name in capsys.readouterr().out
        path.write_bytes(before)
    files[0].unlink()
    assert main(["verify-run", "--run-dir", str(out)]) == 2


def test_a_bundle_names_no_photo_and_no_patient(demo_run, tmp_path):
    out = tmp_path / "bundle"
    assert make(demo_run, out) == 0
    examples = pd.read_csv(demo_run / "prepare" / "examples.csv", dtype=str)
    names = {*examples["image_id"], *examples["group_id"]}
    for path in out.rglob("*"):
        if path.is_file() and path.suffix not in (".h5", ".png"):
            words = set(re.findall(r"\w+", path.read_text()))
            assert not names & words, path
            assert str(Path.cwd()) not in path.read_text()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: keras\nlicense: cc-by-nc-4.0\n---\n")
    assert "not a medical device" in card and "predict.py --run-dir" in card


def test_a_file_that_names_a_patient_is_not_bundled(demo_run, tmp_path):
    """A card's sentence ends after the id; and the message names nobody."""
    group = pd.read_csv(demo_run / "prepare" / "examples.csv")["group_id"].iloc[0]
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "README.md").write_text(f"Most photos are of {group}.\n")
    with pytest.raises(PipelineError, match=r"README\.md would name 1 of") as told:
        _require_no_names(tmp_path, demo_run)
    assert group not in str(told.value)


def test_a_folder_that_is_no_bundle_is_never_replaced(demo_run, tmp_path, capsys):
    kept = tmp_path / "photos" / "photo.jpg"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    assert make(demo_run, kept.parent, "--overwrite") == 2
    assert "is no bundle" in capsys.readouterr().err and kept.read_bytes() == b"mine"
    assert make(demo_run, tmp_path / "bundle") == make(demo_run, tmp_path / "bundle", "--overwrite")
