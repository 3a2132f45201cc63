"""Tests of the backbones: each with its own preprocessing; two of them built."""

import numpy as np
import pytest

from kaggle_pipeline.errors import PipelineError

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.image.backbones import get_backbone, lenet, list_backbones  # noqa: E402

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
    "MobileNet": UNIT,
    "MobileNetV2": UNIT,
    "MobileNetV3Small": IDENTITY,
    "NASNetMobile": UNIT,
    "ResNet50": CAFFE,
    "ResNet50V2": UNIT,
    "VGG16": CAFFE,
    "VGG19": CAFFE,
    "Xception": UNIT,
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
    assert set(WANTED) <= names and len(names) >= 36
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
        # 3 x 3 kernels 3 → 4 → 8 → 16 and four numbers a channel of batch normalisation.
        ("LeNet", {"filters": 4}, (8, 8, 16), 9 * (12 + 32 + 128) + 4 * (4 + 8 + 16)),
        ("LeNet", {}, (8, 8, 128), 9 * (96 + 2048 + 8192) + 4 * (32 + 64 + 128)),
    ],
)
def test_output_shape_and_parameter_count(name, options, shape, parameters):
    model = get_backbone(name).build(input_shape=(64, 64, 3), weights=None, **options)
    assert model.output_shape == (None, *shape)
    assert model.count_params() == parameters


@pytest.mark.parametrize(
    ("name", "options"), [("MobileNetV2", {"alpha": 0.35}), ("LeNet", {"filters": 4})]
)
def test_the_gradient_reaches_the_stem(name, options):
    keras.utils.set_random_seed(0)
    model = get_backbone(name).build(input_shape=(32, 32, 3), weights=None, **options)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        features = model(images, training=True)
        loss = tf.reduce_mean(features * np.arange(features.shape[-1], dtype=np.float32))
    stem = model.trainable_variables[0]
    assert stem.shape[:3] == (3, 3, 3)
    gradient = tape.gradient(loss, stem.value)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-6


def test_lenet_has_no_published_weights():
    with pytest.raises(PipelineError, match=r"image\.weights: LeNet has no published weights"):
        lenet((32, 32, 3), weights="imagenet")
