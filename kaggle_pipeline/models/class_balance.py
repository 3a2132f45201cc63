"""Class weights and oversampling, computed from training rows only.

In: targets of shape (n, classes). Out: a weight a row, a repeat count a row. Rows are sorted into
classes by their labels, so one sigmoid, several sigmoids and a softmax are all balanced alike. A
row with a missing label (NaN) is of the class that its known labels say, but counts in none.
"""

import numpy as np

Array = np.ndarray


def label_sets(targets: Array) -> tuple[Array, Array]:
    """Return the classes that rows fall into, and the class of each row.

    A row without any label (a nevus of ISIC 2017) is a class of its own; one with several labels
    counts for the rarest of them, or a single odd row would outweigh all others.

    Parameters
    ----------
    targets : array of shape (n, classes)
        0 or 1; NaN, a missing label, is no label.

    Returns
    -------
    sets : numpy.ndarray of shape (k, classes)
        The labels of each class, one 1 at most; sorted.
    codes : numpy.ndarray of shape (n,), int
        Row of ``sets`` that each row belongs to.

    Examples
    --------
    >>> sets, codes = label_sets([[1, 0], [0, 0], [1, 0]])
    >>> sets.tolist(), codes.tolist()
    ([[0, 0], [1, 0]], [1, 0, 1])
    """
    targets = np.nan_to_num(np.asarray(targets))
    rarity = np.where(targets > 0, targets.sum(axis=0), np.inf)
    single = np.where(
        np.arange(targets.shape[1]) == rarity.argmin(axis=1)[:, None], targets, 0
    ).astype(targets.dtype)
    sets, codes = np.unique(single, axis=0, return_inverse=True)
    return sets, codes.reshape(-1)


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


def oversampling_repeats(targets: Array, factor: float, seed: int) -> Array:
    """Return how often each row is shown in an epoch.

    The rows of a class rarer than the commonest one are shown ``factor`` times, but never so often
    that their class becomes commoner than the commonest. What a factor has after the point falls
    to rows drawn at random: 584 rows at 11.334 give 6,619.

    Parameters
    ----------
    targets : array of shape (n, classes)
    factor : float
        At least 1.
    seed : int

    Returns
    -------
    numpy.ndarray of shape (n,), int64
    """
    _, codes = label_sets(targets)
    complete = _complete(targets)
    counts = np.bincount(codes, complete).astype(int)
    rng = np.random.default_rng(seed)
    repeats = np.ones(len(codes), np.int64)
    for code, count in enumerate(counts):
        if not count:
            continue
        shown = min(round(count * factor), max(counts.max() // count, 1) * count)
        rows = rng.permutation(np.flatnonzero((codes == code) & complete))
        repeats[rows] = shown // count
        repeats[rows[: shown % count]] += 1
    return np.where(counts[codes] == counts.max(), 1, repeats)


def _complete(targets: Array) -> Array:
    """Whether every label of a row is known (n,)."""
    return ~np.isnan(np.asarray(targets, float)).any(axis=1)


def resampling_repeats(targets: Array, per_class: int, seed: int) -> Array:
    """Return how often each row comes up when ``per_class`` of each class are drawn, with return.

    Returns
    -------
    numpy.ndarray of shape (n,), int64
        0 for a row that was never drawn.
    """
    _, codes = label_sets(targets)
    rng = np.random.default_rng(seed)
    repeats = np.zeros(len(codes), np.int64)
    for code in range(codes.max() + 1):
        rows = np.flatnonzero(codes == code)
        repeats[rows] = rng.multinomial(per_class, np.full(len(rows), 1 / len(rows)))
    return repeats


def row_weights(targets: Array, repeats: Array, power: float = 1.0) -> Array:
    """Return each row's class weight, the classes counted as often as they are shown.

    Parameters
    ----------
    targets : array of shape (n, classes)
    repeats : array of shape (n,)
    power : float
        1 balances fully, 0 not at all.

    Returns
    -------
    numpy.ndarray of shape (n,), float32
        Scaled so that the weights shown in an epoch have a mean of 1.
    """
    _, codes = label_sets(targets)
    shown = np.bincount(codes, repeats * _complete(targets))
    weights = class_weights(shown) ** power
    weights *= shown.sum() / (weights * shown).sum()
    return weights[codes].astype(np.float32)
