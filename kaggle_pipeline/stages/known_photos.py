"""Which of a folder's photos a run learned from, and how it scores on the others.

In: a run's ``prepare/`` and photos. Out: lines for a person, and the AUC of photos that the run did
not learn from, where it knows their labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.photo_folder import without_ending
from kaggle_pipeline.core.record import describe
from kaggle_pipeline.data.examples import (
    EXTERNAL,
    archive_id,
    read_examples,
    read_test_truth,
    split_rows,
)
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.fingerprints import read_digests
from kaggle_pipeline.metrics.roc_bootstrap import auc_with_interval
from kaggle_pipeline.report.scores import headline
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.stages.trained_embedding import TrainedHeads

COLUMN = "learned_from"
"""Of the predictions, where the run learned from some of the photos: ``yes`` or ``no``."""


@dataclass(frozen=True)
class KnownPhotos:
    """What a run knows of the photos of a folder.

    Attributes
    ----------
    learned : pandas.Series of bool
        By the photos' ids: whether a model learned from the photo.
    by_content : int
        How many of these have another name than in the run, but the same bytes.
    truth : pandas.DataFrame
        Labels by the photos' ids, a column a class, of those whose labels the run knows; and
        ``group_id``.
    scored : str
        The stage's own AUC, out of fold.
    """

    learned: pd.Series
    by_content: int
    truth: pd.DataFrame
    scored: str

    def describe(self) -> str:
        """Return how many photos the run learned from, in a line."""
        count, total = int(self.learned.sum()), len(self.learned)
        if not count:
            return f"the run learned from none of these {total:,} photos"
        same = f", {self.by_content:,} of them under another name" if self.by_content else ""
        return (
            f"warning: the run learned from {count:,} of these {total:,} photos{same}: their "
            "scores look better than those of new photos (column learned_from); out of fold, "
            f"where no model had seen the photo, the run reaches {self.scored}"
        )

    def describe_score(self, probabilities: pd.DataFrame, spec: DatasetSpec) -> Iterator[str]:
        """Yield the AUC on photos that the run did not learn from, or why there is none."""
        others = self.learned.index[~self.learned]
        if not len(others):
            yield "no AUC on photos that the run did not learn from: it learned from all of these"
            return
        rows = self.truth.index.intersection(others)
        head = f"AUC on the {len(others):,} photos that the run did not learn from"
        if not len(rows):
            if len(others) < len(self.learned):
                yield f"{head}: none, the run does not know their labels"
            return
        if len(rows) < len(others):
            head += f", {len(rows):,} of them with a label that it knows"
        truth, found = self.truth.loc[rows], []
        for name in spec.classes:
            try:
                score = auc_with_interval(
                    truth[name].to_numpy(int), probabilities.loc[rows, name].to_numpy(),
                    truth["group_id"].to_numpy(), seed=0,
                )  # fmt: skip
            except PipelineError:
                continue
            found.append(f"{spec.class_label(name)} {score.describe()}")
        yield f"{head}: {', '.join(found) or 'none, all are of one class'}"


def known_photos(
    run_dir: Path, trained: TrainedImageModels | TrainedHeads, photos: Mapping[str, Path]
) -> KnownPhotos | None:
    """Return what a run knows of photos; None where its ``prepare/`` is not here, as in a bundle.

    Parameters
    ----------
    run_dir : pathlib.Path
    trained : TrainedImageModels or TrainedHeads
        Whose models are used.
    photos : mapping of str to pathlib.Path
        Files by id. A file of the same bytes is the same photo. So is one of the same name, with
        or without ISIC 2019's mark of a smaller size, but not where the names are of the user's own
        table and the run knows other bytes: cameras give a name twice.
    """
    prepared, spec = Path(run_dir) / "prepare", trained.spec
    if not ((prepared / "folds.csv").exists() and (prepared / "examples.csv").exists()):
        return None
    examples = read_examples(prepared / "examples.csv", spec)
    folds = Folds.read(prepared / "folds.csv")
    learned = set(split_rows(examples, EXTERNAL).index)
    for fold in trained.folds:
        learned |= set(folds.train_ids(fold))
    if trained.of_all:
        learned |= set(folds.table.index)
    by_name = trained.config.table is None  # an archive's id is one photo, in whatever size
    of_archive = examples.index.groupby(examples.index.map(archive_id))
    digests = read_digests(prepared)
    ids_of = digests.groupby(digests).groups
    known = {}
    for identity, path in photos.items():
        digest = describe(path).sha256 if ids_of else None
        same = list(ids_of.get(digest, ()))  # with copies that are in no fold
        if by_name:
            same = [*of_archive.get(archive_id(identity), ()), *same]
        elif identity in examples.index and (identity in same or pd.isna(digests.get(identity))):
            same.insert(0, identity)
        found = [one for one in same if one in learned] or [
            one for one in same if one in examples.index
        ]
        if found:
            known[identity] = found[0]
    marks = pd.Series([known.get(one) in learned for one in photos], list(photos))
    renamed = sum(_name(known[one]) != _name(one) for one in marks.index[marks])
    truth = _labels(prepared, examples, pd.Series(known, dtype=object), spec)
    return KnownPhotos(marks, renamed, truth, _scored(trained))


def _name(path: str) -> str:
    """A file's name as two ids of it share it: an own table may name folders and the ending, ISIC
    2019 the size."""
    return without_ending(archive_id(str(path)).rpartition("/")[2]).casefold()


def _labels(
    prepared: Path, examples: pd.DataFrame, known: pd.Series, spec: DatasetSpec
) -> pd.DataFrame:
    """Labels and groups by the photos' ids, of those whose labels the run knows."""
    classes = list(spec.classes)
    truth = examples.loc[examples["split"] != EXTERNAL, [*classes, "group_id"]]
    if (kept := read_test_truth(prepared, spec)) is not None:
        truth.loc[kept.index, classes] = kept[classes]
    truth = truth.dropna()
    known = known[known.isin(truth.index)]
    return truth.loc[known].set_axis(known.index)


def _scored(trained: TrainedImageModels | TrainedHeads) -> str:
    """The stage's own AUC, out of fold."""
    path = trained.stage / "metrics.json"
    found = headline(trained.stage, read_json(path))[0] if path.exists() else "–"
    return f"AUC {found}" if found != "–" else "no AUC"
