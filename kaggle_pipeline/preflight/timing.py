"""The real training step, timed on the hardware at hand with made-up images.

In: an experiment, its spec, a device. Out: seconds of the first step (compilation included) and of
the ones after it. Nothing is read from disk, so it tells what the device can do, not the input.
"""

import time
from typing import TYPE_CHECKING, Any

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.data.spec import DatasetSpec

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator

_BATCHES = 2
"""Different ones, which take turns."""


class StepTimer:
    """A network ready to train on made-up photos that come from the host with every step.

    Parameters
    ----------
    image : ImageConfig
        Trained from random weights: the arithmetic is the same. Of several folds' sizes the
        largest is taken.
    spec : DatasetSpec
    device : Accelerator
    steps_per_epoch : int
        Of the schedule.

    Attributes
    ----------
    batch : int
        Photos a step, on all replicas together.
    network : keras.Model
    """

    def __init__(
        self, image: ImageConfig, spec: DatasetSpec, device: "Accelerator", steps_per_epoch: int
    ) -> None:
        from kaggle_pipeline.models.image.fit.training import compiled_network
        from kaggle_pipeline.models.image.input.batch_spec import batch_spec

        image = image.largest()
        self._mixed, self._device = image.mixed_precision, device
        self.batch = image.batch_size * device.replicas
        with device.scope(mixed_precision=self._mixed):
            self.network = compiled_network(
                image, spec, steps_per_epoch, device, load_published=False
            )
            # As before a real fit: made by the first step, its variables would trace it twice.
            self.network.optimizer.build(self.network.trainable_variables)
        parts = batch_spec(image, spec)
        self.batches = [parts.made_up(self.batch, seed) for seed in range(_BATCHES)]

    def seconds(self, steps: int) -> float:
        """Train so many steps; return how long they took, the device's last one included."""
        from kaggle_pipeline.models.image.input.pipeline import repeated

        stream = repeated(self.batches)
        started = time.perf_counter()
        with self._device.scope(mixed_precision=self._mixed, building=False):
            self.network.fit(stream, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - started


def time_steps(
    config: Experiment, spec: DatasetSpec, device: "Accelerator", steps: int = 10
) -> dict[str, Any]:
    """Train on made-up batches over and over; return what the steps took.

    Parameters
    ----------
    config : Experiment
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
    timer = StepTimer(config.image, spec, device, steps)
    first = timer.seconds(1)
    later = timer.seconds(steps) / steps
    return {
        "device": device.describe(mixed_precision=config.image.mixed_precision),
        "global_batch": timer.batch,
        "first_step_seconds": round(first, 2),
        "step_seconds": round(later, 4),
        "images_per_second": round(timer.batch / later, 1),
        "versions": versions(),
    }
