"""What a plan needs to know of this machine: the real fit and its predictions, on some photos.

In: an experiment, its spec, some training photos. Out: :class:`Measured`: what a photo, a step and
a fold take, in seconds and in seconds of a core, and the peak memory.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.child_process import EndedSilently, run_in_child
from kaggle_pipeline.core.environment import cpu_seconds, peak_memory_mb
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.machine import count_cores
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.report.planned import folder_mb

_STEPS, _HEAD_STEPS = 5, 60
_FINGERPRINT_SECONDS = 1.0
"""As long as photos are hashed at least, to time it."""
_MIB = 2**20


class Cost(NamedTuple):
    """Seconds that pass, and seconds of a core: on a busy machine the first are many more."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(max(0.0, self.seconds - other.seconds), max(0.0, self.cpu - other.cpu))

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.seconds * times, self.cpu * times)


@dataclass(frozen=True)
class Measured:
    """What some photos took.

    Attributes
    ----------
    fingerprint, convert : Cost
        To fingerprint a photo in one of several processes, and to convert it and index its record
        in one process.
    workers : Cost
        To start the processes that do so, for one of both.
    record_mb : float
        Size of a photo in the records, in MiB.
    start : Cost
        Until everything is imported.
    fold : Cost
        Of a fold beside what is counted below: building and tracing the network, its first step,
        saving.
    asking : Cost
        To begin predicting: a network over the views is made and traced.
    answer : Cost
        To predict a photo in all views; with a frozen backbone, its features.
    step : Cost
        Of a training step; with a frozen backbone, of the head's.
    epoch : Cost
        At an epoch's end, beside its validation of one view of each photo.
    batch : int
        Rows a step.
    memory_mb : float
        Peak of the process, in MiB.
    saved_mb : float
        Size of a fold's saved model.
    device_mb : float
        Peak of the accelerator's own memory, 0 where nothing tells.
    features : int
        Numbers that a frozen backbone leaves of a photo, all views.
    """

    fingerprint: Cost
    convert: Cost
    workers: Cost
    record_mb: float
    start: Cost
    fold: Cost
    asking: Cost
    answer: Cost
    step: Cost
    epoch: Cost
    batch: int
    memory_mb: float
    saved_mb: float
    device_mb: float = 0.0
    features: int = 0


def measure(
    config: Experiment, spec: DatasetSpec, data_dir: Path, photos: pd.DataFrame, train: int
) -> Measured:
    """Return what some photos took, on this machine as busy as it is.

    Parameters
    ----------
    config : Experiment
    spec : DatasetSpec
    data_dir : pathlib.Path
    photos : pandas.DataFrame
        Some training examples with an image path, at least four.
    train : int
        Photos that the experiment trains on: few are kept decoded in memory, many are not.

    Raises
    ------
    PipelineError
        If a photo cannot be read, or the network takes more memory than there is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records"
        prepared = _time_preparation(config, spec, data_dir, photos, records)
        try:
            found = run_in_child(_time_model, config, spec, photos, records, train)
        except EndedSilently:
            found = None
    if found is None:
        raise PipelineError(
            "the network took more memory than there is: say a smaller --preset, or close other "
            "programs"
        )
    if "error" in found:
        raise PipelineError(found["error"])
    return Measured(**prepared, **found)


def _time_preparation(
    config: Experiment, spec: DatasetSpec, data_dir: Path, photos: pd.DataFrame, records: Path
) -> dict[str, Any]:
    from kaggle_pipeline.leakage.fingerprints import fingerprint_images
    from kaggle_pipeline.records.convert import convert
    from kaggle_pipeline.records.tfrecords import index_records, list_shards

    recipe, several = replace(config.records, workers=1), processes(config)
    paths, each = photos["image_path"], 1 / len(photos)
    convert(photos.iloc[:1], spec, data_dir, records.parent / "first", recipe)  # imports all

    def make_records() -> None:
        convert(photos, spec, data_dir, records, recipe)
        list(index_records(list_shards(records), spec))

    converting = _timed(make_records) * each
    workers = Cost()
    if several > 1:
        workers = _timed(list, fingerprint_images(paths.iloc[:several], data_dir, several))
    size = sum(path.stat().st_size for path in records.glob("*.tfrec*"))
    return {"fingerprint": _time_fingerprints(paths, data_dir, several, workers),
            "convert": converting, "workers": workers,
            "record_mb": size / len(photos) / _MIB}  # fmt: skip


def _time_fingerprints(paths: pd.Series, data_dir: Path, several: int, start: Cost) -> Cost:
    """What a photo takes a process, while as many work side by side as later will.

    Two threads of one core are slower together than each alone. Small photos are taken again, so
    that there are some seconds to time.
    """
    from kaggle_pipeline.leakage.fingerprints import fingerprint_images

    alone = _timed(list, fingerprint_images(paths, data_dir, 1)) * (1 / len(paths))
    if several == 1:
        return alone
    count = max(len(paths), int(_FINGERPRINT_SECONDS * several / alone.seconds))
    many = pd.concat([paths] * -(-count // len(paths)))
    took = (_timed(list, fingerprint_images(many, data_dir, several)) - start) * (1 / len(many))
    side_by_side = min(several, count_cores())
    # A start that was slow for once would leave too little.
    return Cost(max(took.seconds * side_by_side, alone.seconds), max(took.cpu, alone.cpu))


def _time_model(
    config: Experiment, spec: DatasetSpec, photos: pd.DataFrame, records: Path, train: int,
    pipe: Any,
) -> None:  # fmt: skip
    """Send what :func:`_clock_model` found, or an error's line; runs in a process of its own."""
    try:
        pipe.send(_clock_model(config, spec, photos, records, train))
    except PipelineError as error:
        pipe.send({"error": str(error)})


