"""Encoders of Keras: every backbone of the image model, with the weights that it takes."""

import keras
import numpy as np
from PIL import Image

from kaggle_pipeline.config.embedding import EncoderConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.embedding.encoder import VIEWS, Encoder
from kaggle_pipeline.models.image.inference.feature_cache import body_digest
from kaggle_pipeline.models.image.inference.predictor import fused_on_cpu, running
from kaggle_pipeline.models.image.network import build_body, check_backbone

_SIDE_PX = 224
"""What most published weights were trained at."""


def keras_encoder(config: EncoderConfig, device: Accelerator, batch_size: int) -> Encoder:
    """Return the frozen body of the image model: scaling, backbone, pooling.

    Raises
    ------
    PipelineError
        If backbone, layer or weights are wrong; it names the key of ``image`` that is its like.
    """
    side = config.image_size_px or _SIDE_PX
    image = ImageConfig(
        backbone=config.what, backbone_options=config.options, image_size_px=side, frozen=True,
        weights="imagenet" if config.weights == "published" else config.weights,
        backbone_layer=config.layer, pool_share=config.pool_share,
    )  # fmt: skip
    device = device.alone()
    keras.utils.set_random_seed(0)  # where there are no weights, the same ones each time
    check_backbone(image)
    with running(device, image):
        body = build_body(image, load_published=True)
        fused = fused_on_cpu(body, device)
        fused.compile(jit_compile=device.jit_compile)

    def prepare(photo: Image.Image) -> np.ndarray:
        return np.asarray(_central_square(photo).resize((side, side), Image.Resampling.BILINEAR))

    def run(batch: np.ndarray) -> np.ndarray:
        filled = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)  # one shape compiles once
        filled[: len(batch)] = batch
        with running(device, image, building=False):
            return np.asarray(fused.predict_on_batch(filled), np.float32)[: len(batch)]

    about = {
        "library": f"keras {keras.__version__}",
        "weights_sha256": body_digest(body, config.what, config.layer, config.pool_share),
        "preprocessing": "central square, bilinear resize, the backbone's own scaling",
        "image_size_px": side,
    }
    return Encoder(prepare, run, VIEWS[config.views], about)


def _central_square(photo: Image.Image) -> Image.Image:
    side = min(photo.size)
    left, top = ((length - side) // 2 for length in photo.size)
    return photo.crop((left, top, left + side, top + side))
