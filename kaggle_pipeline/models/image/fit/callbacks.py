"""Callbacks: validation AUC after each epoch, and the time of the first step."""

import time
from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pandas as pd
from keras import ops

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.image.fit.weight_averaging import averaged_weights
from kaggle_pipeline.models.image.label_mapping import (
    class_probabilities,
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
        losses = self.model.loss.call(ops.convert_to_tensor(self._targets), answers)
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
    """

    def __init__(self, started: float, say: Callable[[str], None]) -> None:
        super().__init__()
        self._started = started
        self._say = say
        self._said = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Say it after the first batch of all."""
        if not self._said:
            self._said = True
            seconds = time.monotonic() - self._started
            self._say(f"first training step after {seconds:.0f} s")
