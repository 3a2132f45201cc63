"""A made-up ISIC 2019 in that challenge's own layout: HAM10000's lesions and a further class.

In: a folder, the number of images, an image size and a seed. Out: ``competition/`` with the two
training tables and ``ISIC_2019_Training_Input/``. As in the real set, which holds HAM10000, some
lesions have several photos and some images name no lesion. There is no test part.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.progress import Advance, ignore_progress
from kaggle_pipeline.datasets.isic_2019 import CLASSES
from kaggle_pipeline.synthetic import ham10000
from kaggle_pipeline.synthetic.writer import Drawing, check_request, draw_all, write_tables

LAST_TABLE = "ISIC_2019_Training_Metadata.csv"
LEAST_IMAGES = 60
_CLASS = {
    "mel": "MEL", "nv": "NV", "bcc": "BCC", "akiec": "AK", "bkl": "BKL", "df": "DF",
    "vasc": "VASC",
}  # fmt: skip
_SITE = {
    "back": "posterior torso", "trunk": "lateral torso", "abdomen": "anterior torso",
    "chest": "anterior torso", "face": "head/neck", "neck": "head/neck", "scalp": "head/neck",
    "ear": "head/neck", "foot": "lower extremity", "hand": "upper extremity",
    "genital": "oral/genital", "acral": "palms/soles", "unknown": np.nan,
}  # fmt: skip
_SCC_SHARE = 0.4
"""Of the lesions drawn as actinic keratosis, which may become a squamous cell carcinoma."""
_NAMELESS_SHARE = 0.08


def generate_images(
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write a data set in ISIC 2019's layout, as :func:`~kaggle_pipeline.synthetic.generate_like`.

    At least 60 photos, square, of about three quarters as many lesions.
    """
    competition = Path(out_dir) / "competition"
    check_request(competition / LAST_TABLE, images, LEAST_IMAGES, image_size_px, seed)
    table, looks = ham10000.describe(images, seed)
    truth, facts = _tell(table, seed)
    drawings = [
        Drawing(
            path=competition / "ISIC_2019_Training_Input" / f"{row.image_id}.jpg",
            morphology=looks[row.image_id][0],
            skin=looks[row.image_id][1],
            size_px=image_size_px,
            seed=(seed, row.lesion),
            quarter_turns=row.quarter_turns,
        )
        for row in table.itertuples()
    ]
    draw_all(drawings, workers, progress)
    write_tables(
        {
            competition / "ISIC_2019_Training_GroundTruth.csv": truth,
            competition / LAST_TABLE: facts,
        }
    )


def _tell(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return HAM10000's rows as the challenge's truth and metadata."""
    rng = np.random.default_rng([seed, 3])
    keratoses = np.unique(table.loc[table["dx"] == "akiec", "lesion_id"])
    worse = rng.choice(keratoses, max(1, round(_SCC_SHARE * len(keratoses))), replace=False)
    name = table["dx"].map(_CLASS).mask(table["lesion_id"].isin(worse), "SCC")
    truth = pd.DataFrame({one: (name == one).astype(float) for one in CLASSES})
    truth.insert(0, "image", table["image_id"])
    repeated = table["lesion_id"].duplicated(keep=False)
    nameless = ~repeated & (rng.random(len(table)) < _NAMELESS_SHARE)
    facts = pd.DataFrame(
        {
            "image": table["image_id"],
            "age_approx": table["age"],
            "anatom_site_general": table["localization"].replace(_SITE),
            "lesion_id": table["lesion_id"].mask(nameless),
            "sex": table["sex"].replace("unknown", np.nan),
        }
    )
    return truth, facts
