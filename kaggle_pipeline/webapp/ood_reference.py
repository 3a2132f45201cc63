"""The training images that a photo is measured against, looked at once for all readings.

In: a run's folder and its models. Out: a :class:`OodReference`, kept in the run's ``webapp/``; None
where the run's TFRecords are not at hand.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED
from kaggle_pipeline.core.record import read_record
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.records.tfrecords import read_index
from kaggle_pipeline.webapp.models import RunModels
from kaggle_pipeline.webapp.ood import OodReference, sharpness

IMAGES = 500
"""Looked at in all, half to be near to, half to tell what is usual."""
_SECONDS = 180
"""A large network on a CPU is given so long, and then has looked at fewer."""
_FOLD_IMAGES = 120
"""At least, of a fold: of few the outer percentiles are guesswork."""
_GROUPS = 4
"""At least, two in each half."""
_BATCH = 8
_SEED = 20200817
_REMEDY = "delete {file}, and the page makes it anew"


def find_reference(
    run_dir: Path, models: RunModels, say: Callable[[str], None] = lambda line: None
) -> OodReference | None:
    """Read the reference of a run, or make and keep it.

    Parameters
    ----------
    run_dir : pathlib.Path
    models : RunModels
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If the kept one is damaged, or not what was written.
    """
    path = Path(run_dir) / "webapp" / "reference.npz"
    trained = [Path(run_dir) / "image" / f"fold{fold}" / SAVED for fold in models.folds]
    newest = max((one.stat().st_mtime for one in trained if one.exists()), default=0.0)
    record = read_record(path.parent)
    whole = path.exists() and (record is None or record.done)
    if whole and path.stat().st_mtime >= newest:
        kept = OodReference.read(path)
        # A date does not tell that a fold was added, taken away or copied from elsewhere.
        if set(kept.known) == set(kept.held_out) == set(models.folds):
            return kept
    index = _index(Path(run_dir))
    if index is None:
        say("the run's TFRecords are not here: photos are not compared with the training images")
        return None
    say("looking at training images, once, to tell photos that are unlike them …")
    reference = _make(run_dir, models, index)
    try:
        begin(path.parent, _REMEDY)
        reference.write(path)
        commit(path.parent)
    except PipelineError as error:  # a run that may only be read is served too
        say(f"note: what the training images look like cannot be kept: {error}")
    say(f"{reference.size} training images looked at")
    if not reference.can_tell:
        say("note: too few of a fold to tell which photos are unlike them: not checked")
    return reference


def _index(run_dir: Path) -> pd.DataFrame | None:
    """Where each image's record is, or None if a file is not there."""
    index = read_index(run_dir)
    if index is None or not (run_dir / "prepare" / "folds.csv").exists():
        return None
    here = index["shard"].map(lambda name: (run_dir / "records" / name).exists())
    index.loc[here, "folder"] = str(run_dir / "records")  # the run may have moved
    places = index[["folder", "shard"]].drop_duplicates()
    known = all((Path(one.folder) / one.shard).exists() for one in places.itertuples())
    return index if known else None


def _make(run_dir: Path, models: RunModels, index: pd.DataFrame) -> OodReference:
    from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches
    from kaggle_pipeline.models.image.input.record_reader import PADDING
    from kaggle_pipeline.records.tfrecords import shards_holding

    folds = Folds.read(Path(run_dir) / "prepare" / "folds.csv")
    rng = np.random.default_rng(_SEED)
    known, held_out, sharp = {}, {}, []
    for fold in models.folds:
        ids = folds.valid_ids(fold)
        wanted = max(_FOLD_IMAGES, IMAGES // len(models.folds))
        ids = ids[np.sort(rng.permutation(len(ids))[:wanted])]
        source = Source(
            models.spec, shards_holding(index, ids), models.image_size_px,
            swap_red_blue=models.config.records.channel_order == "bgr",
        )  # fmt: skip
        started, parts, rows = time.monotonic(), [], []
        for batch in prediction_batches(source, list(ids), _BATCH).as_numpy_iterator():
            real = batch["row"] != PADDING
            parts.append(models.embed(fold, batch["image"])[real])
            rows.append(batch["row"][real])
            sharp += [sharpness(square) for square in batch["image"][real]]
            if time.monotonic() - started > _SECONDS / len(models.folds):
                break
        embeddings = np.concatenate(parts).astype(np.float32)
        group = folds.validated.loc[ids[np.concatenate(rows)], "group_id"].to_numpy()
        # A patient is in one half: the other half's distances are those of strangers, as a new
        # photo's are.
        ordered = rng.permutation(np.unique(group))
        near = np.isin(group, ordered[: -(-len(ordered) // 2)])
        known[fold], held_out[fold] = embeddings[near], embeddings[~near]
        if len(ordered) < _GROUPS:  # one patient's photos do not tell what is usual
            held_out[fold] = held_out[fold][:0]
    return OodReference(known, held_out, np.sort(sharp))
