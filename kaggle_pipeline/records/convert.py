"""Conversion: photos → square JPEGs of one size → TFRecord shards.

In: examples with ``image_path``. Out: ``<split>NN-<count>.tfrec`` and ``manifest.json``, which says
what each shard was made from; a conversion that was stopped goes on where it was.
"""

import hashlib
import io
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.child_process import FEWER_WORKERS, map_in_order
from kaggle_pipeline.core.commit import begin, commit, renew
from kaggle_pipeline.core.engine import import_tensorflow
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, sweep_unfinished, write_json
from kaggle_pipeline.core.photo_kinds import kind_of_file
from kaggle_pipeline.core.photos import read_image
from kaggle_pipeline.core.progress import Advance
from kaggle_pipeline.core.record import is_as_written, read_record
from kaggle_pipeline.data.examples import SPLITS, require_images, split_rows
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.tfrecords import check_shard, encode_record, list_shards, shard_name

_DETAIL = 1.5
"""Least ratio of a decoded side to the side that is wanted."""
_SHUFFLE_SEED = 20200817  # fixed: shards of one data set are the same whatever the experiment


def convert(
    examples: pd.DataFrame,
    spec: DatasetSpec,
    data_dir: Path,
    out_dir: Path,
    config: RecordsConfig,
    progress: Advance = lambda done: None,
    remedy: str = FEWER_WORKERS,
) -> None:
    """Write the TFRecords of all examples.

    Parameters
    ----------
    examples : pandas.DataFrame
        Every row needs an ``image_path``.
    spec : DatasetSpec
        Gives the record schema.
    data_dir, out_dir : pathlib.Path
        Where the photos are; where the shards go.
    config : RecordsConfig
        Size, fit, quality, shard size, workers.
    progress : callable
        Told the number of images done since the last call.
    remedy : str
        What to do where a worker process is killed.

    Raises
    ------
    PipelineError
        If an image is missing or unreadable, ``out_dir`` holds shards of other images or settings,
        or a worker process is killed.
    """
    plan, manifest = open_conversion(examples, spec, out_dir, config)
    pending = []
    for name, rows in plan:
        digest = digest_rows(rows, Path(data_dir))
        if is_done(manifest, name, digest, out_dir):
            progress(len(rows))
        else:
            pending.append((name, rows, digest))
    paths = [Path(data_dir) / path for _, rows, _ in pending for path in rows["image_path"]]
    to_jpeg = partial(convert_image, config=config)
    results = map_in_order(
        to_jpeg, paths, config.workers, what="conversion of photos", remedy=remedy
    )
    with closing(results) as images:
        for name, rows, digest in pending:
            write_shard(out_dir / name, rows, islice(images, len(rows)), spec, progress)
            manifest["shards"][name] = digest
            write_json(out_dir / MANIFEST, manifest)
            renew(out_dir, name)
    close_conversion(out_dir, plan)


_RECIPE = ("image_size_px", "fit", "quality")
MANIFEST = "manifest.json"
_REMEDY = "delete {file} and run the same command with --resume, which converts anew"
Plan = list[tuple[str, pd.DataFrame]]


def open_conversion(
    examples: pd.DataFrame, spec: DatasetSpec, out_dir: Path, config: RecordsConfig
) -> tuple[Plan, dict]:
    """Return each shard's name and rows, and the manifest of what is done already.

    Raises
    ------
    PipelineError
        If an image is not known, or ``out_dir`` holds shards of other settings.
    """
    require_images(examples, spec)
    out_dir.mkdir(parents=True, exist_ok=True)
    if read_record(out_dir) is None and not list(out_dir.glob("*.tfrec")):
        begin(out_dir, _REMEDY)
    plan = plan_shards(examples, config)
    recipe = {"dataset": spec.id, "shards": {}} | {
        name: value for name, value in asdict(config).items() if name in _RECIPE
    }
    return plan, _open_manifest(out_dir, recipe)


def is_done(manifest: dict, name: str, digest: str, out_dir: Path) -> bool:
    """Return whether the shard is there, made from what :func:`digest_rows` tells."""
    if manifest["shards"].get(name) != digest or not (out_dir / name).exists():
        return False
    record = read_record(out_dir)
    # A shard that a kill left out of the record is whole, but it is cheap to be sure.
    return record is None or name not in record.files or is_as_written(out_dir / name)


