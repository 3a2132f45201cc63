"""TFRecords: one schema, written, counted, indexed and parsed.

In: rows of examples and JPEG bytes, or files that somebody else wrote. Out: ``.tfrec`` shards whose
name ends in their count (Kaggle's habit, ``train00-2071.tfrec``), and a table of what they hold.

TensorFlow is imported inside the functions that need it; listing and counting shards do not.
"""

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.core.engine import import_tensorflow
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_folder import is_hidden
from kaggle_pipeline.core.photo_kinds import HEAD_BYTES, jpeg_end, kind_of
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.spec import DatasetSpec, RecordField

_NAME = re.compile(r"^(?P<stem>.+)-(?P<count>\d+)\.tfrec(ords?)?$")
_BESIDE = (".md5", ".sha1", ".sha256", ".json", ".txt", ".csv", ".crc", ".idx", ".index")
"""Endings of what others keep beside their shards, of a shard's name too."""
_LENGTH_BYTES, _CRC_BYTES = 8, 4
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL_BYTES = 4096
"""An end in so many last bytes is taken for the photo's; else it is looked for."""
_NO_RECORDS = {
    "gzip": "packed by gzip, as TFRecordOptions('GZIP') writes it: unpack it (gzip -d) first",
    "ZIP": "a ZIP archive: unpack it first",
    "Git LFS pointer": "the pointer that Git LFS keeps in its place: run `git lfs pull`",
    "HTML": "a web page, of a login maybe: get it again",
}
"""Kinds of files that are given a shard's name, and what to do."""
MISSING_INT = -1
"""What Kaggle's and others' files write for a missing number or code."""


@dataclass(frozen=True)
class Shard:
    """One file of records and how many its name promises."""

    path: Path
    count: int


def shard_name(stem: str, index: int, count: int) -> str:
    """Return a shard's file name, such as ``train00-2071.tfrec``."""
    return f"{stem}{index:02d}-{count}.tfrec"


def list_shards(folder: Path) -> list[Shard]:
    """Return the shards in ``folder``, by name; hidden files and checksums are none.

    Raises
    ------
    PipelineError
        If there are none, or a ``.tfrec`` file's name has no count.
    """
    shards = []
    for path in sorted(Path(folder).glob("*.tfrec*")):
        match = _NAME.match(path.name)
        if is_hidden(path.name) or path.suffix.lower() in _BESIDE:
            continue
        if not match:
            packed = "unpack it: " if path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz") else ""
            raise PipelineError(
                f"{path}: {packed}a shard's name must end in its count, as train00-2071.tfrec"
            )
        shards.append(Shard(path, int(match["count"])))
    if not shards:
        raise PipelineError(f"no .tfrec files in {folder}: run prepare_data, or attach them")
    return shards


def describe_others(folder: Path) -> str | None:
    """Return a line on what lies beside the shards of a folder and is not read; None if nothing."""
    others = sorted(
        path.name for path in Path(folder).iterdir()
        if path.is_file() and (is_hidden(path.name) or not _NAME.match(path.name))
    )  # fmt: skip
    if not others:
        return None
    return f"{folder}: {len(others)} files beside the shards are not read, such as {others[0]}"


def count_data_items(shards: Sequence[Shard]) -> int:
    """Return how many records the shards' names promise."""
    return sum(shard.count for shard in shards)


def record_offsets(path: Path) -> list[int]:
    """Return the byte at which each record of a file begins, in order; no payload is read.

    A TFRecord is: length (uint64, little endian), its CRC, the payload, its CRC
    (tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).

    Raises
    ------
    PipelineError
        If the file ends inside a record, or is no file of records.
    """
    size, position, offsets = path.stat().st_size, 0, []
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
        if kind in _NO_RECORDS:
            raise PipelineError(f"{path} holds no records: it is {_NO_RECORDS[kind]}")
        while position < size:
            offsets.append(position)
            file.seek(position)
            header = file.read(_LENGTH_BYTES)
            if len(header) == _LENGTH_BYTES:
                (length,) = struct.unpack("<Q", header)
                position += _LENGTH_BYTES + length + 2 * _CRC_BYTES
            if len(header) < _LENGTH_BYTES or position > size:
                raise PipelineError(
                    f"{path} is truncated inside record {len(offsets) - 1}; write it again"
                )
    return offsets


