"""Scores and their spread.

In: targets, probabilities and groups. Out: AUC, and what bootstrap intervals over whole groups are
made with. Further scores are in ``weighted_scores.py``.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from kaggle_pipeline.core.errors import PipelineError

Array = np.ndarray
_CHUNK = 2**18
"""Weights at a time, where that makes at least ``_LEAST`` replicates: BLAS is slow with fewer."""
_LEAST = 64


@dataclass(frozen=True)
class Score:
    """An estimate with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def describe(self, digits: int = 3) -> str:
        """Return ``"0.861 [0.850, 0.872]"``."""
        value, low, high = (f"{one:.{digits}f}" for one in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return self.describe()


class WeightedRoc:
    """ROC counts of fixed scores under many row weights, sorting only once.

    A bootstrap replicate is nothing but other row weights; scikit-learn's ``roc_auc_score`` sorts
    anew for each, which takes 20 times as long on 33,000 rows. Neighbours in the order that hold
    no positive count as one step: the curve runs level there, so no score can tell the difference.

    Parameters
    ----------
    targets : array of shape (n,)
        0 or 1.
    scores : array of shape (n,)
        Higher means more likely 1.

    Attributes
    ----------
    thresholds : numpy.ndarray of shape (m,)
        Lowest score of each step, falling; the rows from a threshold on are called positive.
    """

    def __init__(self, targets: Array, scores: Array) -> None:
        scores = np.asarray(scores, float)
        self._order = np.argsort(-scores, kind="stable")
        positive = np.asarray(targets)[self._order].astype(bool)
        ordered = scores[self._order]
        ties = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        holds = np.add.reduceat(positive.astype(int), ties) > 0
        self._starts = ties[holds | np.r_[True, holds[:-1]]]
        self._of_positives = self._order[positive]
        steps = np.searchsorted(self._starts, np.flatnonzero(positive), side="right") - 1
        self._steps, self._positive_starts = np.unique(steps, return_index=True)
        self.thresholds = ordered[np.r_[self._starts[1:], len(ordered)] - 1]

    def counts(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Return weights (..., m) of true and of false positives, for ``weights`` (..., n)."""
        w = np.ones(len(self._order)) if weights is None else np.asarray(weights)
        both = np.add.reduceat(w.take(self._order, axis=-1), self._starts, axis=-1, dtype=float)
        positive = np.zeros_like(both)
        if len(self._steps):
            positive[..., self._steps] = np.add.reduceat(
                w.take(self._of_positives, axis=-1), self._positive_starts, axis=-1, dtype=float
            )
        true = positive.cumsum(axis=-1)
        return true, both.cumsum(axis=-1) - true


def area_under(true: Array, false: Array) -> Array:
    """Return the area (...) under the curve through counts (..., m), ties as slants.

    The Mann-Whitney statistic with ties counted half (Hanley & McNeil 1982,
    doi:10.1148/radiology.143.1.7063747); NaN when a class has no weight.
    """
    middle = true - np.diff(true, prepend=0) / 2
    area = (np.diff(false, prepend=0) * middle).sum(axis=-1)
    return ratio(area, true[..., -1] * false[..., -1])


def ratio(part: Array, whole: Array) -> Array:
    """Return ``part / whole``, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def in_chunks(score: Callable[[Array], Array], weights: Array) -> Array:
    """Return ``score`` of ``weights`` (replicates, n), so many at a time as fit into a cache.

    The weights are 2 bytes each; as 8-byte floats all at once they would fill memory.
    """
    size = max(_LEAST, _CHUNK // max(1, weights.shape[1]))
    parts = [score(weights[start : start + size]) for start in range(0, len(weights), size)]
    return np.concatenate(parts)


class WeightedAuc:
    """ROC AUC of fixed scores under many row weights.

    Parameters
    ----------
    targets, scores : array of shape (n,)
        As for :class:`WeightedRoc`.
    """

    def __init__(self, targets: Array, scores: Array) -> None:
        self._roc = WeightedRoc(targets, scores)

    def __call__(self, weights: Array | None = None) -> float:
        """Return the AUC under row ``weights`` (n,); NaN when a class has no weight."""
        return float(area_under(*self._roc.counts(weights)))

    def each(self, weights: Array) -> Array:
        """Return the AUC (replicates,) under each row of ``weights`` (replicates, n)."""
        return in_chunks(lambda part: area_under(*self._roc.counts(part)), weights)


class MeanAuc:
    """Mean over the classes of the one-against-rest :class:`WeightedAuc`; the plain AUC for one."""

    def __init__(self, targets: Array, scores: Array) -> None:
        pairs = zip(_columns(targets), _columns(scores), strict=True)
        self._parts = [WeightedAuc(target, score) for target, score in pairs]

    def __call__(self, weights: Array | None = None) -> float:
        """Return the mean AUC under row ``weights`` (n,); NaN when a class cannot be judged."""
        return float(np.mean([part(weights) for part in self._parts]))

    def each(self, weights: Array) -> Array:
        """Return the mean AUC (replicates,) under each row of ``weights`` (replicates, n)."""
        return np.mean([part.each(weights) for part in self._parts], axis=0)


def _columns(values: Array) -> Array:
    values = np.asarray(values)
    return values[None] if values.ndim == 1 else values.T


def roc_auc(targets: Array, scores: Array) -> float:
    """Return the (mean) ROC AUC; ``targets`` and ``scores`` have shape (n,) or (n, classes).

    As :class:`MeanAuc` without weights, and four times as fast; NaN when a class has no positive or
    no negative row, or a score is NaN.

    Examples
    --------
    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    pairs = zip(_columns(targets), _columns(scores), strict=True)
    return float(np.mean([_count_auc(target, score) for target, score in pairs]))


def _count_auc(targets: Array, scores: Array) -> float:
    """Share of pairs of a positive and a negative in the right order, ties counted half."""
    targets = np.asarray(targets).astype(bool)
    positive, negative = np.sort(scores[targets]), np.sort(scores[~targets])
    if not (len(positive) and len(negative)):
        return np.nan
    if np.isnan(positive[-1]) or np.isnan(negative[-1]):  # sorting puts it last
        return np.nan
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.int64)
    up_to = np.searchsorted(negative, positive, side="right").sum(dtype=np.int64)
    return (below + up_to) / (2 * len(positive) * len(negative))


def group_weights(groups: Array, n_replicates: int, seed: int) -> Array:
    """Return row weights of bootstrap replicates that draw whole groups with replacement.

    Rows of one patient are alike, so a bootstrap over rows is too sure of itself
    (Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).

    Returns
    -------
    numpy.ndarray of shape (n_replicates, n), uint16
        How often each row's group was drawn.
    """
    rng = np.random.default_rng(seed)
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_replicates)
    return counts.astype(np.uint16)[:, codes]


def bootstrap_weights(groups: Array, n_replicates: int, seed: int) -> Array:
    """Return :func:`group_weights` below a first row of ones.

    Shape (1 + n_replicates, n). So one pass gives a score and its replicates; :func:`score_of`
    takes them apart.
    """
    drawn = group_weights(groups, n_replicates, seed)
    return np.concatenate([np.ones_like(drawn[:1]), drawn])


def score_of(values: Array, *, centred: bool = False) -> Score | None:
    """Return the estimate ``values[0]`` with the 95 % percentile interval of ``values[1:]``.

    Parameters
    ----------
    values : array of shape (1 + replicates,)
        A score under each row of :func:`bootstrap_weights`; replicates that lack a class are NaN.
    centred : bool
        Move the replicates so that their median is the estimate, for a score that resampling
        itself pushes upwards; none goes below 0.

    Returns
    -------
    Score or None
        None where there is no estimate, or no replicate has a value.
    """
    estimate, replicates = float(values[0]), np.asarray(values[1:], float)
    replicates = replicates[~np.isnan(replicates)]
    if np.isnan(estimate) or not len(replicates):
        return None
    if centred:
        replicates = np.maximum(replicates - np.median(replicates) + estimate, 0)
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Score(estimate, float(low), float(high))


def score_mapping(values: Array, reason: str, *, centred: bool = False) -> dict:
    """Return :func:`score_of` as JSON types, with a ``reason`` where there is no score.

    Parameters
    ----------
    values : array of shape (1 + replicates,)
    reason : str
        Why there would be no value.
    centred : bool
        As in :func:`score_of`.
    """
    score = score_of(values, centred=centred)
    if score is None:
        return {
            "value": None,
            "low": None,
            "high": None,
            "reason": reason or "no replicate has one",
        }
    return asdict(score)


def auc_with_interval(
    targets: Array, scores: Array, groups: Array, *, seed: int, n_replicates: int = 1000
) -> Score:
    """Return the (mean) ROC AUC and its 95 % percentile interval, bootstrapped by group.

    Parameters
    ----------
    targets, scores : array of shape (n,) or (n, classes)
        Truth (0 or 1) and probabilities.
    groups : array of shape (n,)
        Patient, lesion, or the image id where neither is known.
    seed : int
        Seed of the replicates.

    Raises
    ------
    PipelineError
        If a class has no positive or no negative row, so that no AUC exists.
    """
    auc = MeanAuc(targets, scores)
    if np.isnan(auc()):
        raise PipelineError("no AUC exists: a class has no positive or no negative row")
    return score_of(auc.each(bootstrap_weights(groups, n_replicates, seed)))
