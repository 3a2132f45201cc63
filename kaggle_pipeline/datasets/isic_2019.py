"""ISIC 2019 challenge: 25,331 dermoscopic images of eight diagnoses, in its own layout.

In: a folder with ``ISIC_2019_Training_{GroundTruth,Metadata}.csv`` and
``ISIC_2019_Training_Input/<id>.jpg``, and where they are there ``ISIC_2019_Test_Metadata.csv`` and
``ISIC_2019_Test_Input/``. Out: :class:`~kaggle_pipeline.data.spec.RawData`.

It holds HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), BCN20000 (Combalia et al.
2019, arXiv:1908.02288) and images of MSK (Codella et al. 2018, arXiv:1710.05006). 2,084 images name
no lesion; each of them is a group of its own. The ninth class of the challenge, "unknown", has no
training image.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_table
from kaggle_pipeline.data.spec import AGE_YEARS, DatasetSpec, RawData, RecordField, SubmissionFormat
from kaggle_pipeline.datasets.raw_files import blank_unknown, find_photos, require_listed

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""Melanoma, nevus, basal cell carcinoma, actinic keratosis, benign keratosis, dermatofibroma,
vascular lesion, squamous cell carcinoma."""
SITES = (
    "anterior torso", "head/neck", "lateral torso", "lower extremity", "oral/genital",
    "palms/soles", "posterior torso", "upper extremity",
)  # fmt: skip
_SOURCE = (
    "get it from https://challenge.isic-archive.com/data/#2019 (or "
    "`kaggle datasets download andrewmvd/isic-2019`) and unpack it there, or say --data-dir"
)
_IDS = ("image", "lesion_id")


def read_raw(data_dir: Path) -> RawData:
    """Read the challenge's folder.

    Parameters
    ----------
    data_dir : pathlib.Path

    Raises
    ------
    PipelineError
        If a table or a column of the training part is missing, or a row has not exactly one class.
    """
    data_dir = Path(data_dir)
    path = data_dir / "ISIC_2019_Training_GroundTruth.csv"
    truth = read_table(path, ("image", *CLASSES), hint=_SOURCE, text=_IDS, rows_needed=True)
    odd = truth[list(CLASSES)].sum(axis=1) != 1
    if odd.any():
        raise PipelineError(f"{path}: image {truth.loc[odd, 'image'].iloc[0]} has not one class")
    facts = _read_facts(data_dir, "Training", needed=True)
    if facts["image"].duplicated().any():
        raise PipelineError(f"{data_dir}: the training metadata lists an image more than once")
    require_listed(truth["image"], facts["image"], data_dir / "ISIC_2019_Training_Metadata.csv")
    train = truth[["image", *CLASSES]].merge(facts, "left", "image", validate="m:1")
    test = _read_facts(data_dir, "Test", needed=False)
    table = pd.concat([train.assign(split="train"), test.assign(split="test")], ignore_index=True)
    matched, notes = pd.Series(np.nan, table.index, object), []
    for split, part in (("train", "Training"), ("test", "Test")):
        photos, rows = find_photos(data_dir, [f"ISIC_2019_{part}_Input"]), table["split"] == split
        source = path if split == "train" else _facts_path(data_dir, part)
        matched[rows] = photos.match(table.loc[rows, "image"], source)
        notes += photos.describe(matched[rows], source)
    lesion = table["lesion_id"].where(table["split"] == "train")
    return RawData(
        examples=pd.DataFrame(
            {
                "image_id": table["image"],
                "group_id": lesion.fillna(table["image"]),
                "split": table["split"],
                **{name: table[name] for name in CLASSES},
                "age_years": blank_unknown(table["age_approx"]),
                "sex": blank_unknown(table["sex"]),
                "site": blank_unknown(table["anatom_site_general"]),
                "image_path": matched,
            }
        ),
        tables=(path, *(_facts_path(data_dir, part) for part in ("Training", "Test"))),
        notes=notes,
    )


def _facts_path(data_dir: Path, part: str) -> Path:
    return data_dir / f"ISIC_2019_{part}_Metadata.csv"


def _read_facts(data_dir: Path, part: str, *, needed: bool) -> pd.DataFrame:
    """Metadata of a part; no rows where the test part is not there."""
    columns = ["image", "age_approx", "anatom_site_general", "sex"]
    path = _facts_path(data_dir, part)
    if not needed and not path.exists():
        return pd.DataFrame(columns=[*columns, "lesion_id"])
    facts = read_table(path, columns, hint=_SOURCE, text=_IDS)
    return facts.reindex(columns=[*columns, "lesion_id"])


SPEC = DatasetSpec(
    id="isic_2019",
    title="ISIC 2019",
    class_titles={
        "MEL": "melanoma",
        "NV": "melanocytic nevus",
        "BCC": "basal cell carcinoma",
        "AK": "actinic keratosis",
        "BKL": "benign keratosis",
        "DF": "dermatofibroma",
        "VASC": "vascular lesion",
        "SCC": "squamous cell carcinoma",
    },
    group="lesion",
    task="multiclass",
    classes=CLASSES,
    numeric={"age_years": AGE_YEARS},
    categorical={"sex": ("female", "male"), "site": SITES},
    lesion_features=("site",),
    record_fields=(
        RecordField("lesion_id", "group_id", "bytes"),
        RecordField("age_approx", "age_years", "int"),
        RecordField("sex", "sex", "bytes"),
        RecordField("anatom_site_general", "site", "bytes"),
        *(RecordField(name, name, "int") for name in CLASSES),
    ),
    submission=SubmissionFormat("image", {name: name for name in CLASSES}, by_highest=True),
    read_raw=read_raw,
    source=_SOURCE,
    kaggle="datasets/andrewmvd/isic-2019",
    published_tests=8238,
    published_counts={
        ("MEL",): 4522,
        ("NV",): 12875,
        ("BCC",): 3323,
        ("AK",): 867,
        ("BKL",): 2624,
        ("DF",): 239,
        ("VASC",): 253,
        ("SCC",): 628,
    },
    record_id="image_id",
)
