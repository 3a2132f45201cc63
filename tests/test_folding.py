"""Folded networks answer as the networks they were made of."""

import keras
import numpy as np
import pytest
from keras import layers

from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.image.folding import fold_norms, refold
from kaggle_pipeline.image.network import build_network

pytest.importorskip("tensorflow")

SIDE = 32
PIXELS = np.random.default_rng(1).uniform(0, 1, (4, 6, 6, 4)).astype("float32")


def shake(network, seed=0):
    """Give every normalisation statistics that change what it is given."""
    rng = np.random.default_rng(seed)
    for layer in norms_of(network):
        layer.set_weights([w + rng.uniform(0.1, 0.9, w.shape) for w in layer.get_weights()])
    return network


def norms_of(network):
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    own = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    return own + [norm for model in inner for norm in norms_of(model)]


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
    folded = fold_norms(network)
    assert len(norms_of(network)) == 1 and not norms_of(folded)
    same(network, folded)


def _used_twice(x):
    x = layers.Conv2D(4, 1)(x)
    return layers.Add()([x, layers.BatchNormalization()(x)])


KEPT = {
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
    assert fold_norms(network) is network
    refold(network, network)


def test_an_output_that_is_asked_for_is_kept():
    inputs = keras.Input(PIXELS.shape[1:])
    x = layers.Conv2D(4, 3)(inputs)
    both = shake(keras.Model(inputs, [x, layers.BatchNormalization()(x)]))
    assert fold_norms(both) is both


@pytest.mark.parametrize("backbone", ["LeNet", "MobileNetV2", "resnet18"])
def test_a_whole_network_keeps_its_answers_and_its_layers(backbone):
    config = ImageConfig(backbone=backbone, weights=None, image_size_px=SIDE)
    whole = build_network(config, get_spec("ham10000"), load_published=False)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    network = shake(keras.Model(pixels, whole.get_layer("body")(pixels)))
    photos = np.random.default_rng(2).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    folded = fold_norms(network)
    assert norms_of(network) and not norms_of(folded)
    same(network, folded, photos)
    before = folded.predict_on_batch(photos)
    shake(network, seed=5)
    refold(network, folded)
    same(network, folded, photos)
    assert np.abs(folded.predict_on_batch(photos) - before).max() > 1e-3 * np.abs(before).max()


def test_an_optimizer_is_not_copied():
    network = small(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    network.compile("adam", "mse")
    folded = fold_norms(network)
    assert not folded.compiled and network.compiled
