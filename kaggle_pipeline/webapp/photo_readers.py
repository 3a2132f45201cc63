"""What networks and heads have in common for the page: what is seen in a photo, what is made of it.

A reader looks at one photo at a time, which is costly; a part of the blend then answers for all of
a patient's photos, with what is known of the patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from kaggle_pipeline.models.embedding.nearest import Near


@dataclass(frozen=True)
class PhotoLook:
    """What a run's readers see in one photo.

    Attributes
    ----------
    embeddings : tuple of numpy.ndarray, float32
        By ``PhotoReader.embedding_folds``: pooled features, those of all of a fold's networks
        one after the other; without networks the encoders' vector.
    scores : numpy.ndarray of shape (folds, classes), float64, or None
        Of the networks, which see the photo alone.
    heat : numpy.ndarray of shape (classes, h, w), float32, or None
        Grad-CAM, mean over the folds; each fold's and class's greatest value is 1 before.
        Of several seeds it is the mean too, made alike. None without networks.
    vectors : dict of str to numpy.ndarray of shape (views, width), float32
        By encoder; the heads answer from them.
    nearest : tuple of Near
        The nearest training photos, by the encoders.
    """

    embeddings: tuple[np.ndarray, ...]
    scores: np.ndarray | None = None
    heat: np.ndarray | None = None
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    nearest: tuple[Near, ...] = ()


class BlendPart(Protocol):
    """One model of a run's blend, all its folds.

    Attributes
    ----------
    features : sequence of str
        Metadata that it reads.
    uses_context : bool
        Whether it compares a photo, or what is known of it, with the patient's others.
    """

    features: Sequence[str]
    uses_context: bool

    def predict(self, looks: Sequence[PhotoLook], rows: pd.DataFrame) -> np.ndarray:
        """Return probabilities (folds, n, classes) for one patient's photos.

        Parameters
        ----------
        looks : sequence of PhotoLook
        rows : pandas.DataFrame
            A row a photo: ``group_id``, the same in all, and every feature, NaN where unknown.
        """


class PhotoReader(BlendPart, Protocol):
    """What sees a run's photos: its networks, or encoders with heads where it has none.

    Attributes
    ----------
    side_px : int
        Side of the square that it sees, of several the largest.
    described : str
        What it is, for a person.
    embedding_folds : tuple of int
        What the embeddings of a photo are of: each fold; 0 alone where a frozen encoder makes one
        for all.
    external : tuple of str
        Further collections that it learned from.
    """

    side_px: int
    described: str
    embedding_folds: tuple[int, ...]
    external: tuple[str, ...]

    def decode(self, jpeg: bytes) -> np.ndarray:
        """Return what it sees of a record's JPEG, uint8 (side, side, 3)."""

    def look(self, square: np.ndarray, jpeg: bytes) -> PhotoLook:
        """Look at a photo: ``square`` is :meth:`decode` of ``jpeg``."""
