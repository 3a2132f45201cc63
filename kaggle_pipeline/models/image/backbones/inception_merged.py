"""InceptionResNetV2 with sibling 1 × 1 convolutions merged: the same function, less memory traffic.

In: an image shape, weights of keras.applications' InceptionResNetV2. Out: a feature extractor that
computes what that one computes.

The network (Szegedy et al. 2017, arXiv:1602.07261) sends a block's input through two or three 1 × 1
convolutions of 32 to 256 channels side by side. A TPU reads the input once for each, and pads 32
channels to its 128 lanes. Here they are one convolution whose output is cut apart; batch
normalisation works on each channel alone, so nothing changes but rounding. By the TPU's compiler a
training step at 1024 px and 16 images, from ``mixed_5b`` on, moves 198 GB in place of 240.
"""

import re
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from kaggle_pipeline.models.image.backbones.weights import load_weights

_SIBLINGS = {"block35": (32, 32, 32), "block17": (192, 128), "block8": (192, 192)}
_BRANCHES = {
    "block35": ((), ((32, 3),), ((48, 3), (64, 3))),
    "block17": ((), ((160, (1, 7)), (192, (7, 1)))),
    "block8": ((), ((224, (1, 3)), (256, (3, 1)))),
}
"""Channels of a block's siblings, and (channels, kernel) of what follows each."""


def build_merged(input_shape: tuple[int, int, int], weights: str | None = None) -> keras.Model:
    """Return the feature extractor, untrained or with keras.applications' ImageNet weights.

    Parameters
    ----------
    input_shape : tuple of int
        (height, width, 3), at least 75 px.
    weights : {"imagenet"} or None

    Returns
    -------
    keras.Model
        float (batch, height, width, 3) in [-1, 1] → (batch, h, w, 1536). Its stages keep their
        names: ``mixed_5b``, ``mixed_6a``, ``mixed_7a``, ``block35_1_mixed`` and so on.
    """
    model = _Builder().build(input_shape)
    if weights is not None:
        merge_weights(_original(input_shape, weights), model)
    return model


def load_original(model: keras.Model, path: Path) -> None:
    """Load weights of keras.applications' network without its top into a merged one.

    Raises
    ------
    PipelineError
        If the file is missing or is of another network.
    """
    original = _original(model.input_shape[1:], None)
    load_weights(original, path)
    merge_weights(original, model)


def merge_weights(original: keras.Model, merged: keras.Model) -> None:
    """Give a merged network the weights of keras.applications' one."""
    plain = {
        kind: _unnamed(original, name)
        for kind, name in (("conv", "conv2d"), ("norm", "batch_normalization"))
    }
    for layer in merged.layers:
        found = re.fullmatch(r"(conv|norm)((?:_\d+)+)", layer.name)
        if found:
            numbers = [int(number) for number in found[2][1:].split("_")]
            parts = [plain[found[1]][number].get_weights() for number in numbers]
        elif layer.weights:
            parts = [original.get_layer(layer.name).get_weights()]
        else:
            continue
        # Output channels are the last axis of kernels, offsets and statistics alike.
        same = zip(*parts, strict=True)
        layer.set_weights([ops.convert_to_numpy(ops.concatenate(one, -1)) for one in same])


def _original(input_shape: tuple[int, ...], weights: str | None) -> keras.Model:
    return keras.applications.InceptionResNetV2(
        include_top=False, weights=weights, input_shape=input_shape
    )


def _unnamed(model: keras.Model, name: str) -> list[Any]:
    """Layers that Keras numbered itself, in the order of their making."""
    found = {}
    for layer in model.layers:
        match = re.fullmatch(rf"{name}(?:_(\d+))?", layer.name)
        if match:
            found[int(match[1] or 0)] = layer
    return [found[number] for number in sorted(found)]


