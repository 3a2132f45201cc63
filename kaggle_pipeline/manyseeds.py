"""One model trained with several seeds: the mean of networks that differ by chance alone.

In: a way to make a model of a seed. Out: a model like any other.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kaggle_pipeline.composite import CompositeModel
from kaggle_pipeline.crossval import Model

_APART = 100
"""Between two seeds of a fold: the folds of a run add their number to its seed."""


class ManySeedsModel(CompositeModel):
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
    least : callable
        Least of all processes' numbers, where several train together.
    """

    kind = "one_model_per_seed"

    def __init__(
        self,
        make_model: Callable[[int, Path], Model],
        seed: int,
        count: int,
        folder: Path,
        least: Callable[[int], int] = int,
    ) -> None:
        models = {
            f"seed{i}": make_model(seed + _APART * i, Path(folder) / f"seed{i}")
            for i in range(count)
        }
        super().__init__(models, folder, least)

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return the mean of all models' probabilities, joined by image id."""
        parts = [model.predict(examples) for model in self.models_.values()]
        return sum(part.loc[examples.index] for part in parts) / len(parts)
