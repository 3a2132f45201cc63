"""What the readers of raw folders share: tables, photos, spellings of "unknown".

In: files that nobody vouches for. Out: tables and paths, or an error that names the file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.errors import PipelineError

UNKNOWN = ("unknown", "-1", "-1.0", "nan", "NaN", "")
"""Spellings of "missing" in the published tables and their re-split versions."""
PHOTOS = (".jpg", ".jpeg", ".png")
# DICOM comes last: where both are there, the JPEGs hold the same photos and decode faster.
PHOTOS_OR_DICOM = (*PHOTOS, ".dcm")


def read_table(
    path: Path, needed: Sequence[str], source: str, text: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a CSV file of a raw folder.

    Parameters
    ----------
    path : pathlib.Path
    needed : sequence of str
        Columns that must be there.
    source : str
        How to get the data, for the error when the file is missing.
    text : sequence of str
        Columns to read as text, such as ids.

    Raises
    ------
    PipelineError
        If the file or a column is missing, or it is no CSV.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str), low_memory=False)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: {source}") from None
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"{path} cannot be read as CSV: {reason}") from None
    for column in needed:
        if column not in table.columns:
            raise PipelineError(f"{path} has no column {column!r}")
    return table


def blank_unknown(column: pd.Series) -> pd.Series:
    """Return the column with every spelling of "unknown" as NaN."""
    values = column.astype("object").where(column.notna(), np.nan)
    return values.map(lambda value: np.nan if str(value) in UNKNOWN else value)


def find_photos(
    data_dir: Path, folders: Sequence[str], suffixes: Sequence[str] = PHOTOS
) -> dict[str, str]:
    """Map each image id to its file, as a path relative to ``data_dir``; the first folder wins.

    Parameters
    ----------
    data_dir : pathlib.Path
    folders : sequence of str
        Relative to ``data_dir``; one that is missing is skipped.
    suffixes : sequence of str
        In order of preference where a folder holds the same photo twice.
    """
    found: dict[str, str] = {}
    for name in folders:
        folder = Path(data_dir) / name
        if not folder.is_dir():
            continue
        photos = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
        for path in sorted(photos, key=lambda p: (suffixes.index(p.suffix.lower()), p)):
            found.setdefault(path.stem, path.relative_to(data_dir).as_posix())
    return found
