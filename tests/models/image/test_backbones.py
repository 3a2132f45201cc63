"""Tests of the registry: each backbone with its own preprocessing; our own ones all built."""

import numpy as np
import pytest

from kaggle_pipeline.config.names import WEIGHTS_OF
from kaggle_pipeline.core.errors import PipelineError

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.models.image.backbones.convnext_v2 import CONVNEXTS  # noqa: E402
from kaggle_pipeline.models.image.backbones.registry import (  # noqa: E402
    backbone_table,
    get_backbone,
    list_backbones,
)

UNIT, IDENTITY = "[-1, 1]", "[0, 255]"  # 'tf' mode, and networks that scale within
TORCH, CAFFE = "ImageNet's mean and deviation", "BGR less ImageNet's mean"
WANTED = {
    "ConvNeXtTiny": IDENTITY,
    "DenseNet121": TORCH,
    "DenseNet201": TORCH,
    "EfficientNetB0": IDENTITY,
    "EfficientNetB7": IDENTITY,
    "EfficientNetV2S": IDENTITY,
    "InceptionResNetV2": UNIT,
    "InceptionV3": UNIT,
    "LeNet": UNIT,
    "PrimitiveCNN": UNIT,
    "MobileNet": UNIT,
    "MobileNetV2": UNIT,
    "MobileNetV3Small": IDENTITY,
    "NASNetMobile": UNIT,
    "ResNet50": CAFFE,
    "ResNet50V2": UNIT,
    "VGG16": CAFFE,
    "VGG19": CAFFE,
    "Xception": UNIT,
    "resnet18": TORCH,
    "resnet34": TORCH,
    "resnet50": TORCH,
    "resnet101": TORCH,
    "resnet152": TORCH,
    "resnext50_32x4d": TORCH,
    "convnextv2_atto": TORCH,
}
# Shape on 64 px and parameters without the top. Of the residual networks: the published count less
# the top's, and the two moving statistics of each normalised channel.
DEEP = {
    name: pytest.mark.slow for name in ("resnet50", "resnet101", "resnet152", "resnext50_32x4d")
}  # more blocks of the same
OWN = {
    # 3 x 3 kernels 3 → 32 → 64 → 128 and four numbers a channel of batch normalisation.
    "LeNet": ((8, 8, 128), 9 * (96 + 2048 + 8192) + 4 * (32 + 64 + 128)),
    # 3 x 3 kernels 3 → 32 → 64 → 128 → 256 and a bias a channel.
    "PrimitiveCNN": ((4, 4, 256), 9 * (96 + 2048 + 8192 + 32768) + 32 + 64 + 128 + 256),
    "resnet18": ((2, 2, 512), 11_689_512 - 513_000 + 2 * 4_800),
    "resnet34": ((2, 2, 512), 21_797_672 - 513_000 + 2 * 8_512),
    "resnet50": ((2, 2, 2048), 25_557_032 - 2_049_000 + 2 * 26_560),
    "resnet101": ((2, 2, 2048), 44_549_160 - 2_049_000 + 2 * 52_672),
    "resnet152": ((2, 2, 2048), 60_192_808 - 2_049_000 + 2 * 75_712),
    "resnext50_32x4d": ((2, 2, 2048), 25_028_904 - 2_049_000 + 2 * 34_112),
}
PIXELS = np.array([[0, 0, 0], [255, 255, 255], [200, 100, 50]], np.float32)
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ANSWERS = {
    UNIT: PIXELS / 127.5 - 1,
    IDENTITY: PIXELS,
    TORCH: (PIXELS / 255 - _MEAN) / _DEVIATION,
    CAFFE: PIXELS[:, ::-1] - np.array([103.939, 116.779, 123.68]),
}


def preprocessed(name):
    pixels = keras.ops.convert_to_tensor(PIXELS.reshape(1, 1, 3, 3).copy())
    return np.asarray(get_backbone(name).preprocess(pixels)).reshape(3, 3)


@pytest.mark.parametrize("name", WANTED)
def test_each_backbone_gets_the_range_it_was_trained_on(name):
    np.testing.assert_allclose(preprocessed(name), ANSWERS[WANTED[name]], atol=1e-4)


def test_every_published_architecture_is_there_with_a_known_preprocessing():
    names = set(list_backbones())
    assert set(WANTED) <= names and len(names) >= 44
    for name in names:
        found = preprocessed(name)
        assert any(np.allclose(found, answer, atol=1e-4) for answer in ANSWERS.values()), name


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(PipelineError, match=r"image\.backbone 'MobilNetV2'.*mean 'MobileNetV2'"):
        get_backbone("MobilNetV2")


