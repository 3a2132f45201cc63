"""Scores of a ranking, of decisions and of probabilities, under many row weights at once.

In: truth, probabilities and the weights of a bootstrap. Out: a value a replicate. scikit-learn's
functions take one set of weights a call and sort or check anew each time; here a ranking is sorted
once and a matrix product counts for a thousand replicates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from kaggle_pipeline.metrics.roc_bootstrap import WeightedRoc, area_under, in_chunks, ratio
from kaggle_pipeline.metrics.task import Task

Array = np.ndarray
SPECIFICITIES_PERCENT = (80, 90)
"""Specificities at which the sensitivity is told."""
THRESHOLD = 0.5
"""From this probability on a sigmoid says yes."""
SUREST = 1e-7
"""A float32 sigmoid tells no more near 1."""
CLIP = 1e-6
"""How near to 0 and 1 a probability counts, where its logit is averaged with others'."""
BAND_POINTS = 101
"""Of a ROC curve's interval."""
N_BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017 (arXiv:1706.04599)."""


def clipped_logit(probabilities: Array, clip: float = CLIP) -> Array:
    """Return the logits of probabilities, each first brought into [``clip``, 1 - ``clip``]."""
    from scipy.special import logit

    return logit(np.clip(probabilities, clip, 1 - clip))


# ---------------------------------------------------------------------------- rankings


def _average_precision(true: Array, false: Array) -> Array:
    """Precision averaged over the steps in recall, without interpolation, as scikit-learn does."""
    called = np.maximum(true + false, 1e-12)  # 0 only where nothing is called yet
    return ratio((np.diff(true, prepend=0) * true / called).sum(axis=-1), true[..., -1])


def _sensitivity(true: Array, false: Array, specificity: float) -> Array:
    """Largest share of positives that is found while ``specificity`` is kept."""
    # 1e-9 forgives the last bit of 1 - 0.9.
    kept = false <= (1 - specificity) * false[..., -1:] + 1e-9
    found = np.where(kept, true, 0).max(axis=-1)
    return np.where(false[..., -1] > 0, ratio(found, true[..., -1]), np.nan)


RANK_SCORES: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "auc": area_under,
        "average_precision": _average_precision,
        **{
            f"sensitivity_at_{percent}_specificity": partial(
                _sensitivity, specificity=percent / 100
            )
            for percent in SPECIFICITIES_PERCENT
        },
    }
)
"""Scores that depend on the order of the rows alone, by name."""


def rank_scores(targets: Array, scores: Array, weights: Array) -> dict[str, Array]:
    """Return every one of :data:`RANK_SCORES` under each row of ``weights``.

    The sensitivity at a specificity is that of the lowest threshold which keeps the specificity:
    a point of the ROC curve itself, nothing interpolated.

    Parameters
    ----------
    targets, scores : array of shape (n,)
        Truth (0 or 1) and probabilities of one class.
    weights : array of shape (replicates, n)

    Returns
    -------
    dict of str to numpy.ndarray of shape (replicates,)
        NaN where a replicate has no positive or no negative row.
    """
    roc = WeightedRoc(targets, scores)

    def scores_of(part: Array) -> Array:
        counts = roc.counts(part)
        return np.stack([score(*counts) for score in RANK_SCORES.values()], axis=1)

    return dict(zip(RANK_SCORES, in_chunks(scores_of, weights).T, strict=True))


def roc_band(targets: Array, scores: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return shares of false positives, and the 95 % interval of the sensitivity at each of them.

    Pointwise ("vertical averaging", Fawcett 2006, doi:10.1016/j.patrec.2005.10.010): of a hundred
    such bands about five miss the true sensitivity at any one share.

    Parameters
    ----------
    targets, scores : array of shape (n,)
        Truth (0 or 1) and probabilities of one class.
    weights : array of shape (replicates, n)
        Of a bootstrap; replicates without a positive or a negative row are left out.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray, numpy.ndarray) of shape (points,)
        False positive rate, and lower and upper end of the true positive rate; the latter NaN where
        no replicate has both kinds of row.
    """
    roc, at = WeightedRoc(targets, scores), np.linspace(0, 1, BAND_POINTS)

    def found(part: Array) -> Array:
        true, false = roc.counts(part)
        # Every curve begins at (0, 0), also where the highest scores tie.
        both = (np.pad(ratio(one, one[:, -1:]), ((0, 0), (1, 0))) for one in (false, true))
        return np.stack([np.interp(at, *rates) for rates in zip(*both, strict=True)])

    rates = in_chunks(found, weights)
    rates = rates[~np.isnan(rates).any(axis=1)]
    if not len(rates):
        return at, np.full(len(at), np.nan), np.full(len(at), np.nan)
    low, high = np.percentile(rates, [2.5, 97.5], axis=0)
    return at, low, high


def threshold_at(targets: Array, scores: Array, specificity: float) -> float | None:
    """Return the lowest score of a positive that is still found at ``specificity`` (0 to 1).

    None where none is found: the highest scores are those of too many negatives.
    """
    roc = WeightedRoc(targets, scores)
    true, false = roc.counts()
    found = _sensitivity(true, false, specificity) * true[-1]
    return float(roc.thresholds[np.searchsorted(true, found - 0.5)]) if found > 0 else None


# ---------------------------------------------------------------------------- decisions


