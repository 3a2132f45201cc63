"""One model made of several, each in a folder of its own.

In: models by name. Out: a model like any other, which fits, saves and loads them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from kaggle_pipeline.crossval import SAVED, Model
from kaggle_pipeline.rundir import write_json


class CompositeModel(ABC):
    """Models side by side; how their answers are joined is left to the subclass.

    Parameters
    ----------
    models : mapping of str to Model
        By the name of each one's folder.
    folder : pathlib.Path
        Gets one folder a model.
    least : callable
        Least of all processes' numbers, where several train together.

    Attributes
    ----------
    models_ : dict of str to Model
        After ``fit`` or ``load``.
    """

    kind: str
    """Key of the note that ``save`` leaves."""

    def __init__(
        self, models: Mapping[str, Model], folder: Path, least: Callable[[int], int] = int
    ) -> None:
        self._least = least
        self._models = dict(models)
        self._folder = Path(folder)

    @property
    def selection(self) -> str:
        """Which rows may choose an epoch: the same for all."""
        return next(iter(self._models.values())).selection

    @property
    def inner_share(self) -> float:
        """Share of the training groups to hold out for ``inner``."""
        return next(iter(self._models.values())).inner_share

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "CompositeModel":
        """Fit one after the other; one that is saved already is read instead."""
        for name, model in self._models.items():
            place = self._folder / name
            if self._least((place / SAVED).exists()):
                model.load(place)
                continue
            place.mkdir(parents=True, exist_ok=True)
            model.fit(train, valid)
            model.save(place)
        self.models_ = self._models
        return self

    @abstractmethod
    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities indexed by image id, joined by it."""

    def save(self, folder: Path) -> None:
        """Say that all are saved; each wrote its own folder when it was fitted."""
        write_json(Path(folder) / SAVED, {self.kind: list(self._models)})

    def load(self, folder: Path) -> "CompositeModel":
        """Read every model's folder."""
        for name, model in self._models.items():
            model.load(Path(folder) / name)
        self.models_ = self._models
        return self
