"""Backbones by name: all of keras.applications, each with its own preprocessing, and our own.

In: a name. Out: a :class:`Backbone` that builds the feature extractor and scales its input.
A new backbone is one function and one line in ``_own_backbones``.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from kaggle_pipeline.errors import PipelineError, nearest


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes
    ----------
    build : callable
        ``build(input_shape=..., weights=..., **options) -> keras.Model`` from images to a feature
        map (batch, h, w, channels).
    preprocess : callable
        From pixels in [0, 255] (float32) to what the published weights were trained on.
    """

    build: Callable[..., keras.Model]
    preprocess: Callable[[Any], Any]


def get_backbone(name: str) -> Backbone:
    """Return the backbone called ``name``.

    Raises
    ------
    PipelineError
        If there is none; the message names the nearest.
    """
    known = list_backbones()
    if name not in known:
        raise PipelineError(f"unknown image.backbone {name!r}{nearest(name, list(known))}")
    return known[name]


def list_backbones() -> Mapping[str, Backbone]:
    """Return every backbone there is, by name."""
    return _keras_applications() | _own_backbones()


def _keras_applications() -> dict[str, Backbone]:
    """Find the published architectures and the ``preprocess_input`` of the module each lives in.

    Taking the module's own function keeps a backbone from ever being fed another one's range.
    """
    found = {}
    for name, build in vars(keras.applications).items():
        if inspect.isfunction(build) and "include_top" in inspect.signature(build).parameters:
            preprocess = sys.modules[build.__module__].preprocess_input
            found[name] = Backbone(_without_top(build), preprocess)
    return found


def _without_top(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    def build_features(**options: Any) -> keras.Model:
        return build(include_top=False, **options)

    return build_features


def _own_backbones() -> dict[str, Backbone]:
    return {"LeNet": Backbone(lenet, scale_to_unit)}


def scale_to_unit(pixels: Any) -> Any:
    """Return pixels in [0, 255] as [-1, 1]."""
    return pixels / 127.5 - 1.0


def lenet(
    input_shape: tuple[int, int, int], weights: None = None, filters: int = 32
) -> keras.Model:
    """Return three convolutions with batch normalisation and max-pooling each.

    The small network of the public HAM10000 notebooks, named after LeCun et al. 1998
    (doi:10.1109/5.726791); for small images and for a quick look.

    Parameters
    ----------
    input_shape : tuple
        (side, side, 3) in px.
    weights : None
        There are no published ones.
    filters : int
        Of the first convolution; doubled by each further one.
    """
    if weights is not None:
        raise PipelineError("image.weights: LeNet has no published weights; say null or a file")
    inputs = x = keras.Input(input_shape)
    for stage in range(3):
        x = layers.Conv2D(filters * 2**stage, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(name=f"stage{stage}_pool")(x)  # where backbone_layer may cut
    return keras.Model(inputs, x, name="lenet")
