"""Callbacks: validation AUC after each epoch, the time of the first step, how far ahead a fit runs.

Keras on JAX hands a step to the device and goes on at once, unless a callback looks at every
batch's end without saying ``async_safe``: then it waits for the step's numbers, and the device
waits for the host, which fetches the next batch only then.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.image.fit.losses import make_loss
from kaggle_pipeline.models.image.fit.weight_averaging import averaged_weights
from kaggle_pipeline.models.image.label_mapping import (
    class_probabilities,
    learned_spec,
    learned_targets,
)


class ValidationScores(keras.callbacks.Callback):
    """Judges watched rows after every epoch, by the answers that ``predict`` would give.

    Keras' own validation has a last batch that no number of replicas divides, and an AUC in steps.

    Parameters
    ----------
    answer : callable
        Returns the network's probabilities (n, answers) for the watched rows.
    examples : pandas.DataFrame
        The watched rows.
    config : ImageConfig
    spec : DatasetSpec
        Of the data set.
    """

    def __init__(
        self,
        answer: Callable[[], np.ndarray],
        examples: pd.DataFrame,
        config: ImageConfig,
        spec: DatasetSpec,
    ) -> None:
        super().__init__()
        self._answer = answer
        # Not the fit's own: its targets may have a mask, those of watched rows are all known.
        self._loss = make_loss(config, learned_spec(config, spec).task)
        self._targets = learned_targets(examples, config, spec)
        self._truth = examples[list(spec.classes)].to_numpy(np.float32)
        self._to_classes = partial(class_probabilities, config=config, spec=spec)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add ``val_loss``, ``val_auc`` and for a softmax ``val_accuracy`` to the epoch's logs.

        The loss is that of the question which is learned, the AUC that of the classes.
        """
        with averaged_weights(self.model):
            answers = self._answer()
        # Of each row: their mean under a strategy would be divided by the replicas once more.
        losses = self._loss.call(ops.convert_to_tensor(self._targets), answers)
        logs["val_loss"] = float(ops.convert_to_numpy(losses).mean())
        logs["val_auc"] = roc_auc(self._truth, self._to_classes(answers))
        if "accuracy" in logs:
            hits = answers.argmax(axis=1) == self._targets.argmax(axis=1)
            logs["val_accuracy"] = float(hits.mean())


class FirstStep(keras.callbacks.Callback):
    """Says once, however many fits it is given to, how long it took until a step was made.

    That is what a session loses to conversion, building and compiling.

    Parameters
    ----------
    started : float
        ``time.monotonic()`` of the beginning.
    say : callable
        Takes a line.
    explain : callable, optional
        Returns what the time went to.
    """

    async_safe = True

    def __init__(
        self,
        started: float,
        say: Callable[[str], None],
        explain: Callable[[], str] | None = None,
    ) -> None:
        super().__init__()
        self._started = started
        self._say = say
        self._explain = explain
        self._said = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say it after the first batch of all."""
        if batch or self._said:
            return
        self._said = True
        seconds = time.monotonic() - self._started
        why = f" ({self._explain()})" if self._explain else ""
        self._say(f"first training step after {seconds:.0f} s{why}")


class StepsAhead(keras.callbacks.Callback):
    """Lets the host be a few steps ahead of the device, and no more.

    Far enough that the device never waits for the next batch; not so far that all the batches that
    wait for it fill its memory. It has to be the first of the callbacks: a later one may fail, and
    then nobody waits.

    Parameters
    ----------
    steps : int
    """

    async_safe = True

    def __init__(self, steps: int = 3) -> None:
        super().__init__()
        self._free = threading.Semaphore(steps)
        self._steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begin with nothing under way: a stopped epoch may have left something."""
        self._free = threading.Semaphore(self._steps)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Wait until the device has done all but so many steps."""
        self._free.acquire()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count a step as done; Keras calls this with its numbers, so the device has done it."""
        self._free.release()


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' own, of which an epoch's numbers are all that is wanted: no step waits for it."""

    async_safe = True

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), write_graph=False, update_freq="epoch", profile_batch=0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Do nothing: Keras would write each batch's numbers to a writer that is not there."""


@dataclass
class EpochTimes:
    """When an epoch began, when its last step was made, when it ended; how many steps it had."""

    began: Any
    trained: Any = None
    ended: Any = None
    steps: int = 0


class StepClock(keras.callbacks.Callback):
    """Takes the time of each epoch; the last of the callbacks, so that it ends after all others.

    Parameters
    ----------
    now : callable
        Returns the time, whatever that is.

    Attributes
    ----------
    epochs : list of EpochTimes
        Of all fits that it is given to.
    """

    async_safe = True

    def __init__(self, now: Callable[[], Any]) -> None:
        super().__init__()
        self._now = now
        self.epochs: list[EpochTimes] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note when."""
        self.epochs.append(EpochTimes(self._now()))

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Note when; Keras calls this with a step's numbers, so the device has made it."""
        self.epochs[-1].trained = self._now()
        self.epochs[-1].steps += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note when."""
        self.epochs[-1].ended = self._now()
