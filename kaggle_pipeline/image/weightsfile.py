"""Weights from a ``.weights.h5`` file, with an error of one line where they do not fit."""

from pathlib import Path

import keras

from kaggle_pipeline.errors import PipelineError


def load_weights(model: keras.Model, path: Path) -> None:
    """Load a ``.weights.h5`` file of the same architecture into ``model``.

    Raises
    ------
    PipelineError
        If the file is missing or does not fit.
    """
    if not path.exists():
        raise PipelineError(f"image.weights: {path} does not exist")
    try:
        model.load_weights(path)
    # h5py and Keras raise what they like on a file that is not theirs.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"image.weights: {path} does not fit {model.name}: {reason}") from None
