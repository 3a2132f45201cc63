"""Predictions beside the truth, joined by image id and checked.

In: examples, probabilities and targets. Out: a :class:`LabelledPredictions`, whose rows agree.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import require_probabilities
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import bootstrap_weights

Array = np.ndarray


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions beside the truth, row by row.

    Attributes
    ----------
    spec : DatasetSpec
    rows : pandas.DataFrame
        Their examples, indexed by image id.
    truth, probabilities : numpy.ndarray of shape (n, classes)
        Truth is 0 or 1.
    weights : numpy.ndarray of shape (1 + replicates, n)
        From :func:`~kaggle_pipeline.metrics.roc_bootstrap.bootstrap_weights`.
    """

    spec: DatasetSpec
    rows: pd.DataFrame
    truth: Array
    probabilities: Array
    weights: Array

    @property
    def decided(self) -> Array:
        """Decisions (n, classes), 0 or 1."""
        return weighted_scores.decide(self.probabilities, self.spec.task)


def join_truth(
    examples: pd.DataFrame,
    probabilities: pd.DataFrame,
    spec: DatasetSpec,
    seed: int,
    n_replicates: int,
    truth: pd.DataFrame | None,
) -> LabelledPredictions:
    """Bring predictions and truth together by image id.

    Parameters as for :func:`~kaggle_pipeline.evaluation.evaluate.evaluate`.

    Raises
    ------
    PipelineError
        If a column is missing, an id is unknown or doubled, a truth is not 0 or 1 (or not exactly
        one class, for ``multiclass``), or a probability is outside [0, 1].
    """
    classes, ids = list(spec.classes), probabilities.index
    labels = examples if truth is None else truth
    for name, table in (("predictions", probabilities), ("truth", labels)):
        absent = [column for column in classes if column not in table.columns]
        if absent:
            raise PipelineError(f"{spec.id}: {name} lack the column {absent[0]!r}")
        if table.index.has_duplicates:
            twice = table.index[table.index.duplicated()][0]
            raise PipelineError(f"{spec.id}: {name} hold image {twice} more than once")
    if not len(ids):
        raise PipelineError(f"{spec.id}: no predictions to evaluate")
    for name, table in (("examples", examples), ("truth", labels)):
        unknown = ids.difference(table.index)
        if len(unknown):
            raise PipelineError(
                f"{spec.id}: image {unknown[0]} is predicted but not in the {name} "
                f"({len(unknown)} such)"
            )
    values = labels.loc[ids, classes].to_numpy(float)
    _reject(~np.isin(values, (0, 1)).all(axis=1), ids, "truth of", "0 or 1", spec)
    if spec.task == "multiclass":
        _reject(values.sum(axis=1) != 1, ids, "truth of", "exactly one class", spec)
    chances = require_probabilities(probabilities[classes], spec.id).to_numpy()
    rows = examples.loc[ids]
    weights = bootstrap_weights(rows["group_id"].to_numpy(str), n_replicates, seed)
    return LabelledPredictions(spec, rows, values.astype(int), chances, weights)


def _reject(bad: Array, ids: pd.Index, what: str, wish: str, spec: DatasetSpec) -> None:
    if bad.any():
        raise PipelineError(f"{spec.id}: {what} image {ids[bad.argmax()]} is not {wish}")
