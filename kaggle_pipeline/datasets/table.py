"""The data set ``table``: a spec learned from a user's own CSV or Parquet file.

In: the experiment's section ``table`` and a data folder. Out: a ``DatasetSpec``, which a run keeps
as ``prepare/spec.json`` so that every later stage, the page and the kernels have the same classes
and vocabularies; and :class:`~kaggle_pipeline.data.spec.RawData`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.names import LEAVE_OUT
from kaggle_pipeline.config.table import TableConfig
from kaggle_pipeline.core.errors import PipelineError, closest, nearest
from kaggle_pipeline.core.files import read_json, require_folder, write_json
from kaggle_pipeline.core.photo_folder import PhotoFolder, list_photos
from kaggle_pipeline.core.tables import TABLE_ENDINGS, read_table
from kaggle_pipeline.data.examples import is_plain_id
from kaggle_pipeline.data.spec import DatasetSpec, Number, RawData, RecordField, SubmissionFormat
from kaggle_pipeline.datasets.raw_files import require_data_folder
from kaggle_pipeline.datasets.table_columns import (
    Column,
    Target,
    describe_unknown,
    has_label,
    learn_numbers,
    learn_target,
    learn_words,
    read_numbers,
    read_target,
    read_weights,
    read_words,
    row_number,
)

SPEC_FILE = "spec.json"
"""In ``prepare/``: what was learned from the table."""
_OURS = ("image_id", "group_id", "split", "image_path", "width_px", "height_px", "row_weight",
         "source")  # fmt: skip
"""Columns of the examples: a feature or class of such a name would hide one."""
_OF_PREDICTIONS = ("fold",)
"""Columns of predictions beside the classes."""
_CLOSE = 0.6
"""Likeness from which a table beside it is taken for the one that was meant."""
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}


@dataclass(frozen=True)
class Learned:
    """What training rows settle beside what the section says.

    Attributes
    ----------
    target : Target
    numeric : mapping of str to Number
    categorical : mapping of str to tuple of str
    lesion_features : tuple of str
        Categories that differ between the photos of one patient.
    """

    target: Target
    numeric: Mapping[str, Number]
    categorical: Mapping[str, tuple[str, ...]]
    lesion_features: tuple[str, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return to_mapping(self)

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> "Learned":
        """Return what :meth:`to_mapping` gave."""
        numbers = {
            name: Number(**{**one, "bands": tuple(one["bands"])})
            for name, one in stored["numeric"].items()
        }
        words = {name: tuple(words) for name, words in stored["categorical"].items()}
        return cls(Target(**stored["target"]), numbers, words, tuple(stored["lesion_features"]))


def table_spec(
    table: TableConfig, prepared: Path | None, data_dir: Path | None, drop: bool
) -> DatasetSpec:
    """Return the spec of a user's table: as the run has learned it, else from the data.

    Parameters
    ----------
    table : TableConfig
    prepared : pathlib.Path or None
        Where the run keeps :data:`SPEC_FILE`.
    data_dir : pathlib.Path or None
        Of a run that is not prepared yet, or prepared another table.
    drop : bool
        Whether rows without a photo are left out instead of an error.

    Raises
    ------
    PipelineError
        As :func:`learn_table`, if it is learned here; if neither place has it, or it is damaged.
    """
    path = None if prepared is None else Path(prepared) / SPEC_FILE
    if path is not None and (path.exists() or data_dir is None):
        stored = read_json(path)
        try:
            if data_dir is None or stored["table"] == to_mapping(table):
                return _make_spec(table, Learned.from_mapping(stored["learned"]), drop)
        except (KeyError, TypeError, AttributeError) as error:
            raise PipelineError(
                f"{path} is damaged ({error!r}): bring it back from a copy, or prepare again with "
                "--overwrite"
            ) from None
    return _make_spec(table, learn_table(table, data_dir), drop)


def write_learned(table: TableConfig, data_dir: Path, prepared: Path) -> None:
    """Learn the table anew and write it down as :data:`SPEC_FILE`."""
    learned = learn_table(table, data_dir)
    content = {"table": to_mapping(table), "learned": learned.to_mapping()}
    write_json(Path(prepared) / SPEC_FILE, content)


def learn_table(table: TableConfig, data_dir: Path) -> Learned:
    """Return classes, vocabularies and ranges of the training rows.

    Raises
    ------
    PipelineError
        For a missing file or column, or a value that cannot be; file, row and column are named.
    """
    require_data_folder(Path(data_dir), _source(table), [table.train])
    part = next(one for one in _read_parts(table, data_dir) if one.split == "train")
    target = learn_target(part.columns("target", table.targets), table.positive)
    for key, names in (("target", target.words), ("numeric", table.numeric),
                       ("categorical", table.categorical)):  # fmt: skip
        others = ()
        if key == "target":
            others = (*_OF_PREDICTIONS, *table.numeric, *table.categorical)
        taken = [name for name in names if name in (*_OURS, *others)]
        if taken:
            raise PipelineError(
                f"table.{key}: {part.path} says {taken[0]!r}, which means something else here: "
                "rename it there"
            )
    numbers = {one.name: learn_numbers(one) for one in part.columns("numeric", table.numeric)}
    words = part.columns("categorical", table.categorical)
    vocabularies = {one.name: learn_words(one) for one in words}
    several = ()
    if table.group is not None:
        (group,) = part.columns("group", [table.group])
        several = tuple(
            one.name for one in words if one.known.groupby(group.values).nunique().max() > 1
        )
    return Learned(target, numbers, vocabularies, several)


def _make_spec(table: TableConfig, learned: Learned, drop: bool) -> DatasetSpec:
    classes = tuple(learned.target.words)
    columns = ["group_id", *learned.categorical]
    return DatasetSpec(
        id=f"table {table.train}",
        title=Path(table.train).stem,
        group=table.group and table.group_is,
        task=learned.target.task,
        classes=classes,
        numeric=learned.numeric,
        categorical=learned.categorical,
        lesion_features=learned.lesion_features,
        # Behind a prefix of our own, as a class may be called "image".
        record_fields=(
            *(RecordField(f"column_{name}", name, "bytes") for name in columns),
            *(RecordField(f"class_{name}", name, "int") for name in classes),
        ),
        submission=SubmissionFormat(table.image, {name: name for name in classes}),
        read_raw=partial(_read_raw, table, learned, drop),
        source=_source(table),
        record_id="image_id",
        kaggle=f"datasets/{table.kaggle}" if table.kaggle else "",
    )


def _source(table: TableConfig) -> str:
    return f"say --data-dir, the folder that holds {table.train}"


def _called_nearly(table: TableConfig, path: Path) -> str:
    """A hint to a table beside ``path`` of nearly its name, be it still in another format."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    tables = [
        one for one in sorted(beside)
        if one.suffix.lower() in TABLE_ENDINGS and one.name not in (table.train, table.test)
    ]  # fmt: skip
    tables.sort(key=lambda one: TABLE_ENDINGS.index(one.suffix.lower()), reverse=True)
    known = {one.stem: one.name for one in tables}  # of one name the last, so what is rather read
    found = closest(path.stem, known, _CLOSE)
    return f"did you mean {known[found]!r}?" if found else ""


