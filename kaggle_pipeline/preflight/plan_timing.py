"""What a plan needs to know of this machine: seconds and memory of a few photos, each in a process.

In: an experiment, its spec, some photos. Out: seconds a photo or a step, and peak memory.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.child_process import EndedSilently, run_in_child
from kaggle_pipeline.core.environment import peak_memory_mb
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.machine import count_cores
from kaggle_pipeline.data.spec import DatasetSpec

_STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What a few photos took.

    Attributes
    ----------
    prepare_seconds : float
        To fingerprint and convert a photo, in one process.
    record_mb : float
        Size of a photo in the records, in MiB.
    start_seconds : float
        Until everything is imported.
    fold_seconds : float
        To build a fold's network and trace what it runs.
    answer_seconds : float
        To answer for a photo in all views; with a frozen backbone, its features.
    step_seconds : float or None
        Of a training step; None with a frozen backbone.
    batch : int
        Photos a step.
    memory_mb : float
        Peak of the process, in MiB.
    """

    prepare_seconds: float
    record_mb: float
    start_seconds: float
    fold_seconds: float
    answer_seconds: float
    step_seconds: float | None
    batch: int
    memory_mb: float


def measure(
    config: Experiment, spec: DatasetSpec, data_dir: Path, photos: pd.DataFrame
) -> Measured:
    """Return what a few photos took, on this machine as busy as it is.

    Parameters
    ----------
    config : Experiment
    spec : DatasetSpec
    data_dir : pathlib.Path
    photos : pandas.DataFrame
        Some examples with an image path.

    Raises
    ------
    PipelineError
        If a photo cannot be read, or the network takes more memory than there is.
    """
    seconds, size = _time_preparation(config, spec, data_dir, photos)
    try:
        found = run_in_child(_time_network, config, spec)
    except EndedSilently:
        found = None
    if found is None:
        raise PipelineError(
            "the network took more memory than there is: say a smaller --preset, or close other "
            "programs"
        )
    return Measured(prepare_seconds=seconds, record_mb=size, **found)


def _time_preparation(
    config: Experiment, spec: DatasetSpec, data_dir: Path, photos: pd.DataFrame
) -> tuple[float, float]:
    from kaggle_pipeline.leakage.fingerprints import fingerprint_images
    from kaggle_pipeline.records.convert import convert

    with tempfile.TemporaryDirectory() as scratch:
        out, recipe = Path(scratch), replace(config.records, workers=1)
        convert(photos.iloc[:1], spec, data_dir, out / "warm", recipe)  # imports TensorFlow
        started = time.perf_counter()
        list(fingerprint_images(photos["image_path"], data_dir, 1))
        convert(photos, spec, data_dir, out / "records", recipe)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in (out / "records").glob("*.tfrec*"))
    return seconds / len(photos), size / len(photos) / 2**20


def _time_network(config: Experiment, spec: DatasetSpec, pipe: Any) -> None:
    """Send what building, answering and training take; runs in a process of its own."""
    started = time.perf_counter()
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(config.device, config.replicas)
    from kaggle_pipeline.models.image.inference.predictor import Predictor, photos_at_once, running
    from kaggle_pipeline.models.image.inference.tta import (
        VIEWS,
        stacked_views,
        views_of,
        with_views,
    )
    from kaggle_pipeline.models.image.network import build_network
    from kaggle_pipeline.preflight.timing import StepTimer

    imported = time.perf_counter()
    image = config.image
    with tempfile.TemporaryDirectory() as scratch:
        predictor = Predictor(image, spec, lambda ids: [], device, Path(scratch), False, 0)
    with running(device, image):
        network = build_network(image, spec, load_published=False)
        if image.frozen:
            views = VIEWS["dihedral" if image.augment.dihedral else image.tta]
            answers = stacked_views(predictor.fused(network.get_layer("body")), views)
        else:
            answers = with_views(predictor.fused(network), views_of(image))
        answers = predictor.compiled(answers)
    at_once = photos_at_once(image, device.kind) * device.replicas
    side, rng = image.image_size_px, np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (at_once, side, side, 3), np.uint8),
        "row": np.arange(at_once, dtype=np.int32),
    }

    def answer(times: int) -> float:
        before = time.perf_counter()
        with running(device, image, building=False):
            for _ in range(times):
                answers.predict_on_batch(batch)
        return time.perf_counter() - before

    answer(1)
    ready = time.perf_counter() - imported
    answered = answer(_STEPS) / _STEPS / at_once
    step, photos = None, image.batch_size * device.replicas
    if not image.frozen:
        before = time.perf_counter()
        timer = StepTimer(image, spec, device, _STEPS)
        timer.seconds(1)
        ready += time.perf_counter() - before
        step, photos = timer.seconds(_STEPS) / _STEPS, timer.batch
    pipe.send(
        {
            "start_seconds": imported - started, "fold_seconds": ready, "step_seconds": step,
            "answer_seconds": answered, "batch": photos, "memory_mb": peak_memory_mb() or 0.0,
        }
    )  # fmt: skip


def some_photos(examples: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return up to ``count`` examples that have a photo, drawn by ``seed``."""
    there = examples[examples["image_path"].notna()]
    return there.sample(min(count, len(there)), random_state=seed)


def processes(config: Experiment) -> int:
    """Return how many processes convert."""
    return config.records.workers or count_cores()
