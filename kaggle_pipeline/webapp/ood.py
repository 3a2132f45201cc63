"""What lowers trust in a reading: a photo that is small, blurred, or not like the training images.

In: squares as the network sees them and their embeddings. Out: sentences; and, from training images
that a fold's model did not learn from, the :class:`OodReference` they are measured against.

Likeness is the distance to the nearest training images in the network's features (Sun et al. 2022,
arXiv:2204.06507), once as it is, each channel in units of its spread, and once of the direction
alone: what is dark, bright or noisy is far away, writing and patterns lie elsewhere. Each distance
is ranked among those of further training images, of other patients, which had no part in it: as
conformal prediction has it (Vovk et al. 2005, doi:10.1007/b106715), a photo that is like them gets
any rank as likely as any other. Sharpness is the variance of the Laplacian (Pech-Pacheco et al.
2000, doi:10.1109/ICPR.2000.903548) over that of the photo, so that contrast alone changes nothing.
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.ndimage import laplace
from scipy.spatial.distance import cdist

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.record import read_checked

_NEIGHBOURS = 5
LEAST_REFERENCE = 40
"""Further images of a fold: of fewer, no rank can tell one in twenty by two distances."""
UNLIKE = 0.95
"""A photo is called unlike the training images from this unlikeness on: so is one in twenty of
them."""
_BLURRED = 0.01
"""And blurred below this share of their sharpness."""


def sharpness(square: np.ndarray) -> float:
    """Return the variance of the Laplacian over the variance of the grey photo (side, side, 3)."""
    grey = square.astype(float) @ (0.299, 0.587, 0.114)
    # One grey level squared: a photo of one colour is not sharp.
    return float(laplace(grey, mode="nearest").var() / (grey.var() + 1.0))


@dataclass(frozen=True)
class OodReference:
    """Training images that a photo is measured against.

    Attributes
    ----------
    known : mapping of int to numpy.ndarray of shape (n, channels)
        Embeddings by fold, of images that its model did not learn from: what is near is near these.
    held_out : mapping of int to numpy.ndarray of shape (m, channels)
        Of further such images, of other patients or lesions: what their distances are like.
    sharpness : numpy.ndarray of shape (images,)
        Sorted, of all of them; empty where only their embeddings are here.
    """

    known: Mapping[int, np.ndarray]
    held_out: Mapping[int, np.ndarray]
    sharpness: np.ndarray

    def __post_init__(self) -> None:
        measures = {
            fold: _measures(known)
            for fold, known in self.known.items()
            if len(known) and len(self.held_out[fold]) >= LEAST_REFERENCE
            and np.isfinite(known).all() and np.isfinite(self.held_out[fold]).all()
        }  # fmt: skip
        usual = {
            fold: [np.sort(measure(self.held_out[fold])) for measure in found]
            for fold, found in measures.items()
        }
        object.__setattr__(self, "_measures", measures)
        object.__setattr__(self, "_usual", usual)

    @property
    def size(self) -> int:
        """Number of training images."""
        counts = [len(one) for both in (self.known, self.held_out) for one in both.values()]
        return max(len(self.sharpness), sum(counts))

    @property
    def few(self) -> str:
        """That there are too few images to say what is usual, with their number."""
        found = max((len(one) for one in self.held_out.values()), default=0)
        return (
            f"only {found} training photos are left to compare a new one with, and "
            f"{LEAST_REFERENCE} are needed"
        )

    @property
    def can_tell(self) -> bool:
        """Whether some fold has enough images to say what is usual."""
        return bool(self._measures)

    def unlikeness(self, embeddings: Mapping[int, np.ndarray]) -> float | None:
        """Return how unusual a photo is, 0 to 1: from u on lies about a share of 1 − u of them.

        The higher rank of the two distances counts, put right for there being two (Bonferroni).
        None where no fold has ``LEAST_REFERENCE`` images to rank among. What is no number ranks
        highest.

        Parameters
        ----------
        embeddings : mapping of int to numpy.ndarray of shape (channels,)
            By fold; the median over the folds counts.
        """
        found = []
        for fold, measures in self._measures.items():
            ranks = [
                np.searchsorted(usual, measure(embeddings[fold][None])[0]) / len(usual)
                for measure, usual in zip(measures, self._usual[fold], strict=True)
            ]
            found.append(max(0.0, 1 - 2 * (1 - max(ranks))))
        return float(np.median(found)) if found else None

    def blur(self, value: float) -> float:
        """Return the share of training images that are less sharp; 1 where that is not known."""
        if not len(self.sharpness):
            return 1.0
        return float(np.searchsorted(self.sharpness, value) / len(self.sharpness))

    def write(self, path: Path) -> None:
        """Write as ``.npz``, atomically."""
        arrays = {f"known{fold}": known for fold, known in self.known.items()}
        arrays |= {f"judged{fold}": held_out for fold, held_out in self.held_out.items()}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, sharpness=self.sharpness, **arrays)

    @classmethod
    def read(cls, path: Path) -> "OodReference":
        """Read what :meth:`write` wrote.

        Raises
        ------
        PipelineError
            If the file is damaged, or not what was written.
        """
        try:
            with np.load(io.BytesIO(read_checked(path)), allow_pickle=False) as stored:
                known, held_out = (
                    {int(name.removeprefix(part)): stored[name]
                     for name in stored.files if name.startswith(part)}
                    for part in ("known", "judged")
                )  # fmt: skip
                return cls(known, held_out, stored["sharpness"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise PipelineError(f"{path} is damaged ({error}): delete it") from None


def _measures(known: np.ndarray) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Distances (n,) of embeddings (n, channels) to the nearest of ``known``: plain, direction."""
    spread = known.std(axis=0)
    # A channel that hardly moves would make any photo a stranger.
    spread = np.maximum(spread, 0.1 * spread.mean() + 1e-12)

    def scaled(x: np.ndarray) -> np.ndarray:
        return x / spread

    def direction(x: np.ndarray) -> np.ndarray:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def distance(view: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        seen, count = view(known), min(_NEIGHBOURS, len(known))

        def measure(x: np.ndarray) -> np.ndarray:
            apart = cdist(view(x), seen)
            return np.partition(apart, count - 1, axis=1)[:, :count].mean(axis=1)

        return measure

    return [distance(scaled), distance(direction)]


def doubts(
    size_px: Sequence[int],
    side_px: int,
    square: np.ndarray,
    unlikeness: float | None,
    reference: OodReference | None,
) -> list[str]:
    """Return what lowers trust in a reading, a sentence each; none where nothing does.

    Parameters
    ----------
    size_px : (int, int)
        Of the photo as it came.
    side_px : int
        Of the detail that the network learned from: its input's, or its records' if they are
        smaller.
    square : numpy.ndarray of shape (side, side, 3), uint8
    unlikeness : float or None
        As :meth:`OodReference.unlikeness` says.
    reference : OodReference or None
        None where the training images are not at hand.
    """
    found = []
    width, height = size_px
    if min(width, height) < side_px:
        found.append(
            f"The photo is small: {width} × {height} pixels. The model learned from "
            f"photos with {side_px} × {side_px} pixels, so details are missing."
        )
    if reference is None:
        return found
    if reference.blur(sharpness(square)) < _BLURRED:
        found.append(
            f"The photo looks blurred: it is less sharp than {100 * (1 - _BLURRED):.0f} % of the "
            "training photos. Take it again, in focus."
        )
    if unlikeness is not None and unlikeness >= UNLIKE:
        found.append(
            f"The photo is unlike the training photos: more unusual than {100 * UNLIKE:.0f} % of "
            "them. It may be of another kind (taken without a dermatoscope, say), or show what the "
            "model has never seen. So a probability would mean little. About 1 in 20 "
            "ordinary photos gets this warning too."
        )
    return found
