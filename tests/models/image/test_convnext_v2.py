"""Tests of what ConvNeXt V2 adds to ConvNeXt: the response normalisation."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from kaggle_pipeline.models.image.backbones.convnext_v2 import GlobalResponseNorm  # noqa: E402


def normalised(pixels, dtype):
    """Result and gradient, with a scale that lets the response through."""
    layer = GlobalResponseNorm(dtype=dtype)
    layer.build(pixels.shape)
    layer.set_weights([np.ones(pixels.shape[-1]), np.zeros(pixels.shape[-1])])
    x = tf.constant(pixels)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(layer(x), tf.float32)
    return y.numpy(), tape.gradient(y, x).numpy()


def test_large_responses_and_silent_channels_pass_in_float16():
    """A sum of squares beyond 65,504, and a channel of zeros, whose root has no gradient."""
    pixels = np.random.default_rng(0).uniform(1, 5, (2, 64, 64, 3)).astype(np.float32)
    pixels[..., 1] = 0
    half, plain = (normalised(pixels, dtype) for dtype in ("mixed_float16", "float32"))
    for found, expected in zip(half, plain, strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)
