"""One column of a user's table at a time: text in, checked values out.

In: a :class:`Column`, which knows its file and its setting. Out: values, or an error of one line
that names file, row, column and value.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import AGE_YEARS, Number

MISSING = ("", "unknown", "nan", "na", "n/a", "none", "null", "?", "-")
"""What people write for a value that they do not have, in small letters."""
MOST_WORDS = 100
"""A column of more is a name or a remark, not a category."""
_FLAGS = {"1": 1.0, "true": 1.0, "yes": 1.0, "y": 1.0, "0": 0.0, "false": 0.0, "no": 0.0, "n": 0.0}
_FLAGS |= {"1.0": 1.0, "0.0": 0.0}
_NUMBER = re.compile(r"([-+]?\d+(?:[.,]\d+)?(?:e[-+]?\d+)?)\s*([^\W\d].*|%)?", re.IGNORECASE)
_YEARS = ("y", "yr", "yrs", "year", "years", "y/o", "yo", "a", "an", "ans", "j", "jahr", "jahre",
          "jaar", "año", "años", "anni")  # fmt: skip
_AGE = re.compile(r"(.*[\W_])?age([\W_].*)?", re.IGNORECASE)
_BANDS = (1 / 3, 2 / 3)
"""Shares of the training rows below the edges between a number's subgroups."""


@dataclass(frozen=True)
class Column:
    """A column as it stands in its file.

    Attributes
    ----------
    path : pathlib.Path
    key : str
        Setting of ``table`` that names it, such as ``numeric``; empty where none does.
    values : pandas.Series
        Text without spaces around it, NaN where the cell is empty; the index counts rows from 0.
    """

    path: Path
    key: str
    values: pd.Series

    @classmethod
    def of(cls, table: pd.DataFrame, name: str, key: str, path: Path) -> "Column":
        """Take the column out of its table."""
        text = table[name].str.strip()
        return cls(path, key, text.where(text.notna() & (text != "")))

    @property
    def name(self) -> str:
        """Its head."""
        return str(self.values.name)

    @property
    def known(self) -> pd.Series:
        """The values, NaN too where a word says that it is not known."""
        return self.values.mask(self.values.str.lower().isin(MISSING))

    def stop(self, rows: pd.Series, why: str) -> None:
        """Raise if any of ``rows`` (true or false) is; the first is named."""
        if rows.any():
            first = rows.index[rows.to_numpy()][0]
            value = self.values[first]
            told = "empty" if pd.isna(value) else repr(value)
            more = f" ({int(rows.sum())} such rows)" if rows.sum() > 1 else ""
            self.refuse(f"{why}{more}", f" row {row_number(first)}", told)

    def refuse(self, why: str, row: str = "", value: str = "") -> NoReturn:
        """Raise about the column, or about one of its rows."""
        told = f" is {value}" if value else ""
        setting = f" (table.{self.key})" if self.key else ""
        raise PipelineError(f"{self.path}{row}: column {self.name!r}{setting}{told}{why}")


def row_number(index: int) -> int:
    """Return a row's number as a spreadsheet shows it: the head is row 1."""
    return int(index) + 2


def read_numbers(column: Column, unit: str = "") -> pd.Series:
    """Return float64, NaN where missing; one unit behind the numbers, such as ``years``, is read.

    Of an age, -1 is missing, as archives write it, and what no person reaches is an error.

    Parameters
    ----------
    column : Column
    unit : str
        That of the training rows (:attr:`~kaggle_pipeline.data.spec.Number.unit`); empty where
        none is known. A number without a unit is taken to be in it.

    Raises
    ------
    PipelineError
        For what is no number, and for a number in another unit.

    Examples
    --------
    >>> values = pd.Series(["45", "50 years", None, "unknown", "7,5"], name="age")
    >>> read_numbers(Column(Path("my.csv"), "numeric", values)).tolist()
    [45.0, 50.0, nan, nan, 7.5]
    """
    known = column.known
    found = {word: _NUMBER.fullmatch(word) for word in known.dropna().unique()}
    # Three digits behind a comma may be thousands.
    bad = {w for w, match in found.items() if not match or re.search(r",\d{3}$", match[1])}
    column.stop(known.isin(bad), ", expected a number; leave the cell empty where none is known")
    units = known.map({word: _unit(match[2]) for word, match in found.items()})
    said = units[units.notna() & (units != "")]
    first = next(iter(said), "")
    column.stop(
        units.isin(set(said) - {first}), f", but others are in {first!r}: write all in one unit"
    )
    if unit and first != unit:  # without any nothing is stopped at: a bare number is in the unit
        column.stop(
            said.eq(first),
            f", in {first!r}, but the training rows are in {unit!r}: write all in one unit",
        )
    numbers = {word: float(match[1].replace(",", ".")) for word, match in found.items()}
    values = known.map(numbers).astype(float)
    column.stop(np.isinf(values), ", expected a number")  # such as 1e999
    if is_age(column.name):
        values = values.mask(values == -1)
        outside = (values < AGE_YEARS.least) | (values > AGE_YEARS.greatest)
        column.stop(outside, f", expected {AGE_YEARS.describe()}")
    return values