def decide(probabilities: Array, task: Task) -> Array:
    """Return decisions (n, classes), 0 or 1.

    ``multiclass``: the most probable class (the first of equals); else every class whose
    probability reaches :data:`THRESHOLD`.
    """
    if task != "multiclass":
        return (probabilities >= THRESHOLD).astype(int)
    return np.eye(probabilities.shape[1], dtype=int)[probabilities.argmax(axis=1)]


def weighted_sums(weights: Array, columns: Array) -> Array:
    """Return ``weights @ columns``: (replicates, n) times (n, c)."""
    columns = np.asarray(columns, float)
    return in_chunks(lambda part: part.astype(float) @ columns, weights)


def weighted_mean(weights: Array, values: Array) -> Array:
    """Return the mean (replicates,) of ``values`` (n,) under each row of ``weights``."""
    sums = weighted_sums(weights, np.column_stack([values, np.ones(len(values))]))
    return ratio(sums[:, 0], sums[:, 1])


def accuracy(weights: Array, truth: Array, decided: Array, task: Task) -> Array:
    """Return the share (replicates,) of right decisions.

    ``multiclass``: of images given the right class; ``multilabel``: of all yes-or-no decisions.

    Parameters
    ----------
    weights : array of shape (replicates, n)
    truth, decided : array of shape (n, classes)
        0 or 1.
    task : {"binary", "multilabel", "multiclass"}
    """
    right = truth == decided
    whole = right.all(axis=1) if task == "multiclass" else right.mean(axis=1)
    return weighted_mean(weights, whole)


def recalls(weights: Array, truth: Array, decided: Array) -> Array:
    """Return the share (replicates, classes) of each class's rows that were given it."""
    sums = weighted_sums(weights, np.hstack([truth * decided, truth]))
    return ratio(*np.split(sums, 2, axis=1))


def balanced_accuracy(weights: Array, truth: Array, decided: Array, task: Task) -> Array:
    """Return the mean recall (replicates,); NaN where a replicate lacks a class.

    ``multiclass``: over the classes, the metric of ISIC 2018 task 3
    (challenge.isic-archive.com/landing/2018/47); else the mean of sensitivity and specificity,
    averaged over the classes. Parameters as for :func:`accuracy`.
    """
    found = recalls(weights, truth, decided).mean(axis=1)
    if task == "multiclass":
        return found
    return (found + recalls(weights, 1 - truth, 1 - decided).mean(axis=1)) / 2


# ---------------------------------------------------------------------------- probabilities


def brier(weights: Array, truth: Array, probabilities: Array, task: Task) -> Array:
    """Return the mean squared error (replicates,) of probabilities (n, classes).

    ``multiclass``: summed over the classes, 0 to 2, as Brier (1950,
    doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2) wrote it; else their mean, 0 to 1.
    """
    squared = (probabilities - truth) ** 2
    return weighted_mean(
        weights, squared.sum(axis=1) if task == "multiclass" else squared.mean(axis=1)
    )


def log_loss(weights: Array, truth: Array, probabilities: Array, task: Task) -> Array:
    """Return the mean log loss (replicates,) of probabilities (n, classes), in nats.

    ``multiclass``: of the true class; else averaged over the classes. Probabilities nearer to 0 or
    1 than :data:`SUREST` count as that, so that one image alone cannot make it infinite.
    """
    sure = np.clip(probabilities, SUREST, 1 - SUREST)
    losses = -truth * np.log(sure)
    if task == "multiclass":
        return weighted_mean(weights, losses.sum(axis=1))
    return weighted_mean(weights, (losses - (1 - truth) * np.log(1 - sure)).mean(axis=1))


def top_label(truth: Array, probabilities: Array) -> tuple[Array, Array]:
    """Return whether the most probable class is right (n,), and its probability (n,)."""
    right = (truth * decide(probabilities, "multiclass")).sum(axis=1)
    return right, probabilities.max(axis=1)


@dataclass(frozen=True)
class Reliability:
    """Calibration in equal-width bins; every array has a replicate a row.

    Attributes
    ----------
    count, predicted, observed : numpy.ndarray of shape (replicates, bins)
        Weight in the bin, mean probability there, share of outcomes; NaN in an empty bin.
    ece : numpy.ndarray of shape (replicates,)
        Expected calibration error: ``|observed - predicted|`` averaged by weight.
    """

    count: Array
    predicted: Array
    observed: Array
    ece: Array


def reliability(weights: Array, outcomes: Array, probabilities: Array) -> Reliability:
    """Compare probabilities with outcomes, bin by bin.

    Bins are open below and closed above, as in Guo et al. 2017 (arXiv:1706.04599); 0 is in the
    first. scikit-learn's ``calibration_curve`` knows no weights and tells no counts.

    Parameters
    ----------
    weights : array of shape (replicates, n)
    outcomes : array of shape (n,)
        0 or 1.
    probabilities : array of shape (n,)
    """
    edges = np.linspace(0, 1, N_BINS + 1)[1:-1]
    member = np.eye(N_BINS)[np.searchsorted(edges, probabilities)]
    columns = [member, member * probabilities[:, None], member * np.asarray(outcomes)[:, None]]
    count, predicted, observed = np.split(weighted_sums(weights, np.hstack(columns)), 3, axis=1)
    ece = ratio(np.abs(observed - predicted).sum(axis=1), count.sum(axis=1))
    return Reliability(count, ratio(predicted, count), ratio(observed, count), ece)
