"""Which rows a model learned from: one of the data before a correction is not taken for new.

In: the rows and folds that a model is trained on. Out: ``rows.json`` in its folder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.examples import EXTERNAL
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.data.spec import DatasetSpec

FILE = "rows.json"


def digest_rows(examples: pd.DataFrame, spec: DatasetSpec, folds: Folds) -> dict[str, str]:
    """Return a SHA-256 of each kind of thing that a model learns from.

    Rows of further collections do not count: the settings name these.

    Parameters
    ----------
    examples : pandas.DataFrame
        By ``image_id``, in any order; columns beyond the declared ones do not count.
    spec : DatasetSpec
    folds : Folds
    """
    rows = examples[examples["split"] != EXTERNAL].sort_index()
    parts = {
        "photos": rows[["split"]],
        "labels": rows[list(spec.classes)],
        f"{spec.group or 'group'}s": rows[["group_id"]],
        "metadata": rows[[name for name in spec.features if name in rows]],
        "folds": folds.table[["fold"]].sort_index(),
    }
    return {name: _digest(table) for name, table in parts.items()}


def _digest(table: pd.DataFrame) -> str:
    numbers = table.select_dtypes("number").columns
    # A fold's number is a float once a row had none; it is the same fold.
    text = table.astype(dict.fromkeys(numbers, float)).to_csv(
        float_format="%.12g", index_label="image_id"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def keep_rows(folder: Path, rows: Mapping[str, str]) -> None:
    """Write down what the model in ``folder`` learns from; stop if it learned from other rows.

    Raises
    ------
    PipelineError
        As :func:`require_rows`.
    """
    require_rows(folder, rows)
    write_json(folder / FILE, dict(rows))


def require_rows(folder: Path, rows: Mapping[str, str]) -> None:
    """Stop if the model in ``folder`` learned from other rows than these.

    One of an earlier version does not say what it learned from; it is taken as it is.

    Raises
    ------
    PipelineError
        That names what changed since.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return
    before = read_json(path)
    changed = [name for name in rows if before.get(name) != rows[name]]
    if changed:
        raise PipelineError(
            f"{folder} learned before the {' and '.join(changed)} in prepare/ changed: train it "
            "anew with --overwrite, or choose another --run-dir"
        )
