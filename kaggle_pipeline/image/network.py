"""The network: uint8 image → body (backbone, pooling) → head → probabilities. Keras 3, any backend.

In: an :class:`ImageConfig` and a spec. Out: a ``keras.Model``; and the same model averaged over
views for prediction.
"""

from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.errors import PipelineError, nearest
from kaggle_pipeline.image.backbones import get_backbone
from kaggle_pipeline.image.torchweights import PACKAGES, check_library, load_torch_weights
from kaggle_pipeline.spec import DatasetSpec

VIEWS = {
    "none": [(0, False)],
    "flips": [(0, False), (0, True), (2, False), (2, True)],
    "dihedral": [(turns, mirror) for mirror in (False, True) for turns in range(4)],
}
"""Quarter turns and whether to mirror, of each view that test-time augmentation averages."""


def build_network(
    config: ImageConfig, spec: DatasetSpec, *, load_published: bool = True
) -> keras.Model:
    """Return an untrained network with (unless told not to) its published backbone weights.

    Parameters
    ----------
    config : ImageConfig
        Backbone, weights, size, dropout, freezing.
    spec : DatasetSpec
        Number of classes; softmax for ``multiclass``, else sigmoid.
    load_published : bool
        False when weights of a trained run will be loaded over them.

    Returns
    -------
    keras.Model
        uint8 (batch, side, side, 3) in [0, 255] → float32 (batch, classes).

    Raises
    ------
    PipelineError
        If the backbone or its weights cannot be had.
    """
    shape = (config.image_size_px, config.image_size_px, 3)
    pixels = keras.Input(shape, dtype="uint8", name="image")
    x = build_body(config, load_published=load_published)(pixels)
    return keras.Model(pixels, build_head(config, spec, x.shape[-1])(x), name="image_model")


def check_backbone(config: ImageConfig) -> None:
    """Raise a PipelineError if the backbone, a layer's name or the weights are wrong.

    Published weights are downloaded, as the first fold would do.
    """
    _check_weights(config)
    published = config.weights == "imagenet"
    if published or config.train_from or config.backbone_layer:
        # Only the network itself knows its layers; what is drawn here would take a device's memory.
        with keras.StatelessScope(initialize_variables=False):
            build_body(config, load_published=published)


def _check_weights(config: ImageConfig) -> None:
    published = get_backbone(config.backbone).published_torch
    if config.weights is None:
        return
    if config.weights == "imagenet":
        if published is not None:
            check_library(Path(published))
        return
    path = Path(config.weights)
    if not path.exists():
        raise PipelineError(f"image.weights: {path} does not exist")
    if path.suffix in PACKAGES:
        if published is None:
            what = f"{path} is a PyTorch file, which {config.backbone} cannot take"
            raise PipelineError(f"image.weights: {what}; choose resnet18 or its like, or a .h5")
        check_library(path)


def build_body(config: ImageConfig, *, load_published: bool) -> keras.Model:
    """Return scaling, backbone and pooling: uint8 images → float (batch, channels)."""
    backbone = get_backbone(config.backbone)
    shape = (config.image_size_px, config.image_size_px, 3)
    pixels = keras.Input(shape, dtype="uint8", name="image")
    extractor = _cut(_load_backbone(config, shape, load_published), config.backbone_layer)
    extractor.trainable = not config.frozen
    if config.train_from:
        _freeze_before(extractor, config.train_from)
    for layer in extractor.layers:
        if isinstance(layer, layers.BatchNormalization):
            # Not `training=False` in the call: a surrounding Keras 3 model overrides that.
            layer.trainable = layer.trainable and not config.frozen_batch_norm
            layer.momentum = config.batch_norm_momentum or layer.momentum
    # Scaled in float32 whatever the policy: bfloat16 would round away small contrasts.
    scaled = backbone.preprocess(ops.cast(pixels, "float32"))
    x = extractor(scaled)
    if config.pool_share < 1:
        margins = [round(side * (1 - config.pool_share) / 2) for side in x.shape[1:3]]
        x = layers.Cropping2D([(margin, margin) for margin in margins], name="centre")(x)
    return keras.Model(pixels, layers.GlobalAveragePooling2D(name="pool")(x), name="body")


