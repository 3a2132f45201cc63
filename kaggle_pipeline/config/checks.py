"""Checks of settings, each an error of one line that names the key.

In: a key and its value. Out: nothing, or a :class:`PipelineError`.
"""

from collections.abc import Sequence
from typing import Any

from kaggle_pipeline.core.errors import PipelineError, nearest


def require(condition: bool, key: str, value: Any, wish: str) -> None:
    """Raise unless ``condition`` holds; ``wish`` says what the value must be."""
    if not condition:
        raise PipelineError(f"{key} is {value!r}, must be {wish}")


def positive(key: str, value: float) -> None:
    """Raise unless ``value`` is at least 1."""
    require(value >= 1, key, value, "at least 1")


def inner(key: str, value: float) -> None:
    """Raise unless ``value`` can be a share to hold out."""
    require(0.05 <= value <= 0.5, key, value, "in [0.05, 0.5]")


def share(key: str, value: float) -> None:
    """Raise unless ``value`` is in [0, 1)."""
    require(0 <= value < 1, key, value, "in [0, 1)")


def subset(key: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise unless ``values`` are some of ``allowed``, one at least and none twice."""
    for one in values:
        if one not in allowed:
            raise PipelineError(f"{key} has {one!r}{nearest(one, allowed)}")
    twice = len(set(values)) < len(values)
    wish = f"of {', '.join(allowed)}" + (", each once" if twice else "")
    require(bool(values) and not twice, key, list(values), wish)
