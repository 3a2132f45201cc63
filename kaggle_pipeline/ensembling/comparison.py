"""Ensembles of many scores, scored on patients that nothing was fitted on.

In: a table of scores a model (of our own stages or other people's files; some may be missing), the
examples, the truth. Out: each candidate's nested predictions, how it compares in pairs, and the one
to use, which is the simplest that the best does not clearly beat.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.data.folds import make_folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.ensembling.ranks import Weighted, choose_best, choose_equal, choose_forward
from kaggle_pipeline.ensembling.stackers import STACKERS, Stacked, mean_of_logits
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, Score, bootstrap_weights, score_of

INGREDIENTS = (("scores",), ("scores", "context"), ("scores", "metadata"))
"""What an ablation leaves a stacker, beside all."""


class Candidate(Protocol):
    """A way to make one score of several."""

    def fit(self, rows: pd.DataFrame) -> "Candidate":
        """Learn from rows that hold the scores, the truth and what else it uses."""

    def apply(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score in [0, 1] a row; rows of a patient come together."""


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
        return mean_of_logits([part.apply(rows) for part in self._fitted])


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
                    answers[name] = mean_of_logits([answers[part] for part in candidate.parts])
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
    models: Sequence[str],
    spec: DatasetSpec,
    use: Sequence[str],
    seed: int,
    *,
    ablation: bool = False,
) -> dict[str, Callable[[], Candidate]]:
    """Return the ways to blend, simplest first.

    Parameters
    ----------
    models : sequence of str
    spec : DatasetSpec
    use : sequence of {"scores", "context", "metadata"}
        What the stackers see.
    seed : int
    ablation : bool
        Add stackers that see parts of that.
    """
    (target,) = spec.classes
    weighted = {
        "best single": choose_best,
        "rank mean": choose_equal,
        "forward selection": choose_forward,
    }
    found: dict[str, Callable[[], Candidate]] = {
        name: partial(Weighted, models, target, choose) for name, choose in weighted.items()
    }
    shown = [part for part in INGREDIENTS if ablation and set(part) < set(use)]
    for part in [*shown, tuple(use)]:
        told = " + ".join(part)
        stackers = {
            f"{name} on {told}": partial(Stacked, models, spec, name, part, seed)
            for name in STACKERS
        }
        found |= {**stackers, f"their mean on {told}": partial(Averaged, stackers)}
    return found
