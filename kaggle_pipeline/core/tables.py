"""CSV and Parquet files as anybody may have written them, by hand or by a spreadsheet.

In: a path. Out: a table, or an error of one line that names the file and what is wrong with it.
"""

import codecs
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.core.photo_kinds import HEAD_BYTES, kind_of
from kaggle_pipeline.core.record import read_checked

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".txt", ".tab", ".xlsx", ".xls", ".ods")
"""Endings of tables, those first that :func:`read_table` rather reads; the last three it refuses,
and says so."""
_NO_TEXT = {
    "ZIP": "an Excel workbook or an archive: save it as CSV UTF-8, or unpack it",
    "old Office file": "an Excel workbook: save it as CSV UTF-8",
    "gzip": "packed: unpack it", "7z": "packed: unpack it", "RAR": "packed: unpack it",
    "HTML": "a web page, of a login maybe: get it again", "PDF": "a PDF file",
    "Git LFS pointer": "the pointer that Git LFS keeps in its place: run `git lfs pull`",
}  # fmt: skip
"""Kinds of files that are given a table's name, and what to do."""
_TOO_MANY = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
"""How pandas says it."""


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    *,
    hint: str = "",
    text: Sequence[str] = (),
    rows_needed: bool = False,
) -> pd.DataFrame:
    """Read a CSV file, or one that ends in ``.parquet``.

    Semicolons and tabs in place of commas, UTF-16, blanks around the columns' names and before a
    value, and rows with nothing in them, as spreadsheets write them, are taken as what they mean.

    Parameters
    ----------
    path : pathlib.Path
    needed : sequence of str
        Columns that must be there.
    hint : str
        How to get the file, for the error when it is missing.
    text : sequence of str
        Columns to read as text, such as ids.
    rows_needed : bool
        Whether a head without rows is an error.

    Raises
    ------
    PipelineError
        If the file, a column or every row is missing, it is no such file, or it is Parquet and
        nothing is installed that reads it.
    """
    kind = "Parquet" if Path(path).suffix.lower() == ".parquet" else "CSV"
    try:
        table = _read_parquet(path, text) if kind == "Parquet" else _read_csv(Path(path), text)
    except FileNotFoundError:
        what = f"is missing: {hint}" if hint else "does not exist"
        if found := _elsewhere(Path(path)):
            what = f"is missing, but {found} is there: name the folder {found.parent}"
        raise PipelineError(f"{path} {what}") from None
    except ImportError:
        raise PipelineError(
            f"{path}: pip install '.[parquet]' (pyarrow) to read it, or save it as CSV"
        ) from None
    except (ValueError, OverflowError, OSError) as error:  # no text, no CSV, empty, a folder
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, UnicodeDecodeError):
            reason = _no_unicode(Path(path))
        elif isinstance(error, pd.errors.EmptyDataError):
            reason = "it is empty"
        raise PipelineError(f"{path} cannot be read as {kind}: {reason}") from None
    for column in needed:
        if column not in table.columns:
            # Alike but for capitals is no guess; nearly alike is another column.
            has = nearest(column, list(table.columns))
            raise PipelineError(f"{path} has no column {column!r}{has}")
    if rows_needed and table.empty:
        raise PipelineError(f"{path} has no rows")
    return table


def _elsewhere(path: Path) -> Path | None:
    """A file of that name one folder below or above, as where a wrong folder is named."""
    if not path.parent.is_dir():
        return None
    below = sorted(path.parent.glob(f"*/{path.name}"))
    above = path.parent.parent / path.name
    return next((one for one in (*below, above) if one.is_file()), None)


def _no_unicode(path: Path) -> str:
    """Where a file is not the text that it should be, and what to do."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        where = f"byte 0x{error.object[error.start]:02x} in line {line}"
        return f"{where} is no UTF-8: save it as UTF-8 (Excel: Save As, CSV UTF-8)"
    return "it is cut off: save it as UTF-8 (Excel: Save As, CSV UTF-8)"


def _encoding(head: bytes) -> str:
    """UTF-8 but for what begins as UTF-16, or has a 0 in every other byte as its ASCII has."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if 2 * zeros.count(0) > len(zeros):
            return encoding
    return "utf-8"