def count_records(path: Path) -> int:
    """Count the records of a file; errors as :func:`record_offsets`."""
    return len(record_offsets(path))


def check_shard(shard: Shard) -> None:
    """Raise a PipelineError if the shard does not hold as many records as its name says.

    Or if one that was converted here has another size than it was written with.
    """
    require_written(shard.path, hashed=False)
    found = count_records(shard.path)
    if found != shard.count:
        raise PipelineError(
            f"{shard.path} holds {found} records but its name says {shard.count}; rename or "
            "write it again"
        )


def encode_record(image_id: str, row: pd.Series, jpeg: bytes, spec: DatasetSpec) -> bytes:
    """Return a serialised ``tf.train.Example`` of one image in the data set's schema.

    Missing text is stored as empty bytes and a missing number as -1; a field whose column the
    examples lack, or a test row's target, is left out.

    Parameters
    ----------
    image_id : str
    row : pandas.Series
        The image's row of examples.
    jpeg : bytes
        The encoded image.
    spec : DatasetSpec
    """
    tf = import_tensorflow()

    feature = {"image": _bytes_feature(tf, jpeg), spec.record_id: _text_feature(tf, image_id)}
    for field in spec.record_fields:
        if field.column not in row.index:
            continue
        value = row[field.column]
        if field.column in spec.classes and pd.isna(value):
            continue
        feature[field.name] = _encode_value(tf, field, value)
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(
        deterministic=True
    )


