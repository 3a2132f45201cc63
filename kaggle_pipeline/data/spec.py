"""DatasetSpec: everything that makes one data set differ from another, and nothing else.

In: declarations in ``datasets/``. Out: a frozen object that every stage receives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from kaggle_pipeline.metrics.task import Task


@dataclass(frozen=True)
class RecordField:
    """One feature of a TFRecord: its name there, the examples column it holds, how it is stored."""

    name: str
    column: str
    kind: Literal["bytes", "int"]


@dataclass(frozen=True)
class Number:
    """A numeric feature: what it may be, and how people read it.

    Attributes
    ----------
    least, greatest : int, float or None
        What a person may enter; None where there is no bound.
    step : int, float or None
        Width of a histogram's bars and step of an input field; None: chosen by the values.
    bands : tuple of float
        Edges between the subgroups by which scores are told apart; empty for none.
    name : str
        What the subgroups are called; empty for the feature's own name.
    unit : str
        What stands behind the numbers of the training rows, such as ``mm``; empty where nothing
        does, or where it is not known.
    """

    least: float | None = None
    greatest: float | None = None
    step: float | None = None
    bands: tuple[float, ...] = ()
    name: str = ""
    unit: str = ""

    def holds(self, value: object) -> bool:
        """Return whether ``value`` is a finite number within the bounds."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = self.least is None or value >= self.least
        return above and (self.greatest is None or value <= self.greatest)

    def describe(self) -> str:
        """Return ``"a number from 0 to 120"``, or with one bound or none."""
        low = "" if self.least is None else f" from {self.least:g}"
        high = "" if self.greatest is None else f" to {self.greatest:g}"
        return f"a number{low}{high}"


AGE_YEARS = Number(0, 120, step=5, bands=(30, 45, 60, 75), name="age", unit="years")
"""An age, which archives round to five years."""


@dataclass(frozen=True)
class SubmissionFormat:
    """The columns of the file that a competition takes: its id column, then one a class."""

    id_column: str
    columns: Mapping[str, str]
    """Submission column -> class name."""
    by_highest: bool = False
    """Whether the class with the highest number of a row is what is scored, as by balanced accuracy
    in ISIC 2018 and 2019; the numbers are then made so that it is the decision."""


@dataclass(frozen=True)
class RawData:
    """What ``read_raw`` returns.

    Attributes
    ----------
    examples : pandas.DataFrame
        The canonical table before validation (see ``examples.py``); further raw columns are kept
        under their own names so that the leak audit can look at them.
    sample_submission : pandas.DataFrame or None
        The competition's own sample, or None where there is none.
    duplicate_pairs : pandas.DataFrame or None
        Two columns of image ids that are known to show the same photo, or None.
    tables : sequence of pathlib.Path
        Files that were read, or would have been had they been there: once prepared, a run minds
        changes in these alone.
    notes : sequence of str
        Lines for the user: what lies in the folder and is not used.
    test_truth : pandas.DataFrame or None
        Labels of all test rows, 0 or 1 by image id, where they are at hand: for one last score.
    """

    examples: pd.DataFrame
    sample_submission: pd.DataFrame | None = None
    duplicate_pairs: pd.DataFrame | None = None
    tables: Sequence[Path] = ()
    notes: Sequence[str] = ()
    test_truth: pd.DataFrame | None = None


@dataclass(frozen=True)
class Diagnoses:
    """What a lesion was found to be: a finer target than the classes, for training rows alone.

    Attributes
    ----------
    column : str
        Raw column of the examples that holds it. It settles the classes, so it is never a feature.
    names : mapping of str to (str or None)
        Each diagnosis that a network tells apart, and the class that it belongs to, if any.
    words : mapping of str to str
        What the column may say -> a diagnosis of ``names``.
    """

    column: str
    names: Mapping[str, str | None]
    words: Mapping[str, str]


@dataclass(frozen=True)
class DatasetSpec:
    """Declaration of one data set.

    Attributes
    ----------
    id : str
        Name used in configs.
    group : str or None
        What must never be split between folds (``"patient"``, ``"lesion"``), None if unknown.
    task : {"binary", "multilabel", "multiclass"}
        Shape of the answer.
    classes : tuple of str
        Target columns of the examples table, each 0 or 1; one for a binary task.
    numeric, categorical : mapping
        Tabular features by name. A number comes with its range and bands; a categorical feature
        with its whole vocabulary, so the width of its one-hot block never depends on which rows a
        fold happens to hold.
    record_fields : tuple of RecordField
        TFRecord schema beside ``image``.
    submission : SubmissionFormat
        Format of the submission.
    read_raw : callable
        ``read_raw(data_dir) -> RawData``; the only place that knows raw column names.
    source : str
        How a user gets the data; shown when it is missing.
    """

    id: str
    group: str | None
    task: Task
    classes: tuple[str, ...]
    numeric: Mapping[str, Number]
    categorical: Mapping[str, tuple[str, ...]]
    record_fields: tuple[RecordField, ...]
    submission: SubmissionFormat
    read_raw: Callable[[Path], RawData]
    source: str
    title: str = ""
    """What people call the data set; empty for its id."""
    class_titles: Mapping[str, str] = field(default_factory=dict)
    """What a class is called in words, where its column does not say it."""
    made_up: bool = False
    """Whether the photos are made up: what a model learns from them says nothing about skin."""
    record_id: str = "image_name"
    """TFRecord feature that holds the image id."""
    kaggle: str = ""
    """Its name on Kaggle, ``competitions/<slug>`` or ``datasets/<owner>/<slug>``, if there."""
    published_counts: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """Images of the published training set by the classes they belong to, none for "nothing of
    these"; only for telling how long a run would take where the data itself is not at hand."""
    published_tests: int = 0
    """Images of the published test set, for the same."""
    given_fit: Literal["crop", "stretch"] | None = None
    """How the TFRecords that come with the data set were made square, where that is known."""
    given_size_px: int | None = None
    """Side of the photos in them: records of another side were made by somebody else."""
    diagnoses: Diagnoses | None = None
    """Finer target than the classes, where the data set has one."""
    lesion_features: tuple[str, ...] = ()
    """Features that differ between the lesions of one patient, such as the site."""
    acquisition: tuple[str, ...] = field(default=("width_px", "height_px"))
    """Columns that describe how a photo was taken, not what it shows; audited, never features."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all tabular features, numeric first."""
        return (*self.numeric, *self.categorical)

    @property
    def heading(self) -> str:
        """What people call the data set."""
        return self.title or self.id.replace("_", " ")

    @property
    def main_class(self) -> str:
        """The class to begin with: melanoma, where there is one."""
        called = {name: self.class_label(name).lower() for name in self.classes}
        melanoma = [name for name, words in called.items() if words in ("melanoma", "mel")]
        return (melanoma or self.classes)[0]

    def class_label(self, name: str) -> str:
        """Return what a class is called in words."""
        return self.class_titles.get(name, name.replace("_", " "))

    def feature_label(self, name: str) -> str:
        """Return what a feature is called in words: ``age_years`` is ``age in years``."""
        plain = name.removesuffix("_years")
        words = plain.replace("_", " ")
        return words if plain == name else f"{words} in years"
