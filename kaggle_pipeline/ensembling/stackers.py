"""Stackers: learners on the scores of other models, on the patient's context and the metadata.

In: examples with a column of scores a model. Out: one score in [0, 1] a row. Nothing here is saved:
a stacker is fitted where it is used, in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
from kaggle_pipeline.data.patient_context import context_columns, score_context
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.ensembling.ranks import Weighted, choose_equal, weighted_mean
from kaggle_pipeline.metrics.weighted_scores import clipped_logit

Array = np.ndarray
_CLIP = 1e-4
_SUREST = 1e-5
_BAGS = 3
_PER_POSITIVE, _LEAST_NEGATIVES = 14, 2000
_RICH = 8
"""Different values from which on a column is bent and not just weighed."""


class Learner(Protocol):
    """What a stacker asks of a learner."""

    def fit(self, x: Array, y: Array, rising: Array) -> "Learner":
        """Learn y (n,), 0 or 1, from x (n, columns); ``rising`` (columns,) is 1, 0 or -1."""

    def apply(self, x: Array) -> Array:
        """Return a score (n,) in [0, 1]."""


class Splines:
    """Logistic regression on quadratic splines of every column with knots at its quantiles.

    An additive model (Hastie & Tibshirani 1986, doi:10.1214/ss/1177013604) with a ridge penalty.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, x: Array, y: Array, rising: Array) -> "Splines":
        """See :class:`Learner`; ``rising`` is not used."""
        from sklearn.compose import make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import SplineTransformer, StandardScaler

        rich = [len(np.unique(column)) > _RICH for column in x.T]
        bend = SplineTransformer(n_knots=4, degree=2, knots="quantile")
        self._model = make_pipeline(
            make_column_transformer((bend, np.flatnonzero(rich)), remainder="passthrough"),
            StandardScaler(),
            LogisticRegression(C=1e-3, max_iter=500, random_state=self._seed),
        ).fit(x, y)
        return self

    def apply(self, x: Array) -> Array:
        """See :class:`Learner`."""
        return self._model.predict_proba(x)[:, 1]


class Boosting:
    """Boosted trees that may only rise with a score, each split seeing a tenth of the columns.

    Several bags, each of all positive rows and a part of the others drawn anew (Wallace et al.
    2011, doi:10.1109/ICDM.2011.33): trees gain little from the ten-thousandth benign image.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, x: Array, y: Array, rising: Array) -> "Boosting":
        """See :class:`Learner`."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        rng = np.random.default_rng(self._seed)
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        count = min(len(negative), max(_LEAST_NEGATIVES, _PER_POSITIVE * len(positive)))
        self._bags = []
        for bag in range(_BAGS):
            rows = np.concatenate([positive, rng.choice(negative, count, replace=False)])
            model = HistGradientBoostingClassifier(
                learning_rate=0.03, max_iter=250, max_leaf_nodes=6, min_samples_leaf=40,
                l2_regularization=20.0, max_features=0.1, monotonic_cst=rising,
                early_stopping=False, random_state=self._seed + bag,
            )  # fmt: skip
            self._bags.append(model.fit(x[rows], y[rows]))
        return self

    def apply(self, x: Array) -> Array:
        """See :class:`Learner`."""
        return mean_of_logits([bag.predict_proba(x)[:, 1] for bag in self._bags])


STACKERS = {"splines": Splines, "boosting": Boosting}
"""Name -> learner, simplest first."""


def mean_of_logits(answers: Sequence[Array]) -> Array:
    """Return the mean of scores in [0, 1] as logits, as a score in [0, 1]."""
    from scipy.special import expit

    return expit(np.mean([clipped_logit(one) for one in answers], axis=0))


@dataclass
class Stacked:
    """A learner on the scores, each row beside its patient's others, and the metadata.

    Attributes
    ----------
    models : sequence of str
    spec : DatasetSpec
    learner : str
        A key of :data:`STACKERS`.
    use : sequence of {"scores", "context", "metadata"}
        With the last two, the rows have the columns of
        ``patient_context``: a patient's images without a score count.
    seed : int
    """

    models: Sequence[str]
    spec: DatasetSpec
    learner: str
    use: Sequence[str]
    seed: int

    def fit(self, rows: pd.DataFrame) -> "Stacked":
        """Take the scores' quantiles and spreads, then fit the learner on what is made of them."""
        (target,) = self.spec.classes
        self._equal = Weighted(self.models, target, choose_equal).fit(rows)
        _, heights = self._heights(rows)
        self._spreads = {name: float(np.std(column, ddof=1)) for name, column in heights.items()}
        table, features = self.features(rows)
        numeric, categorical = choose_features(self.spec, features, table)
        self._encoder = FeatureEncoder(numeric, categorical, indicators=True).fit(table)
        x = self._encoder.transform(table)
        rising = np.zeros(x.shape[1], int)
        rising[: len(numeric)] = [_direction(name) for name in numeric]  # numbers come first
        self._model = STACKERS[self.learner](self.seed).fit(x, rows[target].to_numpy(int), rising)
        return self

    def apply(self, rows: pd.DataFrame) -> Array:
        """Return the learner's answers."""
        table, _ = self.features(rows)
        return self._model.apply(self._encoder.transform(table))

    def features(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """Return the examples with what the learners are shown, and the names of that.

        With context and metadata the rows hold ``patient_context``: it counts all images of
        a patient, also those that have no score.
        """
        scores, heights = self._heights(rows)
        parts = [pd.DataFrame(scores, index=rows.index)]
        if "context" in self.use:
            for name, column in heights.items():
                column = pd.Series(column, rows.index)
                found = score_context(column, rows["group_id"], self._spreads[name])
                parts.append(found.add_prefix(f"beside_{name}_"))
        names = [column for part in parts for column in part.columns]
        if "metadata" in self.use:
            names += self.spec.features
            if "context" in self.use:
                names += context_columns(self.spec)
        return pd.concat([rows, *parts], axis=1), names

    def _heights(self, rows: pd.DataFrame) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the scores as the learners are shown them, and those that context compares."""
        ranks = self._equal.ranks(rows)
        mean = weighted_mean(ranks, np.ones(len(self.models)))
        scores, heights = {}, {"mean": mean}
        for i, name in enumerate(self.models):
            gap = np.isnan(ranks[:, i])
            # A missing score stands where the others' mean does.
            scores[f"rank_{name}"] = heights[name] = np.where(gap, mean, ranks[:, i])
            known = rows[name].fillna(pd.Series(self._equal.quantile(name, mean), rows.index))
            scores[f"logit_{name}"] = clipped_logit(known, _SUREST)
        # The upper end is where a melanoma stands: spread it out.
        heights = {name: -np.log(1 - column + _CLIP) for name, column in heights.items()}
        heights["logit"] = np.mean([scores[f"logit_{name}"] for name in self.models], axis=0)
        scores |= {f"height_{name}": column for name, column in heights.items()}
        return scores, heights


def _direction(name: str) -> int:
    """1 for a column that can only speak for a melanoma as it grows, -1 for the opposite, else 0.

    How high a patient's other lesions are may speak either way.
    """
    if name.startswith("beside_"):
        if name.endswith(("_median_gap", "_z")):
            return 1
        return -1 if name.endswith("_gap") else 0
    return 1 if name.startswith(("rank_", "logit_", "height_")) else 0