# ---------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class _Part:
    """The rows of one file that belong to one split."""

    path: Path
    split: str
    rows: pd.DataFrame

    def columns(self, key: str, names: Sequence[str]) -> list[Column]:
        return [Column.of(self.rows, name, key, self.path) for name in names]


def _read_parts(table: TableConfig, data_dir: Path) -> list[_Part]:
    """The training rows, and those of the test if there are any."""
    parts = []
    for split, name in (("train", table.train), ("test", table.test)):
        if name is None:
            continue
        path = Path(data_dir) / name
        used = [column for _, column in table.columns]
        hint = _source(table) if split == "train" else "leave table.test out where there is none"
        hint = _called_nearly(table, path) or hint
        rows = read_table(path, hint=hint, text=used, rows_needed=True)
        for key, column in table.columns:
            optional = split == "test" and key in ("target", "weight")
            if column not in rows and not optional:
                hint = nearest(column, [str(one) for one in rows.columns])
                raise PipelineError(f"table.{key}: {path} has no column {column!r}{hint}")
        parts.append(_Part(path, split, rows))
    if table.split is None:
        return parts
    (whole,) = parts
    (column,) = whole.columns("split", [table.split])
    split = column.values.str.lower().map(_SPLITS)
    column.stop(split.isna(), ", expected train or test")
    if not (split == "train").any():
        column.refuse(" marks no row as train")
    found = [_Part(whole.path, name, whole.rows[split == name]) for name in ("train", "test")]
    return [part for part in found if len(part.rows)]


def _read_raw(table: TableConfig, learned: Learned, drop: bool, data_dir: Path) -> RawData:
    """Read all rows as examples; the last parameter is the folder, as for every data set."""
    photos = None
    if table.images is not None:
        folder = Path(data_dir) / table.images
        require_folder(folder, "table.images")
        photos = list_photos(folder)
    notes = [] if photos is None else [photos.describe()]
    examples, truth = [], None
    for part in _read_parts(table, data_dir):
        rows = _read_part(part, table, learned, photos, drop)
        examples.append(rows)
        notes += _unknown_words(part, learned)
        if part.split == "test":
            truth = _read_truth(part, table, learned, rows["image_id"], notes)
    return RawData(
        pd.concat(examples, ignore_index=True),
        tables=[Path(data_dir) / name for name in (table.train, table.test) if name],
        notes=notes,
        test_truth=truth,
    )