def _read_csv(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """The table as it was meant; a ValueError or an OSError of pandas where it is none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if (kind := kind_of(head)) in _NO_TEXT:
        raise ValueError(f"it is {_NO_TEXT[kind]}")
    encoding = _encoding(head)
    first = head.decode(encoding, "replace").partition("\n")[0]
    options = {
        "encoding": encoding,
        # What stands most often between the names; spreadsheets of many countries say ;
        "sep": max(",;\t", key=first.count),
        "skipinitialspace": True,
    }
    names = pd.read_csv(path, nrows=1, header=None, dtype=str, **options).iloc[0].str.strip()
    if len(twice := names[names.duplicated() & names.isin(text)]):
        raise ValueError(f"the head names {twice.iloc[0]!r} twice: rename one column")
    written = pd.read_csv(path, nrows=0, **options).columns
    try:
        # pandas' quick parser is off by a last bit now and then.
        table = pd.read_csv(
            path,
            dtype={name: str for name in written if name.strip() in text},
            low_memory=False,
            float_precision="round_trip",
            **options,
        )
    except pd.errors.ParserError as error:
        if not (found := _TOO_MANY.search(str(error))):
            raise
        raise ValueError(
            f"line {found[2]} has {found[3]} values, the head has {found[1]}: put a value that "
            f"holds {options['sep']!r} in quotes"
        ) from None
    _require_aligned(table)
    if len(set(written.str.strip())) == len(written):
        table = table.rename(columns=str.strip)
    empty = table.isna().all(axis=1)
    if not empty.any():
        return table
    table = table[~empty].reset_index(drop=True)
    # The gaps have made floats of whole numbers.
    numbers = table.select_dtypes(float)
    exact = (numbers % 1 == 0) & (numbers.abs() < 2**53)  # a gap is no whole number
    whole = numbers.columns[exact.all()]
    return table.astype(dict.fromkeys(whole, np.int64))


def _require_aligned(table: pd.DataFrame) -> None:
    """Stop where pandas took a first column for row names, which shifts all others."""
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("a row has more values than the head has names")


def _read_parquet(path: Path, text: Sequence[str]) -> pd.DataFrame:
    table = pd.read_parquet(path)
    for name in [one for one in text if one in table.columns]:
        written = table[name].astype(object).map(_as_written, na_action="ignore")
        table[name] = written.astype(object)  # also where all of it is missing
    return table


def _as_written(value: object) -> str:
    """A value as a CSV file would have it: a whole number that a gap made a float, without .0."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def read_own(path: Path, types: Mapping[str, type], *, remedy: str) -> pd.DataFrame:
    """Read a CSV file that a stage of this package wrote, as it was written.

    Parameters
    ----------
    path : pathlib.Path
    types : mapping
        Of columns that must be there; those of others are guessed.
    remedy : str
        How it is made anew, after "bring it back from a copy, or".

    Raises
    ------
    PipelineError
        If the file is missing, no such table, or not what was written.
    """
    try:
        content = read_checked(path)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: bring it back from a copy, or {remedy}") from None
    try:
        # pandas' quick parser is off by a last bit now and then.
        table = pd.read_csv(
            io.BytesIO(content), dtype=dict(types), low_memory=False, float_precision="round_trip"
        )
        _require_aligned(table)
        for column in types:
            if column not in table.columns:
                raise ValueError(f"no column {column!r}")
        if "image_id" in table and table["image_id"].isna().any():
            raise ValueError("a row without an image_id")
    except (ValueError, OverflowError) as error:  # empty, no text, no CSV, no number
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, OverflowError):
            reason = "a number is too large"
        raise PipelineError(
            f"{path} is damaged ({reason}): bring it back from a copy, or {remedy}"
        ) from None
    return table


def index_by(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    """Return the table indexed by a column of ids, as text; the column stays.

    Raises
    ------
    PipelineError
        If an id is listed twice; ``path`` is named as the table's file.
    """
    table = table.set_index(table[column].astype(str))
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise PipelineError(f"{path} lists {twice} more than once")
    return table


def require_probabilities(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """Return the table as float64, every number in [0, 1].

    Parameters
    ----------
    table : pandas.DataFrame
        Indexed by image id, a column a class or model.
    where : object
        What the error begins with: a file, a stage.

    Raises
    ------
    PipelineError
        For a value that is missing, no number or outside; that names its row and column.
    """
    columns = {name: pd.to_numeric(table[name], errors="coerce") for name in table}
    numbers = pd.DataFrame(columns, table.index, dtype=float)
    bad = ~((numbers >= 0) & (numbers <= 1)).to_numpy(bool)  # NaN fails both comparisons
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise PipelineError(
            f"{where}: {table.columns[column]} of {table.index[row]} is "
            f"{table.iloc[row, column]}, not in [0, 1]"
        )
    return numbers
