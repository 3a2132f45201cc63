"""ISIC 2017 challenge, part 3 (lesion classification), in the layout that the archive gives it.

In: a folder with ``ISIC-2017_{Training,Validation,Test_v2}_Data/<id>.jpg``, the tables
``ISIC-2017_{Training,Validation,Test_v2}_Data_metadata.csv`` (beside or inside those folders) and
``ISIC-2017_{Training,Validation}_Part3_GroundTruth.csv``. Out:
:class:`~kaggle_pipeline.data.spec.RawData`.

Melanoma against the rest and seborrheic keratosis against the rest are two independent questions
about 2,000 training photos; a photo that is neither is a nevus (Codella et al. 2018,
arXiv:1710.05006). No patient is named, so the audit cannot check for shared ones.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_table
from kaggle_pipeline.data.spec import AGE_YEARS, DatasetSpec, RawData, RecordField, SubmissionFormat
from kaggle_pipeline.datasets.raw_files import blank_unknown, find_photos, require_listed

CLASSES = ("melanoma", "seborrheic_keratosis")
_SOURCE = (
    "get part 3 of 2017 from https://challenge.isic-archive.com/data and unpack it there, or say "
    "--data-dir"
)
_PARTS = {"Training": "train", "Validation": "train", "Test_v2": "test"}
"""Part of the challenge -> split: the official validation part has public labels."""


def read_raw(data_dir: Path) -> RawData:
    """Read the challenge's folder.

    Parameters
    ----------
    data_dir : pathlib.Path

    Returns
    -------
    RawData
        Training and validation photos are the split ``train``; the column
        ``official_validation`` (bool) tells them apart for ``folds.judge``.

    Raises
    ------
    PipelineError
        If a table or a column is missing, or the training part has no photos.
    """
    data_dir = Path(data_dir)
    parts = [_read_part(data_dir, part, split) for part, split in _PARTS.items()]
    table = pd.concat([part.examples for part in parts if len(part.examples)], ignore_index=True)
    table["group_id"] = np.nan  # nothing tells which photos are of one patient
    return RawData(
        examples=table,
        tables=[path for part in parts for path in part.tables],
        notes=[line for part in parts for line in part.notes],
    )


def _read_part(data_dir: Path, part: str, split: str) -> RawData:
    """One part; without rows where the validation or test part is not there at all."""
    folder = f"ISIC-2017_{part}_Data"
    photos = find_photos(data_dir, [folder], ("JPEG",))  # a PNG there is a superpixel map
    metadata = data_dir / f"{folder}_metadata.csv"
    within = data_dir / folder / metadata.name  # where the archive's zip file has it
    truth = data_dir / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
    tables = (metadata, within, truth)
    if not metadata.exists() and within.exists():
        metadata = within
    columns = ("image_id", "age_approximate", "sex")
    if split == "test":
        rows = pd.DataFrame({"image_id": photos.ids}, dtype=object)
        if rows.empty and not metadata.exists():
            return RawData(rows, tables=tables)
    else:
        if part != "Training" and not truth.exists():
            return RawData(pd.DataFrame(), tables=tables)
        rows = read_table(
            truth, ("image_id", *CLASSES), hint=_SOURCE, text=["image_id"], rows_needed=True
        )
    if metadata.exists():
        facts = read_table(metadata, columns, hint=_SOURCE, text=["image_id"])
        if facts["image_id"].duplicated().any():
            raise PipelineError(f"{metadata} lists an image more than once")
        how = "left" if split == "train" or len(rows) else "right"
        if how == "left":
            require_listed(rows["image_id"], facts["image_id"], metadata)
        rows = rows.merge(facts[list(columns)], how, "image_id", validate="m:1")
    elif split == "train":
        raise PipelineError(f"{metadata} is missing: {_SOURCE}")
    rows = rows.reindex(columns=["image_id", *CLASSES, *columns[1:]])
    source = metadata if split == "test" else truth
    matched = photos.match(rows["image_id"], source)
    rows = rows.assign(
        split=split,
        age_years=blank_unknown(rows["age_approximate"]),
        sex=blank_unknown(rows["sex"]),
        official_validation=part == "Validation",
        image_path=matched,
    ).drop(columns="age_approximate")
    return RawData(rows, tables=tables, notes=list(photos.describe(matched, source)))


SPEC = DatasetSpec(
    id="isic_2017",
    title="ISIC 2017",
    group=None,
    task="multilabel",
    classes=CLASSES,
    numeric={"age_years": AGE_YEARS},
    categorical={"sex": ("female", "male")},
    record_fields=(
        RecordField("age_approximate", "age_years", "int"),
        RecordField("sex", "sex", "bytes"),
        *(RecordField(name, name, "int") for name in CLASSES),
    ),
    submission=SubmissionFormat("image_id", {name: name for name in CLASSES}),
    read_raw=read_raw,
    source=_SOURCE,
    published_counts={("melanoma",): 374, ("seborrheic_keratosis",): 254, (): 1372},
    published_tests=600,
    record_id="image_id",
)