def build_head(config: ImageConfig, spec: DatasetSpec, channels: int) -> keras.Model:
    """Return dropout and the last dense layer: (batch, channels) → probabilities.

    On a frozen backbone the features are standardised first, by statistics of training rows.
    """
    features = x = keras.Input((channels,), name="features")
    if config.frozen:
        x = layers.Normalization(name="standardise", dtype="float32")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    outputs = layers.Dense(
        len(spec.classes),
        activation="softmax" if spec.task == "multiclass" else "sigmoid",
        kernel_regularizer=keras.regularizers.L2(config.head_l2) if config.head_l2 else None,
        dtype="float32",
        name="probability",
    )
    return keras.Model(features, outputs(x), name="head")


def _freeze_before(extractor: keras.Model, layer: str) -> None:
    """Freeze all layers before ``layer``; a frozen batch normalisation keeps its statistics too."""
    names = [known.name for known in extractor.layers]
    if layer not in names:
        raise PipelineError(f"image.train_from {layer!r} is not in it{nearest(layer, names)}")
    for early in extractor.layers[: names.index(layer)]:
        early.trainable = False


def _cut(extractor: keras.Model, layer: str | None) -> keras.Model:
    if layer is None:
        return extractor
    names = [known.name for known in extractor.layers]
    if layer not in names:
        raise PipelineError(f"image.backbone_layer {layer!r} is not in it{nearest(layer, names)}")
    return keras.Model(extractor.inputs, extractor.get_layer(layer).output, name=extractor.name)


def _load_backbone(
    config: ImageConfig, shape: tuple[int, int, int], load_published: bool
) -> keras.Model:
    backbone = get_backbone(config.backbone)
    published = "imagenet" if load_published and config.weights == "imagenet" else None
    try:
        body = backbone.build(input_shape=shape, weights=published, **config.backbone_options)
    except PipelineError:
        raise
    # Keras reports a bad option, a failed download and a damaged cache in many ways.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        what = f"image.backbone {config.backbone} with weights {published!r}"
        hint = "; with no internet name a file in image.weights, or say null" if published else ""
        raise PipelineError(f"{what} cannot be built: {reason}{hint}") from None
    if load_published and config.weights not in (None, "imagenet"):
        _check_weights(config)
        path = Path(config.weights)
        load = load_torch_weights if path.suffix in PACKAGES else backbone.load_h5
        load(body, path)
    return body


def with_views(network: keras.Model, views: str) -> keras.Model:
    """Return a model that averages ``network`` over the views of its input, by row number.

    Each image is decoded once and turned on the device.

    Parameters
    ----------
    network : keras.Model
    views : {"none", "flips", "dihedral"}

    Returns
    -------
    keras.Model
        ``{"image": (batch, side, side, 3), "row": (batch,)}`` →
        ``{"probability": (batch, classes), "row": (batch,)}``; the row numbers come out beside
        the probabilities so that no order has to be trusted.
    """
    return _over_views(network, VIEWS[views], "probability", lambda x: ops.mean(ops.stack(x), 0))


def stacked_views(body: keras.Model, views: str) -> keras.Model:
    """Return a model like :func:`with_views` that keeps the answers apart.

    Its output ``features`` has shape (batch, views, channels).
    """
    return _over_views(body, VIEWS[views], "features", lambda x: ops.stack(x, 1))


def _over_views(
    network: keras.Model, views: list[tuple[int, bool]], key: str, combine: Any
) -> keras.Model:
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    row = keras.Input((), dtype="int32", name="row")
    answers = [network(turn(image, turns, mirror)) for turns, mirror in views]
    outputs = {key: combine(answers), "row": ops.add(row, 0)}
    return keras.Model({"image": image, "row": row}, outputs)


def turn(image: Any, turns: int, mirror: bool) -> Any:
    """Return images (batch, side, side, channels) mirrored if so said, then turned by quarters."""
    if mirror:
        image = ops.flip(image, axis=2)
    return ops.rot90(image, k=turns, axes=(1, 2)) if turns else image
