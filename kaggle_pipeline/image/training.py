"""What a fit is given: rows with weights and repeats, loss, metrics, optimizer.

In: examples and an :class:`ImageConfig`. Out: :class:`TrainingRows`, a compiled network.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from kaggle_pipeline.balance import oversampling_repeats, resampling_repeats, row_weights
from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.image.answer import Device
from kaggle_pipeline.image.input import TrainingRows
from kaggle_pipeline.image.network import build_network
from kaggle_pipeline.metrics import roc_auc
from kaggle_pipeline.spec import DatasetSpec


def training_rows(
    examples: pd.DataFrame, config: ImageConfig, spec: DatasetSpec, seed: int
) -> TrainingRows:
    """Return targets, weights and repeats of training examples, as the config balances them."""
    targets = examples[list(spec.classes)].to_numpy(np.float32)
    if config.images_per_class is not None:
        repeats = resampling_repeats(targets, config.images_per_class, seed)
    else:
        repeats = oversampling_repeats(targets, config.oversample, seed)
    weights = np.ones(len(targets), np.float32)
    if config.class_weights:
        weights = row_weights(targets, repeats, config.class_weight_power)
    if "row_weight" in examples:  # rows of other collections
        weights = weights * examples["row_weight"].fillna(1.0).to_numpy(np.float32)
    return TrainingRows(examples.index.to_numpy(), targets, weights, repeats)


def compile_network(
    network: keras.Model,
    config: ImageConfig,
    spec: DatasetSpec,
    steps_per_epoch: int,
    jit_compile: bool | str,
) -> keras.Model:
    """Compile with the loss and metrics of the spec's task and the config's optimizer.

    Loss is the cross-entropy of a softmax for ``multiclass`` and of sigmoids otherwise; metrics
    are the AUC (mean over the classes) and, for ``multiclass``, the accuracy.
    """
    is_softmax = spec.task == "multiclass"
    kind = keras.losses.CategoricalCrossentropy if is_softmax else keras.losses.BinaryCrossentropy
    several = len(spec.classes) > 1
    auc = keras.metrics.AUC(
        name="auc", num_thresholds=1000, multi_label=several,
        num_labels=len(spec.classes) if several else None,
    )  # fmt: skip
    accuracy = [keras.metrics.CategoricalAccuracy(name="accuracy")] if is_softmax else []
    network.compile(
        optimizer=make_optimizer(config, steps_per_epoch),
        loss=kind(label_smoothing=config.label_smoothing),
        metrics=[auc, *accuracy],
        jit_compile=jit_compile,
    )
    return network


def compiled_network(
    config: ImageConfig,
    spec: DatasetSpec,
    steps_per_epoch: int,
    device: Device,
    *,
    load_published: bool = True,
) -> keras.Model:
    """Return a new network, ready to fit on ``device``, whose scope has to be entered."""
    network = build_network(config, spec, load_published=load_published)
    if device.backend == "tensorflow" and device.replicas > 1:
        synchronise_batch_norm(network)
    return compile_network(network, config, spec, steps_per_epoch, device.jit_compile)


def synchronise_batch_norm(network: keras.Model) -> None:
    """Let batch normalisation see the global batch on TensorFlow replicas too, as it does on JAX.

    Without this each replica normalises by its own images, and 8 of them learn something else than
    one would from the same batch.
    """
    for part in network.get_layer("body").layers:
        for layer in getattr(part, "layers", []):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


class Watcher(keras.callbacks.Callback):
    """Judges watched rows after every epoch, by the answers that ``predict`` would give.

    Keras' own validation has a last batch that no number of replicas divides, and an AUC in steps.

    Parameters
    ----------
    answer : callable
        Returns the network's probabilities (n, classes) for the watched rows.
    targets : array of shape (n, classes)
    """

    def __init__(self, answer: Callable[[], np.ndarray], targets: np.ndarray) -> None:
        super().__init__()
        self._answer = answer
        self._targets = targets

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add ``val_loss``, ``val_auc`` and for a softmax ``val_accuracy`` to the epoch's logs."""
        answers = self._answer()
        # Of each row: their mean under a strategy would be divided by the replicas once more.
        losses = self.model.loss.call(ops.convert_to_tensor(self._targets), answers)
        logs["val_loss"] = float(ops.convert_to_numpy(losses).mean())
        logs["val_auc"] = roc_auc(self._targets, answers)
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


def make_optimizer(config: ImageConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with warm-up, then decay.

    The rate rises linearly over ``warmup_epochs`` and falls to 0 along a cosine, or stays.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = config.epochs * steps_per_epoch
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            config.learning_rate if not warmup else 0.0,
            decay_steps=max(1, total - warmup),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    elif warmup:
        rate = keras.optimizers.schedules.PolynomialDecay(
            config.learning_rate / warmup, warmup, config.learning_rate
        )
    return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
