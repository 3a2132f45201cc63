"""One model made of several, each in a folder of its own.

In: models by name. Out: a model like any other, which fits, saves and loads them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.files import SAVED, write_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.protocols import Model


class CompositeModel(ABC):
    """Models side by side; how their answers are joined is left to the subclass.

    Parameters
    ----------
    models : mapping of str to Model
        By the name of each one's folder.
    folder : pathlib.Path
        Gets one folder a model.
    all_min : callable
        Least of all processes' numbers, where several train together.

    Attributes
    ----------
    models_ : dict of str to Model
        After ``fit`` or ``load``.
    """

    kind: str
    """Key of the note that ``save`` leaves."""

    def __init__(
        self, models: Mapping[str, Model], folder: Path, all_min: Callable[[int], int] = int
    ) -> None:
        self._all_min = all_min
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
            if self._all_min((place / SAVED).exists()):
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


_APART = 100
"""Between two seeds of a fold: the folds of a run add their number to its seed."""


class SeedEnsemble(CompositeModel):
    """Models of the same settings and different seeds, each in a folder ``seed<i>``.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed, folder) -> Model``.
    seed : int
        Of the first; the others' are hundreds more.
    count : int
    folder : pathlib.Path
        Gets one folder a model.
    all_min : callable
        Least of all processes' numbers, where several train together.
    """

    kind = "one_model_per_seed"

    def __init__(
        self,
        make_model: Callable[[int, Path], Model],
        seed: int,
        count: int,
        folder: Path,
        all_min: Callable[[int], int] = int,
    ) -> None:
        models = {
            f"seed{i}": make_model(seed + _APART * i, Path(folder) / f"seed{i}")
            for i in range(count)
        }
        super().__init__(models, folder, all_min)

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return the mean of all models' probabilities, joined by image id."""
        parts = [model.predict(examples) for model in self.models_.values()]
        return sum(part.loc[examples.index] for part in parts) / len(parts)


class OneModelPerClass(CompositeModel):
    """Binary models side by side, each in a folder named after its class.

    Parameters
    ----------
    make_model : callable
        ``make_model(spec, folder) -> Model`` for a spec with one class.
    spec : DatasetSpec
        With the task ``multilabel``.
    folder : pathlib.Path
        Gets one folder a class.
    all_min : callable
        Least of all processes' numbers, where several train together.
    """

    kind = "one_model_per_class"

    def __init__(
        self,
        make_model: Callable[[DatasetSpec, Path], Model],
        spec: DatasetSpec,
        folder: Path,
        all_min: Callable[[int], int] = int,
    ) -> None:
        self.spec = spec
        models = {
            name: make_model(replace(spec, task="binary", classes=(name,)), Path(folder) / name)
            for name in spec.classes
        }
        super().__init__(models, folder, all_min)

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities indexed by image id, joined by it, a column a class."""
        parts = [model.predict(examples) for model in self.models_.values()]
        return pd.concat(parts, axis=1).loc[examples.index, list(self.spec.classes)]
