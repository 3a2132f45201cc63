"""The network: uint8 image → body (backbone, pooling) → head → probabilities. Keras 3, any backend.

In: an :class:`ImageConfig` and the data set's spec. Out: a ``keras.Model``.
"""

from pathlib import Path

import keras
from keras import layers, ops

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.image.backbones.registry import get_backbone, unchanged
from kaggle_pipeline.models.image.backbones.timm_hub import SCHEME, fetch_timm
from kaggle_pipeline.models.image.backbones.torch_weights import (
    PACKAGES,
    check_library,
)
from kaggle_pipeline.models.image.label_mapping import learned_spec
from kaggle_pipeline.models.image.metadata_branch import metadata_branch


def build_network(
    config: ImageConfig, spec: DatasetSpec, *, load_published: bool = True
) -> keras.Model:
    """Return an untrained network with (unless told not to) its published backbone weights.

    Its layers depend on whether ``config.weights`` is null, not on whether they are loaded, nor on
    where from.

    Parameters
    ----------
    config : ImageConfig
        Backbone, weights, size, dropout, freezing.
    spec : DatasetSpec
        Of the data set: number of classes or diagnoses; softmax for ``multiclass``, else sigmoid;
        the metadata's width.
    load_published : bool
        False when weights of a trained run will be loaded over them.

    Returns
    -------
    keras.Model
        uint8 (batch, side, side, 3) in [0, 255] → float32 (batch, classes); with
        ``config.metadata`` of ``{"image": …, "metadata": float32 (batch, width)}``.

    Raises
    ------
    PipelineError
        If the backbone or its weights cannot be had.
    """
    shape = (config.image_size_px, config.image_size_px, 3)
    inputs = pixels = keras.Input(shape, dtype="uint8", name="image")
    x = build_body(config, load_published=load_published)(pixels)
    if config.metadata:
        branch = metadata_branch(spec)
        numbers = keras.Input(branch.input_shape[1:], name="metadata")
        inputs = {"image": pixels, "metadata": numbers}
        x = layers.Concatenate(name="fusion")([x, branch(numbers)])
    return keras.Model(inputs, build_head(config, spec, x.shape[-1])(x), name="image_model")


def check_backbone(config: ImageConfig) -> None:
    """Raise a PipelineError if the backbone, a layer's name or the weights are wrong.

    Published weights are downloaded, as the first fold would do, and a file's are read.
    """
    _check_weights(config)
    published = config.weights == "imagenet"
    if config.weights is not None and not published:
        with keras.device("cpu:0"):  # only loading shows that a file is of this network
            build_body(config, load_published=True)
    elif published or config.train_from or config.backbone_layer:
        # Only the network itself knows its layers; what is drawn here would take a device's memory.
        with keras.StatelessScope(initialize_variables=False):
            build_body(config, load_published=published)


def _check_weights(config: ImageConfig) -> None:
    backbone = get_backbone(config.backbone)
    published = backbone.published_torch
    if config.weights is None:
        return
    if config.weights == "imagenet":
        if published is not None:
            check_library(Path(published))
        return
    path = Path(config.weights)
    fetched = config.weights.startswith(SCHEME)
    if not fetched and not path.exists():
        raise PipelineError(f"image.weights: {path} does not exist")
    if fetched or path.suffix in PACKAGES:
        if backbone.load_torch is None:
            what = f"{path} is a PyTorch file, which {config.backbone} cannot take"
            raise PipelineError(
                f"image.weights: {what}; choose resnet18, EfficientNetB0 or their like, or a .h5"
            )
        check_library(Path("model.safetensors") if fetched else path)


def weights_file(config: ImageConfig) -> Path | None:
    """Return the file that ``image.weights`` names, fetched where it is timm's; else None.

    Raises
    ------
    PipelineError
        If it cannot be fetched.
    """
    if config.weights in (None, "imagenet"):
        return None
    if config.weights.startswith(SCHEME):
        return fetch_timm(config.weights)
    return Path(config.weights)


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


def unlike_before(config: ImageConfig) -> dict[str, str]:
    """Return what fits of earlier versions had otherwise, as settings that others must agree in.

    With weights from a file they left out what a family's published weights need beside them.
    """
    family = get_backbone(config.backbone)
    if config.weights in (None, "imagenet") or family.as_pretrained is unchanged:
        return {}
    return {"scaling of the images": "as published"}


def build_head(config: ImageConfig, spec: DatasetSpec, channels: int) -> keras.Model:
    """Return dropout and the last dense layer: (batch, channels) → probabilities.

    On a frozen backbone the features are standardised first, by statistics of training rows. With
    several ``dropout_samples`` the logits of as many dropout masks are averaged.
    """
    spec = learned_spec(config, spec)
    features = x = keras.Input((channels,), name="features")
    if config.frozen:
        x = layers.Normalization(name="standardise", dtype="float32")(x)
    activation = "softmax" if spec.task == "multiclass" else "sigmoid"
    count = config.dropout_samples
    last = layers.Dense(
        len(spec.classes),
        activation=activation if count == 1 else None,
        kernel_regularizer=keras.regularizers.L2(config.head_l2) if config.head_l2 else None,
        dtype="float32",
        name="probability" if count == 1 else "logit",
    )
    if count == 1:
        return keras.Model(features, last(layers.Dropout(config.dropout, name="dropout")(x)),
                           name="head")  # fmt: skip
    masked = [layers.Dropout(config.dropout, name=f"dropout_{i}")(x) for i in range(count)]
    logits = layers.Average(dtype="float32", name="mean")([last(one) for one in masked])
    outputs = layers.Activation(activation, dtype="float32", name="probability")(logits)
    return keras.Model(features, outputs, name="head")


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
    options = config.backbone_options
    try:
        if published or config.weights is None:
            body = backbone.build(input_shape=shape, weights=published, **options)
        else:
            body = backbone.build_pretrained(shape, **options)
    except PipelineError:
        raise
    # Keras reports a bad option, a failed download and a damaged cache in many ways.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        what = f"image.backbone {config.backbone} with weights {published!r}"
        hint = (
            "; without internet name a file of weights: image.weights, of an encoder its weights, "
            "of plan --weights FILE; or train a small network from nothing, as "
            "configs/my_photos_offline.yaml does (plan --weights null)"
            if published
            else ""
        )
        raise PipelineError(f"{what} cannot be built: {reason}{hint}") from None
    if load_published and config.weights not in (None, "imagenet"):
        _check_weights(config)
        path = weights_file(config)
        load = backbone.load_torch if path.suffix in PACKAGES else backbone.load_h5
        load(body, path)
    return body
