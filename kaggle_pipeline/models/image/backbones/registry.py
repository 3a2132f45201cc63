"""Backbones by name: all of keras.applications, each with its own preprocessing, and our own.

In: a name. Out: a :class:`Backbone` that builds the feature extractor and scales its input. Names
are those of the library whose architecture and weights they are: ``ResNet50`` is
keras.applications', ``resnet50`` torchvision's.
A new backbone is one function and one line in ``_own_backbones``.
"""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.models.image.backbones.convnext_v2 import (
    CONVNEXTS,
    build_convnext,
    load_convnext,
)
from kaggle_pipeline.models.image.backbones.inception_merged import build_merged, load_original
from kaggle_pipeline.models.image.backbones.resnets import RESNETS, build_resnet
from kaggle_pipeline.models.image.backbones.small_nets import lenet, primitive_cnn
from kaggle_pipeline.models.image.backbones.timm_names import load_efficientnet
from kaggle_pipeline.models.image.backbones.torch_weights import fetch_published, load_torch_weights
from kaggle_pipeline.models.image.backbones.weights import load_weights

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_MEAN, _IMAGENET_DEVIATION = np.array(_MEAN, np.float32), np.array(_DEVIATION, np.float32)


def unchanged(network: keras.Model) -> keras.Model:
    """Return ``network``: most families are the same with and without published weights."""
    return network


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes
    ----------
    build : callable
        ``build(input_shape=..., weights=..., **options) -> keras.Model`` from images to a feature
        map (batch, h, w, channels). ``weights="imagenet"`` downloads the published ones.
    preprocess : callable
        From pixels in [0, 255] (float32) to what the published weights were trained on.
    published_torch : str, optional
        Address of the PyTorch file that ``weights="imagenet"`` loads.
    load_torch : callable, optional
        ``load_torch(model, path)`` reads a PyTorch file of the same architecture; None where none
        fits.
    load_h5 : callable
        ``load_h5(model, path)`` reads a ``.weights.h5`` file without the top.
    as_pretrained : callable
        From what ``build`` makes with no weights to what it makes with published ones, where that
        is another network.
    parameters : int, optional
        Published count of trainable parameters, with the top for ImageNet's 1000 classes.
    """

    build: Callable[..., keras.Model]
    preprocess: Callable[[Any], Any]
    published_torch: str | None = None
    parameters: int | None = None
    load_torch: Callable[[keras.Model, Path], None] | None = None
    load_h5: Callable[[keras.Model, Path], None] = load_weights
    as_pretrained: Callable[[keras.Model], keras.Model] = unchanged

    def build_pretrained(self, input_shape: tuple[int, int, int], **options: Any) -> keras.Model:
        """Return the network that published weights belong to, with none of them in it yet."""
        return self.as_pretrained(self.build(input_shape=input_shape, weights=None, **options))


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


def backbone_table(names: Iterable[str] | None = None, image_size_px: int = 1024) -> pd.DataFrame:
    """Return what each backbone is like: size, range of its input, shape of its output.

    Each is built once, untrained, and dropped before the next. Keras' session is cleared for that:
    call this in a process that holds no model of its own.

    Parameters
    ----------
    names : iterable of str, optional
        Default: all.
    image_size_px : int
        Side of the images; some architectures need 75 px, and below 299 px what they cut off at
        the edges spoils the stride.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``backbone``: ``parameters`` (trained or not, without the top), ``input_range``
        (of black and of white after preprocessing, over the channels), ``output_shape``
        (h, w, channels) and ``stride`` (image side over output side, to the nearest power of two).

    Raises
    ------
    PipelineError
        If a name is unknown.
    """
    known = list_backbones()
    keras.config.set_image_data_format("channels_last")  # whatever ~/.keras/keras.json says
    rows = []
    for name in known if names is None else names:
        backbone = get_backbone(name)
        shape = (image_size_px, image_size_px, 3)
        keras.backend.clear_session()
        # Shapes and counts need no numbers: where nothing is drawn, the largest take no memory.
        with keras.StatelessScope(initialize_variables=False):
            model = backbone.build_pretrained(shape)
        output = model.output_shape[1:]
        rows.append(
            {
                "backbone": name,
                "parameters": model.count_params(),
                "input_range": _input_range(backbone),
                "output_shape": output,
                "stride": 2 ** round(math.log2(image_size_px / output[0])),
            }
        )
    keras.backend.clear_session()
    columns = ["backbone", "parameters", "input_range", "output_shape", "stride"]
    return pd.DataFrame(rows, columns=columns).set_index("backbone")


def _input_range(backbone: Backbone) -> str:
    """Return the least and the greatest that preprocessing makes of black and white."""
    pixels = np.zeros((1, 1, 2, 3), np.float32)
    pixels[0, 0, 1] = 255
    scaled = ops.convert_to_numpy(backbone.preprocess(ops.convert_to_tensor(pixels)))
    return f"[{scaled.min():.4g}, {scaled.max():.4g}]"


def _keras_applications() -> dict[str, Backbone]:
    """Find the published architectures and the ``preprocess_input`` of the module each lives in.

    Taking the module's own function keeps a backbone from ever being fed another one's range.
    """
    found = {}
    for name, build in vars(keras.applications).items():
        if inspect.isfunction(build) and "include_top" in inspect.signature(build).parameters:
            preprocess = sys.modules[build.__module__].preprocess_input
            family = build.__module__.rpartition(".")[2]
            as_pretrained = _AS_PRETRAINED.get(family, unchanged)
            found[name] = Backbone(
                _without_top(build), preprocess, as_pretrained=as_pretrained,
                load_torch=_LOAD_TORCH.get(family),
            )  # fmt: skip
    return found


def _without_top(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    def build_features(**options: Any) -> keras.Model:
        return build(include_top=False, **options)

    return build_features


def divide_by_root_deviation(network: keras.Model) -> keras.Model:
    """Return an EfficientNet with the layer that Keras adds only when it downloads the weights.

    The published files hold ImageNet's deviation in place of the variance, whose root Keras'
    ``Normalization`` divides by. ``keras.applications.EfficientNetB0`` to ``B7`` mend that by a
    second ``Rescaling`` behind it (TensorFlow's issue 49930), with ``weights="imagenet"`` alone. It
    has no weights: no file shows that it is missing.
    """
    scale = [1.0 / math.sqrt(deviation) for deviation in _DEVIATION]

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        x = layer(*inputs, **options)
        return layers.Rescaling(scale)(x) if isinstance(layer, layers.Normalization) else x

    return keras.models.clone_model(network, call_function=call)


_AS_PRETRAINED = {"efficientnet": divide_by_root_deviation}
"""Families of keras.applications whose constructor looks at more than weights in ``weights``."""
_LOAD_TORCH = {
    "efficientnet": partial(load_efficientnet, _IMAGENET_MEAN, _IMAGENET_DEVIATION),
}
"""Families of keras.applications that timm has too, with other weights."""


def _own_backbones() -> dict[str, Backbone]:
    small = {
        "LeNet": Backbone(lenet, scale_to_unit),
        "PrimitiveCNN": Backbone(primitive_cnn, scale_to_unit),
    }
    residual = {
        name: Backbone(
            partial(_build_residual, name), standardise, kind.url, kind.parameters,
            load_torch=load_torch_weights,
        )
        for name, kind in RESNETS.items()
    }  # fmt: skip
    convnexts = {
        name: Backbone(
            partial(build_convnext, name), standardise, parameters=kind.parameters,
            load_torch=load_convnext,
        )
        for name, kind in CONVNEXTS.items()
    }  # fmt: skip
    merged = Backbone(build_merged, scale_to_unit, load_h5=load_original)
    return small | residual | convnexts | {"InceptionResNetV2Merged": merged}


def _build_residual(
    name: str, input_shape: tuple[int, int, int], weights: str | None = None
) -> keras.Model:
    """Return a residual network without its top, untrained or with torchvision's weights."""
    if weights not in (None, "imagenet"):
        raise PipelineError(f"image.weights: {name} has imagenet's weights, not {weights!r}")
    published = fetch_published(name) if weights else None
    model = build_resnet(name, input_shape)
    if published is not None:
        load_torch_weights(model, published)
    return model


def scale_to_unit(pixels: Any) -> Any:
    """Return pixels in [0, 255] as [-1, 1]."""
    return pixels / 127.5 - 1.0


def standardise(pixels: Any) -> Any:
    """Return pixels in [0, 255] less ImageNet's mean, over its deviation, as torchvision does."""
    return (pixels / 255.0 - _IMAGENET_MEAN) / _IMAGENET_DEVIATION
