"""A trained image model on disk: weights without the optimizer, and settings as JSON.

In: a network and settings, or a folder. Out: a folder, or settings that fit and weights loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, read_json, write_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.weights_file import save_weights

WEIGHTS = "model.weights.h5"
_ARCHITECTURE = (
    "backbone",
    "backbone_options",
    "backbone_layer",
    "pool_share",
    "image_size_px",
    "frozen",
    "target",
    "metadata",
)
"""Settings that weights depend on."""


def write_model(
    folder: Path,
    network: keras.Model,
    config: ImageConfig,
    spec: DatasetSpec,
    seed: int,
    encoder: Mapping[str, Any] | None,
) -> None:
    """Write weights, then settings: where these are, the model is whole.

    Parameters
    ----------
    folder : pathlib.Path
    network : keras.Model
    config : ImageConfig
    spec : DatasetSpec
        Of the data set.
    seed : int
    encoder : mapping or None
        The fitted encoder of the metadata as plain JSON types.
    """
    # A fresh wrapper has no optimizer, whose state would triple the file.
    bare = keras.Model(network.inputs, network.outputs)
    save_weights(bare, Path(folder) / WEIGHTS)
    settings = {
        "image": to_mapping(config),
        "dataset": spec.id,
        "classes": list(spec.classes),
        "seed": seed,
        "pretrained": config.weights is not None,
        "encoder": encoder,
    }
    write_json(Path(folder) / SAVED, settings)


def read_settings(folder: Path, config: ImageConfig, spec: DatasetSpec) -> dict[str, Any]:
    """Return what :func:`write_model` wrote beside the weights.

    ``pretrained`` says whether the network has the layers that published weights need.

    Raises
    ------
    PipelineError
        If the file is missing or was written for other classes or another network.
    """
    settings = read_json(Path(folder) / SAVED)
    if settings["classes"] != list(spec.classes):
        theirs, ours = (", ".join(one) for one in (settings["classes"], spec.classes))
        raise PipelineError(f"{folder} was trained for {theirs}, not {ours}")
    defaults = to_mapping(ImageConfig())
    for key in _ARCHITECTURE:
        theirs = settings["image"].get(key, defaults[key])
        ours = to_mapping(config)[key]
        if theirs != ours:
            raise PipelineError(f"{folder} was trained with image.{key} = {theirs}, not {ours}")
    # Before this was written, only Keras' download made those layers; a file did not.
    downloaded = settings["image"].get("weights", defaults["weights"]) == "imagenet"
    settings.setdefault("pretrained", downloaded)
    return settings
