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
from kaggle_pipeline.records.tfrecords import shards_holding
from kaggle_pipeline.stages.photo_records import index_here, read_photos
from kaggle_pipeline.webapp.models import RunModels
from kaggle_pipeline.webapp.ood import OodReference, sharpness
from kaggle_pipeline.webapp.photo_networks import PhotoNetworks

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
    of_networks = isinstance(models.reader, PhotoNetworks)
    # Vectors of a network and of encoders are not to be compared with each other.
    name = "reference.npz" if of_networks else f"reference_{models.photo_stage}.npz"
    path = Path(run_dir) / "webapp" / name
    stage = Path(run_dir) / models.photo_stage
    here = (Path(run_dir) / "prepare" / "folds.csv").exists()
    index = index_here(Path(run_dir)) if here else None
    trained = [stage / f"fold{fold}" / SAVED for fold in models.folds]
    newest = max((one.stat().st_mtime for one in trained if one.exists()), default=0.0)
    record = read_record(path.parent)
    whole = path.exists() and (record is None or record.done)
    if whole and path.stat().st_mtime >= newest:
        kept = OodReference.read(path)
        # A date does not tell that a fold was added, taken away or copied from elsewhere.
        same = set(kept.known) == set(kept.held_out) == set(models.reader.embedding_folds)
        if same and (len(kept.sharpness) or index is None):  # records that lacked may be here now
            return kept
    make = _of_networks if of_networks else _of_vectors
    reference = make(run_dir, models, index, say) if here else None
    if reference is None:
        needed = "TFRecords are" if of_networks else "vectors or folds are"
        say(f"the run's {needed} not here: photos are not compared with the training images")
        return None
    try:
        begin(path.parent, _REMEDY)
        reference.write(path)
        commit(path.parent)
    except PipelineError as error:  # a run that may only be read is served too
        say(f"note: what the training images look like cannot be kept: {error}")
    say(f"{reference.size} training images looked at")
    if not reference.can_tell:
        say(
            f"note: photos that are unlike the training images are not pointed out: {reference.few}"
        )
    return reference


def _of_networks(
    run_dir: Path, models: RunModels, index: pd.DataFrame | None, say: Callable[[str], None]
) -> OodReference | None:
    """By the networks' features; None without the records that they look at."""
    if index is None:
        return None
    say("looking at training images, once, to tell photos that are unlike them …")
    from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches
    from kaggle_pipeline.models.image.input.record_reader import PADDING

    folds = Folds.read(Path(run_dir) / "prepare" / "folds.csv")
    rng = np.random.default_rng(_SEED)
    known, held_out, sharp = {}, {}, []
    for fold in models.folds:
        ids = folds.valid_ids(fold)
        wanted = max(_FOLD_IMAGES, IMAGES // len(models.folds))
        ids = ids[np.sort(rng.permutation(len(ids))[:wanted])]
        source = Source(
            models.spec, shards_holding(index, ids), models.image_size_px,
            swap_red_blue=models.config.records.swap_red_blue,
        )  # fmt: skip
        started, parts, rows = time.monotonic(), [], []
        for batch in prediction_batches(source, list(ids), _BATCH).as_numpy_iterator():
            real = batch["row"] != PADDING
            parts.append(models.reader.embed(fold, batch["image"])[real])
            rows.append(batch["row"][real])
            sharp += [sharpness(square) for square in batch["image"][real]]
            if time.monotonic() - started > _SECONDS / len(models.folds):
                break
        embeddings = np.concatenate(parts).astype(np.float32)
        group = folds.validated.loc[ids[np.concatenate(rows)], "group_id"].to_numpy()
        known[fold], held_out[fold] = _halves(rng, embeddings, group)
    return OodReference(known, held_out, np.sort(sharp))


def _of_vectors(
    run_dir: Path, models: RunModels, index: pd.DataFrame | None, say: Callable[[str], None]
) -> OodReference | None:
    """The same of a frozen encoder, which learned from none of them; None without their vectors."""
    labelled = Folds.read(Path(run_dir) / "prepare" / "folds.csv").validated
    rng = np.random.default_rng(_SEED)
    ids = labelled.index[np.sort(rng.permutation(len(labelled))[:IMAGES])]
    heads = models.reader
    if heads.training is None:
        return None
    near, apart = _halves(
        rng, heads.training.table.of(ids), labelled.loc[ids, "group_id"].to_numpy()
    )
    sharp, started = [], time.monotonic()
    swapped = models.config.records.swap_red_blue
    shards = shards_holding(index, ids) if index is not None else []
    for _, photo in read_photos(shards, models.spec.record_id, set(ids), swap_red_blue=swapped):
        sharp.append(sharpness(heads.shrink(photo)))
        if time.monotonic() - started > _SECONDS:
            break
    return OodReference({0: near}, {0: apart}, np.sort(sharp))


def _halves(
    rng: np.random.Generator, embeddings: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Those to be near to, and further ones to rank among.

    A patient is in one half: the other half's distances are those of strangers, as a new photo's
    are. One patient's photos do not tell what is usual.
    """
    ordered = rng.permutation(np.unique(group))
    near = np.isin(group, ordered[: -(-len(ordered) // 2)])
    apart = embeddings[~near]
    return embeddings[near], apart if len(ordered) >= _GROUPS else apart[:0]
