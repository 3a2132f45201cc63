"""Scores as ranks, and ways to weigh them.

In: a table with a column of scores a model, some missing, and the truth. Out: ranks among the
training scores, weights, one score in [0, 1] a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kaggle_pipeline.metrics.roc_bootstrap import roc_auc

_ROUNDS = 25
"""Of the forward selection; weights are then multiples of 1/25."""


@dataclass
class Weighted:
    """Ranks among the training scores, averaged with weights; a missing one leaves its weight out.

    Attributes
    ----------
    models : sequence of str
        Columns of scores.
    target : str
    choose : callable
        ``choose(ranks, truth) -> weights``; ranks (n, models) hold NaN where a score is missing.
    weights_ : dict of str to float
    """

    models: Sequence[str]
    target: str
    choose: Callable[[np.ndarray, np.ndarray], np.ndarray]
    weights_: dict[str, float] = field(default_factory=dict)
    _knots: dict[str, np.ndarray] = field(default_factory=dict)

    def fit(self, rows: pd.DataFrame) -> "Weighted":
        """Take each score's quantiles, then choose the weights."""
        self._knots = {name: np.sort(rows[name].dropna().to_numpy(float)) for name in self.models}
        ranks = self.ranks(rows)
        chosen = self.choose(ranks, rows[self.target].to_numpy(int))
        self.weights_ = dict(zip(self.models, map(float, chosen), strict=True))
        return self

    def ranks(self, rows: pd.DataFrame) -> np.ndarray:
        """Return, (n, models), the share of training scores below each score, ties counted half."""
        columns = []
        for name in self.models:
            known, values = self._knots[name], rows[name].to_numpy(float)
            below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
            columns.append(np.where(np.isnan(values), np.nan, below / (2 * len(known))))
        return np.stack(columns, axis=1)

    def quantile(self, name: str, share: np.ndarray) -> np.ndarray:
        """Return the scores of model ``name`` below which a ``share`` of the training rows is."""
        return np.quantile(self._knots[name], share)

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the weighted mean of the ranks that there are."""
        return weighted_mean(self.ranks(rows), np.array([self.weights_[m] for m in self.models]))


def weighted_mean(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each row's known ranks.

    Where all that have a weight are missing it is the plain mean of the others, and 0.5, the rank
    of a row of which nothing is known, where there is none at all.
    """
    known = ~np.isnan(ranks)
    values = np.where(known, ranks, 0.0)
    total = known @ weights
    plain = np.where(known.any(axis=1), values.sum(axis=1) / np.maximum(known.sum(axis=1), 1), 0.5)
    return np.where(total > 0, values @ weights / np.where(total > 0, total, 1.0), plain)


def choose_equal(ranks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Every model alike."""
    return np.full(ranks.shape[1], 1 / ranks.shape[1])


def choose_best(ranks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The model of the best AUC alone."""
    scores = [_auc(column[:, None], truth, np.ones(1)) for column in ranks.T]
    return np.eye(ranks.shape[1])[int(np.argmax(scores))]


def choose_forward(ranks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Add, again and again, the model that helps most, also one that is in already.

    Caruana et al. 2004, "Ensemble selection from libraries of models"
    (doi:10.1145/1015330.1015432); it stops when nothing helps.
    """
    counts = choose_best(ranks, truth)
    best = _auc(ranks, truth, counts)
    for _ in range(_ROUNDS - 1):
        tried = [_auc(ranks, truth, counts + more) for more in np.eye(len(counts))]
        if max(tried) <= best + 1e-6:
            break
        best = max(tried)
        counts = counts + np.eye(len(counts))[int(np.argmax(tried))]
    return counts / counts.sum()


def _auc(ranks: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    return roc_auc(truth[:, None], weighted_mean(ranks, weights)[:, None])
