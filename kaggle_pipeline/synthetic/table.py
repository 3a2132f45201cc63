"""A made-up collection of one's own: two tables with column names of their own, photos in folders.

In: a folder, the number of images, an image size and a seed. Out: ``competition/`` with
``lesions.csv``, ``new.csv`` (no findings) and JPEG files in sub-folders of ``photos/``; and
``truth.csv`` with the findings of ``new.csv``. ``configs/my_photos.yaml`` names the columns.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.progress import Advance, ignore_progress
from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin
from kaggle_pipeline.synthetic.looks import counts, draw_looks, draw_person, draw_skin
from kaggle_pipeline.synthetic.writer import (
    Drawing,
    check_request,
    draw_all,
    unique_codes,
    write_tables,
)

LAST_TABLE = "lesions.csv"
LEAST_IMAGES = 60
_FINDINGS = {"nv": "mole", "mel": "melanoma", "bkl": "keratosis"}
_SHARES = {"nv": 0.6, "mel": 0.25, "bkl": 0.15}
_LEAST_OF_A_FINDING = 10
_PLACES = ("arm", "back", "face", "leg")
_MOST_PHOTOS = 4
"""Of a patient."""
_NEW_SHARE = 0.2
"""Share of the patients whose findings are not told."""
_CLINICS = ("clinic A", "clinic A/2025", "clinic B")


def generate_images(
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write a collection and ``truth.csv``, as :func:`~kaggle_pipeline.synthetic.generate_like`.

    At least 60 photos, square.
    """
    competition = Path(out_dir) / "competition"
    check_request(competition / LAST_TABLE, images, LEAST_IMAGES, image_size_px, seed)
    table, looks = describe(images, seed)
    drawings = [
        Drawing(
            path=competition / "photos" / file, morphology=morphology, skin=skin,
            size_px=image_size_px, seed=(seed, number),
        )
        for number, (file, (morphology, skin)) in enumerate(zip(table["file"], looks, strict=True))
    ]  # fmt: skip
    draw_all(drawings, workers, progress)
    new = table.pop("new")
    write_tables(
        {
            Path(out_dir) / "truth.csv": table.loc[new, ["file", "finding"]],
            competition / "new.csv": table[new].drop(columns="finding"),
            competition / LAST_TABLE: table[~new],
        }
    )


def describe(images: int, seed: int) -> tuple[pd.DataFrame, list[tuple[Morphology, Skin]]]:
    """Return the table of all photos, with a column ``new``, and what each shows.

    Parameters
    ----------
    images : int
        Number of rows.
    seed : int
        Source of all chance.
    """
    rng = np.random.default_rng([seed, 4])
    found = counts(_SHARES, images, _LEAST_OF_A_FINDING)
    diagnoses = rng.permutation([name for name, count in found.items() for _ in range(count)])
    patient = np.repeat(np.arange(images), rng.integers(1, _MOST_PHOTOS + 1, images))[:images]
    new = rng.random(images) < _NEW_SHARE
    rows, looks, names = [], [], unique_codes(rng, images, "IMG ")
    for number, (diagnosis, who) in enumerate(zip(diagnoses, patient, strict=True)):
        if number == 0 or who != patient[number - 1]:
            age, sex = draw_person(diagnosis, rng)
        place = _PLACES[rng.integers(len(_PLACES))]
        rows.append(
            {
                "file": f"{_CLINICS[who % len(_CLINICS)]}/{names[number]}.jpg",
                "patient": f"P{who:04d}",
                "finding": _FINDINGS[diagnosis],
                "age": ("unknown", f"{age} years", f"{age}")[min(2, rng.integers(12))],
                "sex": sex if rng.random() > 0.05 else "",
                "place": place if rng.random() > 0.05 else "?",
                "new": new[who],
            }
        )
        looks.append((draw_looks(diagnosis, rng), draw_skin(rng)))
    return pd.DataFrame(rows), looks