def _read_part(
    part: _Part, table: TableConfig, learned: Learned, photos: PhotoFolder | None, drop: bool
) -> pd.DataFrame:
    """Rows of one split as examples, in their order and with their index."""
    (image,) = part.columns("image", [table.image])
    image.stop(image.values.isna(), ": every row names its photo")
    ids = image.values.str.replace("\\", "/").str.removeprefix("./")  # Windows writes paths so
    image.stop(ids.map(_names_no_file).astype(bool), ", which names no photo")
    image.stop(ids.duplicated(), ", as in an earlier row")
    elsewhere = ids.map(_leads_elsewhere).astype(bool)
    paths = pd.Series(np.nan, image.values.index, object)
    if photos is None:
        image.stop(elsewhere, ", expected an id")
    else:
        paths = find_photos(image, photos, drop=drop)
        # An id names no folder of somebody's machine, only what lies below the photos' own.
        ids = ids.mask(elsewhere, paths)
        # A row that will be left out gets one that no other can have, whatever its cell says.
        lost = paths.isna() & ~ids.map(is_plain_id).astype(bool)
        rows = pd.Series([f"{part.split} row {row_number(one)}" for one in ids.index], ids.index)
        ids = ids.mask(lost, rows)
        # Of the data folder, not of the photos' own.
        paths = paths.map(lambda path: (PurePosixPath(table.images) / path).as_posix(), "ignore")
    image.stop(~ids.map(is_plain_id).astype(bool), ", hidden or with characters no line can show")
    found = {"image_id": ids, "group_id": np.nan, "split": part.split, "image_path": paths}
    for group in part.columns("group", [table.group] if table.group else []):
        group.stop(group.known.isna(), f": every row needs its {table.group_is}")
        found["group_id"] = group.values
    if part.split == "train":
        found |= dict(read_target(part.columns("target", table.targets), learned.target))
        for weight in part.columns("weight", [table.weight] if table.weight else []):
            found["row_weight"] = read_weights(weight)
    else:
        found |= dict.fromkeys(learned.target.words, np.nan)
    for one in part.columns("numeric", table.numeric):
        found[one.name] = read_numbers(one, learned.numeric[one.name].unit)
    for one in part.columns("categorical", table.categorical):
        found[one.name], _ = read_words(one, learned.categorical[one.name])
    named = {column for key, column in table.columns if key != "image"}
    further = [name for name in part.rows if name not in {*found, *named, *_OURS}]
    return pd.DataFrame(found, index=part.rows.index).join(part.rows[further])


def _names_no_file(path: str) -> bool:
    """Whether a path ends in a folder's root, a drive, ``.`` or ``..``."""
    last = path.rstrip("/").rpartition("/")[2]
    return last in ("", ".", "..") or last == PureWindowsPath(last).drive


def _leads_elsewhere(path: str) -> bool:
    """Whether a path begins at a machine's root or a drive, or leads upwards."""
    return bool(PureWindowsPath(path).anchor) or ".." in PurePosixPath(path).parts


def find_photos(
    image: Column, photos: PhotoFolder, *, drop: bool, setting: str = "table.images"
) -> pd.Series:
    """Return the path of each row's photo below its folder, NaN where there is none.

    Parameters
    ----------
    image : Column
        What the rows call their photos.
    photos : PhotoFolder
    drop : bool
        Whether a row may have none.
    setting : str
        What names the folder.

    Raises
    ------
    PipelineError
        If no row has a photo, a row could mean several, or two mean the same.
    """
    found = {}
    for row, name in image.values.items():
        try:
            found[row] = photos.find(name)
        except PipelineError as error:
            image.stop(image.values == name, f", and {error}")
    paths = pd.Series(found, image.values.index, dtype=object)
    lacking = paths.isna()
    none = f", and {photos.folder} holds no such photo"
    if lacking.all():
        image.stop(lacking, f"{none}: is {setting} right?")
    if not drop:
        image.stop(lacking, f"{none}: add it, or leave such rows out by {LEAVE_OUT}")
    image.stop(paths.notna() & paths.duplicated(), ", a photo that an earlier row names")
    return paths.where(~lacking, np.nan)


def _unknown_words(part: _Part, learned: Learned) -> list[str]:
    """A line for each category in which rows have words that no training row has."""
    lines = []
    for one in part.columns("categorical", list(learned.categorical)):
        _, unknown = read_words(one, learned.categorical[one.name])
        lines.append(describe_unknown(one, unknown, "no training row has"))
    return list(filter(None, lines))


def _read_truth(
    part: _Part, table: TableConfig, learned: Learned, ids: pd.Series, notes: list[str]
) -> pd.DataFrame | None:
    """Labels of the test rows by image id; None unless all of them have one."""
    if not set(table.targets) <= set(part.rows):
        return None
    columns = part.columns("target", table.targets)
    labelled = has_label(columns, learned.target)
    if labelled.all():
        return read_target(columns, learned.target).set_axis(ids.rename("image_id"), axis=0)
    if labelled.any():
        notes.append(
            f"{part.path}: {int(labelled.sum())} of {len(labelled)} test rows have a label; only "
            "where all have one are they scored"
        )
    return None