def plan_shards(examples: pd.DataFrame, config: RecordsConfig) -> Plan:
    """Return each shard's name and rows.

    Rows are dealt out in a fixed random order: a shard is a sample of its split, so that shuffling
    within a small buffer mixes well. Shards of a split differ in size by one at most.
    """
    plan = []
    for split in SPLITS:
        rows = split_rows(examples, split).sort_index()
        rows = rows.iloc[np.random.default_rng(_SHUFFLE_SEED).permutation(len(rows))]
        # At least a few shards, or there is nothing to read in parallel.
        wanted = max(-(-len(rows) // config.records_per_shard), min(4, len(rows)))
        for i, part in enumerate(np.array_split(np.arange(len(rows)), wanted) if wanted else []):
            plan.append((shard_name(split, i, len(part)), rows.iloc[part]))
    return plan


def convert_image(path: Path, config: RecordsConfig) -> bytes:
    """Return the photo as a square JPEG with sides of at most ``image_size_px``.

    A JPEG that is square and small enough is returned byte for byte, after it was decoded once to
    be sure that it can be. Nothing is ever enlarged.

    A JPEG of at least three times the size is decoded at 1/2, 1/4 or 1/8 of its own, which leaves
    at least 1.5 pixels for each that comes out and takes less than half the time. On mosaics of
    sharp photos (6000 x 4000 to 1024 px) that is 49 dB from decoding in full, where the JPEG that
    is written is 39 dB from the pixels it was given.

    Raises
    ------
    PipelineError
        If the photo cannot be read.
    """
    size = config.image_size_px
    image = read_image(path, smallest_side_px=decoded_side_px(config))
    fits = image.width == image.height <= size
    as_it_is = fits and kind_of_file(path) == "JPEG"
    return square_jpeg(image, config, path.read_bytes() if as_it_is else None)


def decoded_side_px(config: RecordsConfig) -> int:
    """Return the least side at which a JPEG is decoded: more pixels would not be seen."""
    return round(_DETAIL * config.image_size_px)


def square_jpeg(image: Image.Image, config: RecordsConfig, original: bytes | None = None) -> bytes:
    """Return an upright RGB image as a square JPEG with sides of at most ``image_size_px``.

    Parameters
    ----------
    image : PIL.Image.Image
    config : RecordsConfig
    original : bytes, optional
        The JPEG that it was decoded from: returned as it is where it is square, small and upright.
    """
    size = config.image_size_px
    if original is not None and image.width == image.height <= size:
        with Image.open(io.BytesIO(original)) as stored:
            upright = stored.getexif().get(0x0112, 1) == 1  # EXIF orientation
            if upright and stored.format == "JPEG" and stored.mode == "RGB":
                return original
    side = min(size, image.width, image.height)
    if config.fit == "crop":
        edge = min(image.width, image.height)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        box = (left, top, left + edge, top + edge)
    else:
        box = (0, 0, image.width, image.height)
    if image.size != (side, side):
        # reducing_gap shrinks by whole factors first: as good to the eye, several times faster.
        image = image.resize((side, side), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=config.quality)
    return buffer.getvalue()


def write_shard(
    path: Path,
    rows: pd.DataFrame,
    images: Iterable[bytes],
    spec: DatasetSpec,
    progress: Advance = lambda done: None,
) -> None:
    """Write the shard of ``rows`` whole or not at all; ``images`` are their JPEGs in turn."""
    tf = import_tensorflow()

    with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        # Without the path, which may be no UTF-8 and is no field of any record.
        facts = rows.drop(columns="image_path")
        for (image_id, row), jpeg in zip(facts.iterrows(), images, strict=True):
            writer.write(encode_record(str(image_id), row, jpeg, spec))
            progress(1)


def digest_rows(rows: pd.DataFrame, data_dir: Path) -> str:
    """Return a digest of what a shard is made from: its rows, and each photo's size and date.

    Raises
    ------
    PipelineError
        If a photo is missing.
    """
    # A file's name may be no UTF-8.
    digest = hashlib.sha256(rows.to_csv().encode(errors="surrogateescape"))
    for path in rows["image_path"]:
        try:
            state = (data_dir / path).stat()
        except FileNotFoundError:
            raise PipelineError(f"{data_dir / path} does not exist") from None
        digest.update(f"{state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _open_manifest(out_dir: Path, recipe: dict) -> dict:
    """Return the manifest that is there, if it is of the same recipe, else a new one."""
    path = out_dir / MANIFEST
    if not path.exists():
        return recipe
    manifest = read_json(path)
    for key in ("dataset", *_RECIPE):
        if manifest.get(key) != recipe[key]:
            raise PipelineError(
                f"{out_dir} holds TFRecords made with {key} = {manifest.get(key)}, not "
                f"{recipe[key]}: say --overwrite or choose another --run-dir"
            )
    return manifest


def close_conversion(out_dir: Path, plan: Plan) -> None:
    """Delete shards of an earlier plan and what a kill left; check that each keeps its word."""
    sweep_unfinished(out_dir)
    planned = {name for name, _ in plan}
    for shard in list_shards(out_dir):
        if shard.path.name in planned:
            check_shard(shard)
        else:
            shard.path.unlink()
    if read_record(out_dir) is not None:  # hashing those of an earlier version may take minutes
        commit(out_dir, without=[MANIFEST])
