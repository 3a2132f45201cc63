"""What a fit is given: rows with weights and repeats, loss, metrics, optimizer.

In: examples and an :class:`ImageConfig`. Out: :class:`TrainingRows`, a compiled network.
"""

from typing import Any

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.balance import oversampling_repeats, resampling_repeats, row_weights
from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.image.input import TrainingRows
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
    return TrainingRows(examples.index.to_numpy(), targets, weights, repeats)


def plain_rows(examples: pd.DataFrame, spec: DatasetSpec) -> TrainingRows:
    """Return rows to be shown once each, all of one weight, as for validation."""
    targets = examples[list(spec.classes)].to_numpy(np.float32)
    ones = np.ones(len(targets))
    return TrainingRows(
        examples.index.to_numpy(), targets, ones.astype(np.float32), ones.astype(np.int64)
    )


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


def adapt_batch_norm(network: keras.Model, batches: Any, steps: int) -> None:
    """Set the statistics of all batch normalisation by training images; no weight changes.

    AdaBN (Li et al. 2016, arXiv:1603.04779). Done as a fit with a learning rate of 0, so that it
    runs wherever a fit does; ``network`` is compiled for that and must be compiled anew.

    Parameters
    ----------
    network : keras.Model
    batches : tf.data.Dataset
        (images, targets, weights) as for ``fit``.
    steps : int
        Batches to average over; with momentum 0.9 the last twenty or so count.
    """
    parts = [part for part in network.get_layer("body").layers if isinstance(part, keras.Model)]
    norms = [
        layer
        for part in parts
        for layer in part.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [(norm.trainable, norm.momentum) for norm in norms]
    for norm in norms:
        norm.trainable, norm.momentum = True, 0.9
    network.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse", jit_compile=False)
    network.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    for norm, (trainable, momentum) in zip(norms, before, strict=True):
        norm.trainable, norm.momentum = trainable, momentum


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
