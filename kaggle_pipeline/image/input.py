"""Input pipeline: TFRecord shards → batches.

In: shards and the rows that are wanted. Out: a ``tf.data.Dataset``. Which record belongs to which
row, fold and how often it is shown is settled by its id before it is decoded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.image.augment import augment_batch, draw_changes
from kaggle_pipeline.image.decode import decoder
from kaggle_pipeline.image.mixing import mix_batch
from kaggle_pipeline.records import count_records, parse_id_and_image
from kaggle_pipeline.spec import DatasetSpec

PADDING = -1
"""Row number of an image that only fills up the last batch."""
_AT_ONCE = 32
"""Records looked up by one call: a call each costs more than the lookup."""
_HASHES = 2**62


@dataclass(frozen=True)
class Source:
    """Where images come from and in which shape they are wanted."""

    spec: DatasetSpec
    shards: Sequence[Path]
    image_size_px: int
    swap_red_blue: bool = False


@dataclass(frozen=True)
class TrainingRows:
    """What the training stream needs of each image, in one order.

    Attributes
    ----------
    ids : numpy.ndarray of shape (n,), str
    targets : numpy.ndarray of shape (n, classes), float32
    weights : numpy.ndarray of shape (n,), float32
    repeats : numpy.ndarray of shape (n,), int64
        How often an epoch shows it.
    metadata : numpy.ndarray of shape (n, features), float32, or None
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    repeats: np.ndarray
    metadata: np.ndarray | None = None

    @property
    def shown(self) -> int:
        """Images an epoch, repeats counted."""
        return int(self.repeats.sum())


def training_batches(
    source: Source,
    rows: TrainingRows,
    config: ImageConfig,
    *,
    batch_size: int,
    steps_per_epoch: int,
    first_epoch: int,
    seed: int,
    on_device: bool = False,
) -> tf.data.Dataset:
    """Return the stream of all training batches from ``first_epoch`` on.

    Each epoch shuffles anew with a seed of its own, so a run that starts at epoch e sees just what
    an uninterrupted one sees from there. An epoch longer than the data goes round again. Images
    that fit into ``config.cache_mb`` are decoded once and stay in memory.

    Yields
    ------
    images : uint8 (batch_size, side, side, 3)
        Where the rows have metadata ``{"image": images, "metadata": float32 (batch_size, width)}``.
        With ``on_device`` a dict: ``image``, unchanged, and what
        :func:`~kaggle_pipeline.image.augment.draw_changes` gives, to be done by the device.
    targets : float32 (batch_size, classes)
    weights : float32 (batch_size,)
    """
    in_memory = decoded_mb(rows, source) <= config.cache_mb
    one_pass, to_batches = _decoded(source, rows) if in_memory else _encoded(source, rows, config)

    def epoch(number: Any) -> tf.data.Dataset:
        epoch_seed = seed + 1_000_003 * number
        passes = tf.data.Dataset.range(np.iinfo(np.int64).max)
        stream = passes.flat_map(lambda index: one_pass(epoch_seed + 7919 * index))
        return stream.take(batch_size * steps_per_epoch)

    targets, weights = tf.constant(rows.targets), tf.constant(rows.weights)
    metadata = None if rows.metadata is None else tf.constant(rows.metadata)

    def finish(step: Any, batch: Any) -> Any:
        row, images = batch
        drawn = tf.stack([tf.cast(seed, tf.int64), step])
        truth, weight = tf.gather(targets, row), tf.gather(weights, row)
        if on_device:
            side = source.image_size_px
            changes = draw_changes(batch_size, side, drawn, config.augment)
            return {"image": images, **changes}, truth, weight
        images = augment_batch(images, drawn, config.augment)
        known = None if metadata is None else tf.gather(metadata, row)
        images, known, truth, weight = mix_batch(images, known, truth, weight, drawn, config)
        inputs = images if known is None else {"image": images, "metadata": known}
        return inputs, truth, weight

    stream = tf.data.Dataset.range(first_epoch, config.epochs).flat_map(epoch)
    stream = to_batches(stream, batch_size)
    stream = stream.enumerate(start=first_epoch * steps_per_epoch)
    stream = stream.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    # Several workers each make the whole global batch and keep their share of it.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return stream.with_options(options)


