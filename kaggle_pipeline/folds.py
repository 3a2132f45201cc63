"""Folds: which training image is judged by which model; a group is never in two of them.

In: examples. Out: ``folds.csv`` (``image_id, group_id, fold``), written once, read by every model.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from kaggle_pipeline.config import FoldsConfig
from kaggle_pipeline.errors import PipelineError, nearest
from kaggle_pipeline.rundir import atomic_path
from kaggle_pipeline.spec import DatasetSpec

TRAIN_ONLY = -1
"""Fold of a row that every model may train on and none is judged by."""


@dataclass(frozen=True)
class Folds:
    """Fold of each training image.

    Attributes
    ----------
    table : pandas.DataFrame
        Index ``image_id`` (unique); ``group_id`` (text) and ``fold`` (int, -1 = train only).

    Raises
    ------
    PipelineError
        If a group is in two folds, or an id is listed twice.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        if self.table.index.has_duplicates:
            twice = self.table.index[self.table.index.duplicated()][0]
            raise PipelineError(f"folds list image {twice} more than once")
        folds_of_group = self.table.groupby("group_id")["fold"].nunique()
        split = folds_of_group.index[folds_of_group > 1]
        if len(split):
            where = sorted({*self.table.loc[self.table["group_id"] == split[0], "fold"].tolist()})
            raise PipelineError(f"group {split[0]} is in more than one fold: {where}")

    @property
    def numbers(self) -> list[int]:
        """The folds that are judged, ascending."""
        return sorted(int(fold) for fold in self.table["fold"].unique() if fold != TRAIN_ONLY)

    def train_ids(self, fold: int) -> pd.Index:
        """Ids that the model of ``fold`` may learn from."""
        return self.table.index[self.table["fold"] != fold]

    def valid_ids(self, fold: int) -> pd.Index:
        """Ids that the model of ``fold`` is judged by."""
        return self.table.index[self.table["fold"] == fold]

    @property
    def judged(self) -> pd.DataFrame:
        """The rows that some fold judges: those that out-of-fold predictions cover."""
        return self.table[self.table["fold"] != TRAIN_ONLY]

    def write(self, path: Path) -> None:
        """Write as CSV, atomically."""
        with atomic_path(path) as temporary:
            self.table.to_csv(temporary, index_label="image_id")

    @classmethod
    def read(cls, path: Path) -> "Folds":
        """Read what :meth:`write` wrote; a PipelineError if it is missing or splits a group."""
        path = Path(path)
        if not path.exists():
            raise PipelineError(f"{path} is missing: run prepare_data first")
        table = pd.read_csv(path, dtype={"image_id": str, "group_id": str}).set_index("image_id")
        return cls(table)


def possible_folds(config: FoldsConfig) -> list[int]:
    """Return the folds that an experiment can have, as far as its settings tell.

    A holdout or a mark makes one; a column may fill fewer than ``k``.
    """
    return [0] if config.holdout is not None or config.judge else list(range(config.k))


def require_folds(config: FoldsConfig, wanted: Sequence[int]) -> None:
    """Stop, before any data is looked at, on a fold that an experiment cannot have.

    Parameters
    ----------
    config : FoldsConfig
    wanted : sequence of int
        As said by ``--fold``.

    Raises
    ------
    PipelineError
        That names the fold and those there can be.
    """
    possible = possible_folds(config)
    for fold in wanted:
        if fold not in possible:
            raise PipelineError(f"--fold {fold}: this experiment has no such fold, only {possible}")