class _Builder:
    """Numbers convolutions in the order in which keras.applications makes them."""

    def __init__(self) -> None:
        self._made = 0

    def build(self, input_shape: tuple[int, int, int]) -> keras.Model:
        image = keras.Input(input_shape)
        x = self._conv(image, 32, 3, strides=2, padding="valid")
        x = self._conv(x, 32, 3, padding="valid")
        x = layers.MaxPooling2D(3, strides=2)(self._conv(x, 64, 3))
        x = self._conv(x, 80, 1, padding="valid")
        x = layers.MaxPooling2D(3, strides=2)(self._conv(x, 192, 3, padding="valid"))
        branches = self._siblings(x, (96, 48, 64), ((), ((64, 5),), ((96, 3), (96, 3))))
        pooled = self._conv(layers.AveragePooling2D(3, strides=1, padding="same")(x), 64, 1)
        x = layers.Concatenate(name="mixed_5b")([*branches, pooled])
        for number in range(1, 11):
            x = self._block(x, "block35", number, 0.17)
        halved = {"strides": 2, "padding": "valid"}
        first = self._conv(x, 384, 3, **halved)
        second = self._conv(self._conv(self._conv(x, 256, 1), 256, 3), 384, 3, **halved)
        x = layers.Concatenate(name="mixed_6a")(
            [first, second, layers.MaxPooling2D(3, strides=2)(x)]
        )
        for number in range(1, 21):
            x = self._block(x, "block17", number, 0.1)
        ends = (((384, 3),), ((288, 3),), ((288, 3), (320, 3)))
        branches = self._siblings(x, (256, 256, 256), ends, last=halved)
        x = layers.Concatenate(name="mixed_7a")([*branches, layers.MaxPooling2D(3, strides=2)(x)])
        for number in range(1, 11):
            x = self._block(x, "block8", number, 0.2 if number < 10 else 1.0, relu=number < 10)
        x = layers.Conv2D(1536, 1, padding="same", use_bias=False, name="conv_7b")(x)
        x = layers.BatchNormalization(scale=False, name="conv_7b_bn")(x)
        x = layers.Activation("relu", name="conv_7b_ac")(x)
        return keras.Model(image, x, name="inception_resnet_v2_merged")

    def _conv(
        self, x: Any, filters: int, kernel: Any, numbers: list[int] | None = None, **options: Any
    ) -> Any:
        """Convolution, normalisation, rectifier; ``numbers`` are the originals it stands for."""
        if numbers is None:
            numbers = [self._made]
            self._made += 1
        name = "_".join(str(number) for number in numbers)
        options = {"padding": "same", "use_bias": False, **options}
        x = layers.Conv2D(filters, kernel, name=f"conv_{name}", **options)(x)
        x = layers.BatchNormalization(scale=False, name=f"norm_{name}")(x)
        return layers.Activation("relu")(x)

    def _siblings(
        self, x: Any, channels: tuple[int, ...], after: tuple, last: dict | None = None
    ) -> list[Any]:
        """One convolution for the first of each branch, then each branch's others."""
        numbers, next_number = [], self._made
        for branch in after:
            numbers.append(next_number)
            next_number += 1 + len(branch)
        merged = self._conv(x, sum(channels), 1, numbers)
        ends, start = [], 0
        for number, width, branch in zip(numbers, channels, after, strict=True):
            part = merged[..., start : start + width]
            start += width
            self._made = number + 1
            for place, (filters, kernel) in enumerate(branch, start=1):
                options = (last or {}) if place == len(branch) else {}
                part = self._conv(part, filters, kernel, **options)
            ends.append(part)
        return ends

    def _block(self, x: Any, kind: str, number: int, scale: float, *, relu: bool = True) -> Any:
        branches = self._siblings(x, _SIBLINGS[kind], _BRANCHES[kind])
        mixed = layers.Concatenate(name=f"{kind}_{number}_mixed")(branches)
        up = layers.Conv2D(x.shape[-1], 1, padding="same", name=f"{kind}_{number}_conv")(mixed)
        x = x + up * scale
        return layers.Activation("relu", name=f"{kind}_{number}_ac")(x) if relu else x
