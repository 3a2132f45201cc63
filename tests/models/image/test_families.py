"""Every backbone, built as if pretrained: one network in all ways of building, reloaded too.

The download is replaced. The network that a fit begins with, one that reads the same weights from a
file, a copy for another worker and the saved one in a new process have to be the same, and see
pixels as the published weights want them.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("safetensors")

import helpers_families as families
import keras

from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.models.image.backbones.convnext_v2 import CONVNEXTS
from kaggle_pipeline.models.image.backbones.registry import list_backbones
from kaggle_pipeline.models.image.inference.fuse_batch_norm import fuse_batch_norm
from kaggle_pipeline.models.image.network import build_body, build_network, check_backbone

_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
UNIT = families.COLOURS / 127.5 - 1
TORCH = (families.COLOURS / 255 - _MEAN) / _DEVIATION
CAFFE = families.COLOURS[:, ::-1] - np.array([103.939, 116.779, 123.68])
SEEN = {
    "ConvNeXt": TORCH,
    "convnextv2": TORCH,
    "DenseNet": TORCH,
    "EfficientNetB": TORCH,
    "EfficientNetV2B": TORCH,
    "EfficientNetV2": families.COLOURS / 128 - 1,
    "Inception": UNIT,
    "LeNet": UNIT,
    "MobileNet": UNIT,
    "NASNet": UNIT,
    "PrimitiveCNN": UNIT,
    "ResNet": CAFFE,
    "VGG": CAFFE,
    "Xception": UNIT,
    "resne": TORCH,  # torchvision's
}
"""What a family's first convolution was trained to see, by the beginning of its names; ResNet…V2
see :data:`UNIT`.

Where Keras' network does not scale its input itself, it is what the documentation of the family's
``preprocess_input`` says: [-1, 1], ImageNet's mean and deviation, or BGR less the mean. Of the
others: MEAN_RGB and STDDEV_RGB in google/automl for EfficientNet and for V2 B0 to B3, and there
(x - 128) / 128 for V2 S to L; [-1, 1] of tensorflow/models for MobileNetV3; ImageNet's mean and
deviation of facebookresearch/ConvNeXt.
"""
UNPUBLISHED = ("LeNet", "PrimitiveCNN", *CONVNEXTS)
LIGHT = (
    "LeNet", "PrimitiveCNN", "ConvNeXtTiny", "EfficientNetB0", "EfficientNetV2B0", "MobileNet",
    "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "VGG16", "Xception", "resnet18",
)  # fmt: skip
"""A light one of each family. DenseNet, Inception and NASNet have none: over 300 layers each."""
ALL_WAYS = ("LeNet", "EfficientNetB0", "resnet18")
"""Those of them that are not only reloaded but copied and read from a file: a family whose layers
depend on its weights, and each sort of file."""

DAILY = ("LeNet", "EfficientNetB0")
"""Those that ``make test`` builds; CI builds the others too."""


@dataclass
class Built:
    """What one backbone was like, way by way."""

    layers: dict
    answers: dict

    def add(self, way, network, config):
        self.layers[way] = families.layers_of(network)
        self.answers[way] = families.answers(network, config)


def wanted(name):
    """What the first convolution of a backbone should see of the colours."""
    if name.startswith("ResNet") and name.endswith("V2"):
        return UNIT
    return SEEN[max((one for one in SEEN if name.startswith(one)), key=len)]


def build(name, folder, *, all_ways=True):
    """Build a backbone as a fit does and save it; then in the other ways of this process."""
    keras.utils.set_random_seed(1)
    published = None if name in UNPUBLISHED else "imagenet"
    config = families.settings(name, weights=published)
    with families.pretended_download(folder):
        model = families.image_model(config, folder / name, workers=2)
        network = model.network_ = build_network(config, SPEC)
    model.encoder_ = None
    families.enliven(network, config)
    model.save(folder / name)
    built = Built({}, {})
    built.add("trained", network, config)
    if all_ways:
        built.add("copy", model._own_copy(network), config)
        path = families.write_published(name, network, folder / name)
        head = network.get_layer("head").get_weights()
        del model, network
        clear()
        network = build_network(replace(config, weights=str(path)), SPEC)
        network.get_layer("head").set_weights(head)
        built.add("from a file", network, config)
    return built


def clear():
    """Make room: the largest fill gigabytes."""
    keras.backend.clear_session()
    gc.collect()


def reload(names, folder):
    """Load what was saved, in a new process."""
    orders = [{"name": name, "folder": str(folder / name)} for name in names]
    script = Path(families.__file__)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(orders)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def add_reloaded(built, name, folder):
    """Return ``built`` with what a new process found."""
    found = families.read_reloaded(folder / name)
    built.layers["reloaded"] = found.pop("layers").tolist()
    built.answers["reloaded"] = found
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the light backbones lie."""
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def light(folder):
    """``light(name)``: a light backbone, built and reloaded; one process reloads several."""
    done = {}

    def get(name):
        if name not in done:
            names = [other for other in LIGHT if (other in DAILY) == (name in DAILY)]
            built = {other: build(other, folder, all_ways=other in ALL_WAYS) for other in names}
            reload(names, folder)
            done.update({one: add_reloaded(built[one], one, folder) for one in names})
        return done[name]

    return get


