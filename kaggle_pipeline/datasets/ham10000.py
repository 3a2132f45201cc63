"""HAM10000: 10,015 dermatoscopic photos of 7,470 lesions in seven classes.

In: a folder with ``HAM10000_metadata.csv`` (or ``.tab``, or with no ending) and the photos in
``HAM10000_images_part1`` and ``_part2`` (or ``…_part_1``, or all in ``images``), which are read
where they lie. Out: :class:`~kaggle_pipeline.data.spec.RawData`.

Tschandl, Rosendahl & Kittler 2018 (doi:10.1038/sdata.2018.161). Many lesions have several photos,
so rows of one lesion must stay together. ``dx_type`` (how the diagnosis was made) is kept for the
audit alone: only nevi were followed up, so it speaks of the answer.
"""

from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_table
from kaggle_pipeline.data.spec import AGE_YEARS, DatasetSpec, RawData, RecordField, SubmissionFormat
from kaggle_pipeline.datasets.raw_files import blank_unknown, find_photos

CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
"""Melanoma, nevus, basal cell carcinoma, actinic keratosis or Bowen's disease, benign keratosis,
dermatofibroma, vascular lesion: the order of ISIC 2018's task 3."""
SITES = (
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand",
    "lower extremity", "neck", "scalp", "trunk", "upper extremity",
)  # fmt: skip
# The copies' on Kaggle, and Dataverse's: tabs, or commas with no ending.
_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
# Dataverse's names, then those of the copy on Kaggle.
_FOLDERS = (
    "HAM10000_images_part1", "HAM10000_images_part2", "HAM10000_images_part_1",
    "HAM10000_images_part_2", "images",
)  # fmt: skip
_TEXT = ("lesion_id", "image_id", "dx", "localization")
_NEEDED = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
_SOURCE = (
    "get it from https://doi.org/10.7910/DVN/DBW86T (or "
    "`kaggle datasets download kmader/skin-cancer-mnist-ham10000`) and unpack it there, or say "
    "--data-dir"
)


def read_raw(data_dir: Path) -> RawData:
    """Read the collection's folder; all rows are the split ``train``.

    Parameters
    ----------
    data_dir : pathlib.Path

    Raises
    ------
    PipelineError
        If the table or a column is missing, or a diagnosis is not one of :data:`CLASSES`.
    """
    data_dir = Path(data_dir)
    paths = [data_dir / name for name in _TABLES]
    path = next((one for one in paths if one.is_file()), paths[0])
    photos = find_photos(data_dir, _FOLDERS)
    raw = read_table(path, _NEEDED, hint=_SOURCE, text=_TEXT, rows_needed=True)
    odd = ~raw["dx"].isin(CLASSES)
    if odd.any():
        row = raw[odd].iloc[0]
        wish = ", ".join(CLASSES)
        raise PipelineError(f"{path}: dx of image {row['image_id']} is {row['dx']!r}, know {wish}")
    table = pd.DataFrame(
        {
            "image_id": raw["image_id"],
            "group_id": raw["lesion_id"],
            "split": "train",
            **{name: (raw["dx"] == name).astype(float) for name in CLASSES},
            "age_years": blank_unknown(raw["age"]),
            "sex": blank_unknown(raw["sex"]),
            "site": blank_unknown(raw["localization"]),
            "image_path": photos.match(raw["image_id"], path),
        }
    )
    if "dx_type" in raw:
        table["dx_type"] = raw["dx_type"]
    notes = list(photos.describe(table["image_path"], path))
    return RawData(examples=table, tables=paths, notes=notes)


SPEC = DatasetSpec(
    id="ham10000",
    title="HAM10000",
    class_titles={
        "akiec": "actinic keratosis or Bowen’s disease",
        "bcc": "basal cell carcinoma",
        "bkl": "benign keratosis",
        "df": "dermatofibroma",
        "mel": "melanoma",
        "nv": "melanocytic nevus",
        "vasc": "vascular lesion",
    },
    group="lesion",
    task="multiclass",
    classes=CLASSES,
    numeric={"age_years": AGE_YEARS},
    categorical={"sex": ("female", "male"), "site": SITES},
    lesion_features=("site",),
    record_fields=(
        RecordField("lesion_id", "group_id", "bytes"),
        RecordField("age", "age_years", "int"),
        RecordField("sex", "sex", "bytes"),
        RecordField("localization", "site", "bytes"),
        *(RecordField(name, name, "int") for name in CLASSES),
    ),
    submission=SubmissionFormat("image", {name.upper(): name for name in CLASSES}, by_highest=True),
    read_raw=read_raw,
    source=_SOURCE,
    kaggle="datasets/kmader/skin-cancer-mnist-ham10000",
    published_counts={
        ("mel",): 1113,
        ("nv",): 6705,
        ("bcc",): 514,
        ("akiec",): 327,
        ("bkl",): 1099,
        ("df",): 115,
        ("vasc",): 142,
    },
    record_id="image_id",
)
