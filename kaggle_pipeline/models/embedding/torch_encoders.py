"""Encoders of PyTorch: timm's and open_clip's, with their own preprocessing."""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kaggle_pipeline.config.embedding import EncoderConfig
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.models.embedding.encoder import VIEWS, Encoder

_PACKAGES = {"timm": "timm", "open_clip": "open_clip"}


def torch_encoder(config: EncoderConfig, *, use_gpu: bool) -> Encoder:
    """Return an encoder of ``timm:<name>`` or ``open_clip:<name>``, which may end in ``/<tag>``.

    Raises
    ------
    PipelineError
        If the packages are not installed, the network is unknown, or the weights cannot be had or
        are another network's.
    """
    if find_spec("torch") is None or find_spec(_PACKAGES[config.kind]) is None:
        raise PipelineError(f"{config.source} needs PyTorch: pip install '.[encoders]'")
    _require_file(config)
    import torch

    make = _timm if config.kind == "timm" else _open_clip
    try:
        model, transform, version = make(config)
    except PipelineError:
        raise
    except Exception as error:  # bad options, no internet, a cache that is damaged: many kinds
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        hint = "; with no internet name a file in weights" if config.weights == "published" else ""
        raise PipelineError(f"{config.source} cannot be had: {reason}{hint}") from None
    device = "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)

    def prepare(photo: Image.Image) -> np.ndarray:
        return transform(photo).permute(1, 2, 0).numpy()  # as views are turned

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tensor = torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)
            return model(tensor).float().cpu().numpy()

    side = prepare(Image.new("RGB", (64, 64))).shape[0]
    about = {
        "library": version,
        "weights_sha256": _digest(model.state_dict()),
        "preprocessing": " ".join(str(transform).split()),
        "image_size_px": side,
    }
    return Encoder(prepare, run, VIEWS[config.views], about)


def _timm(config: EncoderConfig) -> tuple[Any, Callable, str]:
    import timm

    name = config.what
    if not timm.is_model(name):
        known = timm.list_models()
        raise PipelineError(
            f"{config.source}: timm has no such network{nearest(name, known, or_all=False)}"
        )
    published = config.weights == "published"
    model = timm.create_model(name, pretrained=published, num_classes=0, **config.options)
    data = timm.data.resolve_data_config(model=model)
    if config.image_size_px is not None:
        data["input_size"] = (3, config.image_size_px, config.image_size_px)
    if config.weights is not None and not published:
        _load(model, config, dropped=str(model.default_cfg.get("classifier") or "classifier"))
    return model, timm.data.create_transform(**data, is_training=False), f"timm {timm.__version__}"


def _open_clip(config: EncoderConfig) -> tuple[Any, Callable, str]:
    import open_clip

    name, _, tag = config.what.partition("/")
    if name not in open_clip.list_models() and not name.startswith("hf-hub:"):
        known = open_clip.list_models()
        raise PipelineError(
            f"{config.source}: open_clip has no such network{nearest(name, known, or_all=False)}"
        )
    options = dict(config.options)
    if config.image_size_px is not None:
        options["force_image_size"] = config.image_size_px
    weights = config.weights
    if weights == "published":
        weights = tag or next((t for n, t in open_clip.list_pretrained() if n == name), None)
    made = open_clip.create_model_and_transforms(name, pretrained=weights, **options)
    return made[0].visual, made[2], f"open_clip {open_clip.__version__}"


def _load(model: Any, config: EncoderConfig, dropped: str) -> None:
    """Load a checkpoint file of timm; only the last layer's weights may be left over."""
    import torch
    from timm.models import load_state_dict

    try:
        state = load_state_dict(config.weights, device="cpu", weights_only=True)
    except Exception as error:  # PyTorch and safetensors raise what they like on a damaged file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PipelineError(f"{config.weights} is no checkpoint: {reason}") from None
    own = model.state_dict()
    wrong = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    wrong += [key for key in state if key not in own and not key.startswith(dropped)]
    wrong += [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise PipelineError(
            f"{config.weights} is not of {config.source}: {wrong[0]} does not fit "
            f"({len(wrong)} such)"
        )
    with torch.no_grad():
        model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _require_file(config: EncoderConfig) -> None:
    if config.weights not in (None, "published") and not Path(config.weights).is_file():
        raise PipelineError(f"{config.source}: weights {config.weights} does not exist")


def _digest(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name].cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