def set_test_aside(
    examples: pd.DataFrame, spec: DatasetSpec, config: FoldsConfig, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn a share of the training groups into a test part whose labels are kept apart.

    Parameters
    ----------
    examples : pandas.DataFrame
        All of the split ``train``.
    config : FoldsConfig
        ``test_share``, and ``by`` for what is drawn.

    Returns
    -------
    tuple of pandas.DataFrame
        The examples, targets of the chosen rows NaN; and those targets by image id.

    Raises
    ------
    PipelineError
        If the data has a test part of its own.
    """
    if (examples["split"] == "test").any():
        raise PipelineError(
            f"folds.test_share: {spec.id} has a test part of its own here; say null"
        )
    drawn = make_folds(examples, spec, FoldsConfig(holdout=config.test_share, by=config.by), seed)
    chosen = examples.index.isin(drawn.valid_ids(0))
    classes = list(spec.classes)
    truth = examples.loc[chosen, classes].copy()
    examples = examples.copy()
    examples.loc[chosen, "split"] = "test"
    examples.loc[chosen, classes] = float("nan")
    return examples, truth


def make_folds(train: pd.DataFrame, spec: DatasetSpec, config: FoldsConfig, seed: int) -> Folds:
    """Divide training rows into folds.

    Groups are dealt out so that folds agree in the rarest class a group holds, in how many such
    images it holds and in how many images it has (C. Deotte's "triple stratification",
    kaggle.com/competitions/siim-isic-melanoma-classification/discussion/165526).

    Parameters
    ----------
    train : pandas.DataFrame
        Training rows of the examples.
    config : FoldsConfig
        k, or a holdout share, or a given column; by group or by image.
    seed : int
        Seed of the deal.

    Raises
    ------
    PipelineError
        If there are fewer groups than folds, or the given column is missing or splits a group.
    """
    if config.by == "image":
        train = train.assign(group_id=train.index)
    if config.column is not None:
        return _folds_from_column(train, config)
    if config.judge is not None:
        return _folds_from_mark(train, config.judge)
    groups = _describe_groups(train, spec)
    share = None
    if config.holdout is not None:  # as p of q parts, the nearest that the groups can fill
        most = min(20, len(groups))
        share = max(Fraction(config.holdout).limit_denominator(most), Fraction(1, most))
    k = share.denominator if share else config.k
    if len(groups) < k:
        raise PipelineError(f"{len(groups)} {spec.group or 'image'}s cannot fill {k} folds")
    strata = _merge_rare(groups, k)
    fold_of_group = pd.Series(TRAIN_ONLY, index=groups.index)
    deal = StratifiedKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A last stratum of fewer than k groups cannot be in every fold; that is no mistake.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = [chosen for _, chosen in deal.split(groups, strata)]
    for number, chosen in enumerate(parts[: share.numerator] if share else parts):
        fold_of_group.iloc[chosen] = 0 if share else number
    fold = train["group_id"].map(fold_of_group).astype(int)
    return Folds(pd.DataFrame({"group_id": train["group_id"], "fold": fold}))


def _folds_from_column(train: pd.DataFrame, config: FoldsConfig) -> Folds:
    column = config.column
    _require_column(train, column, "column")
    given = pd.to_numeric(train[column], errors="coerce")
    if given.isna().any():
        row = given.index[given.isna()][0]
        raise PipelineError(f"folds.column {column!r} of image {row} is not a number")
    kept = train[given >= 0]
    fold = given[given >= 0].astype(int) % config.k
    if fold.nunique() < 2:
        raise PipelineError(f"folds.column {column!r} makes {fold.nunique()} folds, 2 are needed")
    return Folds(pd.DataFrame({"group_id": kept["group_id"], "fold": fold}))


def _folds_from_mark(train: pd.DataFrame, column: str) -> Folds:
    """One fold, of the rows where ``column`` is true."""
    _require_column(train, column, "judge")
    judged = train[column].isin([True, 1, "True", "true", "1"])
    if judged.all() or not judged.any():
        raise PipelineError(f"folds.judge: {column!r} is the same for all training rows")
    fold = judged.map({True: 0, False: TRAIN_ONLY})
    return Folds(pd.DataFrame({"group_id": train["group_id"], "fold": fold}))


def _require_column(train: pd.DataFrame, column: str, key: str) -> None:
    if column not in train.columns:
        hint = nearest(column, list(train.columns))
        raise PipelineError(f"folds.{key} {column!r} is not in the data{hint}")


def _describe_groups(train: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """One row a group: its rarest class, how many such images (up to 3), bucket of its size."""
    targets = train[list(spec.classes)].to_numpy(float)
    if targets.shape[1] == 1:
        targets = np.hstack([1 - targets, targets])
    rarity = np.argsort(np.argsort(targets.sum(axis=0)))  # 0 = rarest class
    rank = np.where(targets > 0, rarity, targets.shape[1]).min(axis=1)
    rows = pd.DataFrame({"group_id": train["group_id"].to_numpy(), "rank": rank})
    rarest = rows.groupby("group_id")["rank"].min()
    is_rarest = rows["rank"].to_numpy() == rows["group_id"].map(rarest).to_numpy()
    size = rows.groupby("group_id").size()
    count = rows[is_rarest].groupby("group_id").size().clip(upper=3)
    # The commonest class says nothing beyond the size.
    count = count.where(rarest < targets.shape[1] - 1, 0)
    bucket = pd.qcut(size.rank(method="first"), min(10, len(size)), labels=False)
    return pd.DataFrame({"rank": rarest, "count": count, "bucket": bucket})


def _merge_rare(groups: pd.DataFrame, k: int) -> pd.Series:
    """Name each group's stratum, coarser where fewer than k groups would share it."""
    rank, count, bucket = (groups[name].astype(str) for name in ("rank", "count", "bucket"))
    strata = rank + "/" + count + "/" + bucket
    for coarser in (rank + "/" + count, rank, pd.Series("all", index=groups.index)):
        rare = strata.map(strata.value_counts()) < k
        strata = strata.mask(rare, coarser)
    return strata
