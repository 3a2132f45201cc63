"""Folds: which training image is scored by which model; a group is never in two of them.

In: examples. Out: ``folds.csv`` (``image_id, group_id, fold``), written once, read by every model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.examples import PREPARE_ANEW
from kaggle_pipeline.data.spec import DatasetSpec

TRAIN_ONLY = -1
"""Fold of a row that every model may train on and none is scored on."""


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
            rows = self.table[self.table["group_id"] == split[0]]
            count = f"{len(split)} group{'s are' if len(split) > 1 else ' is'}"
            raise PipelineError(  # an image is named: the group may be a patient
                f"{count} in more than one fold: that of image {rows.index[0]}, for example, in "
                f"folds {sorted(set(rows['fold'].tolist()))}"
            )

    @property
    def numbers(self) -> list[int]:
        """The folds that have validation rows, ascending."""
        return sorted(int(fold) for fold in self.table["fold"].unique() if fold != TRAIN_ONLY)

    def train_ids(self, fold: int) -> pd.Index:
        """Ids that the model of ``fold`` may learn from."""
        return self.table.index[self.table["fold"] != fold]

    def valid_ids(self, fold: int) -> pd.Index:
        """Ids that the model of ``fold`` is scored on."""
        return self.table.index[self.table["fold"] == fold]

    @property
    def validated(self) -> pd.DataFrame:
        """The rows that some fold validates: those that out-of-fold predictions cover."""
        return self.table[self.table["fold"] != TRAIN_ONLY]

    def write(self, path: Path) -> None:
        """Write as CSV, atomically."""
        with atomic_path(path) as temporary:
            self.table.to_csv(temporary, index_label="image_id")

    @classmethod
    def read(cls, path: Path) -> "Folds":
        """Read what :meth:`write` wrote; errors where it is damaged or splits a group."""
        path = Path(path)
        if not path.exists():
            raise PipelineError(f"{path} is missing: run prepare_data first")
        types = {"image_id": str, "group_id": str, "fold": int}
        remedy = PREPARE_ANEW.format(folder=path.parent)
        return cls(read_own(path, types, remedy=remedy).set_index("image_id"))


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

    The counts alone settle how many groups of each class a part gets, the seed settles which. A
    class is one of the data set's, or "none of these" (in a binary set: negative); a group is of
    every class that one of its images has. Of each class

    - a fold of k gets a k-th part of the groups, rounded down or up;
    - a holdout gets the whole number of groups nearest to the share, but at least one and never
      all; the only group of a class is learned from where there are others to hold out.

    All of this holds at once in a binary set, and where each group is of one class. Elsewhere
    groups of several classes can contradict it: then rarer classes come first. Groups of the same
    classes are drawn evenly over their images of the rarest class and their size (C. Deotte's
    "triple stratification",
    kaggle.com/competitions/siim-isic-melanoma-classification/discussion/165526).

    Parameters
    ----------
    train : pandas.DataFrame
        Training rows of the examples.
    config : FoldsConfig
        k, or a holdout share, or a given column; by group or by image.
    seed : int
        Of the deal.

    Raises
    ------
    PipelineError
        If there are fewer groups than parts, or the given column is missing or splits a group.
    """
    if config.by == "image":
        train = train.assign(group_id=train.index)
    if config.column is not None:
        return _folds_from_column(train, config)
    if config.judge is not None:
        return _folds_from_mark(train, config.judge)
    classes, order = _describe_groups(train, spec)
    parts = 2 if config.holdout is not None else config.k
    if len(classes) < parts:
        raise PipelineError(f"{len(classes)} {spec.group or 'photo'}s cannot fill {parts} folds")
    dealt = _deal(classes.to_numpy(), order, config, np.random.default_rng(seed))
    fold_of_group = pd.Series(dealt, classes.index)
    fold = train["group_id"].map(fold_of_group).astype(int)
    return Folds(pd.DataFrame({"group_id": train["group_id"], "fold": fold}))


def shared_groups(examples: pd.DataFrame) -> list[str]:
    """Return the groups that have rows in train and in test, sorted."""
    by_split = examples.groupby("split")["group_id"].unique()
    return sorted(set(by_split.get("train", ())) & set(by_split.get("test", ())))


def divide_train(
    train: pd.DataFrame, examples: pd.DataFrame, spec: DatasetSpec, config: FoldsConfig, seed: int
) -> Folds:
    """Return the folds of the training rows, those of groups of the test part unscored if asked.

    Parameters
    ----------
    train : pandas.DataFrame
        Training rows in use.
    examples : pandas.DataFrame
        All, to find the groups that ``shared_groups: train_only`` learns from alone.
    spec, config, seed
        As for :func:`make_folds`.
    """
    if config.shared_groups != "train_only":
        return make_folds(train, spec, config, seed)
    known = train["group_id"].isin(shared_groups(examples))
    folds = make_folds(train[~known], spec, config, seed).table
    others = train.loc[known, ["group_id"]].assign(fold=TRAIN_ONLY)
    table = pd.concat([folds, others])
    return Folds(table.loc[[one for one in train.index if one in table.index]])


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
    marked = train[column].isin([True, 1, "True", "true", "1"])
    if marked.all() or not marked.any():
        raise PipelineError(f"folds.judge: {column!r} is the same for all training rows")
    fold = marked.map({True: 0, False: TRAIN_ONLY})
    return Folds(pd.DataFrame({"group_id": train["group_id"], "fold": fold}))


