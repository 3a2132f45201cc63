"""Weights of a network: from a ``.weights.h5`` file, or as arrays from another one.

In: a built network, and a file or arrays. Out: the network with these weights in use.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.record import require_written


def load_weights(model: keras.Model, path: Path) -> None:
    """Load a ``.weights.h5`` file of the same architecture into ``model``.

    Raises
    ------
    PipelineError
        If the file is missing, does not fit or is not what was written.
    """
    if not path.exists():
        raise PipelineError(f"image.weights: {path} does not exist")
    require_written(path)
    try:
        model.load_weights(path)
    # h5py and Keras raise what they like on a file that is not theirs.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"image.weights: {path} does not fit {model.name}: {reason}") from None


def set_weights(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Give ``model`` the weights of another one of its architecture, in ``get_weights``' order.

    ``keras.layers.Normalization`` computes with tensors that it makes of its statistics when they
    are adapted or loaded. ``model.set_weights`` alone leaves those as they were: in a new model a
    mean of 0 and a variance of 1.
    """
    model.set_weights(weights)
    for layer in inner_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def inner_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of ``model`` and of the models within it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from inner_layers(layer)
