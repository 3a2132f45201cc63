"""What the head sees of an image: its vectors, side by side, and how odd they are for its patient.

In: vectors by encoder. Out: a matrix by image id.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError

_CONTEXT = "context"


@dataclass(frozen=True)
class VectorTable:
    """One matrix of all encoders.

    Attributes
    ----------
    ids : pandas.Index
    matrix : numpy.ndarray of shape (n, columns), float32
    parts : dict of str to int
        Columns of each encoder, by name, in their order; ``context`` comes last.
    """

    ids: pd.Index
    matrix: np.ndarray
    parts: dict[str, int]

    @classmethod
    def build(
        cls, ids: pd.Index, vectors: Mapping[str, np.ndarray], patient: pd.Series | None = None
    ) -> "VectorTable":
        """Set vectors side by side.

        Parameters
        ----------
        ids : pandas.Index
        vectors : mapping of str to numpy.ndarray of shape (n, width)
            By encoder, in the order of ``ids``.
        patient : pandas.Series, optional
            By image id: adds :func:`vector_context`.
        """
        columns = dict(vectors)
        if patient is not None:
            mine = patient.loc[ids].to_numpy()
            found = [vector_context(one, mine) for one in vectors.values()]
            columns[_CONTEXT] = np.hstack(found)
        parts = {name: array.shape[1] for name, array in columns.items()}
        return cls(ids, np.hstack(list(columns.values())).astype(np.float32), parts)

    def of_encoders(self) -> dict[str, np.ndarray]:
        """Return each encoder's vectors (n, width), without the context."""
        ends = np.cumsum(list(self.parts.values()))[:-1]
        parts = np.split(self.matrix, ends, axis=1)
        found = dict(zip(self.parts, parts, strict=True))
        return {name: one for name, one in found.items() if name != _CONTEXT}

    def lengths(self) -> dict[str, np.ndarray]:
        """Return the length of each encoder's vectors, (n,), by name; no copy of them is made."""
        squares = {
            name: np.einsum("ij,ij->i", one, one) for name, one in self.of_encoders().items()
        }
        return {name: np.maximum(np.sqrt(one), 1e-12) for name, one in squares.items()}

    def of(self, ids: pd.Index) -> np.ndarray:
        """Return the rows of ``ids``.

        Raises
        ------
        PipelineError
            If one is not there.
        """
        rows = self.ids.get_indexer(ids)
        if (rows < 0).any():
            raise PipelineError(f"no vector of image {ids[rows < 0][0]}")
        return self.matrix[rows]


def vector_context(vectors: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Return how far each vector is from the mean of its patient's others: the ugly duckling.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, width)
    patient : numpy.ndarray of shape (n,)

    Returns
    -------
    numpy.ndarray of shape (n, 3), float32
        Cosine distance from that mean (0 to 2; 0 where there is no other image); less the mean of
        the patient's distances; 1 where there is no other image.
    """
    codes, _ = pd.factorize(pd.Series(patient))
    counts = np.bincount(codes)[codes]
    total = np.zeros((codes.max() + 1, vectors.shape[1]))
    np.add.at(total, codes, vectors)
    others = total[codes] - vectors  # its direction is the mean's
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    cosine = (vectors * others).sum(axis=1) / np.maximum(lengths, 1e-12)
    alone = counts == 1
    distance = np.where(alone, 0.0, 1 - cosine)
    usual = (np.bincount(codes, distance) / np.bincount(codes))[codes]
    return np.stack([distance, distance - usual, alone], axis=1).astype(np.float32)
