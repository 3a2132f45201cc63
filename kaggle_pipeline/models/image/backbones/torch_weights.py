"""Weights trained in PyTorch, for the residual networks and the families of ``timm_names``.

In: a state dict of torchvision or timm, ``.safetensors`` (needs no PyTorch) or ``.pth``/``.pt``.
Out: the same numbers in a Keras model. Nothing in a file is ever run, and nothing is assigned
before all of it has been checked.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.models.image.backbones.resnets import RESNETS

PACKAGES: Mapping[str, str] = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch"}
"""Endings of the files that :func:`load_torch_weights` reads, and the package that opens each."""

_SAFE_TORCH = (2, 6)
"""Before it, ``weights_only`` could be got round (CVE-2025-32434)."""
Tensors = dict[str, np.ndarray]
Place = tuple[Any, tuple[int, ...]]
"""A variable, and which axis of PyTorch's array each of its own is."""
_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
"""Such axes by their number: of vectors, dense layers, convolutions."""


def load_torch_weights(
    model: keras.Model,
    path: Path,
    places: Callable[[keras.Model], Mapping[str, Place]] | None = None,
    top: str = "fc.",
) -> None:
    """Assign a PyTorch state dict to a model.

    Convolutions (out, in / groups, height, width) become (height, width, in / groups, out), the
    dense layer (out, in) becomes (in, out). A state dict may lie under ``state_dict`` or ``model``
    and its keys may begin with ``module.``. The top is left out where the model has none.

    PyTorch's moving variance is the unbiased one and Keras' the biased; the numbers are taken as
    they are, since both frameworks then normalise by them in the same way.

    Parameters
    ----------
    model : keras.Model
    path : Path
        ``.safetensors``, ``.pth`` or ``.pt``.
    places : callable, optional
        Where each key goes; by default that of ``resnets``, whose layers are called as PyTorch's
        modules, with ``_`` for the dots.
    top : str
        What the keys of the last layer begin with.

    Raises
    ------
    PipelineError
        If the file is missing, damaged or holds more than tensors, if a key is missing or too
        many, if a shape or a value is wrong, or if a package is missing. The model is untouched.
    """
    found = _residual_places(model) if places is None else places(model)
    tensors = read_state_dict(path)
    if f"{top}weight" not in found:
        tensors = {key: value for key, value in tensors.items() if not key.startswith(top)}
    try:
        _check_keys(model.name, list(found), list(tensors))
        values = {key: _fitted(key, tensors[key], *place) for key, place in found.items()}
    except PipelineError as error:
        raise PipelineError(f"image.weights: {path} {error}") from None
    for key, (variable, _) in found.items():
        variable.assign(values[key])


def check_library(path: Path) -> None:
    """Raise a PipelineError if the package that reads a file of this ending is not installed."""
    package = PACKAGES.get(path.suffix)
    if package is None:
        raise PipelineError(f"image.weights: {path} must end with {', '.join(PACKAGES)}")
    if importlib.util.find_spec(package) is None:
        what = f"{path} is read by the package {package}, which is missing"
        other = "" if package == "safetensors" else ", or save the file as .safetensors elsewhere"
        raise PipelineError(f"image.weights: {what}; pip install {package}{other}")
    if package == "torch" and _release("torch") < _SAFE_TORCH:
        found = ".".join(map(str, _release("torch")))
        what = f"PyTorch {found} can be made to run code by a file (CVE-2025-32434)"
        raise PipelineError(f"image.weights: {what}; pip install 'torch>=2.6' to read {path}")


def _release(package: str) -> tuple[int, int]:
    """Major and minor version of an installed package."""
    major, minor = re.findall(r"\d+", importlib.metadata.version(package))[:2]
    return int(major), int(minor)


