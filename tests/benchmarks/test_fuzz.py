"""Tests of the hunt for input that a reader does not stand."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.readers import READERS, Reader
from kaggle_pipeline.core.errors import PipelineError

ROOT = Path(__file__).resolve().parents[2]


def read(folder, content):
    (folder / "file").write_bytes(content)
    if content.startswith(b"bad"):
        raise ValueError("broken")
    if content.startswith(b"two"):
        error = PipelineError("")
        error.args = ("one\ntwo",)
        raise error
    if content != b"fine":
        raise PipelineError("no such thing")


@pytest.fixture
def hunt(monkeypatch, tmp_path):
    monkeypatch.setitem(READERS, "one", Reader(read, lambda: [b"fine"], ()))
    return fuzz.Hunt("one", tmp_path)


def test_faults_are_kept_by_kind_each_with_its_smallest_input(hunt, tmp_path):
    for content in (b"fine", b"other", b"bad", b"bad longer", b"two lines", b"b", b"ba"):
        hunt.one(content)
    hunt.write()
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["executions"], found["taken"]) == (7, 1)
    kinds = {kind.split()[0]: path for kind, path in found["faults"].items()}
    assert set(kinds) == {"ValueError", "AssertionError"}
    kept = sorted(path.read_bytes() for path in (tmp_path / "faults").iterdir())
    assert kept == [b"bad", b"two lines"]


def test_changes_are_many_and_never_too_long():
    rng = random.Random(0)
    found = {fuzz.changed(b"a,b\n1,2\n", [b"xyz" * 9000], [b"nan"], rng) for _ in range(300)}
    assert len(found) > 200 and max(map(len, found)) <= 8192
    assert fuzz.changed(b"", [b"x"], [], rng) is not None


LIMITED = """
import sys, time
from pathlib import Path
from benchmarks import fuzz
from benchmarks.readers import READERS, Reader

def read(folder, content):
    if content != b"fine":
        {do}

READERS["one"] = Reader(read, lambda: [b"fine"], ())
fuzz._PATIENCE, fuzz._MAX_MIB = {patience}, {mib}
fuzz._blindly(fuzz.Hunt("one", Path(sys.argv[1])), "one", Path(sys.argv[1]), 60)
"""


@pytest.mark.ci
@pytest.mark.parametrize(
    ("do", "patience", "mib", "code", "kept"),
    [
        ("time.sleep(900)", 0.01, 4000, 70, "timeout-input"),
        ("kept = b'x' * 2**28; time.sleep(900)", 20, 200, 71, "oom-input"),
    ],
)
def test_without_atheris_too_an_input_has_so_much_time_and_memory(
    tmp_path, do, patience, mib, code, kept
):
    script = LIMITED.format(do=do, patience=patience, mib=mib)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, timeout=240, capture_output=True
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / kept).read_bytes() not in (b"", b"fine")
    assert json.loads((tmp_path / "found.json").read_text())["executions"] >= 1
