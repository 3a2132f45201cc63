"""Tests of locks on a run's folder."""

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kaggle_pipeline.core import lock
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.lock import Holder, locked

ROOT = Path(__file__).resolve().parents[2]


def held_by(folder, name, holder, age=0.0):
    place = folder / lock.FOLDER
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.json"
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def elsewhere():
    """A holder on another machine."""
    return replace(Holder.here(), host="other", process=1, command="train_image.py")


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [("run", "", False), ("run", "image/fold0", False), ("image", "image/fold0", False),
     ("image.fold0", "image", False), ("image.fold0", "image/fold1", True),
     ("image.fold1", "image/fold10", True), ("image", "tabular", True), ("prepare", "", False),
     ("image.fold0", "image/joining", True)],
)  # fmt: skip
def test_parts_that_overlap_exclude_each_other(tmp_path, elsewhere, held, wanted, free):
    held_by(tmp_path, held, elsewhere)
    if free:
        with locked(tmp_path, wanted):
            pass
        return
    match = r"train_image\.py \(process 1 on other\)"
    with pytest.raises(PipelineError, match=match) as caught, locked(tmp_path, wanted):
        pass
    assert elsewhere.since in str(caught.value)
    assert len(list((tmp_path / lock.FOLDER).iterdir())) == 1


def test_what_this_process_holds_is_no_obstacle_and_nothing_is_left(tmp_path):
    with locked(tmp_path / "run", ""), locked(tmp_path / "run", "image"):
        with locked(tmp_path / "run", ""):
            pass
        assert {p.name for p in (tmp_path / "run" / lock.FOLDER).iterdir()} == {
            "run.json", "image.json"
        }  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_stale_locks_are_known_by_process_and_host(tmp_path, elsewhere):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    held_by(tmp_path, "image", replace(Holder.here(), process=gone.pid, born="1"))
    again = replace(Holder.here(), born="another process of the same number")
    held_by(tmp_path, "image.fold3", again)
    held_by(tmp_path, "image.fold4", elsewhere, age=lock._STALE_SECONDS + 60)
    (tmp_path / lock.FOLDER / "image.fold5.json").write_text("")  # killed while it was written
    os.utime(tmp_path / lock.FOLDER / "image.fold5.json", (0, 0))
    with locked(tmp_path, "image"):
        assert [p.name for p in (tmp_path / lock.FOLDER).iterdir()] == ["image.json"]


HOLD = """
import sys
from pathlib import Path
from kaggle_pipeline.core.lock import locked
with locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(folder, part):
    """Start a process that works in ``part`` until it is written a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), part], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def test_another_process_is_refused_or_waits_and_a_killed_one_is_forgotten(tmp_path):
    process, said = hold(tmp_path, "prepare")
    try:
        assert said == "held"
        match = rf"in use: .*process {process.pid} on"
        with pytest.raises(PipelineError, match=match), locked(tmp_path, ""):
            pass
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path, ""):
        pass
    process, said = hold(tmp_path, "prepare")
    lines = []

    def let_go(line):
        lines.append(line)
        process.stdin.write("\n")
        process.stdin.flush()

    with locked(tmp_path, "prepare", wait=True, say=let_go):
        assert process.wait(120) == 0
    process.communicate()
    assert len(lines) == 1 and "waiting" in lines[0]


@pytest.mark.parametrize("new", [True, False])
def test_a_full_disk_names_the_lock_and_leaves_none(tmp_path, monkeypatch, new):
    run = tmp_path / "run"
    if not new:
        run.mkdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lock.json, "dumps", full)
    match = r"run/\.locks/image\.json cannot be written: no space left .* are free"
    with pytest.raises(PipelineError, match=match), locked(run, "image"):
        pass
    monkeypatch.undo()
    assert run.exists() is not new and not list(run.glob(".*"))
    with locked(run, "image"):
        pass
