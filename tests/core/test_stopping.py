"""Tests of signals: children end, temporary files go, one line is said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.chain import living
from kaggle_pipeline.core.stopping import Stopped, stoppable
from kaggle_pipeline.core.worker_pool import signals_held

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120
"""Of a wait, which ends as soon as what it waits for is there."""
WORK = """
import sys, time
from pathlib import Path
from kaggle_pipeline.cli.command import Command, run_command
from kaggle_pipeline.core.child_process import worker_pool, run_in_child
from kaggle_pipeline.core.files import atomic_path

def sleep(pipe=None):
    with atomic_path(Path(sys.argv[1]) / "child.txt") as temporary:
        temporary.write_text("half")
        Path(sys.argv[1], f"{temporary.name}.ready").touch()
        time.sleep(900)

def work(options):
    with atomic_path(options.out / "main.txt") as temporary:
        temporary.write_text("half")
        if options.how == "child":
            run_in_child(sleep)
        if options.how == "stuck":
            (options.out / "stuck.ready").touch()
            import ctypes
            for _ in range(3):
                ctypes.CDLL(None).sleep(900)
            time.sleep(900)
        with worker_pool(2, "work", "") as pool:
            futures = [pool.submit(sleep) for _ in range(9)]
            futures[0].result()

def options(parser):
    parser.add_argument("out", type=Path)
    parser.add_argument("how")

if __name__ == "__main__":
    sys.exit(run_command([Command("work", "", options, work, "")], ["work", *sys.argv[1:]]))
"""


def heed_signals():
    """What a shell starts in the background ignores SIGINT, what nohup starts SIGHUP; and so would
    all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(tmp_path, how="pool"):
    """Start the command in a process group of its own; return when its workers work."""
    script = tmp_path / "script.py"
    script.write_text(WORK)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), how], cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals,
    )  # fmt: skip
    wanted, until = {"pool": 2}.get(how, 1), time.monotonic() + PATIENCE_SECONDS
    while len(list(tmp_path.glob("*.ready")) + list(tmp_path.glob(".*.ready"))) < wanted:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def ended(process):
    """What it said, once all of its group are gone."""
    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    until = time.monotonic() + PATIENCE_SECONDS
    while living(process.pid):
        assert time.monotonic() < until, living(process.pid)
        time.sleep(0.05)
    return said


def halves(folder):
    return [p.name for p in folder.glob(".[0-9]*") if not p.name.endswith(".ready")]


def test_a_signal_waits_until_a_process_has_started():
    """Else the new process would stand there half told what to do, and say so in a traceback."""
    done = []
    with pytest.raises(Stopped), stoppable(), signals_held():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        done.append("started")
    assert done


FINALISER = """
import os, signal, time
from kaggle_pipeline.core.stopping import Stopped, stoppable

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(9):
            pass

began = time.monotonic()
try:
    with stoppable():
        one = Late()
        del one
        time.sleep(60)
except Stopped as stop:
    print(stop.code, time.monotonic() - began < 9)
"""


def test_a_signal_within_a_finaliser_is_neither_lost_nor_a_traceback():
    """Python drops what is raised there; the process would go on until it is ended by force."""
    done = subprocess.run(
        [sys.executable, "-c", FINALISER], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.stdout, done.stderr, done.returncode) == ("143 True\n", "", 0)


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@linux
@pytest.mark.ci
@pytest.mark.parametrize(
    ("number", "to_all", "how"),
    [(signal.SIGTERM, False, "pool"), (signal.SIGTERM, True, "pool"), (signal.SIGINT, True, "pool"),
     (signal.SIGHUP, False, "pool"), (signal.SIGTERM, False, "child")],
)  # fmt: skip
def test_a_signal_ends_all_processes_and_says_one_line(tmp_path, number, to_all, how):
    process = start(tmp_path, how)
    (os.killpg if to_all else os.kill)(process.pid, number)
    said = ended(process)
    assert process.returncode == 128 + number
    assert said.splitlines() == [
        f"stopped by {number.name}: run the same command with --resume to go on"
    ]
    # What is asked in a child of its own writes no file in the package.
    assert not [name for name in halves(tmp_path) if "main" in name or how == "pool"]


@linux
@pytest.mark.ci
@pytest.mark.parametrize("how", ["pool", "child"])
def test_workers_end_with_their_parent_however_it_ends(tmp_path, how):
    process = start(tmp_path, how)
    process.kill()
    ended(process)
    assert [name for name in halves(tmp_path) if "child" in name] == []


@linux
@pytest.mark.ci
def test_a_process_that_does_not_look_at_signals_is_ended_by_force(tmp_path):
    process = start(tmp_path, "stuck")
    for _ in range(2):  # ctypes' sleep ends early at the first one
        os.kill(process.pid, signal.SIGTERM)
    said = ended(process)
    assert process.returncode == 128 + signal.SIGTERM and "--resume" in said
    assert not halves(tmp_path)
