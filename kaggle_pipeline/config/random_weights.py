"""What is said of a network that nothing has taught yet: where it is trained, planned and scored.

In: a stage's resolved config, of any version. Out: a sentence, or none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.loading import read_settings

FROM_SCRATCH = ("LeNet", "PrimitiveCNN")
"""Backbones that are small enough to be trained from nothing, and have no published weights."""
_WORTH = "so its scores are worth next to nothing"
_INSTEAD = "weights that others trained (imagenet, or a file of them)"


def random_weights(stage: str, config: Mapping[str, Any]) -> str | None:
    """Return a sentence where a stage's photos are read by a network of random weights.

    None where published weights are given, where the stage reads no photo, and where one of
    :data:`FROM_SCRATCH` is trained, which is how it is meant.

    Parameters
    ----------
    stage : str
        ``image`` or ``embedding``; all others give None.
    config : mapping
        As :func:`~kaggle_pipeline.config.loading.to_mapping` or ``config.yaml`` has it.

    Examples
    --------
    >>> random_weights("image", {"image": {"backbone": "ResNet50", "weights": "imagenet"}})
    >>> random_weights("image", {"image": {"backbone": "LeNet", "weights": None}})
    >>> random_weights("image", {"image": {"backbone": "ResNet50", "weights": None}})[:52]
    'image model: ResNet50 is trained from random weights'
    """
    if stage == "image":
        return _of_network(config.get("image") or {})
    if stage == "embedding":
        encoders = (config.get("embedding") or {}).get("encoders") or ()
        names = [
            one["source"] for one in encoders
            if one.get("weights", "published") is None and not one["source"].startswith("file:")
        ]  # fmt: skip
        if names:
            return (
                f"embedding model: {', '.join(names)} has random weights (weights: null of "
                f"embedding.encoders), {_WORTH}; name {_INSTEAD}"
            )
    return None


def _of_network(image: Mapping[str, Any]) -> str | None:
    if image.get("weights", "imagenet") is not None:
        return None
    name = f"image model: {image.get('backbone')}"
    if image.get("frozen"):
        return (
            f"{name} is frozen with random weights (image.weights: null): only a head learns, from "
            f"features that mean nothing, {_WORTH}; name {_INSTEAD}, or say image.frozen: false"
        )
    if image.get("train_from"):
        return (
            f"{name} has random weights (image.weights: null) and keeps those before "
            f"{image['train_from']}, {_WORTH}; name {_INSTEAD}, or say image.train_from: null"
        )
    if image.get("backbone") in FROM_SCRATCH:
        return None
    return (
        f"{name} is trained from random weights (image.weights: null), which on a few thousand "
        f"photos scores clearly lower than {_INSTEAD}"
    )


def random_weights_of(folder: Path) -> str | None:
    """Return the same of a run's stage, by its folder; None where that has no config."""
    path = Path(folder) / "config.yaml"
    return random_weights(path.parent.name, read_settings(path)) if path.exists() else None
