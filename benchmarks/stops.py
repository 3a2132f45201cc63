"""SIGTERM at moments of a whole run: exit code, seconds, processes and files that are left.

In: a folder to work in, which gets a made-up competition and its runs. Out: a line a run.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.changes import finished_run
from benchmarks.kills import WHOLE, finish, start
from kaggle_pipeline.core.errors import PipelineError

_PATIENCE_SECONDS = 60


def measure_stops(
    work_dir: Path,
    runs: int = 20,
    seconds: float = 30,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Send SIGTERM to the main process of a run alone, look for what is left, and resume.

    Parameters
    ----------
    work_dir : pathlib.Path
    runs : int
    seconds : float
        The moments are drawn from the first so many seconds of a run.
    seed : int
        Of the moments.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a process or a half-written file is left, the exit code is another one, or the resumed
        run has another submission than the one left alone.
    """
    _, whole = finished_run(work_dir)
    for after in np.random.default_rng(seed).uniform(1, seconds, runs):
        run = work_dir / "stopped"
        shutil.rmtree(run, ignore_errors=True)
        process = start("run_pipeline.py", work_dir / "data", run, settings=WHOLE)
        time.sleep(after)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            _, words = process.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise PipelineError(f"{run}: SIGTERM after {after:.1f} s did not end it") from None
        took = time.monotonic() - began
        # A lock may be left by an end by force: that its process is gone is seen by the next one.
        left = [*living(process.pid), *run.rglob(".[0-9]*.*")]
        if left or process.returncode not in (0, 128 + signal.SIGTERM):
            raise PipelineError(f"{run}: code {process.returncode}, left: {left}, {words[-400:]}")
        finish(start("run_pipeline.py", work_dir / "data", run, "--resume", settings=WHOLE))
        if (run / "submission.csv").read_bytes() != (whole / "submission.csv").read_bytes():
            raise PipelineError(f"{run}: another submission than {whole} after --resume")
        say(f"SIGTERM after {after:4.1f} s: ended in {took:.1f} s, nothing left, same submission")


def living(group: int) -> list[str]:
    """Processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            found.append(path.parent.name)
    return found
