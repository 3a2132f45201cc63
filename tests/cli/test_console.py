"""Any console: what is printed degrades, results are written, other packages are quiet."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_pipeline.cli.command import CLOSED_PIPE, Command, run_command
from kaggle_pipeline.cli.console import plain, quieten_packages

ROOT = Path(__file__).resolve().parents[2]
LINE = "left out: … 1024 × 1024 → 512, σ ≥ 2 – naïve größer 黒"


def test_signs_are_said_as_they_are_typed():
    assert plain(LINE) == "left out: ... 1024 x 1024 -> 512, s >= 2 - naive groer ?".replace(
        "groer", plain("größer")
    )
    assert plain("größer").startswith("gro") and plain("ASCII \\ only") == "ASCII \\ only"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "cp437"])
def test_a_result_is_written_whatever_the_console(encoding, tmp_path, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    out = tmp_path / "out.csv"

    def say_then_write(options):
        sys.stdout.write(f"{LINE}\n")
        out.write_text("done", encoding="utf-8")

    command = Command("it", "It.", lambda parser: None, say_then_write, "")
    assert run_command([command], ["it"]) == 0
    assert out.exists() and raw.getvalue().decode(encoding).startswith("left out: ")
    if encoding == "utf-8":
        assert raw.getvalue().decode().strip() == LINE
    if encoding == "ascii":
        assert raw.getvalue().decode().strip() == plain(LINE)


@pytest.mark.ci
@pytest.mark.parametrize(
    "console",
    [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"},
     {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)  # fmt: skip
def test_a_table_with_signs_is_printed_on_other_consoles(console, tmp_path):
    """``--help`` of every command, the disclaimer and an error that holds a name with an umlaut."""
    script = ROOT / "scripts" / "predict.py"
    words = ["--run-dir", str(tmp_path / "größe →"), "--images", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, check=False,
        env=os.environ | console,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith(b"error: ")


def without_level():
    """The environment as a user's, where no test's process has imported JAX."""
    return {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}


@pytest.mark.parametrize(("asked", "level"), [(None, "3"), ("0", "0")])
def test_what_is_started_with_jax_is_quiet_too(monkeypatch, asked, level):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if asked:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", asked)
    quieten_packages()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level


@pytest.mark.ci
def test_a_reader_that_goes_is_no_error():
    """What ``list_backbones | head -1`` is to a program: a pipe that closes after a line."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "list_backbones.py", "LeNet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_level(),
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == CLOSED_PIPE
    process.stderr.close()


@pytest.mark.ci
def test_tensorflow_says_nothing_on_loading():
    code = "from kaggle_pipeline.core.engine import import_tensorflow as load; print(load().name)"
    code = code.replace(".name", ".__name__")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=without_level(), cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert done.stdout == "tensorflow\n" and done.stderr == ""
