"""Rules that turn calibrated probabilities into decisions; JSON is all they are kept as.

In: probabilities (n, classes). Out: decisions (n, classes), 0 or 1, and scores whose highest is the
decision. How a rule is learned is in ``fitting.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kaggle_pipeline.config.experiment import DecisionConfig
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.metrics.task import Task
from kaggle_pipeline.metrics.weighted_scores import THRESHOLD

Array = np.ndarray
MISSED, FALSE_ALARM = "missed", "false_alarm"
NONE_OF_THEM = "none"
"""The decision of a yes-or-no question that no class reaches."""


class Rule(Protocol):
    """What every rule can do."""

    def decide(self, probabilities: Array) -> Array:
        """Return decisions (n, classes), 0 or 1."""

    def allows(self, probabilities: Array, decided: Array, within: float) -> Array:
        """Return by row whether ``decided`` is the decision of ``probabilities``, or would be where
        these differed by ``within`` at most: how another machine's rounding may decide."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the rule as plain JSON types."""


@dataclass(frozen=True)
class SoftmaxRule:
    """One class a row: that of the least expected cost, each class's probability weighed first.

    Attributes
    ----------
    weights : tuple of float
        By class; 1 each is the plain rule.
    costs : tuple of tuple of float
        Of a decision (column) for a row of a class (row); 0 on the diagonal.
    exponent : float or None
        Of the class shares, where they and it alone made the weights.
    """

    weights: tuple[float, ...]
    costs: tuple[tuple[float, ...], ...]
    exponent: float | None = None

    def scores(self, probabilities: Array) -> Array:
        """Return scores (n, classes) that sum to 1 in each row; the highest is the decision.

        What a decision saves against the dearest one: with equal costs that is the weighed
        probability itself, with all weights 1 too the probability.
        """
        costs = np.asarray(self.costs)
        saved = (probabilities * np.asarray(self.weights)) @ (costs.max() - costs)
        return saved / saved.sum(axis=1, keepdims=True)

    def decide(self, probabilities: Array) -> Array:
        """Return decisions (n, classes), 0 or 1; the first of equals."""
        return np.eye(len(self.weights), dtype=int)[self.scores(probabilities).argmax(axis=1)]

    def allows(self, probabilities: Array, decided: Array, within: float) -> Array:
        """Return by row whether the class in ``decided`` has nearly the highest score."""
        scores = self.scores(probabilities)
        highest = (scores * decided).sum(axis=1) >= scores.max(axis=1) - within
        return highest & (decided.sum(axis=1) == 1)

    def to_mapping(self) -> dict[str, Any]:
        """Return the rule as plain JSON types."""
        costs = [list(row) for row in self.costs]
        return {"weights": list(self.weights), "costs": costs, "exponent": self.exponent}


@dataclass(frozen=True)
class ThresholdRule:
    """Every class that reaches its threshold: for one yes-or-no question, or several.

    Attributes
    ----------
    thresholds : tuple of float
        By class; a row is called from it on.
    """

    thresholds: tuple[float, ...]

    def decide(self, probabilities: Array) -> Array:
        """Return decisions (n, classes), 0 or 1."""
        return (probabilities >= np.asarray(self.thresholds)).astype(int)

    def allows(self, probabilities: Array, decided: Array, within: float) -> Array:
        """Return by row whether each class reaches its threshold or does not, or lies at it."""
        at_it = np.abs(probabilities - np.asarray(self.thresholds)) <= within
        return ((self.decide(probabilities) == decided) | at_it).all(axis=1)

    def to_mapping(self) -> dict[str, Any]:
        """Return the rule as plain JSON types."""
        return {"thresholds": list(self.thresholds)}


def plain_rule(task: Task, count: int) -> Rule:
    """Return the rule that needs no learning: the most probable class, or 0.5 for each."""
    if task != "multiclass":
        return ThresholdRule((THRESHOLD,) * count)
    return SoftmaxRule((1.0,) * count, equal_costs(count))


def read_rule(mapping: Mapping[str, Any]) -> Rule:
    """Return the rule that ``to_mapping`` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is none.
    """
    if "thresholds" in mapping:
        return ThresholdRule(tuple(float(one) for one in mapping["thresholds"]))
    weights = tuple(float(one) for one in mapping["weights"])
    costs = tuple(tuple(float(one) for one in row) for row in mapping["costs"])
    square = len(costs) == len(weights) and all(len(row) == len(weights) for row in costs)
    if not square or not all(0 < one < np.inf for one in weights):
        raise ValueError("weights must be above 0, and costs square")
    return SoftmaxRule(weights, costs, mapping["exponent"])


def name_decisions(decided: Array, classes: Sequence[str], none: str = NONE_OF_THEM) -> list[str]:
    """Return decisions (n, classes) in words: names joined by " + ", or what ``none`` is called.

    Examples
    --------
    >>> name_decisions(np.array([[1, 0], [1, 1], [0, 0]]), ("melanoma", "keratosis"))
    ['melanoma', 'melanoma + keratosis', 'none']
    """
    return [
        " + ".join(name for name, yes in zip(classes, row, strict=True) if yes) or none
        for row in decided
    ]


# ---------------------------------------------------------------------------- costs


def equal_costs(count: int) -> tuple[tuple[float, ...], ...]:
    """Return costs of 1 for every wrong decision."""
    return tuple(map(tuple, (1 - np.eye(count)).tolist()))


def cost_matrix(config: DecisionConfig, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Return ``decision.costs`` as a matrix: true classes in rows, decisions in columns.

    The nearest word counts: a pair of classes before ``missed``, that before ``false_alarm``.
    """
    if config.metric != "cost":
        return equal_costs(len(classes))

    def cost(truth: str, decided: str) -> float:
        if truth == decided:
            return 0.0
        row, column = config.costs.get(truth, {}), config.costs.get(decided, {})
        return float(row.get(decided, row.get(MISSED, column.get(FALSE_ALARM, 1.0))))

    return tuple(tuple(cost(truth, decided) for decided in classes) for truth in classes)


def yes_or_no_costs(config: DecisionConfig, name: str) -> tuple[float, float]:
    """Return what a missed image of a class costs and what a false alarm does."""
    row = config.costs.get(name, {}) if config.metric == "cost" else {}
    return float(row.get(MISSED, 1.0)), float(row.get(FALSE_ALARM, 1.0))


def check_decision(config: DecisionConfig, task: Task, classes: Sequence[str]) -> None:
    """Stop where the section ``decision`` does not fit the data set.

    Raises
    ------
    PipelineError
        If a class is not there: that names the key and the nearest class. Or if costs are 0
        whatever is decided.
    """

    def require(name: str, known: Sequence[str], key: str) -> None:
        if name not in known:
            raise PipelineError(f"unknown key '{key}.{name}'{nearest(name, list(known))}")

    for name in config.sensitivity:
        require(name, classes, "decision.sensitivity")
    for truth, row in config.costs.items():
        require(truth, classes, "decision.costs")
        others = [one for one in classes if one != truth] if task == "multiclass" else []
        for decided in row:
            require(decided, [*others, MISSED, FALSE_ALARM], f"decision.costs.{truth}")
    nothing = "every cost is 0: nothing could be learned from it"
    if task == "multiclass":
        if np.max(cost_matrix(config, classes)) <= 0:
            raise PipelineError(f"decision.costs: {nothing}")
        return
    for name in classes:
        if max(yes_or_no_costs(config, name)) <= 0:
            raise PipelineError(f"decision.costs.{name}: {nothing}")
