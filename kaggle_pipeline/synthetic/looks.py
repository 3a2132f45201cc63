"""What made-up lesions of each diagnosis look like, and who has them.

In: a diagnosis by its HAM10000 code and a numpy generator. Out: a `Morphology`, a `Skin`, an age
and a sex. Neighbouring diagnoses overlap, and age and sex speak weakly for some: an image model
and a metadata model can each be seen to learn, and neither settles the answer. The looks follow
the descriptions in P. Tschandl, C. Rosendahl & H. Kittler (2018), doi:10.1038/sdata.2018.161, as
far as the painter goes; ages and sexes are about those of that set's metadata.
"""

from dataclasses import fields

import numpy as np
import pandas as pd
from numpy.random import Generator

from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin

LOOKS = {
    # asymmetry, border, colours, diameter, darkness, network, veil, blood, scar
    "akiec": Morphology(0.45, 0.50, 0.20, 0.46, 0.10, 0.04, 0.02, 0.36, 0.30),
    "bcc": Morphology(0.45, 0.30, 0.42, 0.40, 0.18, 0.04, 0.25, 0.42, 0.06),
    "bkl": Morphology(0.38, 0.60, 0.34, 0.54, 0.28, 0.05, 0.04, 0.06, 0.06),
    "df": Morphology(0.15, 0.10, 0.08, 0.34, 0.14, 0.40, 0.02, 0.16, 0.70),
    "mel": Morphology(0.50, 0.46, 0.50, 0.48, 0.58, 0.45, 0.24, 0.06, 0.05),
    "nv": Morphology(0.24, 0.20, 0.20, 0.40, 0.46, 0.50, 0.03, 0.05, 0.02),
    "vasc": Morphology(0.22, 0.35, 0.08, 0.30, 0.12, 0.03, 0.04, 0.85, 0.02),
}
"""Diagnosis to its mean looks."""
_AGE_YEARS = {  # mean and deviation
    "akiec": (67, 11), "bcc": (67, 13), "bkl": (64, 14), "df": (53, 13), "mel": (61, 15),
    "nv": (46, 15), "vasc": (51, 20),
}  # fmt: skip
_MALE_SHARE = {
    "akiec": 0.67, "bcc": 0.62, "bkl": 0.57, "df": 0.55, "mel": 0.62, "nv": 0.51, "vasc": 0.49,
}  # fmt: skip
_SPREAD = 0.14


def draw_looks(diagnosis: str, rng: Generator) -> Morphology:
    """Return the latent appearance of one lesion of a diagnosis.

    Parameters
    ----------
    diagnosis : str
        A key of `LOOKS`.
    rng : numpy.random.Generator
        Source of chance.
    """
    mean = LOOKS[diagnosis]
    looks = {}
    for field in fields(Morphology):
        value = getattr(mean, field.name) + rng.normal(0.0, _SPREAD)
        # A lesion smaller or larger than this would be lost, or fill the image.
        lowest, highest = (0.2, 0.7) if field.name == "diameter" else (0.0, 0.98)
        looks[field.name] = float(np.clip(value, lowest, highest))
    return Morphology(**looks)


def draw_skin(rng: Generator) -> Skin:
    """Return mostly light skin with few hairs, under a camera with some vignette."""
    return Skin(*map(float, rng.beta((1.0, 2.0, 1.0, 1.5), (4.0, 3.0, 5.0, 4.0))))


def draw_person(diagnosis: str, rng: Generator) -> tuple[int, str]:
    """Return the age in years, a multiple of five from 5 to 85, and the sex of somebody with it."""
    age = rng.normal(*_AGE_YEARS[diagnosis])
    sex = "male" if rng.random() < _MALE_SHARE[diagnosis] else "female"
    return int(5 * round(float(np.clip(age, 5, 85)) / 5)), sex


def counts(shares: dict[str, float], total: int, least: int) -> dict[str, int]:
    """Share out ``total`` lesions, the rarest diagnosis still with ``least`` of them.

    Parameters
    ----------
    shares : dict
        Diagnosis to its share; the first one takes what the others leave.
    total : int
        At least ``least`` for every diagnosis.
    least : int
        The least number of lesions of a diagnosis.
    """
    common, *others = shares
    found = {name: max(least, round(shares[name] * total)) for name in others}
    return {common: total - sum(found.values()), **found}


def make_unknown(
    table: pd.DataFrame, unknown: dict[str, tuple[object, float]], rng: Generator
) -> None:
    """Replace some values in place, at least one of each column.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a lesion or image.
    unknown : dict
        Column to what stands for a missing value there, and the share of rows that miss it.
    rng : numpy.random.Generator
        Source of chance.
    """
    for column, (value, share) in unknown.items():
        rows = rng.choice(len(table), max(1, round(share * len(table))), replace=False)
        table[column] = table[column].astype(object)
        table.iloc[rows, table.columns.get_loc(column)] = value
