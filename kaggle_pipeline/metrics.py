"""Scores and their spread.

In: targets, probabilities and groups. Out: AUC with a bootstrap interval over whole groups.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kaggle_pipeline.errors import PipelineError

Array = np.ndarray


@dataclass(frozen=True)
class Score:
    """An estimate with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


class WeightedAuc:
    """ROC AUC of fixed scores under many row weights, sorting only once.

    A bootstrap replicate is nothing but other row weights; scikit-learn's ``roc_auc_score`` sorts
    anew for each, which takes 20 times as long on 33,000 rows. The value is the Mann-Whitney
    statistic with ties counted half (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    Parameters
    ----------
    targets : array of shape (n,)
        0 or 1.
    scores : array of shape (n,)
        Higher means more likely 1.
    """

    def __init__(self, targets: Array, scores: Array) -> None:
        scores = np.asarray(scores, float)
        self._order = np.argsort(scores, kind="stable")
        self._positive = np.asarray(targets)[self._order].astype(float)
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def __call__(self, weights: Array | None = None) -> float:
        """Return the AUC under row ``weights`` (n,); NaN when a class has no weight."""
        w = (
            np.ones(len(self._order))
            if weights is None
            else np.asarray(weights, float)[self._order]
        )
        positive = np.add.reduceat(w * self._positive, self._starts)
        negative = np.add.reduceat(w * (1 - self._positive), self._starts)
        below = np.cumsum(negative) - negative
        total = positive.sum() * negative.sum()
        return float((positive * (below + negative / 2)).sum() / total) if total else float("nan")


class MeanAuc:
    """Mean over the classes of the one-against-rest :class:`WeightedAuc`; the plain AUC for one."""

    def __init__(self, targets: Array, scores: Array) -> None:
        pairs = zip(_columns(targets), _columns(scores), strict=True)
        self._parts = [WeightedAuc(target, score) for target, score in pairs]

    def __call__(self, weights: Array | None = None) -> float:
        """Return the mean AUC under row ``weights`` (n,); NaN when a class cannot be judged."""
        return float(np.mean([part(weights) for part in self._parts]))


def _columns(values: Array) -> Array:
    values = np.asarray(values)
    return values[None] if values.ndim == 1 else values.T


def roc_auc(targets: Array, scores: Array) -> float:
    """Return the (mean) ROC AUC; ``targets`` and ``scores`` have shape (n,) or (n, classes).

    Examples
    --------
    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return MeanAuc(targets, scores)()


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
    value = auc()
    if np.isnan(value):
        raise PipelineError("no AUC exists: a class has no positive or no negative row")
    replicates = [auc(w) for w in group_weights(groups, n_replicates, seed)]
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return Score(value, float(low), float(high))


def summarise_oof(
    targets: pd.DataFrame, probabilities: pd.DataFrame, groups: pd.Series, *, seed: int
) -> dict[str, float | int]:
    """Return what every stage writes to ``metrics.json`` of its out-of-fold predictions.

    Parameters
    ----------
    targets, probabilities : pandas.DataFrame
        Indexed by image id, a column a class; joined here by id.
    groups : pandas.Series
        Group of each image id.

    Returns
    -------
    dict
        ``oof_auc``, ``oof_auc_low``, ``oof_auc_high``, ``n``, ``n_positive``.
    """
    ids = probabilities.index
    truth = targets.loc[ids, list(probabilities.columns)].to_numpy(int)
    score = auc_with_interval(
        truth, probabilities.to_numpy(), groups.loc[ids].to_numpy(), seed=seed
    )
    return {
        "oof_auc": score.value,
        "oof_auc_low": score.low,
        "oof_auc_high": score.high,
        "n": len(ids),
        "n_positive": int(truth.sum()) if truth.shape[1] == 1 else truth.sum(axis=0).tolist(),
    }
