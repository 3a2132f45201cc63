"""Input pipeline: TFRecord shards → batches.

In: shards and the rows that are wanted. Out: a ``tf.data.Dataset``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.image.input.augment import augment_batch, draw_augmentation
from kaggle_pipeline.models.image.input.decode import decoder
from kaggle_pipeline.models.image.input.mixup import mix_batch
from kaggle_pipeline.models.image.input.record_reader import (
    PADDING,
    read_by_row,
    read_in_order,
    require_all,
)
from kaggle_pipeline.records.tfrecords import parse_id_and_image


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
        With ``labels_missing`` (n, 2 classes), as ``losses.with_mask`` makes them.
    weights : numpy.ndarray of shape (n,), float32
    repeats : numpy.ndarray of shape (n,), int64
        How often an epoch shows it.
    metadata : numpy.ndarray of shape (n, features), float32, or None
    labels_missing : bool
        Whether some label is missing, and the targets have a mask beside them.
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    repeats: np.ndarray
    metadata: np.ndarray | None = None
    labels_missing: bool = False

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

    A pass over the data is one permutation of all that is shown, repeats included, and every image
    is read where its record lies. An epoch takes the first ``steps_per_epoch`` batches of a pass,
    so that a shorter one gives every image the same chance; one longer than the data goes round
    again. Each pass shuffles anew with a seed of its own, so a run that starts at epoch e sees just
    what an uninterrupted one sees from there. Images that fit into ``config.cache_mb`` are decoded
    once and stay in memory.

    Yields
    ------
    images : uint8 (batch_size, side, side, 3)
        Where the rows have metadata ``{"image": images, "metadata": float32 (batch_size, width)}``.
        With ``on_device`` a dict: ``image``, unchanged, and what
        ``draw_augmentation`` gives, to be done by the device.
    targets : float32 (batch_size, classes), or with a mask twice as many
    weights : float32 (batch_size,)

    Raises
    ------
    PipelineError
        If the records lack an image, or end within a record.
    """
    in_memory = decoded_mb(rows, source) <= config.cache_mb
    to_batches = (_from_memory if in_memory else _from_records)(source, rows.ids)
    shown = tf.constant(np.repeat(np.arange(len(rows.ids)), rows.repeats))

    def epoch(number: Any) -> tf.data.Dataset:
        epoch_seed = seed + 1_000_003 * number

        def one_pass(index: Any) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensor_slices(_shuffled(shown, epoch_seed + 7919 * index))

        stream = tf.data.Dataset.range(np.iinfo(np.int64).max).flat_map(one_pass)
        return stream.take(batch_size * steps_per_epoch)

    targets, weights = tf.constant(rows.targets), tf.constant(rows.weights)
    metadata = None if rows.metadata is None else tf.constant(rows.metadata)

    def finish(step: Any, batch: Any) -> Any:
        row, images = batch
        drawn = tf.stack([tf.cast(seed, tf.int64), step])
        truth, weight = tf.gather(targets, row), tf.gather(weights, row)
        if on_device:
            side = source.image_size_px
            changes = draw_augmentation(batch_size, side, drawn, config.augment)
            return {"image": images, **changes}, truth, weight
        images = augment_batch(images, drawn, config.augment)
        known = None if metadata is None else tf.gather(metadata, row)
        images, known, truth, weight = mix_batch(
            images, known, truth, weight, drawn, config, labels_missing=rows.labels_missing
        )
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


def _from_records(source: Source, ids: np.ndarray) -> Any:
    """Return a function: stream of rows -> batches of (row, image), each read when it is due."""
    read = read_by_row(source.shards, source.spec, ids)

    def to_batches(stream: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        return _decode(read(stream), source).batch(batch_size, drop_remainder=True)

    return to_batches


def _from_memory(source: Source, ids: np.ndarray) -> Any:
    """Decode all images now; return a function: stream of rows -> batches of (row, image)."""
    side = source.image_size_px
    pixels = np.zeros((len(ids), side, side, 3), np.uint8)
    present = np.zeros(len(ids), bool)
    for row, image in _decode(read_in_order(source.shards, source.spec, ids), source):
        pixels[row], present[row] = image, True
    require_all(ids, present)
    with tf.device("/cpu:0"):
        images = tf.constant(pixels)

    def to_batches(stream: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        stream = stream.batch(batch_size, drop_remainder=True)
        return stream.map(lambda row: (row, tf.gather(images, row)))

    return to_batches


def repeated(batches: Sequence[Any]) -> tf.data.Dataset:
    """Return a stream of these batches over and over, of the kind that a fit reads."""
    stream = tf.data.Dataset.from_tensors(batches[0])
    for batch in batches[1:]:
        stream = stream.concatenate(tf.data.Dataset.from_tensors(batch))
    return stream.repeat()


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
    decoded = _decode(read_in_order(source.shards, source.spec, np.asarray(ids)), source)

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


def _shuffled(values: Any, seed: Any) -> Any:
    """Shuffle without a state (see ``record_reader``), which ``Dataset.shuffle`` has."""
    seeds = tf.stack([tf.cast(seed, tf.int64), tf.constant(-1, tf.int64)])
    return tf.random.experimental.stateless_shuffle(values, seeds)
