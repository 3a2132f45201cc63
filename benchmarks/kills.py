"""SIGKILL at random moments of all stages; each time the same command goes on to the same results.

In: a folder to work in, which gets a made-up competition and its runs. Out: a line a run.
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.chain import STEPS, Chain, first_difference, none_living, undisturbed
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.stages.verify import verify_run

_LIVES = {"pipeline": (0.03, 0.3)}
"""Shares of a step's processor time between which a process is killed: the long step goes on where
it was, the others begin again, so some processes must live to their end."""
_OTHERS = (0.2, 1.2)


def measure_kills(
    work_dir: Path, kills: int = 100, seed: int = 0, say: Callable[[str], None] = print
) -> None:
    """Kill the commands of runs at random moments, each many times, and compare what they end with.

    By turns all processes of the group are killed, as a power cut does, and the main process alone,
    as a system does that wants memory: its workers must end too.

    A line a run names the folders that were written last, or the step, at each kill.

    Parameters
    ----------
    work_dir : pathlib.Path
    kills : int
        Of all runs together.
    seed : int
        Of the moments.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a command cannot go on; if a run ends with another submission, prediction, weight or
        table than the undisturbed one, with a file that is not what its record says, or a
        half-written one; if a process is left.
    """
    seconds = undisturbed(work_dir)
    say("left alone: " + ", ".join(f"{step} {took:.0f} s" for step, took in seconds.items()))
    rng, done, runs = np.random.default_rng(seed), 0, 0
    while done < kills:
        moments: Counter[str] = Counter()
        chain = Chain(work_dir, work_dir / "killed")
        shutil.rmtree(chain.run, ignore_errors=True)
        for step in STEPS:
            while True:
                process = chain.start(step)
                share = rng.uniform(*_LIVES.get(step, _OTHERS)) if done < kills else np.inf
                if chain.wait(process, step, share * seconds[step]):
                    chain.require_ended(process, step)
                    break
                (os.kill if done % 2 else os.killpg)(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                moments[chain.reached() if step == "pipeline" else step] += 1
                if not none_living(process.pid):
                    raise PipelineError(f"{chain.run}: processes outlive a killed {step}")
        if other := first_difference(chain.run, work_dir / "whole"):
            raise PipelineError(f"{chain.run}: {other} is another than in the undisturbed run")
        if left := chain.halves():
            raise PipelineError(f"{chain.run}: left: {', '.join(left)}")
        verify_run(chain.run, files_only=True, say=lambda line: None)
        runs += 1
        where = ", ".join(f"{name} {count}" for name, count in moments.items())
        say(f"run {runs}: killed {moments.total()} times ({where}), ended equal, nothing left")
    say(f"{done} kills in {runs} runs, all ended equal to the run left alone")
