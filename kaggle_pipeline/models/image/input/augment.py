"""Random changes of a batch of training images, each pixel resampled once.

In: uint8 images ``(batch, side, side, 3)`` and a seed. Out: the same shape and dtype. Flips, turns,
zoom, shear and shift are one affine map, and brightness, contrast, saturation and hue one 3 × 4
matrix, so a batch costs one interpolation and one matrix product however much is switched on;
a chain of single Keras layers would blur the image with each. All randomness comes from the seed,
so the same seed gives the same batch, eagerly, inside ``tf.data`` and after a resumed run.

What is drawn (:func:`draw_augmentation`) is a few numbers for each image. What is done with them
(``augment_ops``) may be left to the device.
"""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from kaggle_pipeline.config.image import AugmentConfig
from kaggle_pipeline.models.image.input.augment_ops import change, finish, warp

_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601 weights of red, green and blue."""
_HAIR_WIDTH = 1 / 300
"""Of a hair, as a share of the side: about what it is under a dermatoscope."""
_DARKEST = (60.0, 45.0, 35.0)
"""Of the brown that a hair's colour is drawn up to, in [0, 255]."""
_COMPILED_FROM_PX = 128
"""From this side on XLA's second of compilation pays within a few hundred images."""
_TENSORFLOW = SimpleNamespace(
    abs=tf.abs, arange=tf.range, cast=tf.cast, clip=tf.clip_by_value, floor=tf.floor,
    logical_and=tf.logical_and, logical_or=tf.logical_or, minimum=tf.minimum,
    mod=tf.math.floormod, reshape=tf.reshape, round=tf.round, stack=tf.stack, where=tf.where,
    take=lambda pixels, index: tf.gather(pixels, index, batch_dims=1),
)  # fmt: skip
"""What ``augment_ops`` computes with inside ``tf.data``."""


