"""One door to the made-up data sets: each in the raw layout of the real one it stands for."""

from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline.datasets import (
    synthetic,
    synthetic_ham10000,
    synthetic_isic_2017,
    synthetic_isic_2019,
)
from kaggle_pipeline.datasets.drawing import Progress, no_progress
from kaggle_pipeline.errors import PipelineError, nearest

IMAGES_A_PATIENT = 8


def _generate_siim_isic_2020(out_dir: Path, *, images: int, **options: object) -> None:
    """Patients have a mean of eight images each, so the number of images is met on average."""
    patients = max(4, round(images / IMAGES_A_PATIENT))
    synthetic.generate(out_dir, patients=patients, mean_images=IMAGES_A_PATIENT, **options)


GENERATORS: dict[str, Callable[..., None]] = {
    "siim_isic_2020": _generate_siim_isic_2020,
    "isic_2017": synthetic_isic_2017.generate,
    "isic_2019": synthetic_isic_2019.generate,
    "ham10000": synthetic_ham10000.generate,
}
"""Data set to a function with the keywords of :func:`generate_like`."""


def generate_like(
    dataset_id: str,
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write made-up data that the ``read_raw`` of a data set reads.

    Parameters
    ----------
    dataset_id : str
        A key of `GENERATORS`.
    out_dir : pathlib.Path
        Gets ``competition/`` and, where the real set hides labels, ``truth.csv``.
    images : int
        Number of photos; for ``siim_isic_2020``, where patients are drawn, only about that many.
    image_size_px : int
        Side of the square photos; for ``ham10000``, whose photos are 4:3, their height.
    seed : int
        Same seed, same bytes.
    workers : int, optional
        Processes that draw; one a core by default.
    progress : callable
        Told the number of images drawn since the last call.

    Raises
    ------
    PipelineError
        If there is no such data set, the folder holds one already, or a number is too small.
    """
    if dataset_id not in GENERATORS:
        hint = nearest(dataset_id, list(GENERATORS))
        raise PipelineError(f"nothing is drawn like {dataset_id!r}{hint}")
    GENERATORS[dataset_id](
        out_dir,
        images=images,
        image_size_px=image_size_px,
        seed=seed,
        workers=workers,
        progress=progress,
    )
