"""Measurements that take too long for a test: ``make bench``.

In: a folder to work in. Out: a table on standard output.
"""

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kaggle_pipeline.datasets.synthetic import generate
from kaggle_pipeline.errors import PipelineError

_ROOT = Path(__file__).resolve().parent.parent
# A network so small that its own memory does not hide the pipeline's.
_SETTINGS = (
    "records.image_size_px=1024",
    "records.records_per_shard=64",
    "image.image_size_px=1024",
    "image.backbone_options={filters: 4}",
    "image.batch_size=4",
    "image.epochs=1",
    "image.tta=none",
    "folds={holdout: 0.2}",
)


def measure_memory(
    work_dir: Path, sizes: tuple[int, ...] = (100, 400), say: Callable[[str], None] = print
) -> None:
    """Print the peak resident memory of conversion and of training at 1024 px.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets a made-up competition and a run for each size; what is there is used again.
    sizes : tuple of int
        About how many images each competition has.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a stage fails.
    """
    say(f"{'images':>8}{'conversion MiB':>16}{'training MiB':>14}")
    for size in sizes:
        data = work_dir / f"images{size}"
        if not (data / "competition" / "train.csv").exists():
            generate(data, patients=max(8, size // 8), image_size_px=1024, seed=size)
        common = ["--data-dir", str(data / "competition"), "--run-dir", str(data / "run")]
        prepare = _peak_mb("prepare_data.py", *common, "--overwrite")
        train = _peak_mb("train_image.py", *common, "--overwrite")
        images = len(list((data / "competition" / "jpeg").rglob("*.jpg")))
        say(f"{images:>8}{prepare:>16.0f}{train:>14.0f}")


def _peak_mb(script: str, *arguments: str) -> float:
    """Run a script; return the peak resident memory of its largest process in MiB."""
    config = _ROOT / "configs" / "demo.yaml"
    command = [sys.executable, str(_ROOT / "scripts" / script), "--config", str(config)]
    for setting in _SETTINGS:
        command += ["--set", setting]
    # A process in between: the peak of children is kept for a process's whole life.
    probe = (
        "import resource, subprocess, sys;"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(code)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", probe, *command, *arguments], capture_output=True, text=True
    )
    if answer.returncode:
        raise PipelineError(f"{script} failed: {answer.stderr.strip().splitlines()[-1]}")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return int(answer.stdout.split()[-1]) / unit


_KILLED = (
    "records.image_size_px=48",
    "image.image_size_px=48",
    "image.epochs=8",
    "image.steps_per_epoch=12",
    "image.tta=none",
    "folds={holdout: 0.3}",
    "leakage.fingerprints=false",
)
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
    _finish(_start("prepare_data.py", data, fresh))
    shutil.copytree(fresh, whole)
    started = time.perf_counter()
    _finish(_start("train_image.py", data, whole))
    seconds = time.perf_counter() - started
    say(f"left alone it takes {seconds:.1f} s")
    for number, share in enumerate(np.random.default_rng(seed).uniform(0.2, 1.0, runs)):
        folder = work_dir / f"killed{number}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fresh, folder)
        process = _start("train_image.py", data, folder)
        time.sleep(share * seconds)
        process.kill()
        process.communicate()
        done = len(_epochs(folder))
        _finish(_start("train_image.py", data, folder, "--resume"))
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


def _start(script: str, data: Path, run: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, str(_ROOT / "scripts" / script)]
    command += ["--config", str(_ROOT / "configs" / "demo.yaml"), "--run-dir", str(run)]
    command += ["--data-dir", str(data / "competition"), *more]
    for setting in _KILLED:
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen) -> None:
    _, words = process.communicate()
    if process.returncode:
        raise PipelineError(f"{process.args[1]} failed: {words.strip().splitlines()[-1]}")
