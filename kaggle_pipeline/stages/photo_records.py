"""Photos of a folder as records: what stages that read new photos share.

In: a folder of photos. Out: examples of them, and an index of the TFRecords that hold them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.photo_folder import PhotoFolder
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.tfrecords import index_records, list_shards


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
