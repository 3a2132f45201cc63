"""How a rule is learned for a metric.

In: calibrated probabilities and truth. Out: a rule of ``rules.py``. Nothing here knows of folds:
``decision.py`` keeps the scored rows apart.

A softmax that is calibrated and whose most probable class is taken is best at the accuracy. Each
class's probability divided by the class's share is best at the mean recall (Menon et al. 2021,
arXiv:2007.07314, section 3, "logit adjustment", who also scale the correction by one number). How
much of the correction suits a model whose classes were balanced in training, and whose calibration
is not perfect, is learned.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from kaggle_pipeline.config.experiment import DecisionConfig
from kaggle_pipeline.evaluation.decision.rules import (
    Rule,
    SoftmaxRule,
    ThresholdRule,
    cost_matrix,
    yes_or_no_costs,
)
from kaggle_pipeline.metrics.task import Task
from kaggle_pipeline.metrics.weighted_scores import THRESHOLD

Array = np.ndarray
EXPONENTS = tuple(np.linspace(0, 1.5, 31).round(2).tolist())
"""Those that are tried, and of which the trade-off is drawn."""
_STEPS = (-1.0, -0.5, -0.2, 0.2, 0.5, 1.0)
"""Changes of a class's log weight that are tried for ``offsets``."""
_ROUNDS = 5
_NEIGHBOURS = 3
"""Exponents to either side whose losses are averaged: of a class with eight photos each one moves
the mean recall of seven classes by 0.018, and the best single exponent is the luckiest one."""
_MOST = 20.0
"""Largest log weight that a wanted sensitivity may ask for."""


def fit_rule(
    truth: Array,
    probabilities: Array,
    task: Task,
    classes: tuple[str, ...],
    config: DecisionConfig,
    leave: Collection[str] = (),
) -> Rule:
    """Learn the rule that the section ``decision`` asks for.

    Parameters
    ----------
    truth, probabilities : array of shape (n, classes)
        Truth is 0 or 1.
    task : {"binary", "multilabel", "multiclass"}
    classes : tuple of str
    config : DecisionConfig
    leave : collection of str
        Classes without enough images: they keep the threshold 0.5, and get no sensitivity.
    """
    if task != "multiclass":
        columns = zip(classes, truth.T, probabilities.T, strict=True)
        return ThresholdRule(
            tuple(
                THRESHOLD if name in leave else _fit_threshold(name, *column, config)
                for name, *column in columns
            )
        )
    costs = cost_matrix(config, classes)

    def loss(rule: Rule) -> float:
        return _loss(truth, rule.decide(probabilities), np.asarray(costs), config.metric)

    rules = [exponent_rule(truth, one, costs) for one in EXPONENTS]
    rule = rules[_least([loss(one) for one in rules])]
    if config.parameters == "offsets":
        rule = _offsets(rule, loss)
    for name, wanted in config.sensitivity.items():
        if name in leave:
            continue
        rule = _raise_sensitivity(rule, truth, probabilities, classes.index(name), wanted)
    return rule


def exponent_rule(truth: Array, exponent: float, costs: tuple) -> SoftmaxRule:
    """Return the softmax rule that divides by the class shares of ``truth`` to a power.

    The commonest class has the weight 1, and so has one without any row.
    """
    shares = truth.mean(axis=0)
    weights = (np.where(shares > 0, shares, shares.max()) / shares.max()) ** -exponent
    return SoftmaxRule(tuple(weights.tolist()), costs, exponent)


def exponent_threshold(truth: Array, exponent: float, missed: float, false_alarm: float) -> float:
    """Return where ``missed * p / share ** exponent`` overtakes ``false_alarm * (1 - p) / ...``.

    Parameters
    ----------
    truth : array of shape (n,)
    exponent : float
        0: 0.5 at equal costs; 1: at the class's share.
    missed, false_alarm : float
    """
    share = float(np.clip(truth.mean(), 1 / (len(truth) + 1), 1 - 1 / (len(truth) + 1)))
    yes, no = missed * share**-exponent, false_alarm * (1 - share) ** -exponent
    return no / (yes + no)


