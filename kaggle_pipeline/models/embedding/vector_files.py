"""Vectors that others made: NPZ, Parquet or CSV with a column of ids → an array by image id."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_table

ID_NAMES = ("image_id", "image_name", "isic_id", "image", "id", "ids")
"""What the column or array of ids may be called; the data set's own name comes first."""


def require_vector_file(path: Path) -> None:
    """Raise a PipelineError where there is no such file."""
    if not Path(path).is_file():
        raise PipelineError(f"embedding.encoders: {path} does not exist")


def read_vector_file(path: Path, ids: pd.Index, id_column: str) -> tuple[np.ndarray, str]:
    """Return the vectors of ``ids`` in a file, and the file's hash.

    A table has a column of ids; all its other columns are the vector, or one is that holds lists
    (Parquet). An NPZ archive has a one-dimensional array of ids and one of vectors, (n, width) or
    (n, views, width). Vectors of other images are not looked at.

    Parameters
    ----------
    path : pathlib.Path
    ids : pandas.Index
        Images that need one.
    id_column : str
        The data set's own name of its ids.

    Returns
    -------
    vectors : numpy.ndarray of shape (n, views, width), float32
    digest : str
        First 16 digits of the file's SHA-256.

    Raises
    ------
    PipelineError
        If the file cannot be read, an id is missing or listed twice, vectors differ in width, or
        one holds text or NaN.
    """
    path = Path(path)
    require_vector_file(path)
    read = _read_npz if path.suffix.lower() == ".npz" else _read_columns
    known, array = read(path, (id_column, *ID_NAMES))
    if known.has_duplicates:
        raise PipelineError(f"{path} lists {known[known.duplicated()][0]} more than once")
    rows = known.get_indexer(ids)
    if (rows < 0).any():
        missing = ids[rows < 0]
        raise PipelineError(f"{path} has no vector of {missing[0]} ({len(missing)} missing)")
    array = array[rows]
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise PipelineError(f"{path}: the vector of {ids[bad][0]} holds NaN ({bad.sum()} such)")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return array.astype(np.float32), digest


def _read_npz(path: Path, names: tuple[str, ...]) -> tuple[pd.Index, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PipelineError(
            f"{path} cannot be read ({error}): write ids as text, not as objects"
        ) from None
    found = next((arrays.pop(name) for name in names if name in arrays), None)
    if found is None or found.ndim != 1:
        raise PipelineError(f"{path} has no list of ids; call it image_id, beside the vectors")
    fine = [one for one in arrays.values() if one.ndim in (2, 3) and one.dtype.kind in "fiu"]
    if len(fine) != 1 or len(fine[0]) != len(found):
        shapes = ", ".join(f"{name} {one.shape}" for name, one in arrays.items())
        raise PipelineError(
            f"{path} has {len(found)} ids and the arrays {shapes}: expected one (n, width)"
        )
    array = fine[0] if fine[0].ndim == 3 else fine[0][:, None]
    return pd.Index(found.astype(str).astype(object)), array


def _read_columns(path: Path, names: tuple[str, ...]) -> tuple[pd.Index, np.ndarray]:
    table = read_table(path, text=names, rows_needed=True)
    column = next((name for name in names if name in table.columns), None)
    if column is None:
        raise PipelineError(f"{path} has no column of ids; call it image_id")
    ids = pd.Index(table.pop(column).astype(str).astype(object))
    if table.shape[1] == 1 and table.iloc[:, 0].map(np.ndim).eq(1).all():
        lists = table.iloc[:, 0]
        widths = lists.map(len)
        if (other := widths != widths.iloc[0]).any():
            row = int(np.flatnonzero(other)[0])
            raise PipelineError(
                f"{path}: the vector of {ids[row]} has {widths.iloc[row]} numbers, that of "
                f"{ids[0]} {widths.iloc[0]}"
            )
        return ids, np.stack([np.asarray(one, np.float32) for one in lists])[:, None]
    for name in table.columns:
        if table[name].dtype.kind not in "fiu":
            raise PipelineError(f"{path}: the column {name!r} holds text; a vector is of numbers")
    if table.shape[1] == 0:
        raise PipelineError(f"{path} has ids and no vectors")
    return ids, table.to_numpy(np.float32)[:, None]
