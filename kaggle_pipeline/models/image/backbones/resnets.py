"""Residual networks as torchvision builds them, so that weights trained there fit here.

In: a name such as ``resnet18`` and an input shape. Out: a ``keras.Model`` whose layers are called
as the modules in a torchvision state dict, with ``_`` for the dots: ``layer1_0_conv1`` is
``layer1.0.conv1``.

He et al. 2016 (arXiv:1512.03385); ResNeXt: Xie et al. 2017 (arXiv:1611.05431). They are not
``keras.applications.ResNet50`` and its kin: those stride in the first convolution of a block, have
biases, normalise with epsilon 1.001e-5 and expect BGR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers
from keras.initializers import VarianceScaling

from kaggle_pipeline.core.errors import PipelineError, nearest


@dataclass(frozen=True)
class ResNet:
    """What makes one residual network differ from another.

    Attributes
    ----------
    blocks : tuple of int
        Residual blocks in each of the four stages.
    bottleneck : bool
        Blocks of 1x1, 3x3 and 1x1 convolutions that end four times as wide, instead of two 3x3.
    parameters : int
        Published count of trainable parameters, with the top for ImageNet's 1000 classes.
    url : str
        torchvision's first ("V1") file of ImageNet weights. The eight hexadecimal digits in its
        name begin the SHA-256 of its content.
    groups : int
        Groups of the 3x3 convolutions: ResNeXt's cardinality.
    group_width : int
        Channels of a group in the first stage; doubled by each further one.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    parameters: int
    url: str
    groups: int = 1
    group_width: int = 64


_SITE = "https://download.pytorch.org/models/"
RESNETS: Mapping[str, ResNet] = {
    "resnet18": ResNet((2, 2, 2, 2), False, 11_689_512, _SITE + "resnet18-f37072fd.pth"),
    "resnet34": ResNet((3, 4, 6, 3), False, 21_797_672, _SITE + "resnet34-b627a593.pth"),
    "resnet50": ResNet((3, 4, 6, 3), True, 25_557_032, _SITE + "resnet50-0676ba61.pth"),
    "resnet101": ResNet((3, 4, 23, 3), True, 44_549_160, _SITE + "resnet101-63fe2227.pth"),
    "resnet152": ResNet((3, 8, 36, 3), True, 60_192_808, _SITE + "resnet152-394f9c45.pth"),
    "resnext50_32x4d": ResNet(
        (3, 4, 6, 3), True, 25_028_904, _SITE + "resnext50_32x4d-7cdf4587.pth", 32, 4
    ),
}
"""The residual networks there are, by torchvision's names."""


def build_resnet(
    name: str,
    input_shape: tuple[int, int, int],
    include_top: bool = False,
    classes: int = 1000,
) -> keras.Model:
    """Return an untrained residual network.

    Parameters
    ----------
    name : str
        One of :data:`RESNETS`.
    input_shape : tuple
        (height, width, 3) in px; any size, at best a multiple of 32.
    include_top : bool
        Whether to add global average pooling and a dense layer.
    classes : int
        Width of the top.

    Returns
    -------
    keras.Model
        Images, scaled by ImageNet's mean and deviation, (batch, height, width, 3) → feature map
        (batch, height / 32, width / 32, 512 or 2048), sides rounded up; with the top → logits
        (batch, classes).

    Raises
    ------
    PipelineError
        If there is no network called ``name``.

    Notes
    -----
    TensorFlow has no grouped convolution on a CPU; Keras has XLA compile each. That predicts as
    fast as the others, but a training step of ``resnext50_32x4d`` then takes some fifteen times
    that of ``resnet50``: train it on an accelerator.
    """
    if name not in RESNETS:
        raise PipelineError(f"unknown residual network {name!r}{nearest(name, list(RESNETS))}")
    kind = RESNETS[name]
    inputs = keras.Input(input_shape)
    x = _normalised_conv(inputs, 64, 7, "conv1", "bn1", stride=2)
    x = layers.ReLU(name="relu")(x)
    # PyTorch pads with minus infinity here: the same, since nothing is below zero after a ReLU.
    x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool_pad")(x))
    for stage, count in enumerate(kind.blocks):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            x = _block(x, kind, 64 * 2**stage, stride, f"layer{stage + 1}_{number}")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = layers.Dense(classes, name="fc")(x)
    return keras.Model(inputs, x, name=name)


def _block(x: Any, kind: ResNet, width: int, stride: int, name: str) -> Any:
    """Add one residual block; where its shape changes, the shortcut is a 1x1 convolution."""
    inner = width * kind.group_width // 64 * kind.groups
    outer = width * (4 if kind.bottleneck else 1)
    # Kernel, channels, stride and groups of each convolution. A bottleneck strides in the 3x3
    # one, not, as the paper has it, in the first: torchvision's choice, better and slower.
    if kind.bottleneck:
        convs = [(1, inner, 1, 1), (3, inner, stride, kind.groups), (1, outer, 1, 1)]
    else:
        convs = [(3, inner, stride, 1), (3, outer, 1, 1)]
    shortcut = x
    if stride != 1 or x.shape[-1] != outer:
        names = f"{name}_downsample_0", f"{name}_downsample_1"
        shortcut = _normalised_conv(x, outer, 1, *names, stride=stride)
    for number, (kernel, channels, step, groups) in enumerate(convs, start=1):
        names = f"{name}_conv{number}", f"{name}_bn{number}"
        x = _normalised_conv(x, channels, kernel, *names, stride=step, groups=groups)
        if number < len(convs):
            x = layers.ReLU(name=f"{name}_relu{number}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _normalised_conv(
    x: Any, filters: int, kernel: int, name: str, norm: str, *, stride: int = 1, groups: int = 1
) -> Any:
    """Add a convolution without bias, padded by half its kernel, and its normalisation."""
    # With a stride, Keras' "same" pads more on the right than on the left; PyTorch pads both alike.
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same" if stride == 1 else "valid",
        groups=groups,
        use_bias=False,
        kernel_initializer=VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)
    # PyTorch's momentum of 0.1 is the share of the new batch, Keras' is that of the old average.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)