def unit_of(column: Column) -> str:
    """Return the unit of a column that :func:`read_numbers` reads; empty where no row says one.

    Examples
    --------
    >>> unit_of(Column(Path("my.csv"), "numeric", pd.Series(["4", None, "5 mm"], name="size")))
    'mm'
    """
    units = (_unit(_NUMBER.fullmatch(word)[2]) for word in column.known.dropna())
    return next(filter(None, units), "")


def _unit(text: str | None) -> str:
    """What stands behind a number, in small letters; all words for years are one unit."""
    unit = (text or "").lower().rstrip(".")
    return "years" if unit in _YEARS else unit


def is_age(name: str) -> bool:
    """Return whether a column's name says that it holds ages."""
    return bool(_AGE.fullmatch(name))


def learn_numbers(column: Column) -> Number:
    """Return what to expect of a column of training rows: of an age that of any, else bands of
    thirds."""
    values = read_numbers(column)
    if values.isna().all():
        column.refuse(" holds no value that is known")
    if is_age(column.name):
        return replace(AGE_YEARS, unit=unit_of(column))
    edges = values.quantile(_BANDS).map(lambda edge: float(f"{edge:.2g}"))
    inside = [edge for edge in sorted(set(edges)) if values.min() < edge <= values.max()]
    return Number(bands=tuple(inside), unit=unit_of(column))


def learn_words(column: Column) -> tuple[str, ...]:
    """Return the vocabulary of a column of training rows, sorted; capitals make no difference."""
    words = _spellings(column.known)
    if not words:
        column.refuse(" holds no value that is known")
    if len(words) > MOST_WORDS:
        column.refuse(f" holds {len(words)} different words, at most {MOST_WORDS} make a category")
    return tuple(words[one] for one in sorted(words))


def read_words(column: Column, vocabulary: Sequence[str]) -> tuple[pd.Series, pd.Series]:
    """Return the words in the vocabulary's spelling, NaN else; and which are not in it."""
    spelling = {word.lower(): word for word in vocabulary}
    words = column.known.str.lower().map(spelling).astype(object)
    return words, column.known.notna() & words.isna()


def describe_unknown(column: Column, unknown: pd.Series, which: str) -> str:
    """Return a line for the rows whose word is in no vocabulary, empty if there are none.

    Parameters
    ----------
    column : Column
    unknown : pandas.Series of bool
        As :func:`read_words` gives it.
    which : str
        What is said of such a word, such as ``"no training row has"``.
    """
    if not unknown.any():
        return ""
    first = unknown.index[unknown.to_numpy()][0]
    return (
        f"{column.path}: {int(unknown.sum())} rows have a {column.name!r} that {which}, such as "
        f"{column.values[first]!r} in row {row_number(first)}: taken as missing"
    )


def _spellings(words: pd.Series) -> dict[str, str]:
    """Word in small letters → how it is written most often."""
    counts = words.dropna().value_counts().sort_index(kind="stable").sort_values(
        ascending=False, kind="stable"
    )  # fmt: skip
    found: dict[str, str] = {}
    for word in counts.index:
        found.setdefault(word.lower(), word)
    return found


def read_flags(column: Column) -> pd.Series:
    """Return a column of 0 and 1 as float64; ``yes``, ``no``, ``true`` and ``false`` too."""
    flags = column.values.str.lower().map(_FLAGS)
    column.stop(flags.isna(), ", expected 0 or 1")
    return flags.astype(float)


@dataclass(frozen=True)
class Target:
    """What a table asks.

    Attributes
    ----------
    task : {"binary", "multilabel", "multiclass"}
    words : mapping of str to (str or None)
        Class → the word of the target column that means it; None where 0 and 1 say it.
    """

    task: str
    words: Mapping[str, str | None]


