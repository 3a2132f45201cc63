"""What a fit is given: rows with weights and repeats, and a compiled network.

In: examples and an :class:`ImageConfig`. Out: :class:`TrainingRows`, a compiled network.
"""

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.class_balance import (
    oversampling_repeats,
    resampling_repeats,
    row_weights,
)
from kaggle_pipeline.models.image.fit.losses import make_loss, make_metrics, with_mask
from kaggle_pipeline.models.image.fit.optimizer import make_optimizer
from kaggle_pipeline.models.image.input.augment import augmentation_shapes
from kaggle_pipeline.models.image.input.augment_ops import with_augmentation
from kaggle_pipeline.models.image.input.pipeline import TrainingRows
from kaggle_pipeline.models.image.label_mapping import learned_spec, learned_targets
from kaggle_pipeline.models.image.network import build_network


def training_rows(
    examples: pd.DataFrame,
    config: ImageConfig,
    spec: DatasetSpec,
    seed: int,
    metadata: np.ndarray | None = None,
) -> TrainingRows:
    """Return targets, weights and repeats of training examples, as the config balances them.

    ``spec`` is that of the data set: its classes are balanced, whatever the network learns. Where
    a label is missing the targets have a mask beside them (``losses.with_mask``).
    """
    targets = examples[list(spec.classes)].to_numpy(np.float32)
    if config.images_per_class is not None:
        repeats = resampling_repeats(targets, config.images_per_class, seed)
    else:
        repeats = oversampling_repeats(targets, config.oversample, seed)
    weights = np.ones(len(targets), np.float32)
    if "row_weight" in examples:  # rows of other collections
        weights = examples["row_weight"].fillna(1.0).to_numpy(np.float32)
    if config.class_weights:  # counted as much as they weigh
        weights = weights * row_weights(targets, repeats * weights, config.class_weight_power)
    learned = learned_targets(examples, config, spec)
    return TrainingRows(
        examples.index.to_numpy(), with_mask(learned), weights, repeats, metadata,
        labels_missing=bool(np.isnan(learned).any()),
    )  # fmt: skip


def compile_network(
    network: keras.Model,
    config: ImageConfig,
    spec: DatasetSpec,
    steps_per_epoch: int,
    jit_compile: bool | str,
    *,
    labels_missing: bool = False,
) -> keras.Model:
    """Compile with the loss and metrics of what is learned and the config's optimizer.

    ``spec`` is that of the data set; ``labels_missing`` says that targets come with a mask.
    """
    network.compile(
        optimizer=make_optimizer(config, steps_per_epoch),
        loss=make_loss(config, learned_spec(config, spec).task, labels_missing=labels_missing),
        metrics=make_metrics(config, spec, labels_missing=labels_missing),
        jit_compile=jit_compile,
    )
    return network


def compiled_network(
    config: ImageConfig,
    spec: DatasetSpec,
    steps_per_epoch: int,
    device: Accelerator,
    *,
    load_published: bool = True,
    labels_missing: bool = False,
) -> keras.Model:
    """Return a new network, ready to fit on ``device``, whose scope has to be entered."""
    network = build_network(config, spec, load_published=load_published)
    if device.backend == "tensorflow" and device.replicas > 1:
        synchronise_batch_norm(network)
    return compile_network(
        network, config, spec, steps_per_epoch, device.jit_compile, labels_missing=labels_missing
    )


def augments_on_device(config: ImageConfig, device: Accelerator) -> bool:
    """Return whether the training step, not the input pipeline, augments the images."""
    wish = config.augment.where
    wanted = wish == "device" or (wish == "auto" and device.kind == "gpu")
    possible = not config.frozen and config.needs_host is None
    return wanted and possible and bool(augmentation_shapes(config.augment))


def trained_model(
    network: keras.Model,
    config: ImageConfig,
    spec: DatasetSpec,
    steps: int,
    device: Accelerator,
    *,
    labels_missing: bool = False,
) -> keras.Model:
    """Return what to fit: the compiled network itself, or one that changes its images first.

    Both have the same weights and the same optimizer, so a state that one wrote the other reads.
    """
    if not augments_on_device(config, device):
        return network
    model = with_augmentation(
        network, config.augment.dropout_size, augmentation_shapes(config.augment)
    )
    compile_network(model, config, spec, steps, device.jit_compile, labels_missing=labels_missing)
    network.compile(optimizer=model.optimizer, loss=model.loss)
    return model


def synchronise_batch_norm(network: keras.Model) -> None:
    """Let batch normalisation see the global batch on TensorFlow replicas too, as it does on JAX.

    Without this each replica normalises by its own images, and 8 of them learn something else than
    one would from the same batch.
    """
    for part in network.get_layer("body").layers:
        for layer in getattr(part, "layers", []):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
