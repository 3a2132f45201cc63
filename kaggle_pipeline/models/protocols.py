"""What the loop over folds asks of a model."""

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