def _require_column(train: pd.DataFrame, column: str, key: str) -> None:
    if column not in train.columns:
        hint = nearest(column, list(train.columns))
        raise PipelineError(f"folds.{key} {column!r} is not in the data{hint}")


def _describe_groups(train: pd.DataFrame, spec: DatasetSpec) -> tuple[pd.DataFrame, np.ndarray]:
    """Return of which classes each group is, and what to sort groups of the same classes by.

    The first has an int column a class, the rarest first, then one of ones; the index is the group
    ids, sorted. The second, int, sorts by images of a group's rarest class, counted up to 3, then
    by images.
    """
    targets = train[list(spec.classes)].to_numpy(float) > 0
    images = pd.DataFrame(np.column_stack([targets, ~targets.any(axis=1)]).astype(int))
    counts = images.assign(all=1).groupby(train["group_id"].to_numpy()).sum()
    held = (counts > 0).sum().sort_values(kind="stable")
    counts = counts[held.index[held > 0]]
    classes = (counts > 0).astype(int)
    rare = counts.to_numpy()[np.arange(len(counts)), classes.to_numpy().argmax(axis=1)]
    return classes, 2**32 * rare.clip(max=3) + counts["all"].to_numpy()


def _deal(
    classes: np.ndarray, order: np.ndarray, config: FoldsConfig, rng: np.random.Generator
) -> np.ndarray:
    """Return each group's fold."""
    if config.holdout is not None:
        counts = classes.sum(axis=0)
        limits = np.minimum(counts - 1, 1), counts - 1  # some on either side
        low = np.clip(np.ceil(counts * config.holdout - 0.5).astype(int), *limits)
        high = np.clip(np.floor(counts * config.holdout + 0.5).astype(int), *limits)
        fold = np.full(len(classes), TRAIN_ONLY)
        fold[_draw(classes, order, low, high, 1, rng)] = 0
        return fold
    *numbers, last = rng.permutation(config.k)
    fold = np.full(len(classes), last)
    for number, parts in zip(numbers, range(config.k, 1, -1), strict=True):
        left = np.flatnonzero(fold == last)
        counts = classes[left].sum(axis=0)
        bounds = counts // parts, -(-counts // parts)
        fold[left[_draw(classes[left], order[left], *bounds, parts - 1, rng)]] = number
    return fold


def _draw(
    classes: np.ndarray,
    order: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rest: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return which groups are in a part: of each class from ``low`` to ``high`` where possible.

    At least ``rest`` groups are left over.
    """
    kinds, kind = np.unique(classes, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # NumPy 2.0 gives it another shape
    drawn: list[int] = []
    for one, number in enumerate(_count_kinds(kinds, np.bincount(kind), low, high, rest, rng)):
        if not number:
            continue
        mine = np.flatnonzero(kind == one)
        mine = mine[np.lexsort((rng.random(len(mine)), order[mine]))]
        # Sorted, and cut into as many runs as are drawn: one of each, its place in a run mirrored
        # in the next, so that a larger group is made up for by a smaller one.
        edges = (np.arange(number + 1) * len(mine) + rng.integers(number)) // number
        places = rng.integers(2**32, size=number)
        places[1::2] = 2**32 - 1 - places[: number // 2 * 2 : 2]
        drawn += list(mine[edges[:-1] + (places * np.diff(edges) >> 32)])
    return np.array(drawn)


def _count_kinds(
    kinds: np.ndarray,
    counts: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rest: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return how many groups of each kind (of the same classes) to draw.

    Begins with an even share of all kinds, then takes one more of a kind, one fewer, or one of a
    kind for one of another, as long as that brings a class nearer to its bounds and no rarer one
    further from them.

    Parameters
    ----------
    kinds : int array (kinds, classes)
    counts : int array (kinds,)
        Groups of each kind.
    """
    n = counts.sum()
    taken = np.diff((np.append(0, counts.cumsum()) * low[-1] + rng.integers(n)) // n)
    options = np.vstack([np.zeros_like(kinds[:1]), kinds])  # nothing, or a group of a kind
    change = options[:, None] - options
    # A step changes each class by one at most: a rarer one outweighs all that are commoner.
    weights = 2 ** np.arange(kinds.shape[1])[::-1]
    while True:
        found = taken @ kinds + change
        total = found[..., -1]
        fits = np.append(True, taken < counts)[:, None] & np.append(True, taken > 0)
        fits &= (total >= 1) & (total <= n - rest)
        off = np.maximum(np.maximum(low - found, found - high), 0) @ weights
        off[~fits] = off[0, 0] + 1
        if off[0, 0] == off.min():
            return taken
        more, fewer = divmod(rng.choice(np.flatnonzero(off == off.min())), len(options))
        step = np.zeros(len(options), int)
        step[more] += 1
        step[fewer] -= 1
        taken = taken + step[1:]
