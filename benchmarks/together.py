"""Two and four commands at once on one run's folder: one works, the others say so and stop.

In: a folder to work in, which gets a made-up competition and its runs. Out: a line a trial.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chain import Chain, after, first_difference, undisturbed
from kaggle_pipeline.core.errors import PipelineError


@dataclass(frozen=True)
class _Beside(Chain):
    """One of several that work, or want to work, in the same folder."""

    number: int = 0

    @property
    def _said(self) -> Path:
        return self.work_dir / f"{self.run.name}.{self.number}.said"


def measure_together(
    work_dir: Path, trials: int = 10, seed: int = 0, say: Callable[[str], None] = print
) -> None:
    """Start the whole run by two and by four commands at once, or seconds apart, and compare.

    Parameters
    ----------
    work_dir : pathlib.Path
    trials : int
    seed : int
        Of the seconds between their starts.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If not exactly one finishes, another says anything but one line, or the results are others.
    """
    seconds = undisturbed(work_dir)["pipeline"]
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        run, count = work_dir / "together", (2, 4)[trial % 2]
        shutil.rmtree(run, ignore_errors=True)
        apart = 0.0 if trial % 4 < 2 else rng.uniform(0, seconds / 2)
        chains = [_Beside(work_dir, run, number) for number in range(count)]
        processes = []
        for chain in chains:
            processes.append(chain.start("pipeline"))
            time.sleep(apart)
        ends = []
        for chain, process in zip(chains, processes, strict=True):
            chain.wait(process, "pipeline")
            ends.append((process.returncode, chain.said()))
        refused = [said for code, said in ends if code == 2]
        fine = all(len(said) == 1 and "is in use" in said[0] for said in refused)
        if not fine or sorted(code for code, _ in ends) != [0] + [2] * (count - 1):
            raise PipelineError(f"{run}: {count} at once ended with {ends}"[-2000:])
        if other := first_difference(run, after(work_dir, "pipeline")):
            raise PipelineError(f"{run}: {other} is another than undisturbed")
        say(f"{count} commands, {apart:.1f} s apart: one finished, equal; {count - 1} refused")
