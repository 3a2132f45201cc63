"""Fingerprints of photos, and which of them are equal or nearly so.

In: image files. Out: a table of hashes (``fingerprints.csv``), and pairs of image ids.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.core.child_process import map_in_order
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_kinds import kind_of_file
from kaggle_pipeline.core.photos import image_size_px, read_image
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.examples import PREPARE_ANEW

FILE = "fingerprints.csv"
"""What a run keeps of them, in ``prepare/``."""
_HASH_SIDE_PX = 128
"""Side at which photos are hashed: pHash itself works on 32 px."""


def fingerprint_images(
    paths: pd.Series,
    data_dir: Path,
    workers: int | None = None,
    faults: dict[str, str] | None = None,
) -> Iterator[tuple[str, str, str, int, int]]:
    """Yield what is needed to find equal and near-equal photos, in the order of ``paths``.

    Parameters
    ----------
    paths : pandas.Series
        Path relative to ``data_dir`` of each image id (the index).
    data_dir : pathlib.Path
    workers : int, optional
        Processes; one a core by default.
    faults : dict, optional
        Takes the id of each photo that cannot be read and why, in place of an error.

    Yields
    ------
    tuple
        ``image_id``, SHA-256 of the file (hex), 64-bit perceptual hash (hex; DCT hash of
        ImageHash; empty where that is not installed), width and height of the photo in px.

    Raises
    ------
    PipelineError
        If a file cannot be read as an image, without ``faults``; if a worker process is killed.
    """
    jobs = [str(Path(data_dir) / path) for path in paths]
    results = map_in_order(_fingerprint, jobs, workers, what="fingerprints of photos")
    for image_id, found in zip(paths.index, results, strict=True):
        if not isinstance(found, str):
            yield (image_id, *found)
        elif faults is None:
            raise PipelineError(found)
        else:
            faults[image_id] = found


def _fingerprint(path: str) -> tuple[str, str, int, int] | str:
    """What is told of a photo; why not, where it cannot be read."""
    try:
        image = read_image(Path(path), smallest_side_px=_HASH_SIDE_PX)
    except PipelineError as error:
        return str(error)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    is_dicom = kind_of_file(Path(path)) == "DICOM"  # which is always decoded at its full size
    size = image.size if is_dicom else image_size_px(Path(path))
    return digest, _perceptual_hash(image), *size


def _perceptual_hash(image: Image.Image) -> str:
    try:
        from imagehash import phash
    except ImportError:  # not on every Kaggle image; the report says so
        return ""
    return str(phash(image))


def fingerprint_table(rows: Sequence[tuple]) -> pd.DataFrame:
    """Return the rows of :func:`fingerprint_images` as a table indexed by ``image_id``."""
    columns = ["image_id", "sha256", "phash", "width_px", "height_px"]
    return pd.DataFrame(rows, columns=columns).set_index("image_id")


def read_digests(prepared: Path) -> pd.Series:
    """Return SHA-256 of photos' files by image id, of those that were read for duplicates.

    Empty where none were. ``prepared`` is the run's ``prepare/``.
    """
    path = Path(prepared) / FILE
    if not path.exists():
        return pd.Series(dtype=str)
    remedy = PREPARE_ANEW.format(folder=prepared)
    table = read_own(path, {"image_id": str, "sha256": str}, remedy=remedy)
    return table.set_index("image_id")["sha256"]


def equal_pairs(fingerprints: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of ids whose files are the same byte for byte (columns ``first, second``)."""
    rows = []
    for _, same in fingerprints.groupby("sha256", sort=False):
        ids = list(same.index)
        rows += [(ids[0], other) for other in ids[1:]]
    return _pairs(rows)


def near_pairs(fingerprints: pd.DataFrame, bits: int) -> pd.DataFrame:
    """Return pairs of ids whose perceptual hashes differ in at most ``bits`` of 64 bits.

    Every pair is compared, a block of rows at a time, so memory grows with n and not n².
    """
    codes = np.array([int(text, 16) for text in fingerprints["phash"]], np.uint64)
    ids = fingerprints.index.to_numpy()
    rows = []
    for start in range(0, len(codes), 256):
        block = codes[start : start + 256, None] ^ codes[None, start:]
        for i, j in np.argwhere(np.bitwise_count(block) <= bits):
            if j > i:
                rows.append((ids[start + i], ids[start + j]))
    return _pairs(rows)


def _pairs(rows: Sequence[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["first", "second"], dtype=object)


def known_pairs(
    examples: pd.DataFrame, official: pd.DataFrame | None, fingerprints: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the ids known to show the same photo: listed officially or equal in bytes.

    Chains count: where a is b and b is c, all three are one photo. Each photo's first image (in the
    examples' order) is paired once with each of its others; ids not in ``examples`` are left out.

    Returns
    -------
    pandas.DataFrame
        Columns ``first`` and ``second``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    parts = []
    if official is not None:
        parts.append(official.iloc[:, :2].set_axis(["first", "second"], axis=1).astype(object))
    if fingerprints is not None:
        parts.append(equal_pairs(fingerprints))
    pairs = pd.concat(parts, ignore_index=True) if parts else _pairs([])
    ids = examples.index
    here = pairs[pairs["first"].isin(ids) & pairs["second"].isin(ids)]
    one, other = (ids.get_indexer(here[name]) for name in ("first", "second"))
    links = coo_array((np.ones(len(here)), (one, other)), shape=(len(ids), len(ids)))
    _, photo = connected_components(links, directed=False)
    rows = pd.DataFrame({"photo": photo, "image_id": ids.to_numpy(object)})
    first = rows.groupby("photo")["image_id"].transform("first")
    repeated = rows["image_id"] != first
    found = pd.DataFrame({"first": first[repeated], "second": rows["image_id"][repeated]})
    return found.astype(object).reset_index(drop=True)
