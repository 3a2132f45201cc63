"""The network: uint8 image → backbone → pooling → dropout → probabilities. Keras 3, any backend.

In: an :class:`ImageConfig` and a spec. Out: a ``keras.Model``; and the same model averaged over
views for prediction.
"""

from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.image.backbones import get_backbone
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
    backbone = get_backbone(config.backbone)
    shape = (config.image_size_px, config.image_size_px, 3)
    pixels = keras.Input(shape, dtype="uint8", name="image")
    body = _load_backbone(config, shape, load_published)
    body.trainable = not config.frozen
    # Scaled in float32 whatever the policy: bfloat16 would round away small contrasts.
    scaled = backbone.preprocess(ops.cast(pixels, "float32"))
    still = config.frozen or config.frozen_batch_norm
    features = body(scaled, training=False) if still else body(scaled)
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    activation = "softmax" if spec.task == "multiclass" else "sigmoid"
    head = layers.Dense(len(spec.classes), activation=activation, dtype="float32", name="head")
    return keras.Model(pixels, head(x), name="image_model")


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
        load_weights(body, Path(config.weights))
    return body


def load_weights(model: keras.Model, path: Path) -> None:
    """Load a ``.weights.h5`` file of the same architecture into ``model``.

    Raises
    ------
    PipelineError
        If the file is missing or does not fit.
    """
    if not path.exists():
        raise PipelineError(f"image.weights: {path} does not exist")
    try:
        model.load_weights(path)
    # h5py and Keras raise what they like on a file that is not theirs.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"image.weights: {path} does not fit {model.name}: {reason}") from None


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
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    row = keras.Input((), dtype="int32", name="row")
    answers = [network(_view(image, turns, mirror)) for turns, mirror in VIEWS[views]]
    mean = answers[0] if len(answers) == 1 else layers.Average(dtype="float32")(answers)
    outputs = {"probability": mean, "row": ops.add(row, 0)}
    return keras.Model({"image": image, "row": row}, outputs, name="with_views")


def _view(image: Any, turns: int, mirror: bool) -> Any:
    if mirror:
        image = ops.flip(image, axis=2)
    return ops.rot90(image, k=turns, axes=(1, 2)) if turns else image