def _bytes_feature(tf: Any, value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _text_feature(tf: Any, value: str) -> Any:
    return _bytes_feature(tf, value.encode())


def _encode_value(tf: Any, field: RecordField, value: Any) -> Any:
    if field.kind == "bytes":
        return _text_feature(tf, "" if pd.isna(value) else str(value))
    number = MISSING_INT if pd.isna(value) else round(float(value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every record of a file as a dict, whatever features it has.

    Bytes come as text, except ``image``; numbers as int or float; missing values (empty text, -1)
    as None.

    Raises
    ------
    PipelineError
        If the file is damaged or a record is no ``tf.train.Example``.
    """
    tf = import_tensorflow()

    try:
        for number, payload in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
            yield _decode_example(tf, payload, path, number)
    except tf.errors.DataLossError as error:
        raise PipelineError(f"{path} is damaged: {error.message.splitlines()[0]}") from None


def _decode_example(tf: Any, payload: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        example = tf.train.Example.FromString(payload)
    except Exception:  # protobuf's DecodeError has no stable home
        raise PipelineError(f"{path}: record {number} is not a tf.train.Example") from None
    record: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value if kind else []
        value = values[0] if values else None
        if isinstance(value, bytes) and name != "image":
            value = value.decode(errors="replace") or None
        record[name] = None if value == MISSING_INT else value
    return record


def index_records(shards: Sequence[Shard], spec: DatasetSpec) -> Iterator[dict[str, Any]]:
    """Yield what each record says about itself: every feature but the image, and its ``shard``.

    Checks each shard's count on the way.

    Raises
    ------
    PipelineError
        If a shard's name lies about its count or a record has no image or no id.
    """
    for shard in shards:
        check_shard(shard)
        for number, record in enumerate(read_records(shard.path)):
            for needed in ("image", spec.record_id):
                if record.get(needed) is None:
                    raise PipelineError(f"{shard.path}: record {number} has no {needed!r}")
            image, image_id = record.pop("image"), record.pop(spec.record_id)
            where = f"{shard.path}: record {number}"
            if not isinstance(image, bytes):
                raise PipelineError(
                    f"{where} has its 'image' as numbers (pixels?), not as the bytes of a JPEG: "
                    "write it again with tf.io.encode_jpeg"
                )
            if not isinstance(image_id, str):
                raise PipelineError(f"{where} has {spec.record_id!r} as a number, expected text")
            if not image.startswith(_JPEG_START):
                kind = kind_of(image)
                what = f"a {kind}" if kind else "raw pixels, or damaged"
                raise PipelineError(f"{where}: image {image_id} is no JPEG but {what}")
            if _JPEG_END not in image[-_JPEG_TAIL_BYTES:] and jpeg_end(image) is None:
                raise PipelineError(f"{where}: image {image_id} is a truncated JPEG")
            yield {
                "image_id": image_id,
                "shard": shard.path.name,
                "image_sha256": hashlib.sha256(image).hexdigest(),
                **record,
            }


def read_index(run_dir: Path) -> pd.DataFrame | None:
    """Return what each record says of itself and where it is, from ``prepare/records.csv``.

    None where the run has no records.

    Raises
    ------
    PipelineError
        If the file is damaged.
    """
    path = Path(run_dir) / "prepare" / "records.csv"
    if not path.exists():
        return None
    remedy = "delete it and run prepare_data with --resume, which looks into the records anew"
    places = ["image_id", "folder", "shard"]
    index = read_own(path, dict.fromkeys(places, str), remedy=remedy)
    if index[places].isna().to_numpy().any():
        raise PipelineError(f"{path} is damaged (a row lacks its shard): {remedy}")
    return index


def check_index(index: pd.DataFrame, examples: pd.DataFrame, spec: DatasetSpec) -> None:
    """Compare what the records say with the examples, joined by id.

    Parameters
    ----------
    index : pandas.DataFrame
        Rows of :func:`index_records`.
    examples : pandas.DataFrame

    Raises
    ------
    PipelineError
        If an id is twice in the records, an example has no record, or a target differs.
    """
    ids = pd.Index(index["image_id"])
    if ids.has_duplicates:
        twice = ids[ids.duplicated()][0]
        where = ", ".join(index.loc[index["image_id"] == twice, "shard"])
        raise PipelineError(f"image {twice} is more than once in the TFRecords ({where})")
    missing = examples.index.difference(ids)
    if len(missing):
        split = examples.loc[missing[0], "split"]
        raise PipelineError(
            f"the TFRecords hold no {split} image {missing[0]} ({len(missing)} missing)"
        )
    of_record = index.set_index("image_id").loc[examples.index]
    for field in spec.record_fields:
        if field.column in spec.classes and field.name in of_record:
            _check_target(of_record[field.name], examples[field.column])


def shards_holding(index: pd.DataFrame, ids: pd.Index) -> list[Path]:
    """Return the shards that hold ``ids``, each once, by name.

    Parameters
    ----------
    index : pandas.DataFrame
        Rows of :func:`index_records` with the ``folder`` of each shard added.
    ids : pandas.Index
    """
    places = index.loc[index["image_id"].isin(ids), ["folder", "shard"]].drop_duplicates()
    return sorted(Path(place.folder) / place.shard for place in places.itertuples())


def _check_target(recorded: pd.Series, target: pd.Series) -> None:
    both = recorded.notna() & target.notna()
    wrong = both & (pd.to_numeric(recorded, errors="coerce") != target)
    if wrong.any():
        image_id = wrong.index[wrong][0]
        raise PipelineError(
            f"target of image {image_id} is {recorded[image_id]} in the TFRecords but "
            f"{target[image_id]:.0f} in the table"
        )


def parse_id_and_image(spec: DatasetSpec) -> Any:
    """Return a function for ``Dataset.map``: serialised record -> (image id, JPEG bytes).

    It takes one record or a vector of them.

    Only these two features are asked of a record, so files with more, fewer or other ones read as
    well; everything else is joined from the examples by id.
    """
    tf = import_tensorflow()

    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        spec.record_id: tf.io.FixedLenFeature([], tf.string),
    }

    def parse(serialised: Any) -> tuple[Any, Any]:
        example = tf.io.parse_example(serialised, features)
        return example[spec.record_id], example["image"]

    return parse
