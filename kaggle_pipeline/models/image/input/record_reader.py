"""The records of wanted images: all in the order in which they lie, or each when it is due.

In: shards and ids. Out: streams of (row, JPEG bytes), the row being the position in the ids. Which
record belongs to which row is settled by its id before it is decoded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.tfrecords import parse_id_and_image, record_offsets

PADDING = -1
"""Row number of an image that only fills up the last batch."""
_AT_ONCE = 32
"""Records looked up by one call: a call each costs more than the lookup."""
_HASHES = 2**62


def read_in_order(shards: Sequence[Path], spec: DatasetSpec, ids: np.ndarray) -> tf.data.Dataset:
    """Return (row, JPEG bytes) of every record of ``ids``, as they lie in the shards."""
    paths = tf.constant([str(path) for path in shards])
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        lambda path: tf.data.TFRecordDataset(path, buffer_size=2**20),
        cycle_length=min(8, len(shards)),
    )
    parse, row_of = parse_id_and_image(spec), _row_finder(ids)

    def choose(records: Any) -> tuple[Any, Any]:
        image_ids, images = parse(records)
        row = row_of(image_ids)
        wanted = row != PADDING
        return tf.boolean_mask(row, wanted), tf.boolean_mask(images, wanted)

    return records.batch(_AT_ONCE).map(choose).unbatch()


def read_by_row(
    shards: Sequence[Path], spec: DatasetSpec, ids: np.ndarray
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Return a function: stream of rows -> stream of (row, JPEG bytes), in the same order.

    Each record is read where it lies, as every loader of single photos reads. Records of 178 kB are
    read so as fast as in their own order, and no buffer of them has to be kept for shuffling.

    Raises
    ------
    PipelineError
        If the records lack an id, or a file ends within a record.
    """
    paths, offsets = _find_records(shards, spec, ids)
    parse = parse_id_and_image(spec)

    def read(row: Any) -> tuple[Any, Any]:
        return row, _record_at(tf.gather(paths, row), tf.gather(offsets, row))

    def parse_images(row: Any, records: Any) -> tuple[Any, Any]:
        return row, parse(records)[1]  # whose they are is known: no id is looked up again

    def read_all(rows: tf.data.Dataset) -> tf.data.Dataset:
        records = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return records.batch(_AT_ONCE).map(parse_images).unbatch()

    return read_all


def require_all(ids: np.ndarray, present: np.ndarray) -> None:
    """Raise a PipelineError unless all ``ids`` are ``present`` (n,)."""
    if not present.all():
        missing = ids[~present]
        raise PipelineError(
            f"the TFRecords hold no image {missing[0]} ({len(missing)} missing): prepare again"
        )


def _find_records(shards: Sequence[Path], spec: DatasetSpec, ids: np.ndarray) -> tuple[Any, Any]:
    """Return the file of each id's record, and the byte where it begins: tensors of shape (n,).

    Goes over all records once, and checks their sums on the way.
    """
    parse, row_of = parse_id_and_image(spec), _row_finder(ids)
    begins = [record_offsets(path) for path in shards]
    # One stream of all files: each further one would be traced anew, for 0.07 s.
    names = [str(path) for path in shards]
    records = tf.data.TFRecordDataset(names, buffer_size=2**20).batch(_AT_ONCE)
    found = records.map(lambda records: row_of(parse(records)[0])).as_numpy_iterator()
    rows = np.concatenate([np.empty(0, np.int64), *found])
    wanted = rows != PADDING
    paths, offsets = np.full(len(ids), "", object), np.full(len(ids), -1, np.int64)
    paths[rows[wanted]] = np.repeat(names, [len(one) for one in begins])[wanted]
    offsets[rows[wanted]] = np.concatenate([np.empty(0, np.int64), *begins])[wanted]
    require_all(ids, offsets >= 0)
    return tf.constant(paths, tf.string), tf.constant(offsets)


def _record_at(path: Any, offset: Any) -> Any:
    """Return the record that begins at byte ``offset`` of a file, of which no more is read."""
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # none: its length is read, then itself
        byte_offsets=offset[None],
    )
    records = tf.data.experimental.from_variant(records, tf.TensorSpec((), tf.string))
    return records.take(1).get_single_element()


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
