"""Arithmetic of an augmented image, one text for ``tf.data`` on the host and Keras on the device.

In: pixels and what was drawn for each image (``augment``), and ``xp``,
the namespace to compute in: :data:`KERAS`, or TensorFlow's twin of it, for Keras on JAX cannot run
inside ``tf.data``. Out: changed pixels. Nothing is drawn here, so the same draws give the same
images on either side.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

FILL = 128
"""Grey that coarse dropout paints."""

KERAS = SimpleNamespace(
    abs=ops.abs, arange=ops.arange, cast=ops.cast, clip=ops.clip, floor=ops.floor,
    logical_and=ops.logical_and, logical_or=ops.logical_or, minimum=ops.minimum, mod=ops.mod,
    reshape=ops.reshape, round=ops.round, stack=ops.stack, where=ops.where,
    take=lambda pixels, index: ops.take_along_axis(pixels, index[..., None], axis=1),
)  # fmt: skip
"""What the functions below need, for the backend that Keras runs on. ``take`` is, for each image,
rows ``index`` (batch, n) of ``pixels`` (batch, m, channels)."""


def change(images: Any, changes: Mapping[str, Any], xp: Any, dropout_size: float) -> Any:
    """Return changed images.

    Parameters
    ----------
    images : uint8 (batch, side, side, 3)
    changes : mapping
        Any of ``warp`` (batch, 6), ``colour`` (batch, 3, 4), ``boxes`` (batch, boxes, 2), as
        :func:`~kaggle_pipeline.models.image.input.augment.draw_augmentation` gives them.
    xp : namespace
    dropout_size : float
        Side of a box as a share of the image's.

    Returns
    -------
    uint8 of the same shape
    """
    drawn = changes.get("warp")
    pixels = xp.cast(images, "float32") if drawn is None else warp(images, drawn, xp)
    return finish(pixels, changes, xp, dropout_size)


def warp(images: Any, maps: Any, xp: Any) -> Any:
    """Return float32 images, each resampled once, bilinearly, the outside mirrored.

    As TensorFlow's ``ImageProjectiveTransformV3`` with ``BILINEAR`` and ``REFLECT``, but in steps
    that XLA fuses into one loop: on a CPU in a fifth of that kernel's time, as fast as OpenCV.

    Parameters
    ----------
    images : uint8 (batch, side, side, 3)
    maps : float32 (batch, 6)
        Of output (x, y, 1) to input x, then to input y.
    xp : namespace
    """
    side = images.shape[1]
    along = xp.cast(xp.arange(side), "float32")
    x, y = along[None, None, :], along[None, :, None]
    parts = [maps[:, i][:, None, None] for i in range(6)]
    column = _mirrored(parts[0] * x + parts[1] * y + parts[2], side, xp)
    row = _mirrored(parts[3] * x + parts[4] * y + parts[5], side, xp)
    left, top = xp.floor(column), xp.floor(row)
    to_right, down = (column - left)[..., None], (row - top)[..., None]
    left, top = xp.cast(left, "int32"), xp.cast(top, "int32")
    right, bottom = xp.minimum(left + 1, side - 1), xp.minimum(top + 1, side - 1)
    flat = xp.reshape(images, (-1, side * side, 3))

    def at(rows: Any, columns: Any) -> Any:
        index = xp.reshape(rows * side + columns, (-1, side * side))
        taken = xp.reshape(xp.take(flat, index), (-1, side, side, 3))
        return xp.cast(taken, "float32")

    above = at(top, left) * (1 - to_right) + at(top, right) * to_right
    below = at(bottom, left) * (1 - to_right) + at(bottom, right) * to_right
    return above * (1 - down) + below * down


def _mirrored(place: Any, side: int, xp: Any) -> Any:
    """Return where a place outside of [0, side - 1] lies in the image mirrored at its edges."""
    within = xp.mod(place, 2.0 * side)
    return xp.clip(xp.where(within < side, within, 2.0 * side - 1 - within), 0.0, side - 1.0)


def finish(pixels: Any, changes: Mapping[str, Any], xp: Any, dropout_size: float) -> Any:
    """Return float32 pixels recoloured, with boxes painted in, as uint8."""
    if "colour" in changes:
        pixels = _recolour(pixels, changes["colour"], xp)
    if "boxes" in changes:
        pixels = _paint(pixels, changes["boxes"], xp, dropout_size)
    return xp.cast(xp.round(xp.clip(pixels, 0.0, 255.0)), "uint8")


def _recolour(pixels: Any, colour: Any, xp: Any) -> Any:
    # Written out: a product with a 3 × 3 matrix costs more than it computes.
    weights = colour[:, None, None]
    channels = []
    for i in range(3):
        mixed = sum(pixels[..., j] * weights[..., i, j] for j in range(3))
        channels.append(mixed + weights[..., i, 3])
    return xp.stack(channels, -1)


def _paint(pixels: Any, boxes: Any, xp: Any, dropout_size: float) -> Any:
    side = pixels.shape[1]
    along, reach = xp.cast(xp.arange(side), "float32"), side * dropout_size / 2
    inside = None
    for i in range(boxes.shape[1]):
        high = xp.abs(along - boxes[:, i, 0, None]) < reach
        wide = xp.abs(along - boxes[:, i, 1, None]) < reach
        box = xp.logical_and(high[:, :, None], wide[:, None, :])
        inside = box if inside is None else xp.logical_or(inside, box)
    return xp.where(inside[..., None], float(FILL), pixels)


class AugmentLayer(keras.layers.Layer):
    """Changes a batch on the device: ``{"image": uint8 images, ...changes}`` → uint8 images."""

    def __init__(self, dropout_size: float, **options: Any) -> None:
        super().__init__(trainable=False, **options)
        self._dropout_size = dropout_size

    def call(self, batch: Mapping[str, Any]) -> Any:
        """Return the changed images."""
        changes = {key: value for key, value in batch.items() if key != "image"}
        return change(batch["image"], changes, KERAS, self._dropout_size)

    def compute_output_spec(self, batch: Mapping[str, Any]) -> keras.KerasTensor:
        """Return shape and dtype of the images."""
        return keras.KerasTensor(batch["image"].shape, dtype="uint8")


def with_augmentation(network: keras.Model, dropout_size: float, kinds: Mapping[str, Any]) -> Any:
    """Return a model of the same weights that changes its images first.

    Parameters
    ----------
    network : keras.Model
        From uint8 images.
    dropout_size : float
    kinds : mapping
        Shape for one image of every change, as ``change_shapes``
        gives them.

    Returns
    -------
    keras.Model
        ``{"image": ..., **changes}`` → what ``network`` answers to the changed images.
    """
    batch = {"image": keras.Input(network.input_shape[1:], dtype="uint8", name="image")}
    batch |= {name: keras.Input(shape, name=name) for name, shape in kinds.items()}
    changed = AugmentLayer(dropout_size, name="changer", dtype="float32")(batch)
    return keras.Model(batch, network(changed), name="changed")
