"""Make the vectors of every encoder: records → ``embeddings/<name>/`` of the run."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.embedding import EmbeddingConfig, EncoderConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.random_weights import random_weights
from kaggle_pipeline.config.run_settings import Difference, describe_differences
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL
from kaggle_pipeline.models.embedding.vector_files import read_vector_file, require_vector_file
from kaggle_pipeline.models.embedding.vector_store import FOLDER, REMEDY, VectorStore
from kaggle_pipeline.models.embedding.vector_table import VectorTable
from kaggle_pipeline.records.geometry import RecordFit, read_fit, read_note
from kaggle_pipeline.records.tfrecords import read_index, shards_holding
from kaggle_pipeline.stages.made_up import made_up_photos
from kaggle_pipeline.stages.photo_records import read_photos
from kaggle_pipeline.stages.prepare import is_prepared, prepare_data, require_tables
from kaggle_pipeline.stages.run import Run

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator
    from kaggle_pipeline.models.embedding.encoder import Encoder

_THREADS = 4


def embed(run: Run, fit: RecordFit | None = None) -> RecordFit | None:
    """Make the vectors that are missing; prepares tables and records first where they are.

    With ``--overwrite`` those of the experiment's encoders are made anew. Records are made only for
    vectors that are missing. In a chain of stages ``fit`` is what ``prepare_data`` returned.

    Returns
    -------
    RecordFit or None
        How the photos behind the vectors were made square; None where no photo is read.

    Raises
    ------
    PipelineError
        If no encoder is named, or one, its weights, its file or a record cannot be had.
    """
    stores = _stores(run)
    if doubt := random_weights("embedding", to_mapping(run.config)):
        run.say(f"note: {doubt}")
    _require_same(run, stores)
    if not run.chained:
        if not is_prepared(run.prepared):  # before hours of conversion
            check_encoders(run)
        fresh, with_records = replace(run, overwrite=False), needs_records(run)
        fit = prepare_data(fresh, with_records=with_records, learners=["embedding"], wait=True)
    with run.working_on(FOLDER, wait=True):
        _embed(run, stores, fit)
        return _fit_of_vectors(run, stores, fit)


def needs_records(run: Run) -> bool:
    """Return whether an encoder has still to see the photos, or with ``--overwrite`` again."""
    stores = _stores(run)
    return any(
        one.reads_photos and (run.overwrite or not stores[one.folder].finished)
        for one in run.config.embedding.encoders
    )


def _fit_of_vectors(
    run: Run, stores: Mapping[str, VectorStore], fit: RecordFit | None
) -> RecordFit | None:
    """How the photos behind vectors were made square, which has to be one way for all."""
    if not run.config.embedding.reads_photos:
        return None
    for store in stores.values():
        if fit is not None:
            fit.require_same(store.folder, REMEDY)
        fit = fit or read_note(store.folder, REMEDY)  # vectors of an earlier version do not say it
    return fit or read_fit(run.run_dir / "embedding", run.config, run.spec)


def _stores(run: Run) -> dict[str, VectorStore]:
    wanted = run.config.embedding.encoders
    if not wanted:
        raise PipelineError("embedding.encoders is empty: name one, such as keras:MobileNetV2")
    return {one.folder: VectorStore(run.run_dir / FOLDER / one.folder) for one in wanted}


def check_encoders(run: Run) -> None:
    """Stop on what would fail only after the conversion, or after other models' training.

    Encoders that are still to be run are opened, and their weights downloaded.

    Raises
    ------
    PipelineError
        If no encoder is named, one's package, weights or file cannot be had, or the vectors that
        are there are of other settings.
    """
    config, stores = run.config.embedding, _stores(run)
    _require_same(run, stores)
    missing = [one for one in config.encoders if run.overwrite or not stores[one.folder].finished]
    for one in missing:
        if not one.reads_photos:
            require_vector_file(Path(one.what))
    require_tables(run)
    if photos := [one for one in missing if one.reads_photos]:
        from kaggle_pipeline.hardware.accelerator import choose_accelerator

        device = choose_accelerator(run.config.device, run.config.replicas)
        open_encoders(photos, device, config.batch_size)


def _embed(run: Run, stores: Mapping[str, VectorStore], fit: RecordFit | None) -> None:
    config = run.config.embedding
    examples = run.examples()
    ids = examples.index[examples["split"] != EXTERNAL]
    if run.overwrite:
        for store in stores.values():
            store.drop()
    missing = []
    for one in config.encoders:
        store = stores[one.folder]
        if store.finished:
            store.read().mean(ids, f"{store.folder} ({REMEDY})")
            run.say(f"{one.folder}: done already")
        elif one.reads_photos:
            missing.append(one)
        else:
            array, digest = read_vector_file(Path(one.what), ids, run.spec.record_id)
            about = {"library": "file", "weights_sha256": digest, "preprocessing": "of others",
                     "image_size_px": one.image_size_px}  # fmt: skip
            store.write(ids, stored_vectors(array, config), {**to_mapping(one), **about})
            run.say(f"{one.folder}: {_describe(array)} of {one.what}")
    if missing:
        _embed_records(run, missing, stores, ids, fit)


def _require_same(run: Run, stores: Mapping[str, VectorStore]) -> None:
    """Stop where a folder's vectors are of other settings."""
    for one in run.config.embedding.encoders:
        store = stores[one.folder]
        if run.overwrite:
            continue
        found = []
        if store.finished:
            about, now = store.about(), to_mapping(one)
            keys = ("source", "weights", "options", "layer", "pool_share", "views")
            both = [(key, about.get(key), now[key]) for key in keys]
            found += [Difference(*one) for one in both if one[1] != one[2]]
        if one.reads_photos and (note := read_note(store.folder, REMEDY)) is not None:
            found += note.differences(run.config.records)
        if found:
            raise PipelineError(
                f"{store.folder} was made with {describe_differences(found)}: give the encoder "
                f"another name, or {REMEDY}"
            )


