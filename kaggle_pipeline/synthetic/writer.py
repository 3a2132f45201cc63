"""Drawing many lesions into a made-up data set's folder, and what else all such sets share.

In: one `Drawing` an image, or tables. Out: image files and CSV files, each whole or not there.
What a lesion looks like is decided in ``lesion_painter``; which ones there are, in each data set's
module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.names import MADE_UP_MARK
from kaggle_pipeline.core.child_process import map_in_order
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.progress import Advance, Progress
from kaggle_pipeline.synthetic.lesion_painter import MIN_SIZE_PX, Morphology, Skin, draw_lesion

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Drawing:
    """One image to draw."""

    path: Path
    """A file name that ends in ``.jpg``; its folder is made when missing."""
    morphology: Morphology
    skin: Skin
    size_px: int
    """Side of the square, or width where ``height_px`` is given."""
    seed: tuple[int, ...]
    """Equal seeds are the same lesion, which other fields may show in another way."""
    quality: int = JPEG_QUALITY
    """Of the JPEG file, 1 to 95."""
    height_px: int | None = None
    """Rows kept in the middle of the square, all by default."""
    quarter_turns: int = 0
    """How far the camera is turned, in steps of 90 degrees."""


def draw_all(drawings: Sequence[Drawing], workers: int | None, progress: Advance) -> None:
    """Draw every image and write it as JPEG.

    Parameters
    ----------
    drawings : sequence of Drawing
    workers : int or None
        Processes that draw; None is one a core. The files do not depend on it.
    progress : callable
        Told the number of images drawn since the last call.
    """
    if isinstance(progress, Progress):  # how many photos the patients have was a draw, too
        progress.expect(len(drawings))
    remedy = "free some memory and run the same command again"
    for _ in map_in_order(_draw, drawings, workers, what="drawing", remedy=remedy):
        progress(1)


def _draw(drawing: Drawing) -> None:
    rng = np.random.default_rng([*drawing.seed, 1])
    image, _ = draw_lesion(drawing.morphology, drawing.skin, drawing.size_px, rng)
    image = np.rot90(image, drawing.quarter_turns)
    if drawing.height_px is not None:
        top = (drawing.size_px - drawing.height_px) // 2
        image = image[top : top + drawing.height_px]
    with atomic_path(drawing.path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, quality=drawing.quality)


def refuse_existing(last_table: Path) -> None:
    """Refuse a folder that holds a finished data set; one that was broken off is drawn anew.

    Parameters
    ----------
    last_table : pathlib.Path
        The table that is written last, in the folder ``competition``.

    Raises
    ------
    PipelineError
        If it exists.
    """
    if last_table.exists():
        raise PipelineError(
            f"{last_table.parent} exists already: delete it or choose another --out"
        )


def check_least(least: Mapping[str, tuple[float, float]]) -> None:
    """Check options of the command line against the least value that each may have.

    Parameters
    ----------
    least : mapping
        Option, without its dashes, to its value and the least one.

    Raises
    ------
    PipelineError
        Names the first option whose value is too small.
    """
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise PipelineError(f"--{name} {value}: at least {lowest} is needed")


def check_request(
    last_table: Path, images: int, least_images: int, image_size_px: int, seed: int
) -> None:
    """Check what is asked of a set whose size is its number of images.

    Raises
    ------
    PipelineError
        If the set is there already, or a number is too small.
    """
    refuse_existing(last_table)
    check_least(
        {
            "images": (images, least_images),
            "image-size-px": (image_size_px, MIN_SIZE_PX),
            "seed": (seed, 0),
        }
    )


def unique_codes(rng: np.random.Generator, count: int, prefix: str) -> list[str]:
    """Return ``count`` different names of a prefix and seven digits, in chance order."""
    return [f"{prefix}{code:07d}" for code in rng.choice(10_000_000, count, replace=False)]


def write_tables(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Write CSV files in the order given; the last one says that all is there.

    Beside that one a line says that the photos are made up, so that a model of them says so too.
    """
    with atomic_path(list(tables)[-1].parent / MADE_UP_MARK) as temporary:
        temporary.write_text("Drawn by make_synthetic: no photo here shows skin.\n")
    for path, table in tables.items():
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False)
