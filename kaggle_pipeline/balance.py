"""Class weights and oversampling, computed from training rows only.

In: targets of shape (n, classes). Out: a weight a row, a repeat count a row.
"""

import numpy as np

Array = np.ndarray


def class_index(targets: Array) -> Array:
    """Return the class of each row: 0 or 1 for one column, else the column that is 1.

    Parameters
    ----------
    targets : array of shape (n, classes)
        0 or 1.

    Returns
    -------
    numpy.ndarray of shape (n,), int
    """
    targets = np.asarray(targets)
    return targets[:, 0].astype(int) if targets.shape[1] == 1 else targets.argmax(axis=1)


def class_weights(counts: Array) -> Array:
    """Return ``(1 / n_c) * (n / 2)`` for each class count n_c, n their sum.

    The balanced heuristic of King & Zeng (2001, doi:10.1093/oxfordjournals.pan.a004868) as the
    TensorFlow tutorial on imbalanced data writes it, the number of classes in place of 2 where
    there are more; a class without rows gets 0.

    Examples
    --------
    >>> class_weights([32542, 6619]).round(4)
    array([0.6017, 2.9582])
    """
    counts = np.asarray(counts, float)
    with np.errstate(divide="ignore"):
        weights = (1 / counts) * (counts.sum() / len(counts))
    return np.where(counts > 0, weights, 0.0)


def oversampling_repeats(targets: Array, factor: int) -> Array:
    """Return how often each row is shown in an epoch.

    A row of a class rarer than the commonest one is shown ``factor`` times, but never so often
    that its class becomes commoner than the commonest.

    Parameters
    ----------
    targets : array of shape (n, classes)
    factor : int
        At least 1.

    Returns
    -------
    numpy.ndarray of shape (n,), int64
    """
    classes = class_index(targets)
    counts = np.bincount(classes)
    limit = np.maximum(counts.max() // np.maximum(counts, 1), 1)
    return np.minimum(factor, limit)[classes].astype(np.int64)


def row_weights(targets: Array, repeats: Array) -> Array:
    """Return each row's class weight, the classes counted as often as they are shown.

    Returns
    -------
    numpy.ndarray of shape (n,), float32
    """
    classes = class_index(targets)
    size = max(2, np.asarray(targets).shape[1])
    return class_weights(np.bincount(classes, repeats, size))[classes].astype(np.float32)