def _embed_records(
    run: Run,
    missing: Sequence[EncoderConfig],
    stores: Mapping[str, VectorStore],
    ids: pd.Index,
    fit: RecordFit | None,
) -> None:
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    index = read_index(run.run_dir)
    if index is None:
        raise PipelineError(
            f"no images for {run.spec.id} in {run.data_dir}: it needs jpeg/, DICOM or tfrecords/"
        )
    config = run.config.embedding
    device = choose_accelerator(run.config.device, run.config.replicas)
    run.say(f"device: {device.describe(mixed_precision=False)}")
    encoders = open_encoders(missing, device, config.batch_size)
    about = {one.folder: {**to_mapping(one), **encoders[one.folder].about} for one in missing}
    for name in encoders:
        stores[name].require_same_weights(about[name])
        if fit is not None:
            fit.require_same(stores[name].folder, REMEDY)
            fit.write(stores[name].folder)
    index = index[index["image_id"].isin(ids)]
    shards = index.groupby(["folder", "shard"], sort=True)["image_id"].agg(set)
    blocks = [Path(shard).stem for _, shard in shards.index]
    swap = run.config.records.swap_red_blue
    with run.progress(len(index), f"embed by {', '.join(encoders)}") as progress:
        for ((folder, shard), wanted), block in zip(shards.items(), blocks, strict=True):
            todo = {
                name: one for name, one in encoders.items() if not stores[name].has_block(block)
            }
            if todo:
                photos = read_photos([Path(folder) / shard], run.spec.record_id, wanted, swap)
                found, vectors = encode_photos(photos, todo, config.batch_size)
                for name, array in vectors.items():
                    stores[name].write_block(
                        block, found, stored_vectors(array, config), about[name]
                    )
            progress(len(wanted))
    if not swap:  # records of new photos are not
        _embed_made_up(run, {name: stores[name] for name in encoders}, encoders, fit)
    for name, store in stores.items():
        if name in encoders:
            store.join_blocks(blocks, ids, about[name])
            run.say(
                f"{name}: {_describe(store.read().array)}, at {about[name]['image_size_px']} px"
            )