@pytest.mark.parametrize(
    ("name", "options", "shape", "parameters"),
    [
        # Published counts, of the files mobilenet_v2_weights_*_no_top.h5.
        ("MobileNetV2", {"alpha": 1.0}, (2, 2, 1280), 2_257_984),
        ("MobileNetV2", {"alpha": 0.35}, (2, 2, 1280), 410_208),
        ("LeNet", {"filters": 4}, (8, 8, 16), 9 * (12 + 32 + 128) + 4 * (4 + 8 + 16)),
        # Published, less the top's dense layer and normalisation.
        ("convnextv2_atto", {}, (2, 2, 320), 3_708_400 - 321_000 - 640),
        ("PrimitiveCNN", {"filters": 2}, (4, 4, 16), 9 * (6 + 8 + 32 + 128) + 2 + 4 + 8 + 16),
        *[
            pytest.param(name, {}, *wanted, marks=[pytest.mark.ci] * (name in DEEP))
            for name, wanted in OWN.items()
        ],
    ],
)
def test_output_shape_and_parameter_count(name, options, shape, parameters):
    model = get_backbone(name).build(input_shape=(64, 64, 3), weights=None, **options)
    assert model.output_shape == (None, *shape)
    assert model.count_params() == parameters


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNetV2", {"alpha": 0.35}),
        *[pytest.param(name, {}, marks=DEEP.get(name, ())) for name in OWN],
    ],
)
def test_the_gradient_reaches_the_stem(name, options):
    keras.utils.set_random_seed(0)
    model = get_backbone(name).build(input_shape=(32, 32, 3), weights=None, **options)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        features = model(images, training=True)
        loss = tf.reduce_mean(features * np.arange(features.shape[-1], dtype=np.float32))
    stem = model.trainable_variables[0]
    assert stem.shape[:3] == ((7, 7, 3) if name.startswith("res") else (3, 3, 3))
    gradient = tape.gradient(loss, stem.value)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-6


@pytest.mark.parametrize("name", ["LeNet", "PrimitiveCNN"])
def test_small_networks_have_no_published_weights(name):
    with pytest.raises(PipelineError, match=rf"image\.weights: {name} has no published weights"):
        get_backbone(name).build(input_shape=(32, 32, 3), weights="imagenet")


def test_primitive_cnn_has_neither_normalisation_nor_shortcuts():
    model = get_backbone("PrimitiveCNN").build(input_shape=(32, 32, 3))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", *["Conv2D", "MaxPooling2D"] * 4]


def test_only_torchvisions_names_download_pytorch_files():
    known = list_backbones()
    timms = {f"EfficientNetB{n}" for n in range(8)} | set(CONVNEXTS)
    assert {name for name, one in known.items() if one.load_torch} == timms | {
        name for name in OWN if name.startswith("res")
    }
    with pytest.raises(PipelineError, match=r"image\.weights: convnextv2_atto .* CC BY-NC"):
        known["convnextv2_atto"].build(input_shape=(32, 32, 3), weights="imagenet")
    assert {name for name, one in known.items() if one.published_torch} == {
        name for name in OWN if name.startswith("res")
    }
    assert known["resnet50"].parameters == 25_557_032 and known["ResNet50"].parameters is None


class TestTable:
    """What each backbone is like."""

    @pytest.mark.slow
    def test_numbers_are_those_of_the_built_networks(self):
        table = backbone_table([*OWN, "InceptionV3", "ResNet50"], image_size_px=299)
        for name, (_, parameters) in OWN.items():
            assert table.parameters[name] == parameters
        assert table.parameters["ResNet50"] == 23_587_712  # of its ..._notop.h5
        assert table.output_shape["resnet18"] == (10, 10, 512)
        assert table.output_shape["InceptionV3"] == (8, 8, 2048)
        assert table.input_range["LeNet"] == "[-1, 1]"
        assert table.input_range["resnet18"] == "[-2.118, 2.64]"
        assert table.input_range["ResNet50"] == "[-123.7, 151.1]"
        assert list(table.stride) == [8, 16, *[32] * 8]
        assert table.index.name == "backbone" and list(table.index[:2]) == ["LeNet", "PrimitiveCNN"]

    def test_a_network_built_afterwards_works(self):
        backbone_table(["LeNet"], image_size_px=32)
        model = get_backbone("LeNet").build(input_shape=(32, 32, 3))
        images = np.ones((2, 32, 32, 3), np.float32)
        assert np.isfinite(model.predict(images, verbose=0)).all()

    def test_an_unknown_name_gives_the_nearest(self):
        with pytest.raises(PipelineError, match=r"'resnet51'.*mean 'resnet50'"):
            backbone_table(["resnet51"])


def test_whose_weights_a_backbone_takes_is_said_of_backbones_that_there_are():
    known = list_backbones()
    assert set(WEIGHTS_OF) <= set(known) and set(WEIGHTS_OF.values()) <= set(known)
