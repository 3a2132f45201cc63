"""Encoders of PyTorch: their own preprocessing, weights from a file, what does not fit refused."""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from kaggle_pipeline.config.embedding import EncoderConfig  # noqa: E402
from kaggle_pipeline.core.errors import PipelineError  # noqa: E402
from kaggle_pipeline.models.embedding.torch_encoders import torch_encoder  # noqa: E402

LITE = "tf_efficientnet_lite0"
SOURCE = f"timm:{LITE}"


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (h, w, 3)).astype(np.uint8)).resize((w * 8, h * 8))
        for h, w in ((20, 30), (32, 32))
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of random weights, with the last layer that an encoder has not."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("lite") / "lite0.safetensors"
    save_file(timm.create_model(LITE).state_dict(), path)
    return path


def encode(config, photos):
    encoder = torch_encoder(config, use_gpu=False)
    return encoder, encoder.encode([encoder.prepare(photo) for photo in photos])


def test_a_timm_encoder_is_timms_network_before_its_last_layer(photos, weights):
    encoder, found = encode(EncoderConfig(SOURCE, weights=str(weights), views="flips"), photos)
    model = timm.create_model(LITE, checkpoint_path=str(weights)).eval()
    data = timm.data.resolve_data_config(model=model)
    transform = timm.data.create_transform(**data, is_training=False)
    with torch.inference_mode():
        batch = torch.stack([transform(photo) for photo in photos])
        plain, mirrored = (
            model.forward_head(model.forward_features(one), pre_logits=True).numpy()
            for one in (batch, batch.flip(3))
        )
    assert found.shape == (2, 4, 1280) and found.dtype == np.float32
    assert np.ptp(plain, axis=0).max() > 1e-4
    np.testing.assert_allclose(found[:, 0], plain, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], mirrored, atol=1e-5)
    assert encoder.about["library"].startswith("timm ") and encoder.about["image_size_px"] == 224


def test_another_size_is_what_the_network_sees(photos, weights):
    config = EncoderConfig(SOURCE, weights=str(weights), image_size_px=96)
    encoder, found = encode(config, photos)
    assert encoder.prepare(photos[0]).shape == (96, 96, 3) and found.shape == (2, 1, 1280)


def test_weights_that_do_not_fit_are_named(tmp_path, weights):
    with pytest.raises(PipelineError, match=r"lite0\.safetensors is not of timm:resnet18"):
        torch_encoder(EncoderConfig("timm:resnet18", weights=str(weights)), use_gpu=False)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PipelineError, match=r"damaged\.safetensors is no checkpoint"):
        torch_encoder(EncoderConfig(SOURCE, weights=str(damaged)), use_gpu=False)
    with pytest.raises(PipelineError, match="tf_efficientnet_lite0"):
        torch_encoder(EncoderConfig("timm:tf_efficientnet_lite00", weights=None), use_gpu=False)
    with pytest.raises(PipelineError, match="does not exist"):
        torch_encoder(EncoderConfig(SOURCE, weights="gone.pth"), use_gpu=False)


@pytest.mark.ci
def test_an_open_clip_encoder_is_the_half_that_sees(photos):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    encoder, found = encode(EncoderConfig("open_clip:ViT-S-32", weights=None), photos)
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms("ViT-S-32", pretrained=None)
    with torch.inference_mode():
        wanted = model.eval().encode_image(torch.stack([transform(p) for p in photos])).numpy()
    assert np.ptp(wanted, axis=0).max() > 1e-4
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-4)
    assert encoder.about["library"].startswith("open_clip ")