def _clock_model(
    config: Experiment, spec: DatasetSpec, photos: pd.DataFrame, records: Path, train: int
) -> dict[str, Any]:
    """What two folds of the image model take."""
    started = now()
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(config.device, config.replicas)
    from kaggle_pipeline.models.image.fit.callbacks import StepClock
    from kaggle_pipeline.models.image.inference.predictor import photos_at_once
    from kaggle_pipeline.models.image.model import ImageModel
    from kaggle_pipeline.records.tfrecords import list_shards

    start = now() - started
    image = config.image.largest()
    decoded_mb = train * image.image_size_px**2 * 3 / _MIB
    timed = replace(image, epochs=2, cache_mb=image.cache_mb if decoded_mb <= image.cache_mb else 0)
    if not image.frozen:
        timed = replace(timed, steps_per_epoch=_STEPS)
    shards = [shard.path for shard in list_shards(records)]
    clock = StepClock(now)

    def make(fold: int) -> ImageModel:
        return ImageModel(
            timed, spec, lambda ids: shards, device, records.parent / f"fold{fold}",
            seed=config.seed + fold, features_dir=records.parent / "features", callbacks=[clock],
        )  # fmt: skip

    # A batch that is filled up takes as long as a full one; validation asks for one view.
    at_once, held = (
        min(photos_at_once(image, device.kind, views) * device.replicas, len(photos) // 3)
        for views in (image.views, 1)
    )
    few, many = photos.iloc[:held], photos.iloc[held:]
    many = many.iloc[: len(many) // at_once * at_once]
    first = make(0)
    # A frozen backbone's features are kept: what is then predicted has to be other photos.
    learned, validated = (few, few) if image.frozen else (many, few)
    began = now()
    first.fit(learned, validated)
    fit = now() - began
    clocked = [_timed(first.predict, some) for some in (many.iloc[:at_once], many)]
    answered = len(many) - image.frozen * at_once  # the first ones' features are known
    asking_one, asking_all = clocked
    more = answered - at_once
    answer = (asking_all - asking_one) * (1 / more) if more > 0 else asking_all * (1 / answered)
    asking = asking_one - answer * at_once
    steps = clock.epochs[-1]
    step = (steps.trained - steps.began) * (1 / steps.steps)
    if image.frozen:
        second = make(1)
        fold = _timed(second.fit, learned, validated) + _timed(second.predict, validated)
        fold = fold - step * (2 * steps.steps)
        epoch, features = steps.ended - steps.trained, _count_features(records.parent)
        step = _time_head(image, spec, device, features // image.views, clock)
    else:
        epoch = steps.ended - steps.trained - answer * (len(few) / image.views)
        fold = fit - step * (2 * _STEPS) - (steps.ended - steps.trained) * 2
        features = 0
    save = _timed(first.save, records.parent / "saved")
    return {
        "start": start, "fold": fold + save, "asking": asking, "answer": answer, "step": step,
        "epoch": epoch, "batch": image.batch_size * device.replicas, "features": features,
        "memory_mb": peak_memory_mb() or 0.0, "saved_mb": folder_mb(records.parent / "saved"),
        "device_mb": device.peak_memory_mb() or 0.0,
    }  # fmt: skip


def _time_head(
    image: ImageConfig, spec: DatasetSpec, device: Any, channels: int, clock: Any
) -> Cost:
    """A step of the head among many, as in an epoch of all photos; those of a few cost more."""
    from kaggle_pipeline.models.image.fit.training import compile_network
    from kaggle_pipeline.models.image.inference.predictor import running
    from kaggle_pipeline.models.image.network import build_head

    rng = np.random.default_rng(0)
    features = rng.random((_HEAD_STEPS * image.batch_size, channels), np.float32)
    with running(device.alone(), image):
        head = build_head(image, spec, channels)
        targets = np.zeros((len(features), *head.output_shape[1:]), np.float32)
        compile_network(head, image, spec, _HEAD_STEPS, device.jit_compile)
        head.fit(
            features, targets, batch_size=image.batch_size, epochs=2, callbacks=[clock], verbose=0
        )
    steps = clock.epochs[-1]
    return (steps.trained - steps.began) * (1 / steps.steps)


def now() -> Cost:
    """Return the time, and the seconds of a core that this process and its children have taken."""
    return Cost(time.perf_counter(), cpu_seconds())


def _timed(work: Any, *arguments: Any) -> Cost:
    started = now()
    work(*arguments)
    return now() - started


def _count_features(folder: Path) -> int:
    """Numbers a photo in the cache of features."""
    path = next((folder / "features").rglob("*.npz"))
    with np.load(path, allow_pickle=False) as block:
        return int(np.prod(block["features"].shape[1:]))


def some_photos(examples: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return up to ``count`` examples that have a photo, drawn by ``seed``."""
    there = examples[examples["image_path"].notna()]
    return there.sample(min(count, len(there)), random_state=seed)


def processes(config: Experiment) -> int:
    """Return how many processes convert."""
    return config.records.workers or count_cores()
