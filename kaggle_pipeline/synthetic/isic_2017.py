"""A made-up ISIC 2017 challenge, part 3, in that challenge's own layout.

In: a folder, the number of images, an image size and a seed. Out: ``competition/`` with the three
image folders, metadata and ground truth, and ``truth.csv`` with the test labels in the ground
truth's columns, kept apart so that a pipeline that is given ``competition/`` cannot see it.

- N. Codella et al. (2018). Skin lesion analysis toward melanoma detection. arXiv:1710.05006.
- The superpixel images beside some photos are those of part 2 of the challenge:
  https://challenge.isic-archive.com/landing/2017/43
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.core.files import atomic_path
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

LAST_TABLE = "ISIC-2017_Training_Part3_GroundTruth.csv"
LEAST_IMAGES = 60
# Share of all images, and the shares of moles, melanomas and seborrheic keratoses in them.
_SPLITS = {
    "Training": (0.73, {"nv": 0.69, "mel": 0.19, "bkl": 0.12}),
    "Validation": (0.10, {"nv": 0.52, "mel": 0.20, "bkl": 0.28}),
    "Test_v2": (0.17, {"nv": 0.65, "mel": 0.20, "bkl": 0.15}),
}
_LEAST_IMAGES_OF_A_CLASS = {"Training": 5, "Validation": 2, "Test_v2": 2}
_UNKNOWN = {"age_approximate": ("unknown", 0.12), "sex": ("unknown", 0.11)}
_METADATA = ["image_id", "age_approximate", "sex"]
_GROUND_TRUTH = ["image_id", "melanoma", "seborrheic_keratosis"]
_SUPERPIXELS_EVERY = 5
_TILES = 8  # along a side


def generate_images(
    out_dir: Path,
    *,
    images: int,
    image_size_px: int,
    seed: int,
    workers: int | None = None,
    progress: Advance = ignore_progress,
) -> None:
    """Write a challenge and ``truth.csv``, as :func:`~kaggle_pipeline.synthetic.generate_like`.

    At least 60 photos, square, in all three folders together.
    """
    competition = Path(out_dir) / "competition"
    check_request(competition / LAST_TABLE, images, LEAST_IMAGES, image_size_px, seed)
    table, looks = describe(images, seed)
    drawings = [
        Drawing(
            path=competition / f"ISIC-2017_{row.split}_Data" / f"{row.image_id}.jpg",
            morphology=morphology,
            skin=skin,
            size_px=image_size_px,
            seed=(seed, row.Index),
        )
        for row, (morphology, skin) in zip(table.itertuples(), looks, strict=True)
    ]
    draw_all(drawings, workers, progress)
    for drawing in drawings[::_SUPERPIXELS_EVERY]:
        _write_superpixels(drawing.path, image_size_px)
    _write_tables(table, Path(out_dir))


def describe(images: int, seed: int) -> tuple[pd.DataFrame, list[tuple[Morphology, Skin]]]:
    """Return the table of all images, split by split, and what each shows.

    Parameters
    ----------
    images : int
        Number of rows.
    seed : int
        Source of all chance.
    """
    rng = np.random.default_rng([seed, 3])
    sizes = {split: round(share * images) for split, (share, _) in _SPLITS.items()}
    sizes["Training"] += images - sum(sizes.values())
    names = iter(unique_codes(rng, images, "ISIC_"))
    tables = []
    for split, (_, shares) in _SPLITS.items():
        found = counts(shares, sizes[split], _LEAST_IMAGES_OF_A_CLASS[split])
        rows = []
        for name in (name for name, count in found.items() for _ in range(count)):
            age, sex = draw_person(name, rng)
            rows.append((split, next(names), name, age, sex))
        table = pd.DataFrame(rows, columns=["split", "image_id", "diagnosis", *_METADATA[1:]])
        make_unknown(table, _UNKNOWN, rng)
        tables.append(table.sort_values("image_id"))
    table = pd.concat(tables, ignore_index=True)
    table["melanoma"] = (table["diagnosis"] == "mel").astype(float)
    table["seborrheic_keratosis"] = (table["diagnosis"] == "bkl").astype(float)
    return table, [(draw_looks(name, rng), draw_skin(rng)) for name in table["diagnosis"]]


def _write_superpixels(photo: Path, size_px: int) -> None:
    """Write a label map of square tiles, its low byte in red, the next one in green."""
    tile = np.arange(size_px) * _TILES // size_px
    label = tile[:, None] * _TILES + tile[None, :]
    pixels = np.stack([label % 256, label // 256, np.zeros_like(label)], axis=-1).astype(np.uint8)
    with atomic_path(photo.with_name(f"{photo.stem}_superpixels.png")) as temporary:
        Image.fromarray(pixels).save(temporary)


def _write_tables(table: pd.DataFrame, out_dir: Path) -> None:
    competition = out_dir / "competition"
    tables = {}
    for split in reversed(_SPLITS):  # the training truth last: it says that all is there
        rows, name = table[table["split"] == split], f"ISIC-2017_{split}"
        truth = f"{name}_Part3_GroundTruth.csv"
        tables[competition / f"{name}_Data_metadata.csv"] = rows[_METADATA]
        hidden = split == "Test_v2"
        tables[out_dir / "truth.csv" if hidden else competition / truth] = rows[_GROUND_TRUTH]
    write_tables(tables)
