"""SIIM-ISIC 2020 melanoma, in the layout that Kaggle gives it.

In: a folder with ``train.csv``, ``test.csv``, ``sample_submission.csv`` and any of
``jpeg/{train,test}/<id>.jpg``, ``{train,test}/<id>.dcm``, ``tfrecords/*.tfrec``. Re-split or
extended versions (other row counts, Deotte's ``tfrecord, width, height`` columns) read the same.
Out: :class:`~kaggle_pipeline.data.spec.RawData`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_table
from kaggle_pipeline.data.spec import (
    AGE_YEARS,
    DatasetSpec,
    Diagnoses,
    RawData,
    RecordField,
    SubmissionFormat,
)
from kaggle_pipeline.datasets.raw_files import blank_unknown, find_photos, require_listed

SITES = (
    "head/neck",
    "lower extremity",
    "oral/genital",
    "palms/soles",
    "torso",
    "upper extremity",
)
DIAGNOSES = Diagnoses(
    column="diagnosis",
    names={
        "melanoma": "target",
        **dict.fromkeys(
            (
                "nevus",
                "keratosis",
                "basal cell carcinoma",
                "actinic keratosis",
                "squamous cell carcinoma",
                "dermatofibroma",
                "vascular lesion",
                "unknown",
            )
        ),
    },
    words={
        "melanoma": "melanoma",
        "nevus": "nevus",
        "benign keratosis": "keratosis",
        "seborrheic keratosis": "keratosis",
        "lichenoid keratosis": "keratosis",
        "solar lentigo": "keratosis",
        "lentigo NOS": "keratosis",
        "atypical melanocytic proliferation": "unknown",  # a single photo each
        "cafe-au-lait macule": "unknown",
        "unknown": "unknown",
        # Of external collections alone.
        "basal cell carcinoma": "basal cell carcinoma",
        "actinic keratosis": "actinic keratosis",
        "squamous cell carcinoma": "squamous cell carcinoma",
        "dermatofibroma": "dermatofibroma",
        "vascular lesion": "vascular lesion",
    },
)
"""The nine groups of the winners (Ha, Liu & Liu 2020, arXiv:2010.05351); the photos of 2020 alone
have four of them, and the other answers then learn to be 0."""
_COLUMNS = {
    "image_name": "image_id",
    "patient_id": "group_id",
    "age_approx": "age_years",
    "anatom_site_general_challenge": "site",
    "width": "width_px",
    "height": "height_px",
}
_NEEDED = ("image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge")
_SOURCE = (
    "get it with `python scripts/download_data.py`, or by hand from "
    "kaggle.com/competitions/siim-isic-melanoma-classification, or say --data-dir"
)
_SIZES, _SAMPLE = "train_image_sizes.csv", "sample_submission.csv"
_DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
_IDS = ("image_name", "patient_id")


def read_raw(data_dir: Path, source: str = _SOURCE) -> RawData:
    """Read the competition's folder.

    Parameters
    ----------
    data_dir : pathlib.Path
    source : str
        How to get the data, for the error when it is missing.

    Returns
    -------
    RawData
        ``width_px`` and ``height_px`` come from ``train.csv`` or ``train_image_sizes.csv`` where
        they have them; the official list of duplicates is used when it lies beside them.

    Raises
    ------
    PipelineError
        If a file or a column is missing.
    """
    data_dir = Path(data_dir)
    needed = (*_NEEDED, "target")
    paths = {split: data_dir / f"{split}.csv" for split in ("train", "test")}
    sizes, sample, pairs = (data_dir / name for name in (_SIZES, _SAMPLE, _DUPLICATES))
    train = read_table(paths["train"], needed, hint=source, text=_IDS, rows_needed=True)
    if "width" not in train and sizes.exists():
        train = _add_sizes(train, sizes)
    test = _read_csv(paths["test"], _NEEDED, source)
    table = pd.concat([train.assign(split="train"), test.assign(split="test")], ignore_index=True)
    table = table.rename(columns=_COLUMNS)
    for column in ("sex", "site", "age_years"):
        table[column] = blank_unknown(table[column])
    table["image_path"], notes = pd.Series(np.nan, table.index, object), []
    for split, path in paths.items():
        photos, rows = find_photos(data_dir, (f"jpeg/{split}", split)), table["split"] == split
        matched = photos.match(table.loc[rows, "image_id"], path)
        table.loc[rows, "image_path"] = matched
        notes += photos.describe(matched, path)
    return RawData(
        examples=table,
        sample_submission=_read_csv(sample, ("image_name", "target")) if sample.exists() else None,
        duplicate_pairs=_read_csv(pairs, ("image_name_1", "image_name_2"))
        if pairs.exists()
        else None,
        tables=(*paths.values(), sizes, sample, pairs),
        notes=notes,
    )


def _read_csv(path: Path, needed: tuple[str, ...], source: str = _SOURCE) -> pd.DataFrame:
    return read_table(path, needed, hint=source, text=_IDS)


def _add_sizes(train: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Join width, height and Deotte's leak-free ``tfrecord`` group by image name."""
    sizes = _read_csv(path, ("image_name", "width", "height"))
    if sizes["image_name"].duplicated().any():
        raise PipelineError(f"{path} lists an image more than once")
    require_listed(train["image_name"], sizes["image_name"], path)
    extra = [name for name in ("width", "height", "tfrecord") if name in sizes.columns]
    return train.merge(sizes[["image_name", *extra]], "left", "image_name", validate="m:1")


SPEC = DatasetSpec(
    id="siim_isic_2020",
    title="SIIM-ISIC 2020",
    class_titles={"target": "melanoma"},
    group="patient",
    task="binary",
    classes=("target",),
    numeric={"age_years": AGE_YEARS},
    categorical={"sex": ("female", "male"), "site": SITES},
    lesion_features=("site",),
    record_fields=(
        RecordField("patient_id", "group_id", "bytes"),
        RecordField("sex", "sex", "bytes"),
        RecordField("age_approx", "age_years", "int"),
        RecordField("anatom_site_general_challenge", "site", "bytes"),
        RecordField("diagnosis", "diagnosis", "bytes"),
        RecordField("target", "target", "int"),
        RecordField("width", "width_px", "int"),
        RecordField("height", "height_px", "int"),
    ),
    submission=SubmissionFormat("image_name", {"target": "target"}),
    read_raw=read_raw,
    source=_SOURCE,
    kaggle="competitions/siim-isic-melanoma-classification",
    given_fit="stretch",  # whole photos of 3:2, 4:3 and 16:9 as 1024 x 1024
    given_size_px=1024,
    diagnoses=DIAGNOSES,
    published_counts={("target",): 584, (): 32542},
    published_tests=10982,
)
