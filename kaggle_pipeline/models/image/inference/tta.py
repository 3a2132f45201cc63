"""Views of an image that a prediction averages: turned, mirrored, cut.

In: a network. Out: the same one over the views of its input, by row number. Each image is decoded
once and turned on the device.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kaggle_pipeline.config.image import ImageConfig

_SEED = 20200817
"""Of the random views: the same for every run, so that models can be compared."""
_LEAST_SIDE = 0.8
"""A random view keeps at least this share of each side."""


@dataclass(frozen=True)
class View:
    """Quarter turns, whether to mirror, and the square (shares of the side) to cut out and fill."""

    turns: int = 0
    mirror: bool = False
    top: float = 0.0
    left: float = 0.0
    side: float = 1.0

    def __call__(self, image: Any) -> Any:
        """Return the view of uint8 images (batch, side, side, 3), in the same shape."""
        if self.side < 1:
            image = self._cut(image)
        if self.mirror:
            image = ops.flip(image, axis=2)
        return ops.rot90(image, k=self.turns, axes=(1, 2)) if self.turns else image

    def _cut(self, image: Any) -> Any:
        full = image.shape[1]
        side = max(1, round(self.side * full))
        top, left = (min(round(share * full), full - side) for share in (self.top, self.left))
        # A cut and a resize: TPUs have no kernel for the warp of Keras' random layers.
        square = ops.cast(image[:, top : top + side, left : left + side], "float32")
        resized = ops.image.resize(square, (full, full), data_format="channels_last")
        return ops.cast(ops.clip(ops.round(resized), 0, 255), "uint8")


VIEWS = {
    "none": [View()],
    "flips": [View(turns, mirror) for turns in (0, 2) for mirror in (False, True)],
    "dihedral": [View(turns, mirror) for mirror in (False, True) for turns in range(4)],
}
"""The views of each fixed kind of test-time augmentation."""


def views_of(config: ImageConfig) -> list[View]:
    """Return the views that a configuration's predictions average."""
    if config.tta == "random":
        return random_views(config.tta_views)
    return VIEWS[config.tta]


def random_views(count: int) -> list[View]:
    """Return the image as it is and ``count`` - 1 others: zoomed in, shifted, turned, mirrored.

    Drawn one after the other from a fixed seed: the first views of many are those of few.
    """
    rng = np.random.default_rng(_SEED)
    views = [View()]
    while len(views) < count:
        side = rng.uniform(_LEAST_SIDE, 1)
        top, left = rng.uniform(0, 1 - side, 2)
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        views.append(View(turns, mirror, float(top), float(left), float(side)))
    return views


def with_views(network: keras.Model, views: list[View]) -> keras.Model:
    """Return a model that averages ``network`` over the views of its input, by row number.

    The views are one batch, so that the network is traced and compiled once, and memory does not
    depend on which of them is at work when. Those of a photo stay together: where a batch is dealt
    out over devices, no view moves.

    Parameters
    ----------
    network : keras.Model
        Of an image, or of an image and metadata, which is the same for all views.
    views : list of View

    Returns
    -------
    keras.Model
        ``{"image": (batch, side, side, 3), "row": (batch,)}``, and ``metadata`` where the network
        takes it → ``{"probability": (batch, classes), "row": (batch,)}``; the row numbers come out
        beside the probabilities so that no order has to be trusted.
    """
    return _over_views(network, views, "probability", lambda x: ops.mean(x, 1))


def stacked_views(body: keras.Model, views: list[View]) -> keras.Model:
    """Return a model like :func:`with_views` that keeps the answers apart.

    Its output ``features`` has shape (batch, views, channels).
    """
    return _over_views(body, views, "features", lambda x: ops.add(x, 0))


def _over_views(network: keras.Model, views: list[View], key: str, combine: Any) -> keras.Model:
    inputs = {
        old.name: keras.Input(old.shape[1:], dtype=old.dtype, name=old.name)
        for old in network.inputs
    }
    row = keras.Input((), dtype="int32", name="row")
    count, pixels = len(views), inputs["image"]
    seen = ops.stack([view(pixels) for view in views], axis=1)
    seen = ops.reshape(seen, (-1, *pixels.shape[1:]))
    others = {
        name: ops.repeat(one, count, axis=0) for name, one in inputs.items() if name != "image"
    }
    answers = network({"image": seen, **others} if others else seen)
    answers = ops.reshape(answers, (-1, count, *answers.shape[1:]))
    outputs = {key: combine(answers), "row": ops.add(row, 0)}
    return keras.Model({**inputs, "row": row}, outputs)
