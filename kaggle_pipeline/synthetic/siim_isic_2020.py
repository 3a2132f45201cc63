"""A made-up melanoma competition in Kaggle's layout, for tests and the demo.

In: a folder, the number of patients, an image size and a seed. Out: ``competition/`` as
``siim_isic_2020`` reads it, and ``truth.csv`` with the test labels, kept apart so that a pipeline
that is given ``competition/`` cannot see it.

A lesion is malignant with a probability that follows its morphology, above all how far that
strays from the patient's own pattern (the "ugly duckling", Grob & Bonerandi 1998,
doi:10.1001/archderm.134.1.103-a), and weakly the patient's age and sex and the site: image,
metadata and patient context can each be seen to help, and none settles the answer.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.progress import Advance, ignore_progress
from kaggle_pipeline.datasets import siim_isic_2020
from kaggle_pipeline.synthetic.lesion_painter import MIN_SIZE_PX, Morphology, Skin
from kaggle_pipeline.synthetic.writer import (
    JPEG_QUALITY,
    Drawing,
    check_least,
    draw_all,
    refuse_existing,
    unique_codes,
    write_tables,
)

# Share of lesions by site in the 2020 training set, head to arm in the order of SITES.
_SITE_SHARES = (0.06, 0.26, 0.01, 0.01, 0.51, 0.15)
_SITE_RISK = (1.4, -0.2, 0.4, 0.6, 0.0, 0.4)
_MORPHOLOGY_MEAN = np.array([0.30, 0.25, 0.30, 0.40, 0.45, 0.40, 0.10])
_PATIENT_SPREAD, _LESION_SPREAD = 0.22, 0.10
# Asymmetry, border, colours and veil speak for melanoma (ABCD rule); size and darkness a little.
_SUSPICION = np.array([1.3, 1.3, 1.2, 0.6, 0.4, -0.2, 1.2])


def generate(
    out_dir: Path,
    *,
    patients: int,
    image_size_px: int,
    seed: int,
    test_share: float = 0.25,
    mean_images: float = 8.0,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write a competition and its truth.

    Parameters
    ----------
    out_dir : pathlib.Path
        Gets ``competition/`` and ``truth.csv``; must not hold a competition yet.
    patients : int
        At least 4, so that both splits see both classes (usually).
    image_size_px : int
        Side of the square photos.
    seed : int
        Same seed, same bytes.
    test_share : float
        Share of the patients whose labels are kept back.
    mean_images : float
        Mean number of images a patient.
    workers : int, optional
        Processes that draw; one a core by default.
    progress : callable
        Told the number of images drawn since the last call.

    Raises
    ------
    PipelineError
        If the folder holds a competition already, or there are too few patients.
    """
    competition = Path(out_dir) / "competition"
    refuse_existing(competition / "train.csv")
    least = {"patients": (patients, 4), "image-size-px": (image_size_px, MIN_SIZE_PX)}
    check_least(least | {"mean-images": (mean_images, 2), "seed": (seed, 0)})
    table, morphologies, skins = describe(patients, seed, test_share, mean_images)
    drawings = [
        Drawing(
            path=competition / "jpeg" / row.split / f"{row.image_name}.jpg",
            morphology=morphology,
            skin=skins[row.patient_id],
            size_px=image_size_px,
            seed=(seed, row.lesion),
            # A repeated photo is the same drawing, compressed anew.
            quality=JPEG_QUALITY - 12 * row.repeated,
        )
        for row, morphology in zip(table.itertuples(), morphologies, strict=True)
    ]
    draw_all(drawings, workers, progress)
    _write_tables(table, Path(out_dir))


def describe(
    patients: int, seed: int, test_share: float, mean_images: float
) -> tuple[pd.DataFrame, list[Morphology], dict[str, Skin]]:
    """Return the table of all images, what each looks like, and each patient's skin."""
    rng = np.random.default_rng([seed, 0])
    names = unique_codes(rng, patients, "IP_")
    in_test = np.zeros(patients, bool)
    in_test[rng.permutation(patients)[: max(1, round(patients * test_share))]] = True
    rows, vectors, skins = [], [], {}
    for name, test in zip(names, in_test, strict=True):
        found, looks, skins[name] = _describe_patient(rng, name, mean_images)
        rows += [{**row, "split": "test" if test else "train"} for row in found]
        vectors += looks
    table = pd.DataFrame(rows)
    table.insert(0, "image_name", unique_codes(rng, len(table), "ISIC_"))
    table["lesion"] = np.arange(len(table))
    table, vectors = _repeat_some(rng, table, vectors)
    for column, share in (("sex", 0.01), ("age_approx", 0.02), ("site", 0.02)):
        table.loc[rng.random(len(table)) < share, column] = np.nan
    return table, [Morphology(*map(float, vector)) for vector in vectors], skins