def check(name, built):
    """All ways give one network, and it sees what it was trained to see."""
    trained = built.answers["trained"]
    assert np.ptp(trained["probability"]) > 1e-3, "all photos look the same"
    for way, found in built.answers.items():
        np.testing.assert_allclose(found["seen"], wanted(name), atol=2e-3, err_msg=way)
        assert built.layers[way] == built.layers["trained"], way
        for what in ("probability", "features"):
            size = np.abs(trained[what]).max()
            np.testing.assert_allclose(found[what], trained[what], atol=1e-6 * size, err_msg=way)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] * (one not in DAILY)) for one in LIGHT]
)
def test_a_light_one_of_each_family(name, light):
    check(name, light(name))


SCALINGS = [(True, "imagenet", 2), (None, "imagenet", 2), (None, "a_file.h5", 1), (None, None, 1)]


@pytest.mark.parametrize(("noted", "weights", "count"), SCALINGS)
def test_what_was_saved_decides_also_where_it_was_not_noted_yet(
    light, folder, tmp_path, noted, weights, count
):
    """Before it was noted, Keras' download alone made EfficientNet's second scaling."""
    light("EfficientNetB0")
    shutil.copytree(folder / "EfficientNetB0", tmp_path, dirs_exist_ok=True)
    settings = read_json(tmp_path / "model.json")
    assert settings["pretrained"] is True
    settings["image"]["weights"] = weights
    if noted is None:
        del settings["pretrained"]
    write_json(tmp_path / "model.json", settings)
    config = families.settings("EfficientNetB0", weights=None if weights else "imagenet")
    network = families.image_model(config, tmp_path).load(tmp_path).network_
    assert kinds(network).count("Rescaling") == count


def kinds(network):
    return [type(layer).__name__ for layer in families.extractor_of(network).layers]


def test_folding_keeps_the_second_scaling(light, folder):
    wanted = light("EfficientNetB0").answers["trained"]["probability"]
    config = families.settings("EfficientNetB0", weights="imagenet")
    place = folder / "EfficientNetB0"
    network = families.image_model(config, place).load(place).network_
    fused = fuse_batch_norm(network)
    assert kinds(fused).count("Rescaling") == 2
    assert kinds(network).count("BatchNormalization") == 49
    assert not kinds(fused).count("BatchNormalization")
    # Rounding: at 32 px the last maps are one pixel, and eight photos give them small variances.
    np.testing.assert_allclose(fused(families.photos(config)), wanted, atol=2e-3)


def test_without_published_weights_an_efficientnet_is_as_it_was():
    config = families.settings("EfficientNetB0")
    assert config.weights is None
    network = build_network(config, SPEC)
    assert kinds(network)[1:4] == ["Rescaling", "Normalization", "ZeroPadding2D"]


def test_layers_are_found_in_every_way_of_building(tmp_path):
    cut = families.settings(
        "EfficientNetB0", weights="imagenet", backbone_layer="block2a_expand_activation",
        train_from="block2a_expand_conv",
    )  # fmt: skip
    with families.pretended_download(tmp_path):
        check_backbone(cut)
        downloaded = build_body(cut, load_published=True)
    reloaded = build_body(cut, load_published=False)
    assert downloaded.output_shape == reloaded.output_shape == (None, 96)
    for one, other in zip(downloaded.weights, reloaded.weights, strict=True):
        assert one.shape == other.shape and one.trainable == other.trainable


@pytest.mark.slow
@pytest.mark.parametrize("name", list_backbones())
def test_each_and_every_backbone(name, tmp_path):
    built = build(name, tmp_path)
    clear()
    reload([name], tmp_path)
    check(name, add_reloaded(built, name, tmp_path))
