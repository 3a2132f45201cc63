"""Vectors on disk: ``embeddings/<name>/`` with ``vectors.npy``, ``ids.csv`` and ``encoder.json``.

In: blocks of vectors, a TFRecord shard each. Out: one array by image id. A folder is whole once
``encoder.json`` is there; until then its blocks say what is done.
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, write_json
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.core.tables import read_table

FOLDER = "embeddings"
REMEDY = "run embed with --overwrite, which makes the vectors anew"
"""How vectors are made anew; ``--overwrite`` of a training is of its folds."""
_VECTORS, _IDS, _ABOUT = "vectors.npy", "ids.csv", "encoder.json"
_MADE_UP = "made_up.npz"


@dataclass(frozen=True)
class Vectors:
    """Vectors by image id.

    Attributes
    ----------
    ids : pandas.Index
    array : numpy.ndarray of shape (n, views, width), float16 or float32
    about : dict
        What ``encoder.json`` says.
    """

    ids: pd.Index
    array: np.ndarray
    about: dict[str, Any]

    def mean(self, ids: pd.Index, where: object) -> np.ndarray:
        """Return float32 (n, width) in the order of ``ids``: the mean over the views.

        Raises
        ------
        PipelineError
            If an id has no vector; ``where`` is named as their place.
        """
        rows = self.ids.get_indexer(ids)
        if (rows < 0).any():
            missing = ids[rows < 0]
            raise PipelineError(f"{where} has no vector of {missing[0]} ({len(missing)} missing)")
        return self.array.mean(axis=1, dtype=np.float32)[rows]


class VectorStore:
    """One encoder's folder.

    Parameters
    ----------
    folder : pathlib.Path
        ``embeddings/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def finished(self) -> bool:
        """Whether all vectors are there."""
        return (self.folder / _ABOUT).exists()

    @property
    def has_vectors(self) -> bool:
        """Whether the photos' vectors are there, not only what is known of the encoder."""
        return self.finished and (self.folder / _VECTORS).exists()

    def about(self) -> dict[str, Any]:
        """Return what ``encoder.json`` says."""
        return read_json(self.folder / _ABOUT)

    def drop(self) -> None:
        """Delete the folder, which holds nothing but this."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def require_same_weights(self, about: dict[str, Any]) -> None:
        """Stop where vectors or blocks of other weights are there."""
        path = self.folder / "blocks" / _ABOUT
        path = path if path.exists() else self.folder / _ABOUT
        if (
            path.exists()
            and (before := read_json(path))["weights_sha256"] != about["weights_sha256"]
        ):
            raise PipelineError(
                f"{self.folder} is of weights {before['weights_sha256']}, now they are "
                f"{about['weights_sha256']}: give the encoder another name, or {REMEDY}"
            )

    def has_block(self, name: str) -> bool:
        """Whether the vectors of a shard are there."""
        return (self.folder / "blocks" / f"{name}.npz").exists()

    def write_block(self, name: str, ids: pd.Index, array: np.ndarray, about: dict) -> None:
        """Write the vectors of a shard."""
        mark = self.folder / "blocks" / _ABOUT
        if not mark.exists():
            write_json(mark, about)
        with atomic_path(self.folder / "blocks" / f"{name}.npz") as temporary:
            np.savez(temporary, ids=ids.to_numpy(str), vectors=array)

    def write_made_up(self, ids: pd.Index, array: np.ndarray) -> None:
        """Write the vectors (n, views, width) of photos that belong to no data set."""
        with atomic_path(self.folder / _MADE_UP) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=ids.to_numpy(str), vectors=array)

    def made_up(self) -> Vectors | None:
        """Return the vectors of :meth:`write_made_up`, None where an earlier version kept none."""
        path = self.folder / _MADE_UP
        if not path.exists():
            return None
        require_written(path)
        with np.load(path, allow_pickle=False) as found:
            return Vectors(pd.Index(found["ids"].astype(object)), found["vectors"], self.about())

    def join_blocks(self, names: list[str], ids: pd.Index, about: dict) -> None:
        """Make one array of all blocks, in the order of ``ids``, and delete them.

        Raises
        ------
        PipelineError
            If a block is damaged or an id is in none.
        """
        known, parts = pd.Index([], dtype=object), []
        for name in names:
            path = self.folder / "blocks" / f"{name}.npz"
            try:
                with np.load(path, allow_pickle=False) as block:
                    known = known.append(pd.Index(block["ids"].astype(object)))
                    parts.append(block["vectors"])
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise PipelineError(f"{path} is damaged ({error}): delete it") from None
        rows = known.get_indexer(ids)
        if (rows < 0).any():
            raise PipelineError(f"{self.folder}: no record of {ids[rows < 0][0]} was read")
        self.write(ids, np.concatenate(parts)[rows], about)

    def write(self, ids: pd.Index, array: np.ndarray, about: dict[str, Any]) -> None:
        """Write all vectors (n, views, width); ``encoder.json`` comes last."""
        begin(self.folder, REMEDY)
        with atomic_path(self.folder / _VECTORS) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        with atomic_path(self.folder / _IDS) as temporary:
            pd.DataFrame({"image_id": ids}).to_csv(temporary, index=False)
        n, views, width = array.shape
        write_json(
            self.folder / _ABOUT,
            {
                **about,
                "images": n,
                "views_per_image": views,
                "width": width,
                "dtype": str(array.dtype),
            },
        )
        shutil.rmtree(self.folder / "blocks", ignore_errors=True)
        commit(self.folder)

    def read(self) -> Vectors:
        """Return all vectors.

        Raises
        ------
        PipelineError
            If a file is missing or damaged, or they do not fit together.
        """
        about, path = self.about(), self.folder / _VECTORS
        require_written(path)
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise PipelineError(f"{path} is damaged ({error}): {REMEDY}") from None
        table = read_table(self.folder / _IDS, ("image_id",), text=("image_id",))
        ids = pd.Index(table["image_id"].astype(object))
        wanted = (len(ids), about["views_per_image"], about["width"])
        if array.shape != wanted:
            raise PipelineError(f"{path} has the shape {array.shape}, expected {wanted}")
        return Vectors(ids, array, about)
