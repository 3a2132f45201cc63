"""Tests of timm's families: the same random weights give the same features and gradients."""

from contextlib import contextmanager

import numpy as np
import pytest
from helpers_image import tiny_config

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("tensorflow")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from kaggle_pipeline.core.errors import PipelineError  # noqa: E402
from kaggle_pipeline.models.image.backbones.convnext_v2 import (  # noqa: E402
    CONVNEXTS,
    convnext_places,
)
from kaggle_pipeline.models.image.backbones.registry import get_backbone  # noqa: E402
from kaggle_pipeline.models.image.backbones.timm_names import efficientnet_places  # noqa: E402
from kaggle_pipeline.models.image.network import build_body, check_backbone  # noqa: E402

EFFICIENTNETS = {f"EfficientNetB{n}": f"tf_efficientnet_b{n}.ns_jft_in1k" for n in range(8)}
FAMILIES = EFFICIENTNETS | {name: name for name in CONVNEXTS}
PROVEN = ["EfficientNetB0", "convnextv2_atto"]
"""The smallest of each family, end to end; the others by the names and shapes of their weights."""


def random_timm(name):
    """timm's network with statistics and scales of no untrained network, in float64."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    for key, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        with torch.no_grad():
            if key.endswith("running_var"):
                torch.nn.init.uniform_(value, 0.5, 2.0)
            elif key.endswith("running_mean") or key.endswith("bias"):
                torch.nn.init.uniform_(value, -0.3, 0.3)
            elif "grn" in key:
                torch.nn.init.uniform_(value, -0.5, 0.5)
            elif value.ndim == 1 and key.endswith("weight"):
                torch.nn.init.uniform_(value, 0.6, 1.2)
            elif value.ndim > 1:
                torch.nn.init.kaiming_normal_(value)
    return model


@contextmanager
def float64():
    """Keras in float64: what then differs is not rounding."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


def written(model, path):
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


@pytest.mark.ci
@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("name", PROVEN)
def test_the_same_weights_give_the_same_features_and_gradients(name, side, tmp_path):
    model = random_timm(FAMILIES[name])
    path = written(model, tmp_path / "timm.safetensors")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3))
    backbone = get_backbone(name)
    with float64():
        network = backbone.build_pretrained((side, side, 3))
        backbone.load_torch(network, path)
        seen = tf.constant(pixels)
        with tf.GradientTape() as tape:
            tape.watch(seen)
            features = network(backbone.preprocess(seen), training=False)
            loss = tf.reduce_sum(features * tf.cos(tf.range(features.shape[-1], dtype=tf.float64)))
        gradient = tape.gradient(loss, seen).numpy()
    mean, std = (np.array(model.default_cfg[key]) for key in ("mean", "std"))
    image = torch.from_numpy(pixels).requires_grad_()
    wanted = model.double().forward_features(
        ((image / 255 - torch.from_numpy(mean)) / torch.from_numpy(std)).permute(0, 3, 1, 2)
    )
    channels = torch.arange(wanted.shape[1], dtype=torch.float64).cos()[:, None, None]
    (wanted * channels).sum().backward()
    wanted = wanted.detach().permute(0, 2, 3, 1).numpy()
    assert features.shape == wanted.shape and np.ptp(wanted, axis=0).max() > 1e-3
    assert np.abs(features - wanted).max() / np.abs(wanted).max() < 1e-4
    assert np.abs(gradient - image.grad.numpy()).max() / np.abs(image.grad.numpy()).max() < 1e-4


@pytest.mark.ci
@pytest.mark.parametrize("name", FAMILIES)
def test_every_size_has_a_place_for_each_of_timms_weights(name):
    with torch.device("meta"):
        network = timm.create_model(FAMILIES[name], pretrained=False)
    state = network.state_dict()
    if name in CONVNEXTS:
        assert CONVNEXTS[name].parameters == sum(one.numel() for one in network.parameters())
    with keras.StatelessScope(initialize_variables=False):
        network = get_backbone(name).build_pretrained((64, 64, 3))
    places = convnext_places if name in CONVNEXTS else efficientnet_places
    wanted = {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.startswith(("classifier.", "head.")) and not key.endswith("batches_tracked")
    }
    found = {
        key: tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
        for key, (variable, axes) in places(network).items()
    }
    assert found == wanted


def test_weights_of_another_size_are_refused_before_anything_is_assigned(tmp_path):
    path = written(timm.create_model("tf_efficientnet_b1"), tmp_path / "b1.safetensors")
    config = tiny_config(backbone="EfficientNetB0", backbone_options={}, weights=str(path))
    with pytest.raises(PipelineError, match=r"b1\.safetensors has blocks"):
        check_backbone(config)


def test_a_body_with_timms_weights_scales_photos_as_timm_does(tmp_path):
    model = random_timm("tf_efficientnet_b0")
    path = written(model, tmp_path / "b0.safetensors")
    config = tiny_config(
        backbone="EfficientNetB0", backbone_options={}, weights=str(path), image_size_px=64
    )
    photos = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    found = np.asarray(build_body(config, load_published=True)(photos, training=False))
    data = timm.data.resolve_data_config(model=model)
    scaled = (photos / 255 - np.array(data["mean"])) / np.array(data["std"])
    tensor = torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = model.forward_features(tensor).mean((2, 3)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
