"""Encoders by the kind of their source: in a setting, out an encoder of whichever library."""

from typing import TYPE_CHECKING

from kaggle_pipeline.config.embedding import EncoderConfig
from kaggle_pipeline.models.embedding.encoder import Encoder

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator


def open_encoder(config: EncoderConfig, device: "Accelerator", batch_size: int) -> Encoder:
    """Return the encoder of a setting, its weights loaded.

    Parameters
    ----------
    config : EncoderConfig
        That reads photos.
    device : Accelerator
        Where Keras' networks run; PyTorch's run on a GPU where it sees one, unless this is a CPU.
    batch_size : int
        Photos that it will be given at once, or fewer.

    Raises
    ------
    PipelineError
        If library, network or weights cannot be had.
    """
    if config.kind == "keras":
        from kaggle_pipeline.models.embedding.keras_encoder import keras_encoder

        return keras_encoder(config, device, batch_size)
    from kaggle_pipeline.models.embedding.torch_encoders import torch_encoder

    return torch_encoder(config, use_gpu=device.kind != "cpu")
