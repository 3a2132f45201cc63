"""What an encoder is: photos in, vectors out.

In: photos. Out: vectors of their views; ``registry.py`` opens encoders by name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from kaggle_pipeline.core.errors import PipelineError


@dataclass(frozen=True)
class Encoder:
    """A network without its last layer, with the preprocessing that it was trained with.

    Attributes
    ----------
    prepare : callable
        Upright RGB photo of any size → what the network takes of it, (side, side, 3).
    run : callable
        (n, side, side, 3) → float32 (n, width).
    views : sequence of (int, bool)
        Quarter turns of each view, and whether it is mirrored before.
    about : dict
        What ``encoder.json`` says: ``library``, ``weights_sha256``, ``preprocessing``,
        ``image_size_px``; plain JSON types.
    """

    prepare: Callable[[Image.Image], np.ndarray]
    run: Callable[[np.ndarray], np.ndarray]
    views: tuple[tuple[int, bool], ...]
    about: dict[str, Any]

    def encode(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        """Return float32 (n, views, width) of photos that ``prepare`` has seen.

        Raises
        ------
        PipelineError
            If a vector has a number that is none.
        """
        batch = np.stack(list(prepared))
        found = []
        for turns, mirror in self.views:
            seen = batch[:, :, ::-1] if mirror else batch
            found.append(self.run(np.ascontiguousarray(np.rot90(seen, turns, axes=(1, 2)))))
        vectors = np.stack(found, axis=1).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise PipelineError(f"{self.about['library']}: a vector holds NaN: are these weights?")
        return vectors


VIEWS = {
    "none": ((0, False),),
    "flips": tuple((turns, mirror) for turns in (0, 2) for mirror in (False, True)),
    "dihedral": tuple((turns, mirror) for mirror in (False, True) for turns in range(4)),
}
"""Quarter turns and mirroring of each view, in the order of the image model's."""
