"""Peak memory of conversion and training at 1024 px."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

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
    config = CHECKOUT / "configs" / "demo.yaml"
    command = [sys.executable, str(CHECKOUT / "scripts" / script), "--config", str(config)]
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
