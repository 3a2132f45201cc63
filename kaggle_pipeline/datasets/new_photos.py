"""What is known of new photos beside their pixels: metadata, and which belong to one patient.

In: a user's CSV or Parquet file, a row a photo. Out: features and ``group_id`` by the photos' ids.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.table import TableConfig
from kaggle_pipeline.core.errors import PipelineError, closest
from kaggle_pipeline.core.photo_folder import PhotoFolder
from kaggle_pipeline.core.tables import read_table
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.table import find_photos
from kaggle_pipeline.datasets.table_columns import (
    Column,
    describe_unknown,
    read_numbers,
    read_words,
)

_ALIKE = 0.6
"""Likeness from which a column's name is taken for a mistyped one."""
_PHOTO = ("image_id", "image_name", "image")
"""Columns that name the photo; an own table has its own."""


def read_metadata(
    path: Path,
    photos: PhotoFolder,
    spec: DatasetSpec,
    table: TableConfig | None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Read the metadata of a folder's photos.

    Columns are called as the run's data set calls its features (``prepare/examples.csv`` has them),
    or as its published table does, so that of the competition ``test.csv`` does; the photo is
    ``image_id`` and the patient ``patient_id``, or the lesion ``lesion_id``. For a run on a user's
    own table all are called as there. Rows of other photos are counted and left out; a
    column that is not there is unknown for every photo, and a word that the data set does not have
    is missing; both are said.

    Parameters
    ----------
    path : pathlib.Path
    photos : PhotoFolder
        Each needs a row.
    spec : DatasetSpec
    table : TableConfig or None
        Of a run on a user's own table.
    say : callable
        Takes a line for the user.

    Returns
    -------
    pandas.DataFrame
        By ``image_id``, in the order of ``photos``: ``group_id``, the photo itself where the file
        tells no patient; numbers as float64, words as objects, NaN where unknown.

    Raises
    ------
    PipelineError
        For a photo without a row, one with two, a value that cannot be, or a file that has none of
        these columns.
    """
    names = (table.image,) if table else _PHOTO
    group = table.group if table else spec.group and f"{spec.group}_id"
    features = list(spec.features)
    published = {one.name: one.column for one in spec.record_fields if one.column in features}
    text = [*names, *([group] if group else []), *features, *published]
    rows = read_table(path, hint="--metadata names a CSV file", text=text, rows_needed=True)
    # Where a file has both names, the one that it was prepared with counts.
    rows = rows.rename(columns={k: v for k, v in published.items() if v not in rows})
    there = [str(one) for one in rows.columns]
    head = next((one for one in names if one in there), None)
    if head is None:
        raise PipelineError(f"{path} has no column {' or '.join(names)}, which names the photo")
    known = [one for one in (group, *features) if one in there]
    if not known:
        wanted = ", ".join([*([group] if group else []), *features]) or "no metadata"
        raise PipelineError(f"{path} has no column that this run knows: {wanted}")
    for name in {group, *features} - {*there, None}:  # a mistyped name would hide what is known
        if (alike := closest(name, set(there) - {*known, head}, _ALIKE)) is not None:
            raise PipelineError(f"{path} has no column {name!r}, but {alike!r}: rename it")
    image = Column.of(rows, head, "", path)
    image.stop(image.values.isna(), ": every row names its photo")
    paths = find_photos(image, photos, drop=True, setting="--images")
    _require_all(path, head, photos, paths)
    if (others := int(paths.isna().sum())) > 0:
        say(f"{path}: {others} rows are of photos that are not in {photos.folder}: left out")
    ids = paths.dropna().map({place: one for one, place in photos.photos.items()})
    rows = rows.loc[ids.index]
    found = {"group_id": ids.astype(object)}
    if group in there:
        column = Column.of(rows, group, "", path)
        column.stop(column.known.isna(), f": every row needs its {spec.group}")
        found["group_id"] = column.values
    elif spec.group == "patient":
        say(f"note: {path} has no column {group!r}: each photo is taken for its patient's only one")
    for name in features:
        if name not in there:
            say(f"note: {path} has no column {name!r}: unknown for every photo")
            found[name] = pd.Series(float("nan"), rows.index)
        else:
            found[name] = _read(Column.of(rows, name, "", path), spec, say)
    by_row = pd.DataFrame(found, index=rows.index)
    return by_row.set_axis(pd.Index(ids, name="image_id")).loc[list(photos.photos)]


def _require_all(path: Path, head: str, photos: PhotoFolder, paths: pd.Series) -> None:
    """Raise a PipelineError unless every photo has a row."""
    lacking = sorted(set(photos.photos.values()) - set(paths.dropna()))
    if lacking:
        more = f" ({len(lacking)} such photos)" if len(lacking) > 1 else ""
        raise PipelineError(
            f"{path} has no row whose {head!r} is {lacking[0]!r}{more}: add it, with empty cells "
            "where nothing is known"
        )


def _read(column: Column, spec: DatasetSpec, say: Callable[[str], None]) -> pd.Series:
    """One feature's values."""
    if (number := spec.numeric.get(column.name)) is not None:
        values = read_numbers(column, number.unit)
        outside = values.notna() & ~values.map(number.holds).astype(bool)
        column.stop(outside, f", expected {number.describe()}")
        return values
    vocabulary = spec.categorical[column.name]
    words, unknown = read_words(column, vocabulary)
    if line := describe_unknown(column, unknown, "the run does not know"):
        say(f"{line}; it knows {', '.join(vocabulary)}")
    return words
