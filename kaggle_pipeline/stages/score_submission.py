"""Score a submission against truth that was kept apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import index_by, read_table, require_probabilities
from kaggle_pipeline.metrics.roc_bootstrap import auc_with_interval


def _read_scored(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV of an id column and numbers in [0, 1], indexed by the former.

    ``columns`` (id first) must be there; by default all are taken.
    """
    table = read_table(path, columns or ())
    id_column, *scored = columns or table.columns
    table = index_by(table, id_column, path)
    return table.assign(**require_probabilities(table[scored], path))


def score_submission(submission_path: Path, truth_path: Path, seed: int) -> str:
    """Return one line a class with the AUC of a submission against kept-apart truth.

    Parameters
    ----------
    submission_path : pathlib.Path
        Id column, then a probability a class.
    truth_path : pathlib.Path
        The same columns, and, for the interval, ``patient_id`` where patients are known.
    seed : int
        Of the bootstrap.

    Raises
    ------
    PipelineError
        If a file is missing or an id is in one of them only.
    """
    submission = _read_scored(submission_path)
    columns = list(submission.columns)
    if len(columns) < 2:
        raise PipelineError(f"{submission_path} has no column but {columns[0]!r}: nothing to score")
    truth = _read_scored(truth_path, columns)
    odd = submission.index.symmetric_difference(truth.index)
    if len(odd):
        raise PipelineError(f"{odd[0]} is in only one of {submission_path} and {truth_path}")
    truth = truth.loc[submission.index]
    groups = truth["patient_id"] if "patient_id" in truth else pd.Series(truth.index)
    lines = []
    for name in columns[1:]:
        if not truth[name].isin([0, 1]).all():
            raise PipelineError(f"{truth_path}: {name} must be 0 or 1")
        target = truth[name].to_numpy(int)
        if np.ptp(target) == 0:
            lines.append(f"test AUC {name}: none, all {len(target)} images are {target[0]}")
            continue
        score = auc_with_interval(target, submission[name].to_numpy(), groups.to_numpy(), seed=seed)
        of_class = f" {name}" if len(columns) > 2 else ""
        lines.append(f"test AUC{of_class} {score} on {len(truth)} images, {target.sum()} positive")
    return "\n".join(lines)
