"""What lowers trust in a reading: a photo that is small, blurred, or not like the training images.

In: squares as the network sees them and their embeddings. Out: sentences; and, from training images
that a fold's model did not learn from, the :class:`Reference` they are measured against.

Likeness is the distance to the nearest training images in the network's features (Sun et al. 2022,
arXiv:2204.06507), each channel in units of its own spread, ranked among the distances that those
images have among themselves. Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000,
doi:10.1109/ICPR.2000.903548) over that of the photo, so that contrast alone changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import laplace
from scipy.spatial.distance import cdist

from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.rundir import atomic_path

_NEIGHBOURS = 5
UNLIKE = 0.99
"""A photo is unlike them beyond this share of the training images' own distances."""
_BLURRED = 0.01
"""And blurred below this share of their sharpness."""


def sharpness(square: np.ndarray) -> float:
    """Return the variance of the Laplacian over the variance of the grey photo (side, side, 3)."""
    grey = square.astype(float) @ (0.299, 0.587, 0.114)
    # One grey level squared: a photo of one colour is not sharp.
    return float(laplace(grey, mode="nearest").var() / (grey.var() + 1.0))


@dataclass(frozen=True)
class Reference:
    """Training images that a photo is measured against.

    Attributes
    ----------
    embeddings : mapping of int to numpy.ndarray of shape (n, channels)
        By fold: of images that its model did not learn from.
    sharpness : numpy.ndarray of shape (n,)
        Sorted, of all of them.
    """

    embeddings: Mapping[int, np.ndarray]
    sharpness: np.ndarray

    def __post_init__(self) -> None:
        scales, own = {}, {}
        for fold, known in self.embeddings.items():
            spread = known.std(axis=0)
            # A channel that hardly moves would make any photo a stranger.
            scales[fold] = np.maximum(spread, 0.1 * spread.mean() + 1e-12)
            apart = cdist(known / scales[fold], known / scales[fold])
            np.fill_diagonal(apart, np.inf)
            own[fold] = np.sort(_nearest(apart))
        object.__setattr__(self, "_scales", scales)
        object.__setattr__(self, "_own", own)

    @property
    def size(self) -> int:
        """Number of training images."""
        return len(self.sharpness)

    def unlikeness(self, embeddings: Mapping[int, np.ndarray]) -> float:
        """Return the share of training images that are nearer to others than this photo, 0 to 1.

        Parameters
        ----------
        embeddings : mapping of int to numpy.ndarray of shape (channels,)
            By fold; the median over the folds counts.
        """
        ranks = []
        for fold, known in self.embeddings.items():
            scale, own = self._scales[fold], self._own[fold]
            distance = _nearest(cdist((embeddings[fold] / scale)[None], known / scale))[0]
            ranks.append(np.searchsorted(own, distance) / len(own))
        return float(np.median(ranks))

    def blur(self, value: float) -> float:
        """Return the share of training images that are less sharp than ``value``."""
        return float(np.searchsorted(self.sharpness, value) / len(self.sharpness))

    def write(self, path: Path) -> None:
        """Write as ``.npz``, atomically."""
        arrays = {f"fold{fold}": known for fold, known in self.embeddings.items()}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, sharpness=self.sharpness, **arrays)

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Read what :meth:`write` wrote.

        Raises
        ------
        PipelineError
            If the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                known = {int(name[4:]): stored[name] for name in stored.files if name[:4] == "fold"}
                return cls(known, stored["sharpness"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise PipelineError(f"{path} is damaged ({error}): delete it") from None


def _nearest(distances: np.ndarray) -> np.ndarray:
    """Mean distance (rows,) to the nearest few."""
    count = min(_NEIGHBOURS, distances.shape[1] - 1) or 1
    return np.partition(distances, count - 1, axis=1)[:, :count].mean(axis=1)


def doubts(
    size_px: Sequence[int],
    side_px: int,
    square: np.ndarray,
    unlikeness: float | None,
    reference: Reference | None,
) -> list[str]:
    """Return what lowers trust in a reading, a sentence each; none where nothing does.

    Parameters
    ----------
    size_px : (int, int)
        Of the photo as it came.
    side_px : int
        Of what the network sees.
    square : numpy.ndarray of shape (side, side, 3), uint8
    unlikeness : float or None
        As :meth:`Reference.unlikeness` says.
    reference : Reference or None
        None where the training images are not at hand.
    """
    found = []
    width, height = size_px
    if min(width, height) < side_px:
        found.append(
            f"The photo is small: it has {width} × {height} pixels, and the network was trained on "
            f"squares of {side_px} × {side_px}. Details are missing."
        )
    if reference is None:
        return found
    if reference.blur(sharpness(square)) < _BLURRED:
        found.append(
            "The photo looks blurred: hardly any training photo is less sharp. Take it again, in "
            "focus."
        )
    if unlikeness is not None and unlikeness >= UNLIKE:
        found.append(
            "This does not look like a dermoscopic image: it is further from the training photos "
            f"than {UNLIKE:.0%} of them are from each other. The probability means little here."
        )
    return found