def _embed_made_up(
    run: Run,
    stores: Mapping[str, VectorStore],
    encoders: Mapping[str, "Encoder"],
    fit: RecordFit | None,
) -> None:
    """Keep made-up photos and their vectors, for ``verify_run``."""
    recipe = fit.recipe(run.config.records) if fit else run.config.records
    for name, store in stores.items():
        with made_up_photos(store.folder, run.spec, recipe) as made_up:
            ids = made_up.examples.index
            photos = read_photos(shards_holding(made_up.index, ids), run.spec.record_id, set(ids))
            found, vectors = encode_photos(
                photos, {name: encoders[name]}, run.config.embedding.batch_size
            )
            made_up.keep(store.folder)
            store.write_made_up(found, stored_vectors(vectors[name], run.config.embedding))


def open_encoders(
    wanted: Sequence[EncoderConfig], device: "Accelerator", batch_size: int
) -> dict[str, "Encoder"]:
    """Return encoders that read photos, by their folders' names; their weights are loaded."""
    from kaggle_pipeline.models.embedding.registry import open_encoder

    return {one.folder: open_encoder(one, device, batch_size) for one in wanted}


def encode_photos(
    photos: Iterator[tuple[str, Image.Image]],
    encoders: Mapping[str, "Encoder"],
    batch_size: int,
) -> tuple[pd.Index, dict[str, np.ndarray]]:
    """Return the ids and float32 vectors (n, views, width) of each encoder.

    A photo is decoded once for all encoders.
    """
    ids, parts = [], {name: [] for name in encoders}
    with ThreadPoolExecutor(_THREADS) as threads:
        while batch := list(islice(photos, batch_size)):
            ids += [image_id for image_id, _ in batch]
            for name, encoder in encoders.items():
                prepared = threads.map(encoder.prepare, [photo for _, photo in batch])
                parts[name].append(encoder.encode(prepared))
    return pd.Index(ids, dtype=object), {name: np.concatenate(part) for name, part in parts.items()}


def read_vector_table(run: Run, examples: pd.DataFrame) -> tuple[VectorTable, pd.Index | None]:
    """Return the stored vectors of the examples, as the head is to see them.

    The second value are the ids of the made-up photos, whose vectors are in the table too; None
    where an encoder has no such vectors.
    """
    config = run.config.embedding
    stores = {one.folder: VectorStore(run.run_dir / FOLDER / one.folder) for one in config.encoders}
    vectors = {name: one.read().mean(examples.index, one.folder) for name, one in stores.items()}
    ids, patient, asked = examples.index, examples["group_id"], None
    made_up = {name: one.made_up() for name, one in stores.items()}
    if all(one is not None for one in made_up.values()):
        asked = next(iter(made_up.values())).ids
        for name, one in made_up.items():
            more = one.mean(asked, f"{stores[name].folder}: of its made-up photos it")
            vectors[name] = np.concatenate([vectors[name], more])
        ids = ids.append(asked)
        patient = pd.concat([patient, pd.Series(asked, asked)])  # each is alone
    return VectorTable.build(ids, vectors, patient if config.context else None), asked


def stored_vectors(array: np.ndarray, config: EmbeddingConfig) -> np.ndarray:
    """Return vectors in the numbers that ``embedding.dtype`` keeps them in.

    Raises
    ------
    PipelineError
        If one is too large for them.
    """
    found = array.astype(config.dtype)
    if not np.isfinite(found).all():
        raise PipelineError(f"embedding.dtype {config.dtype} cannot hold a vector: say float32")
    return found


def _describe(array: np.ndarray) -> str:
    n, views, width = array.shape
    return f"{n} vectors of {width} numbers" + (f", {views} views each" if views > 1 else "")
