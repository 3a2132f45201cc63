"""Made-up data sets, each in the raw layout of the real one it stands for."""

from importlib import import_module
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.core.progress import Advance, ignore_progress

MADE_UP = {
    "siim_isic_2020": "kaggle_pipeline.synthetic.siim_isic_2020",
    "isic_2017": "kaggle_pipeline.synthetic.isic_2017",
    "isic_2019": "kaggle_pipeline.synthetic.isic_2019",
    "ham10000": "kaggle_pipeline.synthetic.ham10000",
    "table": "kaggle_pipeline.synthetic.table",
}
"""Data set to the module whose ``generate_images`` draws it, with the parameters of
:func:`generate_like` below."""


def generate_like(
    dataset_id: str,
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write made-up data that the ``read_raw`` of a data set reads.

    Parameters
    ----------
    dataset_id : str
        A key of `MADE_UP`.
    out_dir : pathlib.Path
        Gets ``competition/`` and, where the real set hides labels, ``truth.csv``; must not hold a
        finished data set yet.
    images : int
        Number of photos; for ``siim_isic_2020``, where patients are drawn, only about that many.
    image_size_px : int
        Side of the square photos; for ``ham10000``, whose photos are 4:3, their height.
    seed : int
        Same seed, same bytes.
    workers : int, optional
        Processes that draw; one a core by default.
    progress : callable
        Given the number of images drawn since the last call.

    Raises
    ------
    PipelineError
        If there is no such data set, the folder holds one already, or a number is too small.
    """
    if dataset_id not in MADE_UP:
        hint = nearest(dataset_id, list(MADE_UP))
        raise PipelineError(f"nothing is drawn like {dataset_id!r}{hint}")
    import_module(MADE_UP[dataset_id]).generate_images(
        out_dir,
        images=images,
        image_size_px=image_size_px,
        seed=seed,
        workers=workers,
        progress=progress,
    )
