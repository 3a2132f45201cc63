"""One fit of the image model whose epochs come by turns from records and from memory.

In: settings, a device, examples and records. Out: a :class:`StepClock` that knows when each step
ended.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks.turns import Turns
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image import model as image_model
from kaggle_pipeline.models.image.fit.callbacks import FirstStep
from kaggle_pipeline.models.image.input.pipeline import repeated


class StepClock(keras.callbacks.Callback):
    """Notes when the device has done each step; even epochs are the step's, odd ones the loop's.

    Keras gives a step's numbers to a callback once it is done, in threads of its own where the
    backend runs ahead.

    Parameters
    ----------
    turns : Turns
        Entered after the first epoch, which compiles.
    """

    KINDS = ("loop", "step")
    async_safe = True

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._ends: dict[int, dict[int, float]] = {}
        self._epoch = 0
        self._alone = turns.alone()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Wait until nobody else compiles on the device."""
        if epoch == 1:
            self._alone.__enter__()
        self._epoch = epoch
        self._ends[epoch] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self._ends[self._epoch][batch] = time.perf_counter()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let others go on."""
        self._alone.__exit__(None, None, None)

    def seconds(self, kind: str) -> list[float]:
        """Return the mean seconds of a step in every epoch of a kind, without its first quarter."""
        found = []
        for epoch, ends in self._ends.items():
            if epoch and self.KINDS[epoch % 2 == 0] == kind:
                last, first = max(ends), max(ends) // 4
                found.append((ends[last] - ends[first]) / (last - first))
        return found


def fit_alternating(
    image: ImageConfig,
    device: Accelerator,
    examples: pd.DataFrame,
    shards: list[Path],
    folder: Path,
    turns: Turns,
    keep: Callable[..., None],
) -> tuple[StepClock, tf.data.Dataset]:
    """Fit; return the clock, and the stream of the records' batches.

    ``keep`` is given the line and the figure of the first step.
    """
    started = time.monotonic()
    streams: list[tf.data.Dataset] = []
    batches_of = image_model.training_batches

    def alternating(*arguments: Any, **options: Any) -> tf.data.Dataset:
        records = batches_of(*arguments, **options)
        streams.append(records)
        taken = list(records.take(2).as_numpy_iterator())
        steps = options["steps_per_epoch"]
        whose = np.arange(image.epochs * steps, dtype=np.int64) // steps % 2
        choice = tf.data.Dataset.from_tensor_slices(whose)
        return tf.data.Dataset.choose_from_datasets([repeated(taken), records], choice)

    def first(line: str) -> None:
        keep(line, first_seconds=round(time.monotonic() - started, 1))

    explain = None
    if device.backend == "jax":
        from kaggle_pipeline.hardware.compile_log import compile_log

        explain = compile_log().describe
    clock = StepClock(turns)
    folder.mkdir(parents=True)
    model = image_model.ImageModel(
        image, get_spec("siim_isic_2020"), lambda ids: shards, device, folder, seed=1,
        callbacks=[clock, FirstStep(started, first, explain)], verbose=2,
    )  # fmt: skip
    with mock.patch.object(image_model, "training_batches", alternating):
        model.fit(examples, None)
    return clock, streams[0]
