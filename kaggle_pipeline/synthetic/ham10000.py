"""A made-up HAM10000 in that set's own layout: seven diagnoses, several photos of some lesions.

In: a folder, the number of images, an image size and a seed. Out: ``competition/`` with
``HAM10000_metadata.csv`` and JPEG files in ``HAM10000_images_part1`` and ``_part2``. Every image is
labelled there, as in the real set, so there is no ``truth.csv``.

The layout, the shares of the diagnoses and sites and the ways of confirmation are about those of
P. Tschandl, C. Rosendahl & H. Kittler (2018), doi:10.1038/sdata.2018.161.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from kaggle_pipeline.core.progress import Advance, ignore_progress
from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin
from kaggle_pipeline.synthetic.looks import counts, draw_looks, draw_person, draw_skin, make_unknown
from kaggle_pipeline.synthetic.writer import (
    Drawing,
    check_request,
    draw_all,
    unique_codes,
    write_tables,
)

LAST_TABLE = "HAM10000_metadata.csv"
LEAST_IMAGES = 60
# Share of lesions by diagnosis; the first takes what the rare ones, which get five, leave.
_SHARES = {
    "nv": 0.72, "bkl": 0.10, "mel": 0.08, "bcc": 0.045, "akiec": 0.03, "vasc": 0.013, "df": 0.01,
}  # fmt: skip
_LEAST_LESIONS = 5  # one for each of the usual five folds
_MORE_IMAGES = 0.34  # further images, as a share of the lesions
# How a diagnosis was confirmed: among others, only moles are merely watched.
_CONFIRMED = {
    "nv": {"histo": 0.37, "follow_up": 0.55, "consensus": 0.08},
    "bkl": {"histo": 0.70, "consensus": 0.24, "confocal": 0.06},
    "vasc": {"histo": 0.47, "consensus": 0.53},
    "df": {"histo": 0.48, "consensus": 0.52},
}
_SITES = {
    "back": 0.23, "lower extremity": 0.21, "trunk": 0.14, "upper extremity": 0.11,
    "abdomen": 0.10, "face": 0.08, "chest": 0.04, "foot": 0.03, "neck": 0.02, "scalp": 0.015,
    "hand": 0.01, "ear": 0.006, "genital": 0.005, "acral": 0.002,
}  # fmt: skip
# How many times as often a diagnosis sits there as other lesions do.
_FAVOURED = {
    "akiec": {"face": 5.0, "hand": 4.0, "scalp": 3.0, "trunk": 0.1},
    "bcc": {"face": 2.5, "back": 1.6, "trunk": 0.2},
    "bkl": {"face": 3.5, "trunk": 0.5},
    "df": {"lower extremity": 6.0, "upper extremity": 3.0, "face": 0.1},
    "mel": {"upper extremity": 1.8, "back": 1.3, "trunk": 0.3},
    "nv": {"abdomen": 1.3, "trunk": 1.3, "face": 0.2},
    "vasc": {"abdomen": 2.0, "trunk": 1.5},
}
_UNKNOWN = {"age": (np.nan, 0.02), "sex": ("unknown", 0.02), "localization": ("unknown", 0.03)}


def generate_images(
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write a data set in HAM10000's layout, as :func:`~kaggle_pipeline.synthetic.generate_like`.

    At least 60 photos, 4:3 as in the real set, of about three quarters as many lesions.
    """
    competition = Path(out_dir) / "competition"
    check_request(competition / LAST_TABLE, images, LEAST_IMAGES, image_size_px, seed)
    table, looks = describe(images, seed)
    # The real set's first half, by image id, lies in part 1, whichever lesion it shows.
    parts = np.where(np.arange(images) < images // 2, "part1", "part2")
    drawings = []
    for row, part in zip(table.itertuples(), parts, strict=True):
        morphology, skin = looks[row.image_id]
        drawings.append(
            Drawing(
                path=competition / f"HAM10000_images_{part}" / f"{row.image_id}.jpg",
                morphology=morphology,
                skin=skin,
                size_px=round(image_size_px * 4 / 3),
                seed=(seed, row.lesion),
                height_px=image_size_px,
                quarter_turns=row.quarter_turns,
            )
        )
    draw_all(drawings, workers, progress)
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    write_tables({competition / LAST_TABLE: table[columns]})


def describe(images: int, seed: int) -> tuple[pd.DataFrame, dict[str, tuple[Morphology, Skin]]]:
    """Return the table of all images, by image id, and what each shows.

    Parameters
    ----------
    images : int
        Number of rows.
    seed : int
        Source of all chance.
    """
    rng = np.random.default_rng([seed, 2])
    number = round(images / (1 + _MORE_IMAGES))
    lesions = _describe_lesions(rng, number)
    again = rng.choice(number, images - number, replace=True)  # some are seen three times
    table = lesions.iloc[np.concatenate([np.arange(number), again])].copy()
    table["image_id"] = unique_codes(rng, images, "ISIC_")
    first = {lesion: (draw_looks(dx, rng), draw_skin(rng)) for lesion, dx in lesions["dx"].items()}
    looks, turns = {}, []
    for photo, row in enumerate(table.itertuples()):
        morphology, skin = first[row.Index]
        repeated = photo >= number
        looks[row.image_id] = (
            _from_elsewhere(morphology, skin, rng) if repeated else first[row.Index]
        )
        turns.append(int(rng.integers(1, 4)) if repeated else 0)
    table = table.assign(quarter_turns=turns, lesion=table.index)
    return table.sort_values("image_id", ignore_index=True), looks


def _describe_lesions(rng: Generator, number: int) -> pd.DataFrame:
    """One row a lesion: what it is, on whom and where."""
    rows = []
    for dx, count in counts(_SHARES, number, _LEAST_LESIONS).items():
        for _ in range(count):
            age, sex = draw_person(dx, rng)
            confirmed = _choose(_CONFIRMED.get(dx, {"histo": 1.0}), rng)
            site = _choose(
                {name: share * _FAVOURED[dx].get(name, 1.0) for name, share in _SITES.items()}, rng
            )
            rows.append((dx, confirmed, float(age), sex, site))
    table = pd.DataFrame(rows, columns=["dx", "dx_type", "age", "sex", "localization"])
    make_unknown(table, _UNKNOWN, rng)
    table.insert(0, "lesion_id", unique_codes(rng, number, "HAM_"))
    return table


def _choose(weights: dict[str, float], rng: Generator) -> str:
    values = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(values), p=values / values.sum()))]


def _from_elsewhere(morphology: Morphology, skin: Skin, rng: Generator) -> tuple[Morphology, Skin]:
    """The same lesion seen from another distance, under another light, partly shaved."""
    diameter = morphology.diameter * rng.uniform(0.75, 1.3)
    skin = replace(skin, vignette=float(rng.beta(2, 4)), hairiness=skin.hairiness * rng.random())
    return replace(morphology, diameter=diameter), skin
