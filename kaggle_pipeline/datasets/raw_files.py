"""What the readers of raw folders share: photos, spellings of "unknown".

In: a data folder. Out: paths of photos by image id; columns in which missing is missing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError

UNKNOWN = ("unknown", "-1", "-1.0", "nan", "NaN", "")
"""Spellings of "missing" in the published tables and their re-split versions."""
PHOTOS = (".jpg", ".jpeg", ".png")
# DICOM comes last: where both are there, the JPEGs hold the same photos and decode faster.
PHOTOS_OR_DICOM = (*PHOTOS, ".dcm")


def blank_unknown(column: pd.Series) -> pd.Series:
    """Return the column with every spelling of "unknown" as NaN."""
    values = column.astype("object").where(column.notna(), np.nan)
    return values.map(lambda value: np.nan if str(value) in UNKNOWN else value)


def require_listed(wanted: pd.Series, listed: pd.Series, path: Path) -> None:
    """Stop on a table that lacks images: joined, it would leave them without a word.

    Parameters
    ----------
    wanted, listed : pandas.Series
        Ids of the images, and of the rows of the table in ``path``.

    Raises
    ------
    PipelineError
        That names the file, how many images it lacks, one of them and an id that it has.
    """
    missing = wanted[~wanted.isin(listed)]
    if len(missing):
        has = f"; its first row is of {listed.iloc[0]}" if len(listed) else ""
        raise PipelineError(
            f"{path} has no row for {len(missing)} of {len(wanted)} images, such as "
            f"{missing.iloc[0]}{has}"
        )


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
