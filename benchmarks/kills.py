"""Training killed at random moments, resumed, and compared with a run left alone."""

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

_KILLED = (
    "records.image_size_px=48",
    "image.image_size_px=48",
    "image.epochs=8",
    "image.steps_per_epoch=12",
    "image.tta=none",
    "folds={holdout: 0.3}",
    "leakage.fingerprints=false",
)
WHOLE = (
    "records.image_size_px=48",
    "records.workers=2",
    "image.image_size_px=48",
    "image.epochs=2",
    "image.steps_per_epoch=4",
    "image.tta=none",
    "folds.k=2",
    "tabular.epochs=3",
    "tabular.learners=[dense,logistic]",
    "blend.models=[image,tabular,logistic]",
)
"""All stages in well under a minute."""
_WEIGHTS = "image/fold0/model.weights.h5"


def measure_kills(
    work_dir: Path, runs: int = 20, seed: int = 0, say: Callable[[str], None] = print
) -> None:
    """Kill ``train_image.py`` at random moments, resume it, and compare with a run left alone.

    Prints a line a run: when it was killed, how many epochs were on disk, and whether the final
    weights are the same bytes.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets a made-up competition and the runs.
    runs : int
    seed : int
        Of the moments.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a resumed run ends with other weights, or its history lacks or repeats an epoch.
    """
    data, fresh, whole = (work_dir / name for name in ("data", "fresh", "whole"))
    if not (data / "competition" / "train.csv").exists():
        generate(data, patients=60, image_size_px=48, seed=1)
    for folder in (fresh, whole):
        shutil.rmtree(folder, ignore_errors=True)
    finish(start("prepare_data.py", data, fresh))
    shutil.copytree(fresh, whole)
    started = time.perf_counter()
    finish(start("train_image.py", data, whole))
    seconds = time.perf_counter() - started
    say(f"left alone it takes {seconds:.1f} s")
    for number, share in enumerate(np.random.default_rng(seed).uniform(0.2, 1.0, runs)):
        folder = work_dir / f"killed{number}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fresh, folder)
        process = start("train_image.py", data, folder)
        time.sleep(share * seconds)
        process.kill()
        process.communicate()
        done = len(_epochs(folder))
        finish(start("train_image.py", data, folder, "--resume"))
        if (folder / _WEIGHTS).read_bytes() != (whole / _WEIGHTS).read_bytes():
            raise PipelineError(f"{folder}: other weights than {whole} after a kill and --resume")
        if _epochs(folder) != _epochs(whole):
            raise PipelineError(f"{folder}: epochs {_epochs(folder)} in its history")
        say(f"killed after {share * seconds:5.1f} s, {done} epochs on disk: the same weights")
        shutil.rmtree(folder)
    say(f"{runs} of {runs} killed runs ended with the weights of the run left alone")


def _epochs(run: Path) -> list[int]:
    """Epochs in a run's history, as they stand there."""
    path = run / "image" / "fold0" / "history.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def start(
    script: str, data: Path, run: Path, *more: str, settings: Sequence[str] = _KILLED
) -> subprocess.Popen:
    """Start a script on a made-up competition, in a process group of its own."""
    command = [sys.executable, str(CHECKOUT / "scripts" / script)]
    command += ["--config", str(CHECKOUT / "configs" / "demo.yaml"), "--run-dir", str(run)]
    command += ["--data-dir", str(data / "competition"), *more]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    """Wait for a script; a PipelineError with its last line if it fails."""
    _, words = process.communicate()
    if process.returncode:
        raise PipelineError(f"{process.args[1]} failed: {words.strip().splitlines()[-1]}")
