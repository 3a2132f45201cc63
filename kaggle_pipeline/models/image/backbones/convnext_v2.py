"""ConvNeXt V2, with timm's names: Woo et al. 2023, "ConvNeXt V2: Co-designing and Scaling ConvNets
with Masked Autoencoders" (arXiv:2301.00808).

In: the shape of an image. Out: a Keras model of feature maps, a 32nd of the image's side; and where
timm's weights go in it. keras.applications has the first version alone, without the response
normalisation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.image.backbones.torch_weights import Place, load_torch_weights

_EPSILON = 1e-6


@dataclass(frozen=True)
class ConvNeXtV2:
    """A size of the network.

    Attributes
    ----------
    depths : tuple of int
        Blocks of each stage.
    widths : tuple of int
        Channels of each stage.
    parameters : int
        Published, with the top for ImageNet's 1000 classes.
    as_convolutions : bool
        Whether timm keeps a block's dense layers as convolutions of 1 x 1.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    parameters: int
    as_convolutions: bool = False


CONVNEXTS = {
    "convnextv2_atto": ConvNeXtV2((2, 2, 6, 2), (40, 80, 160, 320), 3_708_400, True),
    "convnextv2_femto": ConvNeXtV2((2, 2, 6, 2), (48, 96, 192, 384), 5_233_240, True),
    "convnextv2_pico": ConvNeXtV2((2, 2, 6, 2), (64, 128, 256, 512), 9_066_280, True),
    "convnextv2_nano": ConvNeXtV2((2, 2, 8, 2), (80, 160, 320, 640), 15_623_800, True),
    "convnextv2_tiny": ConvNeXtV2((3, 3, 9, 3), (96, 192, 384, 768), 28_635_496),
    "convnextv2_base": ConvNeXtV2((3, 3, 27, 3), (128, 256, 512, 1024), 88_717_800),
    "convnextv2_large": ConvNeXtV2((3, 3, 27, 3), (192, 384, 768, 1536), 197_956_840),
}
"""Sizes that there are published weights of."""


class GlobalResponseNorm(layers.Layer):
    """Each channel's response over the image, against the other channels': section 3.3."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make scale and shift, 0 at first: the layer begins as the identity."""
        self.scale = self.add_weight(shape=(shape[-1],), initializer="zeros", name="scale")
        self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros", name="shift")

    def call(self, x: Any) -> Any:
        """Return (batch, h, w, channels) as it came, and scaled by its response."""
        # The sum of an image's squares is beyond float16.
        wide = ops.cast(x, keras.backend.result_type(self.compute_dtype, "float32"))
        squares = ops.sum(ops.square(wide), axis=(1, 2), keepdims=True)
        # A channel of zeros would have no gradient.
        response = ops.sqrt(ops.maximum(squares, 1e-24))
        response = response / (ops.mean(response, axis=-1, keepdims=True) + _EPSILON)
        response = ops.cast(response, self.compute_dtype)
        return x + self.scale * (x * response) + self.shift


def build_convnext(
    name: str, input_shape: tuple[int, int, int], weights: str | None = None
) -> keras.Model:
    """Return the network without its top, untrained.

    Raises
    ------
    PipelineError
        If published weights are to be downloaded: their licence (CC BY-NC 4.0) is for the user to
        accept.
    """
    if weights is not None:
        raise PipelineError(
            f"image.weights: {name} is not downloaded; its weights have the licence CC BY-NC 4.0: "
            f"accept it by saying timm:{name}.fcmae_ft_in1k, name such a file, or say null"
        )
    kind = CONVNEXTS[name]
    inputs = x = keras.Input(input_shape)
    for stage, (depth, width) in enumerate(zip(kind.depths, kind.widths, strict=True)):
        if stage == 0:
            x = layers.Conv2D(width, 4, strides=4, name="stem-0")(x)
            x = layers.LayerNormalization(epsilon=_EPSILON, name="stem-1")(x)
        else:
            before = f"stages-{stage}-downsample"
            x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{before}-0")(x)
            x = layers.Conv2D(width, 2, strides=2, name=f"{before}-1")(x)
        for number in range(depth):
            x = _block(x, width, f"stages-{stage}-blocks-{number}", kind.as_convolutions)
    return keras.Model(inputs, x, name=name)


def _block(x: Any, width: int, name: str, as_convolutions: bool) -> Any:
    def dense(units: int, part: str) -> Any:
        called = f"{name}-mlp-{part}"
        return (
            layers.Conv2D(units, 1, name=called)
            if as_convolutions
            else layers.Dense(units, name=called)
        )

    y = layers.DepthwiseConv2D(7, padding="same", name=f"{name}-conv_dw")(x)
    y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}-norm")(y)
    y = ops.gelu(dense(4 * width, "fc1")(y), approximate=False)
    y = GlobalResponseNorm(name=f"{name}-mlp-grn")(y)
    return layers.Add(name=f"{name}-add")([dense(width, "fc2")(y), x])


def load_convnext(model: keras.Model, path: Path) -> None:
    """Assign timm's weights; the normalisation after pooling belongs to the top.

    Raises
    ------
    PipelineError
        As :func:`~kaggle_pipeline.models.image.backbones.torch_weights.load_torch_weights`.
    """
    load_torch_weights(model, path, convnext_places, "head.")


def convnext_places(model: keras.Model) -> dict[str, Place]:
    """Return the variable, and the order of axes, of each of timm's keys but the top's."""
    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    found: dict[str, Place] = {}
    for layer in model.layers:
        name = layer.name.replace("-", ".")
        if isinstance(layer, layers.LayerNormalization):
            kernel, bias = layer.gamma, layer.beta
        elif isinstance(layer, GlobalResponseNorm):
            kernel, bias = layer.scale, layer.shift
        elif layer.weights:
            kernel, bias = layer.kernel, layer.bias
        else:
            continue
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        found[f"{name}.weight"] = kernel, (2, 3, 0, 1) if depthwise else axes[len(kernel.shape)]
        found[f"{name}.bias"] = bias, (0,)
    return found
