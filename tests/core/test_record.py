"""Tests of the record of what a stage wrote."""

import json

import pandas as pd
import pytest

from kaggle_pipeline.core.commit import accept, adopt, begin, commit, narrow, renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.record import (
    RECORD,
    differences,
    is_done,
    read_checked,
    read_record,
    require_whole,
    require_written,
)
from kaggle_pipeline.core.tables import read_own

CHANGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(255 - one for one in content),
    "one digit": lambda content: content.replace(b"1", b"2", 1),
}


@pytest.fixture
def stage(tmp_path):
    """A stage with a file, one in a folder of its own, and a fold with a record of its own."""
    folder = tmp_path / "run" / "image"
    for name in ("oof.csv", "melanoma/history.csv", "fold0/model.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"image_id": 1}')
    (tmp_path / "run" / "prepare").mkdir()
    begin(folder / "fold0", "train it again")
    commit(folder / "fold0")
    begin(folder, "delete {file} and say --resume")
    commit(folder)
    return folder


def test_a_stage_is_done_when_its_record_says_so(stage):
    assert is_done(stage, "oof.csv")
    begin(stage, "")
    assert not is_done(stage, "oof.csv")
    (stage / RECORD).unlink()
    assert is_done(stage, "oof.csv")  # an earlier version kept none
    assert not is_done(stage, "test.csv")


def test_a_record_lists_what_no_other_one_lists(stage):
    (stage / "tensorboard").mkdir()
    (stage / "tensorboard" / "events").touch()
    (stage / ".123.half.csv").touch()
    commit(stage)
    assert set(read_record(stage).files) == {"oof.csv", "melanoma/history.csv"}
    assert set(read_record(stage / "fold0").files) == {"model.json"}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["oof.csv", "melanoma/history.csv", "fold0/model.json"])
def test_every_change_is_found_by_who_reads_and_named_with_its_remedy(stage, name, change):
    path = stage / name
    path.write_bytes(CHANGES[change](path.read_bytes()))
    for read in (read_checked, require_written, read_json):
        with pytest.raises(PipelineError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        assert f"--run-dir {stage.parent} --accept-changes" in message
        assert ("train it again" in message) == name.startswith("fold0")
    folder = stage / "fold0" if name.startswith("fold0") else stage
    with pytest.raises(PipelineError, match=path.name):
        require_whole(folder)
    assert list(differences(folder)) == [name.removeprefix("fold0/")]


def test_a_file_that_is_gone_is_found(stage):
    (stage / "melanoma" / "history.csv").unlink()
    with pytest.raises(PipelineError, match=r"history.csv is missing"):
        is_done(stage, "oof.csv")
    require_whole(stage, apart=["melanoma/history.csv"])


@pytest.mark.parametrize("content", ["", "[]", '{"done": true}', '{"done": 1, "files": {"a": 3}}'])
def test_a_damaged_record_is_said(stage, content):
    (stage / RECORD).write_text(content)
    with pytest.raises(PipelineError, match=rf"{RECORD} is damaged.*--accept-changes"):
        read_checked(stage / "oof.csv")


def test_changes_on_purpose_are_accepted(stage):
    (stage / "oof.csv").write_text("other")
    (stage / "melanoma" / "history.csv").unlink()
    lines = []
    accept(stage, lines.append)
    assert len(lines) == 2 and not differences(stage)
    assert read_checked(stage / "oof.csv") == b"other" and is_done(stage, "oof.csv")


def test_a_file_that_another_command_writes_is_renewed(stage):
    write_json(stage / "decision.json", [1])
    renew(stage, "decision.json")
    assert read_json(stage / "decision.json") == [1]
    write_json(stage / "decision.json", [2])
    with pytest.raises(PipelineError, match=r"decision\.json"):
        read_json(stage / "decision.json")
    (stage / RECORD).unlink()
    renew(stage, "decision.json")
    assert read_record(stage) is None, "an earlier version's folder stays without a record"


def test_an_earlier_versions_files_are_taken_as_they_are(stage):
    (stage / RECORD).unlink()
    assert RECORD in adopt(stage, "") and adopt(stage, "") == ""
    assert is_done(stage, "oof.csv")


def test_a_part_that_is_copied_keeps_its_part_of_the_record(stage, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "oof.csv").write_bytes((stage / "oof.csv").read_bytes())
    narrow(tmp_path / "copy", read_record(stage))
    assert is_done(tmp_path / "copy", "oof.csv")
    assert set(read_record(tmp_path / "copy").files) == {"oof.csv"}


def test_a_file_written_anew_while_it_is_read_is_no_damage(stage, monkeypatch):
    path, number = stage / "oof.csv", iter(range(9))
    real = type(path).read_bytes

    def read_bytes(self):
        if self.name == "oof.csv" and next(number) == 0:
            self.write_text("newer")
            renew(stage, "oof.csv")
        return real(self)

    before = json.loads((stage / RECORD).read_text())
    monkeypatch.setattr(type(path), "read_bytes", read_bytes)
    assert read_checked(path) == b"newer"
    assert json.loads((stage / RECORD).read_text()) != before


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"image_id,fold\n,1\n", b"image_id\nx\n", b"image_id,fold\nx,y\n",
     b'image_id,fold\n"x,1\n'],
)  # fmt: skip
def test_an_own_table_that_is_damaged_is_one_line(tmp_path, content):
    path = tmp_path / "folds.csv"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_own(path, {"image_id": str, "fold": int}, remedy="prepare again")
    assert "prepare again" in str(caught.value) and "\n" not in str(caught.value)
    path.write_text("image_id,fold\n07,1\n")
    table = read_own(path, {"image_id": str, "fold": int}, remedy="")
    pd.testing.assert_frame_equal(table, pd.DataFrame({"image_id": ["07"], "fold": [1]}))