def threshold_for(truth: Array, probabilities: Array, sensitivity: float) -> float:
    """Return the highest threshold that finds the wanted share of the positives.

    Parameters
    ----------
    truth, probabilities : array of shape (n,)
        With at least one positive; a row is called from the threshold on.
    sensitivity : float
        In (0, 1).
    """
    positives = np.sort(probabilities[truth == 1])[::-1]
    # 1e-9 forgives the last bit of 0.9 * 10.
    return float(positives[int(np.ceil(sensitivity * len(positives) - 1e-9)) - 1])


def _least(losses: Sequence[float]) -> int:
    """Place of the least loss, each averaged with its neighbours'."""
    around = [
        np.mean(losses[max(0, i - _NEIGHBOURS) : i + _NEIGHBOURS + 1]) for i in range(len(losses))
    ]
    return int(np.argmin(around))


def _loss(truth: Array, decided: Array, costs: Array, metric: str) -> float:
    """What is to be small: mean cost, or 1 less the metric; of a softmax's decisions."""
    if metric == "balanced_accuracy":
        count = truth.sum(axis=0)
        return 1 - float(((truth * decided).sum(axis=0)[count > 0] / count[count > 0]).mean())
    return float((truth @ costs * decided).sum() / len(truth))


def _fit_threshold(name: str, truth: Array, probabilities: Array, config: DecisionConfig) -> float:
    """The threshold of one yes-or-no question."""
    missed, false_alarm = yes_or_no_costs(config, name)
    if config.parameters == "exponent":
        tried = np.array([exponent_threshold(truth, a, missed, false_alarm) for a in EXPONENTS])
    else:
        tried = np.unique(probabilities)[::-1]
        tried = np.append(np.nextafter(tried[0], np.inf), tried)  # the first finds none
    hits, alarms = (
        len(part) - np.searchsorted(np.sort(part), tried)
        for part in (probabilities[truth == 1], probabilities[truth == 0])
    )
    positive, negative = int(truth.sum()), int((1 - truth).sum())
    if config.metric == "balanced_accuracy":
        losses = (positive - hits) / positive + alarms / negative
    else:
        losses = missed * (positive - hits) + false_alarm * alarms
    best = _least(losses) if config.parameters == "exponent" else int(losses.argmin())
    found = float(tried[best])
    wanted = config.sensitivity.get(name)
    return found if wanted is None else min(found, threshold_for(truth, probabilities, wanted))


def _offsets(rule: SoftmaxRule, loss: Callable[[Rule], float]) -> SoftmaxRule:
    """Change one class's weight at a time as long as that helps."""
    best = loss(rule)
    for _ in range(_ROUNDS):
        before = best
        for column in range(len(rule.weights)):
            tried = [_weighed(rule, column, step) for step in _STEPS]
            losses = [loss(one) for one in tried]
            if min(losses) < best:
                best = min(losses)
                rule = tried[losses.index(best)]
        if best == before:
            break
    return rule


def _weighed(rule: SoftmaxRule, column: int, step: float) -> SoftmaxRule:
    weights = list(rule.weights)
    weights[column] *= float(np.exp(step))
    return replace(rule, weights=tuple(weights), exponent=None)


def _raise_sensitivity(
    rule: SoftmaxRule, truth: Array, probabilities: Array, column: int, wanted: float
) -> SoftmaxRule:
    """The least more weight of a class by which enough of its rows are given it."""
    rows = probabilities[truth[:, column] == 1]

    def finds(step: float) -> bool:
        decided = _weighed(rule, column, step).decide(rows)[:, column]
        return decided.mean() >= wanted - 1e-9

    if finds(0.0):
        return rule
    low, high = 0.0, _MOST
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return _weighed(rule, column, high)
