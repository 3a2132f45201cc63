"""The real training step, timed on the hardware at hand with made-up images.

In: an experiment, its spec, a device. Out: seconds of the first step (compilation included) and of
the ones after it. Nothing is read from disk, so it tells what the device can do, not the input.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_pipeline.config import Experiment
from kaggle_pipeline.rundir import versions
from kaggle_pipeline.spec import DatasetSpec

if TYPE_CHECKING:
    from kaggle_pipeline.accelerator import Accelerator


def time_steps(
    config: Experiment, spec: DatasetSpec, device: "Accelerator", steps: int = 10
) -> dict[str, Any]:
    """Train for ``steps`` steps on one made-up batch; return what they took.

    Parameters
    ----------
    config : Experiment
        Its image model is trained from random weights: the arithmetic is the same.
    spec : DatasetSpec
    device : Accelerator
    steps : int
        At least 2; the first is counted apart.

    Returns
    -------
    dict
        ``device``, ``first_step_seconds``, ``step_seconds`` (median of the others),
        ``images_per_second``, ``global_batch``, ``versions``.
    """
    import keras

    from kaggle_pipeline.image.network import build_network
    from kaggle_pipeline.image.training import compile_network, synchronise_batch_norm

    image = config.image
    batch = image.batch_size * device.replicas
    with device.scope(mixed_precision=image.mixed_precision):
        network = build_network(image, spec, load_published=False)
        if device.backend == "tensorflow" and device.replicas > 1:
            synchronise_batch_norm(network)
        compile_network(network, image, spec, steps, device.jit_compile)
    moments = []
    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: moments.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: moments.append(time.perf_counter()),
    )
    with device.scope(mixed_precision=image.mixed_precision, building=False):
        # An epoch a step: only between epochs is it sure that the device has finished.
        network.fit(
            *_made_up_batch(batch, image.image_size_px, spec),
            batch_size=batch,
            epochs=steps,
            shuffle=False,
            verbose=0,
            callbacks=[watch],
        )
    first, *others = np.diff(moments)
    later = float(np.median(others))
    return {
        "device": device.reason,
        "global_batch": batch,
        "first_step_seconds": round(float(first), 2),
        "step_seconds": round(later, 4),
        "images_per_second": round(batch / later, 1),
        "versions": versions(),
    }


def _made_up_batch(count: int, side: int, spec: DatasetSpec) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    members = rng.integers(0, len(spec.classes), count)
    return images, np.eye(len(spec.classes), dtype=np.float32)[members]
