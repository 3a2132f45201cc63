"""JPEG bytes → square images of one size, for ``tf.data``.

In: encoded images of any shape. Out: uint8 squares; a damaged image raises TensorFlow's error when
the stream comes to it.
"""

from functools import partial
from typing import Any

import tensorflow as tf

_SHRINKS = (1, 2, 4, 8)
"""Scalings that the JPEG decoder offers (1 over these)."""


def decoder(size: int, swap_red_blue: bool = False) -> Any:
    """Return a function (row, JPEG) -> (row, uint8 central square (size, size, 3)).

    An image twice, four or eight times as large as wanted is shrunk by the decoder itself (fewer
    coefficients of each 8 × 8 block are transformed back: libjpeg's scaling), which costs less than
    decoding it whole; and outside of the central square nothing is decoded.
    """

    def read(jpeg: Any, shape: Any, shrink: int) -> Any:
        scaled = -(-shape // shrink)
        edge = tf.reduce_min(scaled)
        window = tf.concat([(scaled - edge) // 2, [edge, edge]], 0)
        options = {"channels": 3, "ratio": shrink, "dct_method": "INTEGER_ACCURATE"}
        return tf.cond(
            tf.equal(scaled[0], scaled[1]),
            lambda: tf.io.decode_jpeg(jpeg, **options),
            lambda: tf.io.decode_and_crop_jpeg(jpeg, window, **options),
        )

    def decode(row: Any, jpeg: Any) -> tuple[Any, Any]:
        shape = tf.io.extract_jpeg_shape(jpeg)[:2]
        fitting = [-(-tf.reduce_min(shape) // shrink) >= size for shrink in _SHRINKS[1:]]
        branches = [partial(read, jpeg, shape, shrink) for shrink in _SHRINKS]
        image = tf.switch_case(tf.reduce_sum(tf.cast(fitting, tf.int32)), branches)
        if swap_red_blue:
            image = tf.reverse(image, [-1])
        right = tf.equal(tf.shape(image)[0], size)
        image = tf.cond(right, lambda: image, lambda: _resize(image, size))
        return row, tf.ensure_shape(image, (size, size, 3))

    return decode


def _resize(square: Any, size: int) -> Any:
    resized = tf.image.resize(square, (size, size), "bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)