def decoded_mb(rows: TrainingRows, source: Source) -> float:
    """Return what the decoded images of all rows take in memory, in MiB."""
    return len(rows.ids) * source.image_size_px**2 * 3 / 2**20


def _encoded(source: Source, rows: TrainingRows, config: ImageConfig) -> tuple[Any, Any]:
    """Return a pass over the records for a seed, not yet decoded, and what makes batches of it."""
    choose = _chooser(source, rows.ids, rows.repeats)
    mean_bytes = _mean_record_bytes(source.shards)
    block = int(np.clip(config.shuffle_buffer_mb * 2**20 / mean_bytes, 1, max(rows.shown, 1)))

    def one_pass(pass_seed: Any) -> tf.data.Dataset:
        def mix(number: Any, shown: tuple[Any, Any]) -> tuple[Any, Any]:
            row, images = shown
            order = _shuffled(tf.range(tf.size(row)), pass_seed, number)
            return tf.gather(row, order), tf.gather(images, order)

        blocks = _records(source, choose, pass_seed).batch(block)
        return blocks.enumerate().map(mix).prefetch(1).unbatch()

    def to_batches(stream: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        return _decode(stream, source).batch(batch_size, drop_remainder=True)

    return one_pass, to_batches


def _decoded(source: Source, rows: TrainingRows) -> tuple[Any, Any]:
    """Decode all images now; return a pass over their rows for a seed, and what makes batches."""
    side = source.image_size_px
    pixels = np.zeros((len(rows.ids), side, side, 3), np.uint8)
    present = np.zeros(len(rows.ids), bool)
    for row, image in _decode(_records(source, _chooser(source, rows.ids)), source):
        pixels[row], present[row] = image, True
    with tf.device("/cpu:0"):
        images = tf.constant(pixels)
        shown = tf.constant(np.repeat(np.arange(len(rows.ids)), rows.repeats * present))

    def one_pass(pass_seed: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(_shuffled(shown, pass_seed))

    def to_batches(stream: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        stream = stream.batch(batch_size, drop_remainder=True)
        return stream.map(lambda row: (row, tf.gather(images, row)))

    return one_pass, to_batches


def prediction_batches(
    source: Source, ids: Sequence[str], batch_size: int, metadata: np.ndarray | None = None
) -> tf.data.Dataset:
    """Return the images of ``ids`` once each, in the records' order, the last batch filled up.

    Parameters
    ----------
    source : Source
    ids : sequence of str
    batch_size : int
    metadata : numpy.ndarray of shape (n, width), float32, optional
        Rows in the order of ``ids``.

    Yields
    ------
    dict
        ``image``: uint8 (batch_size, side, side, 3); ``row``: int32 (batch_size,), the position in
        ``ids``, :data:`PADDING` for filling; with metadata also ``metadata``: float32 (batch_size,
        width). A static shape compiles once and divides evenly over replicas.
    """
    decoded = _decode(_records(source, _chooser(source, np.asarray(ids))), source)

    def fill(row: Any, images: Any) -> dict[str, Any]:
        gap = batch_size - tf.shape(row)[0]
        more = {}
        if metadata is not None:
            known = tf.pad(tf.gather(metadata, row), [[0, gap], [0, 0]])
            more["metadata"] = tf.ensure_shape(known, (batch_size, metadata.shape[1]))
        images = tf.pad(images, [[0, gap], [0, 0], [0, 0], [0, 0]])
        row = tf.pad(tf.cast(row, tf.int32), [[0, gap]], constant_values=PADDING)
        shape = (batch_size, source.image_size_px, source.image_size_px, 3)
        row = tf.ensure_shape(row, (batch_size,))
        return {"image": tf.ensure_shape(images, shape), "row": row, **more}

    return decoded.batch(batch_size).map(fill).prefetch(2)


def decode_photo(jpeg: bytes, image_size_px: int) -> np.ndarray:
    """Return a record's JPEG as the network sees it: uint8 (side, side, 3).

    Raises
    ------
    PipelineError
        If it is damaged.
    """
    decode = _photo_decoder(image_size_px)
    with reading_errors():
        return decode(0, tf.constant(jpeg))[1].numpy()


_photo_decoder = cache(decoder)
"""Kept, for a new one is traced anew."""


@contextmanager
def reading_errors() -> Iterator[None]:
    """Turn what TensorFlow raises on damaged records into a PipelineError of one line."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise PipelineError(f"a record cannot be read: {error.message.splitlines()[0]}") from None


def _records(source: Source, choose: Any, shuffle_seed: Any = None) -> tf.data.Dataset:
    """Return (row, JPEG bytes) of every record that is chosen; nothing is decoded yet."""
    paths = tf.constant([str(path) for path in source.shards])
    if shuffle_seed is not None:
        paths = _shuffled(paths, shuffle_seed)
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        lambda path: tf.data.TFRecordDataset(path, buffer_size=2**20),
        cycle_length=min(8, len(source.shards)),
    )
    return records.batch(_AT_ONCE).map(choose).unbatch()


def _chooser(source: Source, ids: np.ndarray, repeats: np.ndarray | None = None) -> Any:
    """Return a function: records (n,) -> rows and JPEGs of the wanted ones, each ``repeats``."""
    parse, row_of = parse_id_and_image(source.spec), _row_finder(ids)
    times = tf.ones(len(ids), tf.int32) if repeats is None else tf.constant(repeats, tf.int32)

    def choose(records: Any) -> tuple[Any, Any]:
        image_ids, images = parse(records)
        row = row_of(image_ids)
        shown = tf.where(row == PADDING, 0, tf.gather(times, tf.maximum(row, 0)))
        which = tf.repeat(tf.range(tf.size(row)), shown)
        return tf.gather(row, which), tf.gather(images, which)

    return choose


def _decode(stream: tf.data.Dataset, source: Source) -> tf.data.Dataset:
    """Turn (row, JPEG bytes) into (row, uint8 image)."""
    read = decoder(source.image_size_px, source.swap_red_blue, _side_of_first(source))
    return stream.map(read, num_parallel_calls=tf.data.AUTOTUNE)


def _side_of_first(source: Source) -> int | None:
    """Return the side of the first record's image, None where that is no readable square."""
    parse = parse_id_and_image(source.spec)
    try:
        for record in tf.data.TFRecordDataset(str(source.shards[0])).take(1):
            height, width, _ = tf.io.extract_jpeg_shape(parse(record)[1]).numpy()
            return int(height) if height == width else None
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError):
        pass  # the stream will say so
    return None


def _shuffled(values: Any, seed: Any, number: Any = -1) -> Any:
    """Shuffle without a state (see :func:`_row_finder`), which ``Dataset.shuffle`` has."""
    seeds = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])
    return tf.random.experimental.stateless_shuffle(values, seeds)


