"""Ensembles of many scores, judged on patients that nothing was fitted on.

In: a table of scores a model (of our own stages or other people's files; some may be missing), the
examples, the truth. Out: each candidate's nested predictions, how it compares in pairs, and the one
to use, which is the simplest that the best does not clearly beat.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from kaggle_pipeline.config import FoldsConfig, TabularConfig
from kaggle_pipeline.context import context_columns, patient_context, score_context
from kaggle_pipeline.folds import make_folds
from kaggle_pipeline.metrics import MeanAuc, Score, bootstrap_weights, roc_auc, score_of
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.tabular.learners import LearnerModel

_CLIP = 1e-4
_ROUNDS = 25
"""Of the forward selection; weights are then multiples of 1/25."""
LEARNED = ("logistic", "boosting", "forest")


class Candidate(Protocol):
    """A way to make one score of several."""

    def fit(self, rows: pd.DataFrame) -> "Candidate":
        """Learn from rows that hold the scores, the truth and what else it uses."""

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score in [0, 1] a row; rows of a patient come together."""


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


@dataclass
class Stacked:
    """A learner on the scores, each row beside its patient's others, and the metadata.

    Attributes
    ----------
    models : sequence of str
    spec : DatasetSpec
    learner : str
    use : sequence of {"scores", "context", "metadata"}
    seed : int
    """

    models: Sequence[str]
    spec: DatasetSpec
    learner: str
    use: Sequence[str]
    seed: int

    def fit(self, rows: pd.DataFrame) -> "Stacked":
        """Take the scores' quantiles, then fit the learner on the features made of them."""
        (target,) = self.spec.classes
        self._equal = Weighted(self.models, target, choose_equal).fit(rows)
        table, features = self.features(rows)
        model = LearnerModel(self.learner, TabularConfig(), self.spec, features, seed=self.seed)
        self._model = model.fit(table, None)
        return self

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the learner's answers."""
        table, _ = self.features(rows)
        return self._model.predict(table).to_numpy()[:, 0]

    def features(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """Return the examples with what the learners are shown, and the names of that."""
        ranks = self._equal.ranks(rows)
        mean = weighted_mean(ranks, np.ones(len(self.models)))
        filled = np.where(np.isnan(ranks), mean[:, None], ranks)
        scores = {f"rank_{name}": filled[:, i] for i, name in enumerate(self.models)}
        # The upper end is where a melanoma stands: spread it out.
        heights = {name: -np.log(1 - column + _CLIP) for name, column in scores.items()}
        heights["mean"] = -np.log(1 - mean + _CLIP)
        scores |= {f"height_{name}": column for name, column in heights.items()}
        parts = [pd.DataFrame(scores, index=rows.index)]
        if "context" in self.use:
            for name, column in heights.items():
                found = score_context(pd.Series(column, rows.index), rows["group_id"])
                parts.append(found.add_prefix(f"{name}_"))
        names = [column for part in parts for column in part.columns]
        if "metadata" in self.use:
            names += self.spec.features
            if "context" in self.use:
                parts.append(patient_context(rows, self.spec))
                names += context_columns(self.spec)
        return pd.concat([rows, *parts], axis=1), names


@dataclass
class Averaged:
    """The mean, as logits, of other candidates' answers.

    Attributes
    ----------
    parts : mapping of str to callable
        Each call makes a fresh candidate.
    """

    parts: Mapping[str, Callable[[], Candidate]]

    def fit(self, rows: pd.DataFrame) -> "Averaged":
        """Fit every part."""
        self._fitted = [make().fit(rows) for make in self.parts.values()]
        return self

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the mean of the parts' answers."""
        return self.mean([part.apply(rows) for part in self._fitted])

    @staticmethod
    def mean(answers: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of scores in [0, 1] as logits."""
        return expit(np.mean([logit(np.clip(one, 1e-6, 1 - 1e-6)) for one in answers], axis=0))


@dataclass(frozen=True)
class Study:
    """What a nested comparison found.

    Attributes
    ----------
    predictions : dict of str to pandas.DataFrame
        A candidate's nested scores, a column a repeat, indexed by image id.
    auc : dict of str to Score
        Mean over the repeats, bootstrapped by patient.
    over : dict of str to dict of str to Score
        ``over[a][b]``: AUC of a less that of b, on the same replicates.
    chosen : str
    """

    predictions: dict[str, pd.DataFrame]
    auc: dict[str, Score]
    over: dict[str, dict[str, Score]]
    chosen: str


def compare(
    candidates: Mapping[str, Callable[[], Candidate]],
    rows: pd.DataFrame,
    spec: DatasetSpec,
    *,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Judge candidates on patients that they were not fitted on, several times over.

    Parameters
    ----------
    candidates : mapping of str to callable
        Simplest first; each call makes a fresh one.
    rows : pandas.DataFrame
        Examples with the scores; patients (``group_id``) are never split.
    spec : DatasetSpec
        With one class.
    folds, repeats, seed : int
    say : callable
        Takes a line.

    Returns
    -------
    Study
    """
    (target,) = spec.classes
    nested = {
        name: pd.DataFrame(np.nan, rows.index, range(repeats), dtype=float) for name in candidates
    }
    for repeat in range(repeats):
        division = make_folds(rows, spec, FoldsConfig(k=folds), seed + repeat)
        for fold in division.numbers:
            inside = rows.loc[division.valid_ids(fold)]
            outside = rows.loc[division.train_ids(fold)]
            answers: dict[str, np.ndarray] = {}
            for name, make in candidates.items():
                candidate = make()
                if isinstance(candidate, Averaged) and set(candidate.parts) <= set(answers):
                    # Its parts have just been fitted on these very rows.
                    answers[name] = candidate.mean([answers[part] for part in candidate.parts])
                else:
                    answers[name] = candidate.fit(outside).apply(inside)
                nested[name].loc[inside.index, repeat] = answers[name]
        say(f"repeat {repeat + 1} of {repeats} judged")
    truth = rows[target].to_numpy(int)[:, None]
    weights = bootstrap_weights(rows["group_id"].to_numpy(str), 1000, seed)
    each = {
        name: np.mean(
            [MeanAuc(truth, table[[repeat]].to_numpy()).each(weights) for repeat in table], axis=0
        )
        for name, table in nested.items()
    }
    auc = {name: score_of(values) for name, values in each.items()}
    over = {
        name: {other: score_of(each[name] - each[other]) for other in each if other != name}
        for name in each
    }
    best = max(auc, key=lambda name: auc[name].value)
    chosen = next(name for name in candidates if name == best or over[best][name].low <= 0)
    return Study(nested, auc, over, chosen)


def make_candidates(
    models: Sequence[str], spec: DatasetSpec, use: Sequence[str], seed: int
) -> dict[str, Callable[[], Candidate]]:
    """Return the ways to blend, simplest first."""
    (target,) = spec.classes
    weighted = {
        "best single": choose_best,
        "rank mean": choose_equal,
        "forward selection": choose_forward,
    }
    found: dict[str, Callable[[], Candidate]] = {
        name: partial(Weighted, models, target, choose) for name, choose in weighted.items()
    }
    stackers = {
        f"{learner} stacker": partial(Stacked, models, spec, learner, use, seed)
        for learner in LEARNED
    }
    return {**found, **stackers, "mean of the stackers": partial(Averaged, stackers)}