def read_state_dict(path: Path) -> Tensors:
    """Read the tensors of a state dict as float32 arrays, without ``num_batches_tracked``.

    Parameters
    ----------
    path : Path
        ``.safetensors``, ``.pth`` or ``.pt``.

    Returns
    -------
    dict
        Key without ``module.`` → array of the shape that PyTorch has.

    Raises
    ------
    PipelineError
        If the file is missing, damaged or holds more than floating-point tensors, or if the
        package that reads it is missing.
    """
    if not path.is_file():
        raise PipelineError(f"image.weights: {path} does not exist")
    check_library(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickled
    try:
        return read(path)
    except PipelineError as error:
        raise PipelineError(f"image.weights: {path} {error}") from None


def fetch_published(name: str) -> Path:
    """Return torchvision's ImageNet weights of a residual network; downloaded once, then kept.

    Parameters
    ----------
    name : str
        One of :data:`~kaggle_pipeline.models.image.backbones.resnets.RESNETS`.

    Returns
    -------
    Path
        In Keras' cache; its SHA-256 begins with the digits in its name.

    Raises
    ------
    PipelineError
        If there are none of that name, the download fails or the file is damaged.
    """
    if name not in RESNETS:
        raise PipelineError(f"image.weights: PyTorch has no {name!r}{nearest(name, list(RESNETS))}")
    url = RESNETS[name].url
    check_library(Path(url))  # before 40 to 240 MB are fetched in vain
    try:
        path = Path(keras.utils.get_file(Path(url).name, url, cache_subdir="models"))
    # Keras raises a bare Exception when the network is down.
    except Exception as error:
        hint = "with no internet put the path of a file of it in image.weights, or say null"
        what = f"image.weights: {url} cannot be downloaded ({_one_line(error)})"
        raise PipelineError(f"{what}; {hint}") from None
    wanted = Path(url).stem.rpartition("-")[2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(wanted):
        what = f"is damaged: its SHA-256 begins with {digest[:8]}, not {wanted}"
        raise PipelineError(f"image.weights: {path} {what}; delete it and run again")
    return path


def _residual_places(model: keras.Model) -> dict[str, Place]:
    """Return the variable that belongs to each of PyTorch's keys."""
    found = {}
    for layer in model.layers:
        module = layer.name.replace("_", ".")
        if type(layer) is layers.Conv2D and not layer.use_bias:
            found[f"{module}.weight"] = layer.kernel
        elif type(layer) is layers.BatchNormalization:
            found[f"{module}.weight"] = layer.gamma
            found[f"{module}.bias"] = layer.beta
            found[f"{module}.running_mean"] = layer.moving_mean
            found[f"{module}.running_var"] = layer.moving_variance
        elif type(layer) is layers.Dense:
            found[f"{module}.weight"] = layer.kernel
            found[f"{module}.bias"] = layer.bias
        elif layer.weights:
            what = f"{model.name} has the layer {layer.name}, which no residual network here has"
            raise PipelineError(f"image.weights: {what}; no PyTorch file fits it")
    return {key: (variable, _AXES[len(variable.shape)]) for key, variable in found.items()}


def _check_keys(name: str, wanted: list[str], found: list[str]) -> None:
    missing = [key for key in wanted if key not in found]
    extra = sorted(key for key in found if key not in wanted)
    if missing:
        rest = f" and {len(missing) - 1} more" if missing[1:] else ""
        holds = f" (it holds {min(found)})" if found else " (it is empty)"
        raise PipelineError(f"lacks {missing[0]}{rest}{holds}; give a file of {name}")
    if extra:
        rest = f" and {len(extra) - 1} more" if extra[1:] else ""
        raise PipelineError(f"has {extra[0]}{rest}, which {name} has not; give a file of {name}")


def _fitted(key: str, values: np.ndarray, variable: Any, axes: tuple[int, ...]) -> np.ndarray:
    """Return PyTorch's array in Keras' order of axes, its shape and values checked."""
    shape = variable.shape
    wanted = tuple(shape[axes.index(axis)] for axis in range(len(shape)))
    if values.shape != wanted:
        raise PipelineError(f"has {key} of shape {values.shape}; it must be {wanted}")
    if not np.isfinite(values).all():
        raise PipelineError(f"has {key} with values that are not finite; get the file anew")
    if key.endswith(".running_var") and values.min() < 0:
        raise PipelineError(f"has {key} with a variance below zero; get the file anew")
    return values.transpose(axes)


def _read_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        raw = load_file(path)
    # An unknown kind of number is a KeyError, other damage any of the rest.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = type(error).__name__
        raise PipelineError(f"is damaged or no .safetensors ({reason}); get it anew") from None
    found = {}
    for key, values in _weights_only(raw).items():
        # NumPy knows no bfloat16; the package that lends it one is not counted as "floating".
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            raise PipelineError(f"has {key} of {values.dtype}, not of floating-point numbers")
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused later
            found[key] = values.astype(np.float32)
    return found


def _read_pickled(path: Path) -> Tensors:
    import torch

    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    # PyTorch raises what it likes, and its messages advise to run the code in the file.
    except Exception as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            what = f"holds {asked[1]}, and nothing in a file is ever run"
            raise PipelineError(f"{what}; save the model's state_dict() alone") from None
        reason = type(error).__name__
        raise PipelineError(f"is damaged or no state dict ({reason}); get it anew") from None
    for name in ("state_dict", "model"):
        if isinstance(raw, Mapping) and isinstance(raw.get(name), Mapping):
            raw = raw[name]
    if not isinstance(raw, Mapping):
        raise PipelineError(f"holds a {type(raw).__name__}, not a state dict; save state_dict()")
    found = {}
    for key, tensor in _weights_only(raw).items():
        if not isinstance(tensor, torch.Tensor):
            what = f"{key}, a {type(tensor).__name__} and no tensor"
            raise PipelineError(f"has {what}; save the model's state_dict() alone")
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not (dense and tensor.is_floating_point()):
            raise PipelineError(f"has {key} of {tensor.dtype}, not of floating-point numbers")
        found[key] = tensor.detach().to(torch.float32).numpy()
    return found


def _weights_only(entries: Mapping[Any, Any]) -> dict[str, Any]:
    """Drop the counters of batches and the ``module.`` that DataParallel puts before each key."""
    keys = {key: str(key) for key in entries}
    if all(key.startswith("module.") for key in keys.values()):
        keys = {key: text.removeprefix("module.") for key, text in keys.items()}
    return {
        text: entries[key] for key, text in keys.items() if not text.endswith("num_batches_tracked")
    }


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