def _row_finder(ids: np.ndarray) -> Any:
    """Return a function: image ids (n,) -> positions in ``ids`` (n,), -1 for one not wanted.

    A search among sorted hashes and not a hash table, for that has a state: where TensorFlow is to
    be deterministic, nothing of a stream with a state runs side by side, decoding neither.
    """
    names = ids.astype(str)
    hashes = tf.strings.to_hash_bucket_fast(tf.constant(names, tf.string), _HASHES).numpy()
    order = np.argsort(hashes)
    if len(np.unique(hashes)) < len(names):
        raise PipelineError("an image id is asked for twice, or two share one of 2^62 hashes")
    sorted_hashes, rows = tf.constant(hashes[order]), tf.constant(order)
    sorted_names = tf.constant(names[order], tf.string)

    def find(image_ids: Any) -> Any:
        place = tf.searchsorted(sorted_hashes, tf.strings.to_hash_bucket_fast(image_ids, _HASHES))
        place = tf.minimum(place, len(names) - 1)
        wanted = tf.gather(sorted_names, place) == image_ids
        return tf.where(wanted, tf.gather(rows, place), tf.cast(PADDING, tf.int64))

    return find


def _mean_record_bytes(shards: Sequence[Path]) -> float:
    """Mean size of a record of the first shard, to turn a shuffle buffer's MiB into records."""
    shard = Path(shards[0])
    return max(1.0, shard.stat().st_size / max(1, count_records(shard)))
