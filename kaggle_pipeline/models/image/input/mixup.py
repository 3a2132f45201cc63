"""Batches whose images are blended in pairs, and their targets and weights with them.

In: a batch and a seed. Out: a batch of the same shapes. Each image's partner is its neighbour in
the batch, whose order is shuffled already. All randomness comes from the seed, as in ``augment``.
"""

from typing import Any

import tensorflow as tf

from kaggle_pipeline.config.image import ImageConfig


def mix_batch(
    images: Any,
    metadata: Any,
    targets: Any,
    weights: Any,
    seed: Any,
    config: ImageConfig,
    *,
    labels_missing: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """Return the batch after mixup or CutMix; as it is where both are off.

    With both on, a coin decides for the whole batch.

    Parameters
    ----------
    images : uint8 tensor of shape (batch, side, side, 3)
    metadata : float32 tensor of shape (batch, features), or None
    targets : float32 tensor of shape (batch, classes)
    weights : float32 tensor of shape (batch,)
    seed : int tensor of shape (2,)
        Such as ``[run seed, step]``.
    config : ImageConfig
        ``mixup`` and ``cutmix``.
    labels_missing : bool
        Whether the targets have a mask beside them (``losses.with_mask``).

    Returns
    -------
    images, metadata, targets, weights
        Of the same shapes and dtypes.
    """
    if not config.mixup and not config.cutmix:
        return images, metadata, targets, weights
    # Another stream of chance than that of the augmentations, which split the same seed.
    seeds = tf.random.split(tf.random.fold_in(tf.cast(seed, tf.int32), 1), 2)
    if config.mixup and config.cutmix:
        coin = tf.random.stateless_uniform((), seeds[1]) < 0.5
        mixed, share = tf.cond(
            coin,
            lambda: mixup(images, seeds[0], config.mixup),
            lambda: cutmix(images, seeds[0], config.cutmix),
        )
    elif config.mixup:
        mixed, share = mixup(images, seeds[0], config.mixup)
    else:
        mixed, share = cutmix(images, seeds[0], config.cutmix)
    if metadata is not None:
        metadata = _blend(metadata, share[:, None])
    targets, weights = mix_targets(targets, weights, share)
    if labels_missing:
        targets = _among_known(targets)
    return tf.ensure_shape(mixed, images.shape), metadata, targets, weights


def mixup(images: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Return images blended with their partners, and each one's own share (batch,) of the result.

    The shares are drawn from Beta(alpha, alpha), one an image (Zhang et al. 2018, equation 1).
    """
    share = _beta(tf.shape(images)[0], seed, alpha)
    pixels = _blend(tf.cast(images, tf.float32), share[:, None, None, None])
    return tf.saturate_cast(tf.round(pixels), tf.uint8), share


def cutmix(images: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Return images with a square of their partners pasted in, and the share left of each.

    The square has an area of 1 - Beta(alpha, alpha) of the image's and its centre anywhere, so it
    may be cut off at the border (Yun et al. 2019, appendix A); the share counts what was pasted.
    """
    shape = tf.shape(images)
    side = tf.cast(shape[1], tf.float32)
    areas, places = tf.unstack(tf.random.split(seed, 2))
    half = side * tf.sqrt(1 - _beta(shape[0], areas, alpha)) / 2
    centres = tf.random.stateless_uniform((2, shape[0], 1), places) * side
    # Of each pixel's middle.
    near = tf.abs(tf.range(side)[None, None, :] + 0.5 - centres) < half[None, :, None]
    inside = near[0][:, :, None] & near[1][:, None, :]
    share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))
    return tf.where(inside[..., None], _partners(images), images), share


def mix_targets(targets: Any, weights: Any, share: Any) -> tuple[Any, Any]:
    """Return targets and weights by which a mixture's loss is the mixture of both losses.

    Every loss is linear in its target (:func:`~kaggle_pipeline.models.image.fit.losses.make_loss`):
    ``a v L(y) + (1 - a) w L(z)``, with the rows' weights v and w, is ``W L(t)`` for
    ``W = a v + (1 - a) w`` and ``t = (a v y + (1 - a) w z) / W``. Blending targets and weights each
    on its own would count a rare class's row by the partner's weight.

    Parameters
    ----------
    targets : float32 tensor of shape (batch, classes)
    weights, share : float32 tensors of shape (batch,)
    """
    own, other = share * weights, (1 - share) * _partners(weights)
    total = own + other
    mixed = own[:, None] * targets + other[:, None] * _partners(targets)
    return tf.math.divide_no_nan(mixed, total[:, None]), total


def _among_known(mixed: Any) -> Any:
    """Return mixed targets as shares of the known labels, and beside them how much is known.

    A missing label is 0 in both halves, so it adds nothing to its class's target.

    Examples
    --------
    >>> halves = tf.constant([[0.3, 0.0, 0.6, 0.0]])  # 0.6 of the first class's labels are known
    >>> _among_known(halves).numpy().round(3).tolist()
    [[0.5, 0.0, 0.6000000238418579, 0.0]]
    """
    truth, known = tf.split(mixed, 2, axis=-1)
    return tf.concat([tf.math.divide_no_nan(truth, known), known], axis=-1)


def _partners(values: Any) -> Any:
    return tf.roll(values, 1, axis=0)


def _blend(values: Any, share: Any) -> Any:
    return share * values + (1 - share) * _partners(values)


def _beta(count: Any, seed: Any, alpha: float) -> Any:
    """Draw ``count`` numbers of Beta(alpha, alpha), as a ratio of gammas."""
    one, other = tf.unstack(tf.random.stateless_gamma((2, count), seed, alpha))
    # Where both are too small for a float the image stays its partner's.
    return tf.math.divide_no_nan(one, one + other)
