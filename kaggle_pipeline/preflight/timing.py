"""The real training step, timed on the hardware at hand with made-up images.

In: an experiment, its spec, a device. Out: seconds of the first step (compilation included) and of
the ones after it. Nothing is read from disk, so it tells what the device can do, not the input.
"""

import itertools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.data.spec import DatasetSpec

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator


def time_steps(
    config: Experiment, spec: DatasetSpec, device: "Accelerator", steps: int = 10
) -> dict[str, Any]:
    """Train on one made-up batch over and over; return what the steps took.

    Parameters
    ----------
    config : Experiment
        Its image model is trained from random weights: the arithmetic is the same. Of several
        folds' sizes the largest is taken.
    spec : DatasetSpec
    device : Accelerator
    steps : int
        Beside the first, which is counted apart.

    Returns
    -------
    dict
        ``device``, ``first_step_seconds``, ``step_seconds`` (mean of ``steps`` later ones),
        ``images_per_second``, ``global_batch``, ``versions``.
    """
    from kaggle_pipeline.models.image.fit.training import compiled_network

    image = config.image.largest()
    batch = image.batch_size * device.replicas
    with device.scope(mixed_precision=image.mixed_precision):
        network = compiled_network(image, spec, steps, device, load_published=False)
        # As before a real fit: made by the first step, its variables would have it traced twice.
        network.optimizer.build(network.trainable_variables)

    made_up = _made_up_batch(batch, image, spec)

    def seconds(count: int) -> float:
        stream = (made_up for _ in itertools.count())
        started = time.perf_counter()
        network.fit(stream, steps_per_epoch=count, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - started

    with device.scope(mixed_precision=image.mixed_precision, building=False):
        first = seconds(1)
        later = seconds(steps) / steps
    return {
        "device": device.reason,
        "global_batch": batch,
        "first_step_seconds": round(first, 2),
        "step_seconds": round(later, 4),
        "images_per_second": round(batch / later, 1),
        "versions": versions(),
    }


def _made_up_batch(count: int, image: ImageConfig, spec: DatasetSpec) -> tuple[Any, np.ndarray]:
    from kaggle_pipeline.models.image.label_mapping import learned_spec

    answers = len(learned_spec(image, spec).classes)
    rng, side = np.random.default_rng(0), image.image_size_px
    images: Any = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    members = rng.integers(0, answers, count)
    if image.metadata:
        from kaggle_pipeline.models.image.metadata_branch import metadata_encoder

        width = metadata_encoder(spec).width
        images = {"image": images, "metadata": rng.random((count, width), np.float32)}
    return images, np.eye(answers, dtype=np.float32)[members]
