"""Photos of a folder as records, and a run's records as photos: what several stages share.

In: a folder of photos, or a run. Out: an index of the TFRecords that hold them; photos.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.photo_folder import PhotoFolder
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.tfrecords import (
    index_records,
    list_shards,
    read_index,
    read_records,
    shards_holding,
)

_THUMBNAIL_PX = 160


def photo_examples(found: PhotoFolder) -> pd.DataFrame:
    """Return examples of a folder's photos: index ``image_id``, all of the split ``test``."""
    index = pd.Index(list(found.photos), name="image_id")
    # As objects: a file's name may be no UTF-8, which pandas' own text has to be.
    paths = pd.Series(list(found.photos.values()), index, dtype=object)
    return pd.DataFrame({"group_id": index, "split": "test", "image_path": paths}, index=index)


def convert_photos(
    examples: pd.DataFrame,
    spec: DatasetSpec,
    images: Path,
    records: Path,
    recipe: RecordsConfig,
    **more: Any,
) -> pd.DataFrame:
    """Write the records of a folder's photos and return their index, as ``read_index`` does.

    ``more`` goes to :func:`~kaggle_pipeline.records.convert.convert`.
    """
    convert(examples, spec, Path(images), records, recipe, **more)
    rows: list[Mapping[str, Any]] = list(index_records(list_shards(records), spec))
    return pd.DataFrame([{"folder": str(records), **row} for row in rows])


def index_here(run_dir: Path) -> pd.DataFrame | None:
    """Return where each image's record is, as ``read_index`` does; None if a file is not there.

    A run that was moved has its records beside it.
    """
    index = read_index(run_dir)
    if index is None:
        return None
    own = Path(run_dir) / "records"
    beside = [name for name in index["shard"].unique() if (own / name).exists()]
    index.loc[index["shard"].isin(beside), "folder"] = str(own)
    places = index[["folder", "shard"]].drop_duplicates()
    known = all((Path(one.folder) / one.shard).exists() for one in places.itertuples())
    return index if known else None


def read_photos(
    shards: Sequence[Path], record_id: str, wanted: set[str], swap_red_blue: bool = False
) -> Iterator[tuple[str, Image.Image]]:
    """Yield id and photo, upright RGB, of the ids that are wanted, in the records' order.

    Raises
    ------
    PipelineError
        If a shard or a photo is damaged.
    """
    for shard in shards:
        for record in read_records(shard):
            if record[record_id] in wanted:
                photo = decode_image(record["image"], f"{shard}: image {record[record_id]}")
                if swap_red_blue:
                    photo = Image.merge("RGB", photo.split()[::-1])
                yield record[record_id], photo


def record_thumbnails(
    run_dir: Path, spec: DatasetSpec, wanted: set[str], swap_red_blue: bool
) -> dict[str, bytes]:
    """Return small JPEGs by image id, of a run's records; none where these are gone."""
    index = index_here(run_dir)
    if index is None or not wanted:
        return {}
    shards = shards_holding(index, pd.Index(sorted(wanted)))
    found = {}
    for name, photo in read_photos(shards, spec.record_id, wanted, swap_red_blue):
        photo.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
        photo.save(buffer := io.BytesIO(), "JPEG", quality=82)
        found[name] = buffer.getvalue()
    return found
