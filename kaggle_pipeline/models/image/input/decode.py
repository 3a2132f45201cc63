"""JPEG bytes → square images of one size, for ``tf.data``.

In: encoded images of any shape. Out: uint8 squares; a damaged image raises TensorFlow's error when
the stream comes to it.
"""

from functools import partial
from typing import Any

import tensorflow as tf

_SHRINKS = (1, 2, 4, 8)
"""Scalings that the JPEG decoder offers (1 over these)."""
_OPTIONS = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}


def decoder(size: int, swap_red_blue: bool = False, expected_px: int | None = None) -> Any:
    """Return a function (row, JPEG) -> (row, uint8 central square (size, size, 3)).

    ``expected_px`` is the side that nearly all images have: such squares are decoded at once where
    the decoder's scalings give them the wanted size, without looking at their shape first.

    An image twice, four or eight times as large as wanted is shrunk by the decoder itself (fewer
    coefficients of each 8 × 8 block are transformed back: libjpeg's scaling), which costs less than
    decoding it whole; and outside of the central square nothing is decoded.
    """

    def read(jpeg: Any, shape: Any, shrink: int) -> Any:
        scaled = -(-shape // shrink)
        edge = tf.reduce_min(scaled)
        window = tf.concat([(scaled - edge) // 2, [edge, edge]], 0)
        options = {"ratio": shrink, **_OPTIONS}
        return tf.cond(
            tf.equal(scaled[0], scaled[1]),
            lambda: tf.io.decode_jpeg(jpeg, **options),
            lambda: tf.io.decode_and_crop_jpeg(jpeg, window, **options),
        )

    # In a function of its own, of which a graph that does not take this way runs nothing.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def look_and_read(jpeg: Any) -> Any:
        shape = tf.io.extract_jpeg_shape(jpeg)[:2]
        fitting = [-(-tf.reduce_min(shape) // shrink) >= size for shrink in _SHRINKS[1:]]
        branches = [partial(read, jpeg, shape, shrink) for shrink in _SHRINKS]
        image = tf.switch_case(tf.reduce_sum(tf.cast(fitting, tf.int32)), branches)
        right = tf.equal(tf.shape(image)[0], size)
        return tf.cond(right, lambda: image, lambda: _resize(image, size))

    exact = [shrink for shrink in _SHRINKS if expected_px and -(-expected_px // shrink) == size]

    def decode(row: Any, jpeg: Any) -> tuple[Any, Any]:
        if exact:
            image = tf.io.decode_jpeg(jpeg, ratio=exact[-1], **_OPTIONS)
            right = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
            image = tf.cond(right, lambda: image, lambda: look_and_read(jpeg))
        else:
            image = look_and_read(jpeg)
        if swap_red_blue:
            image = tf.reverse(image, [-1])
        return row, tf.ensure_shape(image, (size, size, 3))

    return decode


def _resize(square: Any, size: int) -> Any:
    resized = tf.image.resize(square, (size, size), "bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)