def learn_target(columns: Sequence[Column], positive: str | None) -> Target:
    """Return the classes that the training rows hold.

    Parameters
    ----------
    columns : sequence of Column
        One, or several of 0 and 1: a class each, and where every row has exactly one of them, the
        classes exclude each other.
    positive : str or None
        The word that makes a binary question of words.

    Raises
    ------
    PipelineError
        For a label that is missing (with ``positive``, or beside 0 and 1, one of :data:`MISSING`
        too), words that are all the same, two words of which none is said to be the positive one,
        or more than :data:`MOST_WORDS`.
    """
    if len(columns) > 1:
        flags = pd.concat([read_flags(column) for column in columns], axis=1)
        for column in columns:
            _require_two(column, flags[column.name])
        one_each = bool((flags.sum(axis=1) == 1).all())
        classes = dict.fromkeys(class_name(column.name) for column in columns)
        if len(classes) < len(columns):
            columns[0].refuse(" and another differ only in their punctuation")
        return Target("multiclass" if one_each else "multilabel", classes)
    (column,) = columns
    words = _spellings(column.values)
    # Where every word is a class, "unknown" may be one.
    asks_one = positive is not None or set(words) - set(MISSING) <= set(_FLAGS)
    labels = _labels(column, positive) if asks_one else column.values
    column.stop(labels.isna(), ": every training row needs a label")
    _require_two(column, column.values.str.lower())
    if positive is not None:
        if positive.lower() not in words:
            raise PipelineError(
                f"table.positive is {positive!r}, but column {column.name!r} of {column.path} "
                f"holds {_some(words.values())}"
            )
        return Target("binary", {class_name(positive): words[positive.lower()]})
    if set(words) <= set(_FLAGS):
        return Target("binary", {class_name(column.name): None})
    column.stop(column.values.str.fullmatch(r"[-+]?\d*[.,]\d+"), ", expected 0 or 1, or a word")
    if len(words) == 2:
        column.refuse(f" holds {_some(words.values())}: say which one counts with table.positive")
    if len(words) > MOST_WORDS:
        column.refuse(f" holds {len(words)} different words, at most {MOST_WORDS} can be classes")
    classes = {class_name(words[one]): words[one] for one in sorted(words)}
    if len(classes) < len(words):
        column.refuse(" holds words that differ only in their punctuation")
    return Target("multiclass", classes)


def read_target(columns: Sequence[Column], target: Target) -> pd.DataFrame:
    """Return 0 or 1 as float64, a column a class.

    Raises
    ------
    PipelineError
        For a label that is missing or that the training rows do not have.
    """
    if None in target.words.values():
        found = pd.concat([read_flags(column) for column in columns], axis=1)
        return found.set_axis(list(target.words), axis=1)
    (column,) = columns
    column.stop(~has_label(columns, target), ": every row needs a label")
    words = column.values.str.lower()
    if target.task == "multiclass":
        known = {word.lower() for word in target.words.values()}
        column.stop(~words.isin(known), ", which no training row has")
    return pd.DataFrame(
        {name: (words == word.lower()).astype(float) for name, word in target.words.items()}
    )


def has_label(columns: Sequence[Column], target: Target) -> pd.Series:
    """Return which rows have a label in every target column, true or false.

    A word that says that it is not known (:data:`MISSING`) is none, but where every word is a
    class.
    """
    positives = set(target.words.values())
    if target.task == "multiclass" and None not in positives:
        return columns[0].values.notna()
    labels = [_labels(one, next(iter(positives))) for one in columns]
    return pd.concat(labels, axis=1).notna().all(axis=1)


def _labels(column: Column, positive: str | None) -> pd.Series:
    """The words of a column that asks one question, NaN too where one says that it is not known."""
    unknown = set(MISSING) - {(positive or "").lower()}
    return column.values.mask(column.values.str.lower().isin(unknown))


def class_name(word: str) -> str:
    """Return a word or a column's name as a class is called: it becomes a folder's name.

    Examples
    --------
    >>> class_name("naevus / mole"), class_name("Malignant?"), class_name("../.."), class_name("..")
    ('naevus _ mole', 'Malignant', '.._..', '__')
    """
    name = re.sub(r"[^\w .+()-]+", "_", word)
    name = name.rstrip("_ ") or name
    return name if name.strip(". ") else name.replace(".", "_")  # no folder is called ".."


def _require_two(column: Column, values: pd.Series) -> None:
    if values.nunique() < 2:
        column.refuse(f" holds {values.iloc[0]!r} in every training row: nothing can be learned")


def _some(words: object) -> str:
    listed = sorted(map(repr, words))
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")


def read_weights(column: Column) -> np.ndarray:
    """Return row weights, float64 above 0."""
    weights = read_numbers(column)
    column.stop(~(weights > 0), ", expected a weight above 0")
    return weights.to_numpy()
