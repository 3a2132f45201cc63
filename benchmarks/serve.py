"""How long a reading takes, and whether memory stays where it is: ``benchmark serve``.

In: a backbone and a size. Out: a table on standard output: median and 95th percentile of the time
from a file's bytes to the finished reading, for one user and for eight, and the process's memory
along many uploads. The browser and Streamlit's own work are not in it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment, write_experiment
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.synthetic.siim_isic_2020 import generate
from kaggle_pipeline.webapp.html_blocks import reading_block
from kaggle_pipeline.webapp.service import Service

_PHOTO_SIDE_PX = 600
_USERS = (1, 8)


@dataclass(frozen=True)
class ServeLoad:
    """What is measured.

    Attributes
    ----------
    backbone : str
    image_size_px : int
        Side of what the network sees; one view, one fold.
    readings : int
        Timed in all, for each number of users.
    uploads : int
        After which memory is told.
    """

    backbone: str
    image_size_px: int
    readings: int = 40
    uploads: int = 200


def measure_serve(work_dir: Path, load: ServeLoad, say: Callable[[str], None] = print) -> None:
    """Print the latency of readings for one and for eight users, and memory over many uploads.

    The network is one that nobody has trained: its answers are worth nothing, its time is the same.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets a made-up competition and a run; what is there is used again.
    load : ServeLoad
    say : callable
        Takes a line.
    """
    work_dir = Path(work_dir) / f"{load.backbone}{load.image_size_px}"
    run_dir = _make_run(work_dir, load)
    photos = sorted((work_dir / "competition" / "jpeg").rglob("*.jpg"))
    files = [(path.name, path.read_bytes()) for path in photos]
    started = time.perf_counter()
    service = Service(run_dir, "cpu")
    seconds = time.perf_counter() - started
    what = f"{load.backbone} at {load.image_size_px} px, one fold, one view"
    say(f"{what}, JPEG of {_PHOTO_SIDE_PX} px; loaded and warm in {seconds:.1f} s")
    try:
        say(f"{'users':>6}{'readings':>10}{'median s':>10}{'95 % s':>9}{'a second':>10}")
        for users in _USERS:
            started = time.perf_counter()
            seconds = _visit(service, files, users, load.readings)
            whole = time.perf_counter() - started
            middle, slow = np.percentile(seconds, [50, 95])
            rate = len(seconds) / whole
            say(f"{users:>6}{len(seconds):>10}{middle:>10.3f}{slow:>9.3f}{rate:>10.2f}")
        _measure_memory(service, files, load.uploads, say)
    finally:
        service.close()


def _visit(
    service: Service, files: Sequence[tuple[str, bytes]], users: int, readings: int
) -> list[float]:
    """Seconds of each reading, all users asking at once and again as soon as they are answered."""
    seconds: list[float] = []
    faults: list[BaseException] = []

    def user(number: int) -> None:
        try:
            for turn in range(max(1, readings // users)):
                started = time.perf_counter()
                _read(service, files[(number + turn * users) % len(files)])
                seconds.append(time.perf_counter() - started)
        except BaseException as error:
            faults.append(error)
            raise

    threads = [threading.Thread(target=user, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise PipelineError(f"a user's reading failed: {faults[0]!r}")
    return seconds


def _read(service: Service, file: tuple[str, bytes]) -> None:
    look = service.look(*file)
    reading_block(service, service.read([look], [{}])[0], service.classes[0], 0.9)


def _measure_memory(
    service: Service, files: Sequence[tuple[str, bytes]], uploads: int, say: Callable[[str], None]
) -> None:
    told = [f"after {uploads // 4 * quarter}: " for quarter in range(5)]
    told[0] += f"{_resident_mb():.0f}"
    for quarter in range(4):
        for number in range(uploads // 4):
            _read(service, files[number % len(files)])
        told[quarter + 1] += f"{_resident_mb():.0f}"
    say(f"resident MiB over {uploads // 4 * 4} uploads: " + ", ".join(told))


def _resident_mb() -> float:
    """Memory that this process holds now; Linux tells."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kib = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), "nan")
    return float(kib) / 1024


def _make_run(work_dir: Path, load: ServeLoad) -> Path:
    """A run's folder as training leaves it, but for the training."""
    competition, run_dir = work_dir / "competition", work_dir / "run"
    if not (competition / "train.csv").exists():
        generate(work_dir, patients=60, image_size_px=_PHOTO_SIDE_PX, seed=1, mean_images=3)
    if (run_dir / "image" / "oof.csv").exists():
        return run_dir
    config = load_experiment(
        CHECKOUT / "configs" / "demo.yaml",
        [
            f"image.backbone={load.backbone}", f"image.image_size_px={load.image_size_px}",
            "image.backbone_options={}", "image.tta=none", "folds={holdout: 0.5}",
            f"records.image_size_px={max(64, load.image_size_px)}", "leakage.fingerprints=false",
        ],
    )  # fmt: skip
    run = Run(config, competition, run_dir, overwrite=True, say=lambda line: None)
    prepare_data(run)
    place = run_dir / "image" / "fold0"
    place.mkdir(parents=True, exist_ok=True)
    _draw_network(run, place)
    write_experiment(run_dir / "image" / "config.yaml", config)
    ids = run.folds().validated.index
    values = np.random.default_rng(0).random((len(ids), len(run.spec.classes)))
    guessed = pd.DataFrame(values, ids, list(run.spec.classes))
    Predictions.build(guessed, 0, "oof").write(run_dir / "image" / "oof.csv")
    return run_dir


def _draw_network(run: Run, place: Path) -> None:
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator("cpu")
    from kaggle_pipeline.models.image.model import ImageModel
    from kaggle_pipeline.models.image.network import build_network

    model = ImageModel(run.config.image, run.spec, lambda ids: [], device, place, seed=0)
    model.network_ = build_network(run.config.image, run.spec, load_published=False)
    model.encoder_ = None
    model.save(place)
