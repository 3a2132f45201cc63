"""Tests of the merged InceptionResNetV2: the very function of keras.applications' one."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import ops

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.image.backbones.inception_merged import build_merged, load_original
from kaggle_pipeline.models.image.backbones.registry import get_backbone

pytestmark = pytest.mark.slow  # two networks of 780 layers

SHAPE = (75, 75, 3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """keras.applications' network with lively weights, and a merged one that read its file."""
    keras.utils.set_random_seed(3)
    original = keras.applications.InceptionResNetV2(
        include_top=False, weights=None, input_shape=SHAPE
    )
    rng = np.random.default_rng(4)
    for layer in original.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            offset, mean, variance = layer.get_weights()
            layer.set_weights(
                [rng.normal(0, 0.1, offset.shape), rng.normal(0, 0.1, mean.shape),
                 rng.uniform(0.5, 1.5, variance.shape)]
            )  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "original.weights.h5"
    original.save_weights(path)
    merged = build_merged(SHAPE)
    load_original(merged, path)
    return original, merged


def test_features_are_the_same(pair):
    images = np.random.default_rng(0).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    for training in (False, True):  # with kept statistics, and with those of the batch
        one, other = (ops.convert_to_numpy(model(images, training=training)) for model in pair)
        assert one.std() > 1e-3
        np.testing.assert_allclose(other, one, atol=2e-4 * np.abs(one).max())


def test_there_is_not_one_weight_more_or_less(pair):
    original, merged = pair
    assert merged.count_params() == original.count_params() == 54_336_736
    convolutions = [
        sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) for model in pair
    ]
    assert convolutions[0] - convolutions[1] == 2 + 10 * 2 + 20 + 2 + 10


def test_stages_keep_their_names_and_another_file_is_refused(pair, tmp_path):
    for name in ("mixed_5b", "mixed_6a", "block35_1_mixed", "block8_10_conv", "conv_7b"):
        assert pair[1].get_layer(name)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(
        tmp_path / "other.weights.h5"
    )
    with pytest.raises(PipelineError, match="does not fit inception_resnet_v2"):
        get_backbone("InceptionResNetV2Merged").load_h5(pair[1], tmp_path / "other.weights.h5")
