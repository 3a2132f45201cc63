"""Disks that are full from the beginning, or become full at any moment of all stages.

In: a folder to work in, on which a small file system may be mounted: Linux, as root. Out: a line a
trial.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.chain import (
    STAGES,
    Chain,
    after,
    begin_at,
    first_difference,
    none_living,
    undisturbed,
)
from kaggle_pipeline.core.errors import PipelineError

_DISK_MIB = 64
_ASKED = 8 * 2**20
"""What each stage wants to be free before it begins; less is said at once."""
_SHARES = (0.7, 0.1, 0.1, 0.1)
"""Of the trials, by step; those of the pipeline begin at any of its stages."""
_LEFT = 200_000
"""Bytes that are left at most where the disk becomes full within a stage."""


def measure_disks(
    work_dir: Path, trials: int = 40, seed: int = 0, say: Callable[[str], None] = print
) -> None:
    """Run all steps on disks of many sizes; make room; let the same command go on; compare.

    By turns the disk is too small from the beginning, and becomes full at a random moment, but for
    some bytes.

    Parameters
    ----------
    work_dir : pathlib.Path
    trials : int
    seed : int
        Of sizes and moments.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a command ends with anything but exit code 2 and one line that names the file and what
        is free; if a half-written file or a process is left, or the run ends with other results.
    """
    seconds = undisturbed(work_dir)
    steps = list(seconds)
    rng, counts = np.random.default_rng(seed), Counter()
    with _disk(work_dir / "disk") as disk:
        if disk is None:
            say("no file system may be mounted here (Linux, as root): nothing measured")
            return
        for trial in range(trials):
            step, chain = str(rng.choice(steps, p=_SHARES)), Chain(work_dir, disk / "run")
            stage = str(rng.choice(list(STAGES))) if step == "pipeline" else ""
            begin_at(chain, step, stage)
            if trial % 2:
                at = rng.uniform(0, STAGES.get(stage, 1) * seconds[step])
                free = int(rng.uniform(0, _LEFT))
            else:
                size = int(rng.uniform(0, _used(after(work_dir, step)) + _ASKED))
                at, free = 0.0, max(0, size - _used(chain.run))
            said = _fill_once(chain, step, disk, at, free)
            if other := first_difference(chain.run, after(work_dir, step)):
                raise PipelineError(f"{chain.run}: {other} is another than undisturbed")
            what = f"{stage or step}, {free:,} bytes free" + (f" after {at:.1f} s" if at else "")
            say(f"{trial + 1}: {what}: {said or 'enough'}; equal results")
            counts["stopped in one line and went on" if said else "had enough"] += 1
    say(", ".join(f"{count} {what}" for what, count in counts.items()))


def _used(run: Path) -> int:
    return sum(one.stat().st_blocks * 512 for one in run.rglob("*"))


def _fill_once(chain: Chain, step: str, disk: Path, at: float, free: int) -> str | None:
    """Run a step with the disk filled after ``at`` seconds of its time; then make room and go on.

    Returns
    -------
    str or None
        What was said of the full disk; None if there was room enough.
    """
    ballast, said = disk / "ballast", None
    if not at:
        _fill(ballast, free)
    process = chain.start(step)
    if at and not chain.wait(process, step, at):
        _fill(ballast, free)
    chain.wait(process, step)
    if process.returncode == 2:
        said = _one_line(chain, step, process.pid)
    else:
        chain.require_ended(process, step)
    ballast.unlink(missing_ok=True)
    if said or step == "page":  # which goes on without a file of its own, and says so
        chain.finish(step)
    return said


def _one_line(chain: Chain, step: str, group: int) -> str:
    lines, left = chain.said(), chain.halves()
    if len(lines) != 1 or str(chain.run) not in lines[0] or " free" not in lines[0]:
        raise PipelineError(f"{chain.run}: {step} said: {' | '.join(lines)[-1500:]}")
    if left or not none_living(group, 5):
        raise PipelineError(f"{chain.run}: {step} left {left or 'a process'}")
    return lines[0].replace(str(chain.run), "RUN")


def _fill(ballast: Path, free: int) -> None:
    """Take all of the disk's room but some."""
    while (room := shutil.disk_usage(ballast.parent).free - free) > 0:
        try:
            with ballast.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + room)
            return
        except OSError:  # another process wrote meanwhile
            continue
    ballast.touch()


@contextmanager
def _disk(place: Path) -> Iterator[Path | None]:
    """Yield a mounted file system of its own in memory; None where none may be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
