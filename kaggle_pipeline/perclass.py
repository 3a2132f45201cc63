"""One model a class: several independent questions answered by a network each.

In: a way to make a model of one class. Out: a model like any other, whose columns are theirs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kaggle_pipeline.crossval import SAVED, Model
from kaggle_pipeline.rundir import write_json
from kaggle_pipeline.spec import DatasetSpec


class PerClassModel:
    """Binary models side by side, each in a folder named after its class.

    Parameters
    ----------
    make_model : callable
        ``make_model(spec, folder) -> Model`` for a spec with one class.
    spec : DatasetSpec
        With the task ``multilabel``.
    folder : pathlib.Path
        Gets one folder a class.
    least : callable
        Least of all processes' numbers, where several train together.

    Attributes
    ----------
    models_ : dict of str to Model
        After ``fit`` or ``load``.
    """

    def __init__(
        self,
        make_model: Callable[[DatasetSpec, Path], Model],
        spec: DatasetSpec,
        folder: Path,
        least: Callable[[int], int] = int,
    ) -> None:
        self.spec = spec
        self._least = least
        self._models = {
            name: make_model(replace(spec, task="binary", classes=(name,)), Path(folder) / name)
            for name in spec.classes
        }
        self._folder = Path(folder)

    @property
    def selection(self) -> str:
        """Which rows may choose an epoch: the same for all."""
        return next(iter(self._models.values())).selection

    @property
    def inner_share(self) -> float:
        """Share of the training groups to hold out for ``inner``."""
        return next(iter(self._models.values())).inner_share

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "PerClassModel":
        """Fit one after the other; a class whose model is saved already is read instead."""
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

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities indexed by image id, joined by it, a column a class."""
        parts = [model.predict(examples) for model in self.models_.values()]
        return pd.concat(parts, axis=1).loc[examples.index, list(self.spec.classes)]

    def save(self, folder: Path) -> None:
        """Say that all classes are saved; each wrote its own folder when it was fitted."""
        write_json(Path(folder) / SAVED, {"one_model_per_class": list(self.spec.classes)})

    def load(self, folder: Path) -> "PerClassModel":
        """Read every class's folder."""
        for name, model in self._models.items():
            model.load(Path(folder) / name)
        self.models_ = self._models
        return self