def _describe_patient(
    rng: np.random.Generator, name: str, mean_images: float
) -> tuple[list[dict], list[np.ndarray], Skin]:
    """One patient's rows, the morphology vector of each, and the skin they share."""
    sex = rng.choice(["female", "male"])
    age = float(np.clip(rng.normal(50, 15), 15, 90))
    skin = Skin(*np.clip(rng.beta(2, 4, 4), 0, 1))
    usual = _MORPHOLOGY_MEAN + rng.normal(0, _PATIENT_SPREAD, len(_MORPHOLOGY_MEAN))
    count = 2 + rng.poisson(max(0.0, mean_images - 2))
    rows, vectors = [], []
    for _ in range(count):
        site = int(rng.choice(len(_SITE_SHARES), p=_SITE_SHARES))
        # A few lesions stray far from the patient's own pattern.
        stray = rng.gamma(2.0, 0.13) if rng.random() < 0.25 else 0.0
        looks = usual + rng.normal(0, _LESION_SPREAD, len(usual)) + stray * _SUSPICION
        looks = np.clip(looks, 0.02, 0.98)
        absolute = float((looks - _MORPHOLOGY_MEAN) @ _SUSPICION)
        relative = float((looks - usual) @ _SUSPICION)
        risk = 0.3 * absolute + 2.8 * relative + 0.09 * (age - 50) + _SITE_RISK[site]
        risk += 0.9 if sex == "male" else -0.9
        malignant = bool(rng.random() < 1 / (1 + np.exp(-(risk - 4.8))))
        rows.append(
            {
                "patient_id": name,
                "sex": sex,
                "age_approx": 5.0 * round(age / 5),
                "site": siim_isic_2020.SITES[site],
                "target": int(malignant),
                "repeated": False,
            }
        )
        vectors.append(looks)
    return rows, vectors, skin


def _repeat_some(
    rng: np.random.Generator, table: pd.DataFrame, vectors: list[np.ndarray]
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Add a second photo of one training lesion in a hundred, as the 2020 set has."""
    train = np.flatnonzero(table["split"] == "train")
    chosen = rng.choice(train, max(1, len(train) // 100), replace=False)
    again = table.iloc[chosen].copy()
    again["repeated"] = True
    taken = set(table["image_name"])
    fresh = [code for code in unique_codes(rng, 3 * len(again) + 9, "ISIC_") if code not in taken]
    again["image_name"] = fresh[: len(again)]
    return pd.concat([table, again], ignore_index=True), vectors + [vectors[i] for i in chosen]


def _write_tables(table: pd.DataFrame, out_dir: Path) -> None:
    competition = out_dir / "competition"
    public = table.rename(columns={"site": "anatom_site_general_challenge"})
    columns = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]
    test = public[public["split"] == "test"]
    train = public[public["split"] == "train"]
    malignant = train["target"] == 1
    train = train.assign(
        diagnosis=np.where(malignant, "melanoma", "unknown"),
        benign_malignant=np.where(malignant, "malignant", "benign"),
    )
    repeated = train[train["repeated"]]
    first = train[~train["repeated"]].set_index("lesion")["image_name"]
    pairs = pd.DataFrame(
        {
            "image_name_1": first.loc[repeated["lesion"]].to_numpy(),
            "image_name_2": repeated["image_name"].to_numpy(),
        }
    )
    tables = {
        out_dir / "truth.csv": test[["image_name", "patient_id", "target"]],
        competition / "ISIC_2020_Training_Duplicates.csv": pairs,
        competition / "sample_submission.csv": test[["image_name"]].assign(target=0),
        competition / "test.csv": test[columns],
        competition / "train.csv": train[[*columns, "diagnosis", "benign_malignant", "target"]],
    }
    write_tables(tables)


IMAGES_A_PATIENT = 8


def generate_images(out_dir: Path, *, images: int, **options: object) -> None:
    """Patients have a mean of eight images each, so the number of images is met on average."""
    patients = max(4, round(images / IMAGES_A_PATIENT))
    generate(out_dir, patients=patients, mean_images=IMAGES_A_PATIENT, **options)
