"""Backbones built as if their published weights had been downloaded, and loaded in a new process.

As a script, ``python helpers_families.py '<JSON>'``: a list of ``{"name": …, "folder": …}``. Each
folder holds a model that ``ImageModel.save`` wrote; what its network is like is written beside it.
"""

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from helpers_image import tiny_config  # noqa: E402
from keras.src.legacy.saving import legacy_h5_format  # noqa: E402

from kaggle_pipeline.core.private_api import all_layers  # noqa: E402
from kaggle_pipeline.datasets.synthetic import SPEC  # noqa: E402
from kaggle_pipeline.hardware.accelerator import choose_accelerator  # noqa: E402
from kaggle_pipeline.models.image.backbones import inception_merged, registry  # noqa: E402
from kaggle_pipeline.models.image.model import ImageModel  # noqa: E402

COLOURS = np.array([[0, 0, 0], [255, 255, 255], [200, 100, 50]], np.uint8)
_RELOADED = "reloaded.npz"
_DOWNLOADED = "downloaded_notop.h5"
_LEAST_PX = {"InceptionV3": 75, "InceptionResNetV2": 75, "InceptionResNetV2Merged": 75,
             "Xception": 71}  # fmt: skip


def settings(name, **changes):
    """Settings with the smallest images that a backbone takes."""
    side = _LEAST_PX.get(name, 32)
    return tiny_config(backbone=name, backbone_options={}, image_size_px=side, **changes)


def image_model(config, folder, workers=1):
    """An image model that has no records."""
    device = replace(choose_accelerator("cpu"), workers=workers)
    return ImageModel(config, SPEC, lambda ids: [], device, folder, seed=0)


@contextlib.contextmanager
def pretended_download(folder):
    """Let Keras "download" the random weights that its new network has; of torchvision's, a file.

    Every module of keras.applications asks ``get_file`` for a path, then loads it.
    """
    load = keras.Model.load_weights

    def load_weights(self, path, **options):
        return None if path == _DOWNLOADED else load(self, path, **options)

    def fetch(name):
        plain = registry.get_backbone(name).build(input_shape=(32, 32, 3), weights=None)
        return write_torch(plain, Path(folder) / f"{name}.safetensors")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: _DOWNLOADED)
        patch.setattr(keras.Model, "load_weights", load_weights)
        patch.setattr(registry, "fetch_published", fetch)
        yield


def extractor_of(network):
    """The backbone within a network."""
    (found,) = (one for one in network.get_layer("body").layers if isinstance(one, keras.Model))
    return found


def enliven(network, config):
    """Give batch normalisation the statistics of a trained network: the photos'.

    With those of an untrained one a deep network says the same of every image.
    """
    for layer in all_layers(network)[1:]:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            # What Keras' files of EfficientNet hold: the deviation in place of the variance.
            layer.adapt_mean.assign([0.485, 0.456, 0.406])
            layer.adapt_variance.assign([0.229, 0.224, 0.225])
            layer.finalize_state()
    network.get_layer("body")(photos(config), training=True)


def photos(config):
    """A photo of each of :data:`COLOURS`, then five of noise."""
    side = config.image_size_px
    plain = np.tile(COLOURS[:, None, None], (1, side, side, 1))
    noise = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), np.uint8)
    return np.concatenate([plain, noise])


def layers_of(network):
    """What a network consists of: kind, shapes of weights and constants of each layer."""
    found = []
    for layer in all_layers(network)[1:]:
        shapes = [tuple(one.shape) for one in layer.weights]
        constants = [getattr(layer, name, None) for name in ("scale", "offset")]
        found.append(repr((type(layer).__name__, shapes, constants)))
    return found


def answers(network, config):
    """Features of :func:`photos`, answers, and what the first convolution sees of the colours."""
    seen, call = [], keras.layers.Conv2D.call

    def validation(self, inputs, *args, **kwargs):
        seen.append(inputs)
        return call(self, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.layers.Conv2D, "call", validation)
        features = network.get_layer("body")(photos(config), training=False)
    found = {
        "features": features,
        "probability": network.get_layer("head")(features, training=False),
        # The middle: at the edges some networks pad before they convolve.
        "seen": seen[0][: len(COLOURS), seen[0].shape[1] // 2, seen[0].shape[2] // 2],
    }
    return {key: keras.ops.convert_to_numpy(value) for key, value in found.items()}


def write_published(name, network, folder):
    """Write the weights of a network's backbone as its publisher would; return the file."""
    if registry.get_backbone(name).published_torch:
        return write_torch(extractor_of(network), folder / f"{name}.safetensors")
    backbone = extractor_of(network)
    if name == "InceptionResNetV2Merged":  # which reads the files of the other one
        backbone = _unmerged(backbone)
    path = folder / f"{name}_notop.h5"
    with h5py.File(path, "w") as file:  # by the order of layers
        legacy_h5_format.save_weights_to_hdf5_group(file, backbone)
    return path


def _unmerged(merged):
    """keras.applications' InceptionResNetV2 with the weights of a merged one."""
    original = registry.get_backbone("InceptionResNetV2").build(
        input_shape=merged.input_shape[1:], weights=None
    )
    plain = {
        "conv": inception_merged._unnamed(original, "conv2d"),
        "norm": inception_merged._unnamed(original, "batch_normalization"),
    }
    for layer in merged.layers:
        kind, *numbers = layer.name.split("_")
        if kind in plain and numbers[0].isdigit():
            parts = [plain[kind][int(number)] for number in numbers]
        elif layer.weights:
            parts = [original.get_layer(layer.name)]
        else:
            continue
        ends = np.cumsum([part.get_weights()[0].shape[-1] for part in parts])[:-1]
        split = [np.split(weight, ends, axis=-1) for weight in layer.get_weights()]
        for part, weights in zip(parts, zip(*split, strict=True), strict=True):
            part.set_weights(weights)
    return original


def write_torch(network, path):
    """Write weights as torchvision publishes them."""
    from safetensors.numpy import save_file

    state = {}
    for layer in network.layers:
        key = layer.name.replace("_", ".")
        if isinstance(layer, keras.layers.Conv2D):
            state[f"{key}.weight"] = np.transpose(layer.kernel.numpy(), (3, 2, 0, 1))
        if isinstance(layer, keras.layers.BatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            state |= {f"{key}.{n}": v for n, v in zip(names, layer.get_weights(), strict=True)}
    save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, path)
    return path


def read_reloaded(folder):
    """What a new process found in ``folder``."""
    with np.load(Path(folder) / _RELOADED) as found:
        return dict(found)


def main(orders):
    """Load and describe one model after the other."""
    for order in orders:
        keras.utils.set_random_seed(99)
        folder = Path(order["folder"])
        config = settings(order["name"], weights=None)  # what was saved decides
        network = image_model(config, folder).load(folder).network_
        found = answers(network, config)
        np.savez(folder / _RELOADED, layers=layers_of(network), **found)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
