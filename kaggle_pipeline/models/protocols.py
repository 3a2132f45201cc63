"""What the loop over folds asks of a model, and a model of the hardware."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pandas as pd


class Model(Protocol):
    """What the loop asks of a model: settings in ``__init__``, data in ``fit``."""

    @property
    def selection(self) -> str:
        """Which rows may choose an epoch: ``none``, ``inner`` or ``fold``."""

    @property
    def inner_share(self) -> float:
        """Share of the training groups to hold out for ``inner``."""

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "Model":
        """Learn from ``train``; watch ``valid``, and choose by it only if ``selection`` says so."""

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities indexed by image id."""

    def save(self, folder: Path) -> None:
        """Write all that ``load`` needs, ``core.files.SAVED`` last of all."""

    def load(self, folder: Path) -> "Model":
        """Read what ``save`` wrote."""


class Device(Protocol):
    """What the model needs to know of the hardware (``accelerator.Accelerator`` provides it)."""

    kind: str
    backend: str
    replicas: int
    workers: int
    jit_compile: bool | str

    def alone(self) -> "Device":
        """Return what this process can use without the other workers."""

    def all_min(self, number: int) -> int:
        """Return the least of all workers' numbers."""

    def scope(
        self, *, mixed_precision: bool, building: bool = True
    ) -> AbstractContextManager[None]:
        """Return the context in which to build, or to run what was built in one."""
