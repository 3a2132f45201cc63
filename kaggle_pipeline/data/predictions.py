"""Predictions: a table of probabilities that is joined by image id and never by position.

In: what a model says, or a CSV of it. Out: a validated table, or an error that names the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.tables import read_own, require_probabilities

SPLITS = ("oof", "test")
AVERAGED = -1
"""Value of ``fold`` for a test prediction that is the mean over the folds' models."""
_REMEDY = (
    "make it anew with --resume, once this file is deleted (a fold is trained again, a mean is not)"
)


@dataclass(frozen=True)
class Predictions:
    """Probabilities for a set of images.

    Attributes
    ----------
    table : pandas.DataFrame
        Index ``image_id`` (unique); one float column a class in [0, 1]; ``fold`` (int, which
        fold's model spoke; -1 for their mean); ``split`` (``"oof"`` or ``"test"``).
    classes : tuple of str
        The probability columns.

    Raises
    ------
    PipelineError
        On duplicate ids, missing columns, NaN, values outside [0, 1] or an unknown split.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        table = self.table
        for column in (*self.classes, "fold", "split"):
            if column not in table.columns:
                raise PipelineError(f"predictions lack the column {column!r}")
        if table.index.has_duplicates:
            twice = table.index[table.index.duplicated()][0]
            raise PipelineError(f"predictions hold {twice} more than once")
        require_probabilities(table[list(self.classes)], "predictions")
        unknown = set(table["split"]) - set(SPLITS)
        if unknown:
            raise PipelineError(f"predictions have the split {unknown.pop()!r}; know {SPLITS}")

    @classmethod
    def build(cls, probabilities: pd.DataFrame, fold: int | pd.Series, split: str) -> "Predictions":
        """Make predictions from a frame of probabilities, indexed by image id, a column a class."""
        classes = tuple(probabilities.columns)
        return cls(
            probabilities.astype(float).assign(fold=fold, split=split).rename_axis("image_id"),
            classes,
        )

    @classmethod
    def read(cls, path: Path, classes: Sequence[str]) -> "Predictions":
        """Read a file that :meth:`write` wrote.

        Raises
        ------
        PipelineError
            If the file is missing or breaks a rule of the class; the message names the file.
        """
        path = Path(path)
        if not path.exists():
            raise PipelineError(f"{path} is missing: train that model first")
        table = read_own(path, {"image_id": str, "split": str, "fold": int}, remedy=_REMEDY)
        try:
            return cls(table.set_index("image_id"), tuple(classes))
        except PipelineError as error:
            raise PipelineError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Write as CSV, rows in the order they are in, atomically."""
        with atomic_path(path) as temporary:
            self.table[[*self.classes, "fold", "split"]].to_csv(temporary)

    def require(self, ids: pd.Index, name: str) -> None:
        """Raise a PipelineError unless exactly ``ids`` are predicted; ``name`` says by whom."""
        missing = ids.difference(self.table.index)
        if len(missing):
            raise PipelineError(
                f"{name} predicts nothing for {missing[0]} ({len(missing)} missing)"
            )
        extra = self.table.index.difference(ids)
        if len(extra):
            raise PipelineError(f"{name} predicts {extra[0]}, not in this run ({len(extra)} such)")

    @property
    def probabilities(self) -> pd.DataFrame:
        """The class columns alone, float64, indexed by image id."""
        return self.table[list(self.classes)]


def join_by_id(models: Mapping[str, Predictions], ids: pd.Index) -> dict[str, pd.DataFrame]:
    """Bring the probabilities of several models into the order of ``ids``.

    Raises
    ------
    PipelineError
        If a model lacks an id or predicts one that is not asked for.
    """
    for name, predictions in models.items():
        predictions.require(ids, name)
    return {name: predictions.probabilities.loc[ids] for name, predictions in models.items()}


def average(parts: Sequence[Predictions]) -> Predictions:
    """Return the mean of several models' test probabilities, joined by id."""
    ids = parts[0].table.index
    joined = join_by_id({f"fold model {i}": part for i, part in enumerate(parts)}, ids)
    mean = sum(joined.values()) / len(parts)
    return Predictions.build(mean, AVERAGED, "test")
