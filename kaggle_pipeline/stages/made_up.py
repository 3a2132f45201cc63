"""Made-up photos that a run keeps with its models' answers, so that others can ask them again.

In: a stage's folder. Out: ``made_up/*.png`` and ``made_up.json`` in it, ``made_up.csv`` in each
fold's folder.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.photo_folder import list_photos
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.stages.photo_records import convert_photos, photo_examples
from kaggle_pipeline.synthetic.lesion_painter import draw_lesion
from kaggle_pipeline.synthetic.looks import LOOKS, draw_looks, draw_skin

FOLDER = "made_up"
"""In a stage's folder: the photos."""
PRECISION = f"{FOLDER}.json"
"""Beside it: the numbers in which the models computed their answers."""
_COUNT = 4
_LARGEST_PX = 256
_SEED = 20200817


@dataclass(frozen=True)
class MadeUp:
    """Photos of no data set, in records as ``predict`` would make them.

    Attributes
    ----------
    examples : pandas.DataFrame
        By image id, of the split ``test``, without any metadata.
    photos : pathlib.Path
        The folder of the photos themselves.
    index : pandas.DataFrame or None
        Where their records are, as ``read_index`` tells it.
    precision : str
        Keras' name of the numbers in which the models answer, such as ``mixed_bfloat16``.
    """

    examples: pd.DataFrame
    photos: Path
    index: pd.DataFrame | None = None
    precision: str = "float32"

    @classmethod
    def of(cls, photos: Path, spec: DatasetSpec) -> "MadeUp":
        """Return the photos of a folder."""
        return cls(blank_metadata(photo_examples(list_photos(photos)), spec), photos)

    def keep(self, folder: Path) -> None:
        """Copy the photos into a stage's folder, all or none; those that are there stay.

        Folds are trained beside each other: where they compute in different numbers, the shorter
        ones are written down.
        """
        place = folder / FOLDER
        here, known = place.is_dir(), precision_of(folder)
        if (known is None and not here) or (known == "float32" != self.precision):
            write_json(folder / PRECISION, {"precision": self.precision})
        if here:
            return
        with TemporaryDirectory(dir=folder, prefix=".") as beside:
            whole = Path(beside) / FOLDER
            shutil.copytree(self.photos, whole)
            try:
                whole.rename(place)
            except OSError:
                if not place.is_dir():  # else a process beside this one was first
                    raise


def precision_of(stage: Path) -> str | None:
    """Return Keras' name of the numbers that a stage's models answered in, None if unknown."""
    path = Path(stage) / PRECISION
    return read_json(path)["precision"] if path.exists() else None


def draw_photos(folder: Path, side_px: int, count: int = _COUNT) -> None:
    """Write made-up lesions as PNG, the same ones every time."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(_SEED)
    kinds = sorted(LOOKS)
    for number in range(count):
        looks, skin = draw_looks(kinds[number % len(kinds)], rng), draw_skin(rng)
        pixels, _ = draw_lesion(looks, skin, side_px, rng)
        Image.fromarray(pixels).save(folder / f"drawn_{number:02d}.png")


@contextmanager
def made_up_photos(kept: Path, spec: DatasetSpec, recipe: RecordsConfig) -> Iterator[MadeUp]:
    """Yield the made-up photos of a stage, or of an encoder's folder; made where it has none.

    Parameters
    ----------
    kept : pathlib.Path
        That folder.
    spec : DatasetSpec
    recipe : RecordsConfig
        By which new photos become squares.
    """
    with TemporaryDirectory() as scratch:
        photos, records = Path(scratch) / "photos", Path(scratch) / "records"
        if (Path(kept) / FOLDER).is_dir():
            shutil.copytree(Path(kept) / FOLDER, photos)
        else:
            draw_photos(photos, min(recipe.image_size_px, _LARGEST_PX))
        found = MadeUp.of(photos, spec)
        alone = replace(recipe, workers=1)
        yield replace(found, index=convert_photos(found.examples, spec, photos, records, alone))
