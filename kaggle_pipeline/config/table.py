"""Settings of the data set ``table``: a collection of one's own, said by naming its columns.

In: values. Out: a frozen section of an :class:`~kaggle_pipeline.config.experiment.Experiment`.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from kaggle_pipeline.config.checks import require

DATASET = "table"
"""What ``dataset`` says where the section ``table`` describes it."""


@dataclass(frozen=True)
class TableConfig:
    """A table of photos, one a row, and what its columns mean."""

    train: str
    """CSV or Parquet file below the data folder."""
    image: str
    """Column that names the photo: a path below `images`, or the file's name with or without its
    ending."""
    target: str | tuple[str, ...]
    """What to predict. One column of 0 and 1 (or yes and no), of words (a class each), or a list of
    columns of 0 and 1: several labels, or classes where every row has exactly one."""
    positive: str | None = None
    """Word of the target column that counts as 1, all others as 0 but `unknown`, `?` and the like:
    they are missing labels."""
    test: str | None = None
    """Second file with the rows to predict; if it has the target for all of them, they are scored
    once at the end."""
    split: str | None = None
    """In place of `test`: column that says `train` or `test`."""
    images: str | None = "."
    """Folder of the photos below the data folder, searched with its sub-folders; null: no photos,
    only metadata or TFRecords in `tfrecords/`."""
    group: str | None = None
    """Column that names the patient or lesion; its photos stay in one fold. Without it the audit
    says "not checkable"."""
    group_is: Literal["patient", "lesion"] = "patient"
    """What a group is; only a patient has context."""
    numeric: tuple[str, ...] = ()
    """Columns of numbers to learn from; "45 years" reads as 45."""
    categorical: tuple[str, ...] = ()
    """Columns of words to learn from. Their vocabulary is that of the training rows; another word
    becomes missing and is counted."""
    weight: str | None = None
    """Column with the weight of each row in the image model's loss."""
    kaggle: str | None = None
    """Kaggle data set `owner/name` that holds the same files, for kernels."""

    def __post_init__(self) -> None:
        for key in ("train", "test", "images"):
            value = getattr(self, key)
            path = PurePath(value or ".")
            fine = not path.is_absolute() and ".." not in path.parts
            require(fine, f"table.{key}", value, "a path below the data folder")
        require(
            self.test is None or self.split is None, "table.split", self.split, "null with test"
        )
        require(bool(self.target), "table.target", list(self.target), "at least one column")
        fine = self.positive is None or isinstance(self.target, str)
        require(fine, "table.positive", self.positive, "null where target is a list")
        fine = self.kaggle is None or self.kaggle.count("/") == 1
        require(fine, "table.kaggle", self.kaggle, "owner/name")
        used: dict[str, str] = {}
        for key, column in self.columns:
            fine = column not in used
            require(fine, f"table.{key}", column, f"another column than table.{used.get(column)}")
            used[column] = key

    @property
    def targets(self) -> tuple[str, ...]:
        """The target's columns, be they one or several."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Every column that the section names, behind its key."""
        single = [(key, getattr(self, key)) for key in ("image", "split", "group", "weight")]
        several = [
            *(("target", column) for column in self.targets),
            *(("numeric", column) for column in self.numeric),
            *(("categorical", column) for column in self.categorical),
        ]
        return [(key, column) for key, column in single if column is not None] + several
