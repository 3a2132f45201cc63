"""SIGTERM at random moments of all stages: what it ends with, and what is left of it.

In: a folder to work in, which gets a made-up competition and its runs. Out: a line a signal.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.chain import (
    Chain,
    after,
    begin_at,
    first_difference,
    none_living,
    undisturbed,
)
from kaggle_pipeline.core.errors import PipelineError

_SIGNALS_SECONDS = 1.0
"""Of processor time: a process that imports its first modules heeds no signal yet."""


def measure_stops(
    work_dir: Path, stops: int = 20, seed: int = 0, say: Callable[[str], None] = print
) -> None:
    """End the commands of runs at random moments by SIGTERM to the main process alone, and go on.

    That is how batch systems and Kaggle end a process.

    Parameters
    ----------
    work_dir : pathlib.Path
    stops : int
    seed : int
        Of the moments.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a process or a half-written file is left, the exit code is not 143, or not one line is
        said; if the run ends with other results than one left alone.
    """
    seconds = undisturbed(work_dir)
    steps, took = list(seconds), np.array(list(seconds.values()))
    rng = np.random.default_rng(seed)
    for number in range(stops):
        step = str(rng.choice(steps, p=took / took.sum()))
        chain = Chain(work_dir, work_dir / "stopped")
        begin_at(chain, step)
        process = chain.start(step)
        at = rng.uniform(_SIGNALS_SECONDS, seconds[step])
        if chain.wait(process, step, at):
            chain.require_ended(process, step)
            say(f"{number + 1}: {step} had ended before {at:.1f} s")
            continue
        reached, began = chain.reached() if step == "pipeline" else step, time.monotonic()
        process.terminate()
        chain.wait(process, step)
        ended, said = time.monotonic() - began, chain.said()
        left = chain.halves() + ([] if none_living(process.pid, 2) else ["a process"])
        if left or process.returncode != 143 or len(said) != 1:
            raise PipelineError(
                f"{chain.run}: {step} after {at:.1f} s: code {process.returncode}, left: {left}, "
                f"said: {said[-9:]}"
            )
        chain.finish(step)
        if other := first_difference(chain.run, after(work_dir, step)):
            raise PipelineError(f"{chain.run}: {other} is another than in {after(work_dir, step)}")
        say(f"{number + 1}: {reached}, {at:.1f} s: ended in {ended:.1f} s, code 143, nothing left, "
            f"went on to equal results: {said[0]}")  # fmt: skip