def augment_batch(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Return randomly changed images.

    Parameters
    ----------
    images : uint8 tensor of shape (batch, side, side, 3)
    seed : int tensor of shape (2,)
        Such as ``[run seed, step]``.
    config : AugmentConfig

    Returns
    -------
    uint8 tensor of the same shape
    """
    changes = draw_augmentation(tf.shape(images)[0], images.shape[1], seed, config)
    if images.shape[1] >= _COMPILED_FROM_PX:
        # Two functions, for XLA would compute the warp of a pixel again for each of its colours.
        pixels = _compiled_warp(images, changes.pop("warp")) if "warp" in changes else images
        changed = _compiled_finish(pixels, changes, config.dropout_size)
    elif "warp" in changes:
        pixels = _plain_warp(images, changes.pop("warp"))
        changed = finish(pixels, changes, _TENSORFLOW, config.dropout_size)
    else:
        changed = change(images, changes, _TENSORFLOW, config.dropout_size)
    if config.hairs:
        # A stream of its own, so that hairs change no other draw.
        grown = tf.random.fold_in(tf.cast(seed, tf.int32), 2)
        pixels = _draw_hairs(tf.cast(changed, tf.float32), grown, config.hairs)
        changed = tf.saturate_cast(tf.round(pixels), tf.uint8)
    return tf.ensure_shape(changed, images.shape)


def draw_augmentation(batch: Any, side: int, seed: Any, config: AugmentConfig) -> dict[str, Any]:
    """Return what is to be done to each image of a batch, of the kinds that are switched on.

    Parameters
    ----------
    batch : int or int tensor
    side : int
        Of the images, in pixels.
    seed : int tensor of shape (2,)
    config : AugmentConfig

    Returns
    -------
    dict of float32 tensors
        ``warp`` (batch, 6): output to input pixels; ``colour`` (batch, 3, 4): matrix and offset in
        [0, 255]; ``boxes`` (batch, boxes, 2): centres, row and column, in pixels.
    """
    moved, coloured, boxes = tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 3))
    shapes, changes = augmentation_shapes(config), {}
    if "warp" in shapes:
        changes["warp"] = affine_maps(batch, side, moved, config)[:, :6]
    if "colour" in shapes:
        matrices, offsets = colour_maps(batch, coloured, config)
        changes["colour"] = tf.concat([matrices, tf.linalg.matrix_transpose(offsets[:, 0])], -1)
    if "boxes" in shapes:
        centres = tf.random.stateless_uniform((2, batch, config.dropout_boxes), boxes) * side
        changes["boxes"] = tf.transpose(centres, (1, 2, 0))
    return changes


def augmentation_shapes(config: AugmentConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape for one image of every kind of change that is switched on."""
    shapes: dict[str, tuple[int, ...]] = {}
    if _moves(config):
        shapes["warp"] = (6,)
    if config.brightness or config.contrast or config.saturation or config.hue_degrees:
        shapes["colour"] = (3, 4)
    if config.dropout_boxes and config.dropout_size:
        shapes["boxes"] = (config.dropout_boxes, 2)
    return shapes


@tf.function(jit_compile=True, autograph=False)
def _compiled_warp(images: Any, maps: Any) -> Any:
    return warp(images, maps, _TENSORFLOW)


@tf.function(jit_compile=True, autograph=False)
def _compiled_finish(pixels: Any, changes: Mapping[str, Any], dropout_size: float) -> Any:
    return change(pixels, changes, _TENSORFLOW, dropout_size)


def _moves(config: AugmentConfig) -> bool:
    return bool(
        config.dihedral
        or config.rotation_degrees
        or config.zoom
        or config.shear_degrees
        or config.shift
    )


def affine_maps(batch: Any, side: Any, seed: Any, config: AugmentConfig) -> Any:
    """Return the maps from output to input pixels as ``ImageProjectiveTransformV3`` takes them.

    Returns
    -------
    float32 tensor of shape (batch, 8)
    """
    draws = tf.unstack(tf.random.stateless_uniform((7, batch), seed, -1.0, 1.0))
    turn, zoom, shear, shift_x, shift_y, quarter, mirror = draws
    angle = turn * math.radians(config.rotation_degrees)
    flip = tf.ones_like(angle)
    if config.dihedral:
        angle += tf.floor(quarter * 2) * (math.pi / 2)
        flip = tf.where(mirror < 0, -1.0, 1.0)
    scale = 1 / (1 + zoom * config.zoom)
    slope = tf.tan(shear * math.radians(config.shear_degrees))
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    # [cos -sin; sin cos] · [1 slope; 0 1] · [flip 0; 0 1]
    a, b = cos * flip, cos * slope - sin
    c, d = sin * flip, sin * slope + cos
    centre = (tf.cast(side, tf.float32) - 1) / 2
    reach = tf.cast(side, tf.float32) * config.shift
    x = centre - a * centre - b * centre + shift_x * reach
    y = centre - c * centre - d * centre + shift_y * reach
    zero = tf.zeros_like(a)
    return tf.stack([a, b, x, c, d, y, zero, zero], axis=1)


def _plain_warp(images: Any, maps: Any) -> Any:
    """``augment_ops.warp`` by TensorFlow's own kernel, which costs no compilation."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.pad(maps, [[0, 0], [0, 2]]),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",  # black corners would tell the network how far an image was turned
    )


def colour_maps(batch: Any, seed: Any, config: AugmentConfig) -> tuple[Any, Any]:
    """Return each image's colour matrix (batch, 3, 3) and offset (batch, 1, 1, 3), in [0, 255].

    Hue turns colours about the grey axis (Rodrigues' formula), saturation moves them towards their
    luma, contrast towards mid-grey.
    """
    draws = tf.unstack(tf.random.stateless_uniform((4, batch), seed, -1.0, 1.0))
    bright, contrast, saturation, hue = (draw[:, None, None] for draw in draws)
    angle = hue * math.radians(config.hue_degrees)
    eye = tf.eye(3)[None]
    grey = tf.ones((1, 3, 3)) / 3
    axis = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])[None] / math.sqrt(3)
    turn = tf.cos(angle) * (eye - grey) + grey + tf.sin(angle) * axis
    luma = tf.ones((1, 3, 1)) * tf.constant(_LUMA)[None, None, :]
    amount = 1 + saturation * config.saturation
    saturate = amount * eye + (1 - amount) * luma
    gain = 1 + contrast * config.contrast
    offset = 127.5 * (1 - gain) + 255 * bright * config.brightness
    return gain * tf.matmul(saturate, turn), offset[..., None] * tf.ones((1, 1, 1, 3))


def _draw_hairs(pixels: Any, seed: Any, most: int) -> Any:
    """Paint up to ``most`` hairs over each image (batch, side, side, 3), of one colour an image."""
    batch, tones = tf.shape(pixels)[0], tf.random.fold_in(seed, 0)
    on_hair = hair_mask(batch, pixels.shape[1], tf.random.fold_in(seed, 1), most)
    colour = tf.random.stateless_uniform((batch, 1, 1, 1), tones) * tf.constant(_DARKEST)
    return tf.where(on_hair[..., None], colour, pixels)


def hair_mask(batch: Any, side: int, seed: Any, most: int) -> Any:
    """Return where hairs lie, bool (batch, side, side).

    An image has 0 to ``most`` of them, each a quadratic Bezier curve through three random points,
    which may lie a little outside. Only the pixels along the curves are touched: a distance to each
    curve at every pixel would cost more than all other augmentations together.
    """
    number, places = tf.unstack(tf.random.split(seed, 2))
    counts = tf.random.stateless_uniform((batch, 1), number, 0, most + 1, tf.int32)
    grows = tf.range(most)[None] < counts
    knots = tf.random.stateless_uniform((batch, most, 3, 2), places, -0.2, 1.2)
    # A quadratic curve is nowhere faster than twice the longest way between two knots, here just
    # under 4 sides: with so many steps none skips a pixel.
    way = tf.linspace(0.0, 1.0, 4 * side)[:, None]
    bend = tf.stack([(1 - way) ** 2, 2 * way * (1 - way), way**2])  # (3, steps, 1)
    curve = tf.einsum("bhkc,ksz->bhsc", knots, bend) * side
    width = max(1, round(side * _HAIR_WIDTH))
    brush = tf.range(width) - width // 2
    nib = tf.stack(tf.meshgrid(brush, brush, indexing="ij"), -1)
    touched = tf.cast(tf.floor(curve), tf.int32)[..., None, None, :] + nib
    inside = tf.reduce_all((touched >= 0) & (touched < side), -1) & grows[:, :, None, None, None]
    offset = tf.range(batch)[:, None, None, None, None] * side**2
    pixel = offset + touched[..., 0] * side + touched[..., 1]
    # A negative number is left out.
    flat = tf.reshape(tf.where(inside, pixel, -1), [-1])
    found = tf.math.unsorted_segment_max(tf.ones_like(flat), flat, batch * side**2)
    return tf.reshape(found > 0, (batch, side, side))
