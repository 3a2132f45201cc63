"""SIGTERM or SIGKILL at moments of a whole run: what it ends with, and what is left of it.

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

_PATIENCE_SECONDS = 120


def measure_stops(
    work_dir: Path,
    runs: int = 20,
    seed: int = 0,
    number: signal.Signals = signal.SIGTERM,
    say: Callable[[str], None] = print,
) -> None:
    """End runs at moments of all their stages, look for what is left, resume, and compare.

    Parameters
    ----------
    work_dir : pathlib.Path
    runs : int
    seed : int
        Of the moments.
    number : signal.Signals
        SIGTERM goes to the main process alone, as batch systems send it; SIGKILL to all of the
        run's processes, as a power cut ends them.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a process is left, or of SIGTERM a half-written file; if the exit code is another one, or
        the resumed run has another submission, prediction or weight than the one left alone.
    """
    _, whole = finished_run(work_dir)
    seconds = _seconds_of(whole)
    say(f"left alone it takes {seconds:.0f} s")
    for after in np.random.default_rng(seed).uniform(1, seconds, runs):
        run = work_dir / "stopped"
        shutil.rmtree(run, ignore_errors=True)
        process = start("run_pipeline.py", work_dir / "data", run, settings=WHOLE)
        time.sleep(after)
        began = time.monotonic()
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        try:
            _, words = process.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise PipelineError(
                f"{run}: {number.name} after {after:.0f} s did not end it"
            ) from None
        took = time.monotonic() - began
        # A lock may be left by an end by force: that its process is gone is seen by the next one.
        left = living(process.pid)
        if number != signal.SIGKILL:
            left += [str(path) for path in run.rglob(".[0-9]*.*")]
        if left or process.returncode not in (0, 128 + number, -number):
            raise PipelineError(f"{run}: code {process.returncode}, left: {left}, {words[-400:]}")
        reached = max((path.name for path in run.glob("*/")), default="nothing", key=_time_in(run))
        finish(start("run_pipeline.py", work_dir / "data", run, "--resume", settings=WHOLE))
        if other := _differing(run, whole):
            raise PipelineError(f"{run}: after --resume {other} is another than in {whole}")
        say(
            f"{number.name} after {after:4.0f} s, in {reached}: ended in {took:.1f} s, nothing "
            "left, same submission, predictions and weights"
        )


def _seconds_of(run: Path) -> float:
    """From a run's first file to its submission."""
    times = [path.stat().st_mtime for path in run.rglob("*") if path.is_file()]
    return (run / "submission.csv").stat().st_mtime - min(times)


def _time_in(run: Path) -> Callable[[str], float]:
    return lambda name: (run / name).stat().st_mtime


def _differing(run: Path, whole: Path) -> str | None:
    """The first of a run's results that is another; None if all are the same.

    Tables byte for byte, weights number by number: HDF5 files of equal weights differ in bytes.
    """
    for kind in ("submission.csv", "oof.csv", "test.csv", "*.weights.h5"):
        for path in sorted(whole.rglob(kind)):
            name = path.relative_to(whole)
            if not (run / name).exists() or _content(run / name) != _content(path):
                return str(name)
    return None


def _content(path: Path) -> object:
    if path.suffix != ".h5":
        return path.read_bytes()
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, one: (
                found.__setitem__(name, one[()].tobytes())
                if isinstance(one, h5py.Dataset)
                else None
            )
        )
    return found


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
