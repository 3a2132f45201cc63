"""Where timm's weights of EfficientNet go in Keras' network: names, and orders of axes.

In: a model of ``keras.applications.EfficientNetB0`` to ``B7`` without its top. Out: for each of
timm's keys a variable, as ``torch_weights`` wants them. timm's ``tf_efficientnet_b0`` to ``b7``
have TensorFlow's padding and the epsilon of its batch normalisation, as Keras' have; those called
``ns`` are the noisy students of Xie et al. 2020 (arXiv:1911.04252).
"""

import re
from pathlib import Path

import keras
import numpy as np
from keras import layers

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.image.backbones.torch_weights import Place, load_torch_weights

_CONVOLUTION, _DEPTHWISE, _VECTOR = (2, 3, 1, 0), (2, 3, 0, 1), (0,)
# Keras' layer of a block → timm's: in a block that expands, and in the first stage's, which do not.
_EXPANDING = {
    "expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv": "conv_dw", "bn": "bn2",
    "se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand",
    "project_conv": "conv_pwl", "project_bn": "bn3",
}  # fmt: skip
_PLAIN = _EXPANDING | {"bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}
_ENDS = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}


def efficientnet_places(model: keras.Model) -> dict[str, Place]:
    """Return the variable, and the order of axes, of each of timm's keys but the top's.

    Raises
    ------
    PipelineError
        If the model has a layer with weights that no EfficientNet has.
    """
    found: dict[str, Place] = {}
    for layer in model.layers:
        if not layer.weights or isinstance(layer, layers.Normalization):
            continue
        name = _timm_name(layer.name)
        if isinstance(layer, layers.BatchNormalization):
            for key, variable in (
                ("weight", layer.gamma), ("bias", layer.beta),
                ("running_mean", layer.moving_mean), ("running_var", layer.moving_variance),
            ):  # fmt: skip
                found[f"{name}.{key}"] = variable, _VECTOR
            continue
        axes = _DEPTHWISE if isinstance(layer, layers.DepthwiseConv2D) else _CONVOLUTION
        found[f"{name}.weight"] = layer.kernel, axes
        if layer.use_bias:
            found[f"{name}.bias"] = layer.bias, _VECTOR
    return found


def load_efficientnet(
    mean: np.ndarray, deviation: np.ndarray, model: keras.Model, path: Path
) -> None:
    """Assign timm's weights, and the scaling of the input, which its files do not hold.

    The deviation stands where Keras has the variance, as in Keras' own files: another layer, which
    the pretrained networks have, divides by its root once more.

    Raises
    ------
    PipelineError
        As :func:`~kaggle_pipeline.models.image.backbones.torch_weights.load_torch_weights`.
    """
    load_torch_weights(model, path, efficientnet_places, "classifier.")
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.set_weights([mean, deviation, np.zeros((), int)])
            layer.finalize_state()  # it computes with copies of its weights


def _timm_name(name: str) -> str:
    """timm's name of a layer: ``block2a_expand_conv`` is ``blocks.1.0.conv_pw``."""
    if name in _ENDS:
        return _ENDS[name]
    block = re.fullmatch(r"block(\d)([a-z])_(\w+)", name)
    kinds = _PLAIN if block and block[1] == "1" else _EXPANDING
    if block is None or block[3] not in kinds:
        what = f"the network has the layer {name}, which no EfficientNet has"
        raise PipelineError(f"image.weights: {what}; no PyTorch file fits it")
    return f"blocks.{int(block[1]) - 1}.{ord(block[2]) - ord('a')}.{kinds[block[3]]}"
