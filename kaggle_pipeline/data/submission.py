"""Submission: test predictions in the competition's own format, checked before they are written.

In: test predictions and the sample submission. Out: ``submission.csv``.
"""

from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.core.tables import read_table, require_probabilities
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec


def read_submission(path: Path, spec: DatasetSpec) -> pd.DataFrame:
    """Read a submission, or a sample of one, ids as text.

    Raises
    ------
    PipelineError
        If the file is missing, no such table, or a run's and not what was written.
    """
    id_column = spec.submission.id_column
    require_written(path)
    return read_table(path, [id_column], text=[id_column])


def require_sample(sample: pd.DataFrame, test_ids: pd.Index, spec: DatasetSpec) -> None:
    """Stop where the sample submission and the test rows are not of the same images.

    Raises
    ------
    PipelineError
        That says how many differ, with one of them.
    """
    column = spec.submission.id_column
    ids = pd.Index(sample[column].astype(str))
    if ids.has_duplicates:
        raise PipelineError(f"the sample submission lists {ids[ids.duplicated()][0]} twice")
    strange, lacking = ids.difference(test_ids), test_ids.difference(ids)
    parts = []
    if len(strange):
        parts.append(f"{len(strange)} of its {len(ids)} rows are of no test row ({strange[0]})")
    if len(lacking):
        parts.append(f"{len(lacking)} of {len(test_ids)} test rows are not in it ({lacking[0]})")
    if parts:
        raise PipelineError(
            f"the sample submission and the test table disagree: {' and '.join(parts)}: make both "
            "list the same ids, or move the sample away"
        )


def build_submission(
    test: Predictions, spec: DatasetSpec, sample: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the submission, rows in the sample's order (or the predictions').

    Raises
    ------
    PipelineError
        If an id of the sample has no prediction.
    """
    layout = spec.submission
    ids = test.table.index if sample is None else pd.Index(sample[layout.id_column].astype(str))
    test.require(ids, "the blend")
    columns = {name: test.table.loc[ids, of_class] for name, of_class in layout.columns.items()}
    return pd.DataFrame({layout.id_column: ids, **{k: v.to_numpy() for k, v in columns.items()}})


def check_submission(submission: pd.DataFrame, spec: DatasetSpec, sample: pd.DataFrame) -> None:
    """Compare a submission with the competition's sample: columns, ids, order, range.

    Raises
    ------
    PipelineError
        That names the first row or column that is wrong.
    """
    if list(submission.columns) != list(sample.columns):
        raise PipelineError(
            f"submission has the columns {list(submission.columns)}, the sample "
            f"{list(sample.columns)}"
        )
    column = spec.submission.id_column
    ids, wanted = submission[column].astype(str), sample[column].astype(str)
    if ids.duplicated().any():
        raise PipelineError(f"submission lists {ids[ids.duplicated()].iloc[0]} more than once")
    if set(ids) != set(wanted):
        odd = sorted(set(ids) ^ set(wanted))[0]
        where = "has no row for" if odd in set(wanted) else "has a row too many,"
        raise PipelineError(f"submission {where} {odd} (sample has {len(wanted)} rows)")
    if list(ids) != list(wanted):
        row = next(i for i, (a, b) in enumerate(zip(ids, wanted, strict=True)) if a != b)
        raise PipelineError(
            f"submission row {row} is {ids.iloc[row]}, the sample's {wanted.iloc[row]}"
        )
    require_probabilities(submission.set_index(ids)[list(spec.submission.columns)], "submission")


def write_submission(submission: pd.DataFrame, path: Path) -> None:
    """Write the CSV atomically, in full precision."""
    with atomic_path(path) as temporary:
        submission.to_csv(temporary, index=False)
