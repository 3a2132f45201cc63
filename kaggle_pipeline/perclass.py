"""One model a class: several independent questions answered by a network each.

In: a way to make a model of one class. Out: a model like any other, whose columns are theirs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kaggle_pipeline.composite import CompositeModel
from kaggle_pipeline.crossval import Model
from kaggle_pipeline.spec import DatasetSpec


class PerClassModel(CompositeModel):
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
    """

    kind = "one_model_per_class"

    def __init__(
        self,
        make_model: Callable[[DatasetSpec, Path], Model],
        spec: DatasetSpec,
        folder: Path,
        least: Callable[[int], int] = int,
    ) -> None:
        self.spec = spec
        models = {
            name: make_model(replace(spec, task="binary", classes=(name,)), Path(folder) / name)
            for name in spec.classes
        }
        super().__init__(models, folder, least)

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities indexed by image id, joined by it, a column a class."""
        parts = [model.predict(examples) for model in self.models_.values()]
        return pd.concat(parts, axis=1).loc[examples.index, list(self.spec.classes)]
