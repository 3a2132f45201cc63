"""Weights of a Keras network as a file that is whole or not there, also where the disk is full."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.room import reserve, system_error

if TYPE_CHECKING:
    import keras

_HEAD_BYTES = 64 * 2**10
"""What HDF5 adds to the values, at least."""


def save_weights(network: "keras.Model", path: Path) -> None:
    """Write ``.weights.h5``.

    Parameters
    ----------
    network : keras.Model
        With its optimizer, if it is compiled.
    path : pathlib.Path

    Raises
    ------
    PipelineError
        If there is no room for it, or no right.
    """
    with atomic_path(path) as temporary:
        reserve(temporary, weights_bytes(network))
        try:
            network.save_weights(temporary)
        except Exception as error:
            number = system_error(error)
            if number is None:
                raise
            failed = number
        else:
            return
        _forget_quietly()
        raise OSError(failed, "HDF5 could not write")


def weights_bytes(network: "keras.Model") -> int:
    """Return about how many bytes :func:`save_weights` writes."""
    variables = list(network.variables)
    if getattr(network, "optimizer", None) is not None:
        variables += network.optimizer.variables
    unique = {id(one): one for one in variables}.values()
    size = {"float16": 2, "bfloat16": 2, "float64": 8, "int64": 8}
    numbers = sum(size.get(str(one.dtype), 4) * _count(one.shape) for one in unique)
    return numbers + _HEAD_BYTES


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _forget_quietly() -> None:
    """Let h5py's broken file go without a page of its own complaints on standard error."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = before
