"""Folded networks answer as the networks they were made of."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from helpers_image import tiny_config
from keras import layers

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.private_api import all_layers
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.accelerator import choose_accelerator
from kaggle_pipeline.models.image.inference.fuse_batch_norm import fuse_batch_norm, update_fused
from kaggle_pipeline.models.image.inference.gradcam import Explainer
from kaggle_pipeline.models.image.inference.predictor import Predictor, fused_on_cpu
from kaggle_pipeline.models.image.network import build_network

SIDE = 32
PIXELS = np.random.default_rng(1).uniform(0, 1, (4, 6, 6, 4)).astype("float32")


def shake(network, seed=0):
    """Give every normalisation statistics that change what it is given."""
    rng = np.random.default_rng(seed)
    for layer in norms_of(network):
        layer.set_weights([w + rng.uniform(0.1, 0.9, w.shape) for w in layer.get_weights()])
    return network


def norms_of(network):
    return [layer for layer in all_layers(network) if isinstance(layer, layers.BatchNormalization)]


def small(build):
    """A network of PIXELS: what ``build`` makes of its input."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(PIXELS.shape[1:])
    return shake(keras.Model(inputs, build(inputs)))


def same(one, other, images=PIXELS):
    expected = one.predict_on_batch(images)
    # Rounding, in float32; a forgotten term would be of the order of the answers themselves.
    np.testing.assert_allclose(
        other.predict_on_batch(images), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )


CONVOLUTIONS = {
    "plain": layers.Conv2D(8, 3, use_bias=False),
    "with an offset": layers.Conv2D(8, 3, bias_initializer="normal"),
    "in groups": layers.Conv2D(8, 3, groups=2, use_bias=False),
    "with a stride": layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
    "depthwise": layers.DepthwiseConv2D(3, use_bias=False),
    "depthwise, three each": layers.DepthwiseConv2D(3, depth_multiplier=3, bias_initializer="ones"),
}


@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_takes_its_normalisation_in(kind, norm):
    made = CONVOLUTIONS[kind]
    network = small(
        lambda x: layers.ReLU()(
            layers.BatchNormalization(**norm)(type(made).from_config(made.get_config())(x))
        )
    )
    fused = fuse_batch_norm(network)
    assert len(norms_of(network)) == 1 and not norms_of(fused)
    same(network, fused)


def _used_twice(x):
    x = layers.Conv2D(4, 1)(x)
    return layers.Add()([x, layers.BatchNormalization()(x)])


def _read_by_a_model(x):
    inner = keras.Input((6, 6, 4))
    model = keras.Model(inner, layers.ReLU()(inner))
    x = layers.Conv2D(4, 1)(x)
    return layers.Add()([model(x), layers.BatchNormalization()(x)])


def _called_twice(x):
    convolution = layers.Conv2D(4, 1)
    return layers.BatchNormalization()(convolution(convolution(x)))


KEPT = {
    "a model within reads its output": _read_by_a_model,
    "it is called twice": _called_twice,
    "it is in a Sequential model": lambda x: keras.Sequential(
        [layers.Conv2D(4, 1), layers.BatchNormalization()]
    )(x),
    "its output is used elsewhere": _used_twice,
    "something lies between": lambda x: layers.BatchNormalization()(
        layers.Conv2D(4, 1, activation="relu")(x)
    ),
    "the normalisation comes first": lambda x: layers.Conv2D(4, 1)(layers.BatchNormalization()(x)),
    "another axis": lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(6, 1)(x)),
    "shorter numbers": lambda x: layers.BatchNormalization()(
        layers.Conv2D(4, 1, dtype="mixed_bfloat16")(x)
    ),
    "a dense layer": lambda x: layers.BatchNormalization()(layers.Dense(4)(x)),
}


@pytest.mark.parametrize("why", KEPT)
def test_what_cannot_be_folded_is_left_alone(why):
    network = small(KEPT[why])
    assert fuse_batch_norm(network) is network


def test_an_output_that_is_asked_for_is_kept():
    inputs = keras.Input(PIXELS.shape[1:])
    x = layers.Conv2D(4, 3)(inputs)
    both = shake(keras.Model(inputs, [x, layers.BatchNormalization()(x)]))
    assert fuse_batch_norm(both) is both


@pytest.mark.parametrize("backbone", ["LeNet", "MobileNetV2", "resnet18"])
def test_a_whole_network_keeps_its_answers_and_its_layers(backbone):
    config = ImageConfig(backbone=backbone, weights=None, image_size_px=SIDE)
    whole = build_network(config, get_spec("ham10000"), load_published=False)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    network = shake(keras.Model(pixels, whole.get_layer("body")(pixels)))
    photos = np.random.default_rng(2).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    fused = fuse_batch_norm(network)
    assert norms_of(network) and not norms_of(fused)
    same(network, fused, photos)
    before = fused.predict_on_batch(photos)
    shake(network, seed=5)
    update_fused(network, fused)
    same(network, fused, photos)
    assert np.abs(fused.predict_on_batch(photos) - before).max() > 1e-3 * np.abs(before).max()


def test_an_optimizer_is_not_copied():
    network = small(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    network.compile("adam", "mse")
    fused = fuse_batch_norm(network)
    assert not fused.compiled and network.compiled


@pytest.mark.parametrize(("kind", "replicas"), [("cpu", 1), ("cpu", 8), ("gpu", 1), ("tpu", 8)])
def test_one_cpu_folds_and_nothing_else_does(kind, replicas):
    network = small(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    found = fused_on_cpu(network, SimpleNamespace(kind=kind, replicas=replicas))
    assert (found is not network) == (kind == "cpu" and replicas == 1)


@pytest.fixture
def answerer(tmp_path):
    """Of networks that nobody has saved."""
    device = choose_accelerator("cpu")
    return Predictor(tiny_config(), get_spec("synthetic"), None, device, tmp_path, False, 0)


def test_a_network_has_one_folded_copy_that_goes_with_it(answerer):
    network = small(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    first = answerer.fused(network)
    shake(network, seed=7)
    assert answerer.fused(network) is first
    same(network, first)
    copy = weakref.ref(first)
    del network, first
    gc.collect()  # the network, and then what was kept for it
    gc.collect()
    assert copy() is None


def test_metadata_goes_to_the_folded_network_too(answerer):
    config = tiny_config(metadata=True)
    network = shake(build_network(config, get_spec("synthetic"), load_published=False))
    fused = answerer.fused(network)
    assert norms_of(network) and not norms_of(fused)
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
        "metadata": rng.random((4, network.input["metadata"].shape[1]), np.float32),
    }
    same(network, fused, inputs)


def test_what_is_explained_is_what_the_network_answers(answerer):
    spec = get_spec("synthetic")
    network = shake(build_network(tiny_config(), spec, load_published=False))
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    explainer = Explainer(network, tiny_config(), spec, answerer.device)
    assert not norms_of(explainer._body)
    found = explainer.answer(photos).probabilities
    np.testing.assert_allclose(found, network.predict_on_batch(photos), rtol=1e-5)
