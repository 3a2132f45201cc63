"""Scores of decisions, with intervals, as plain JSON types.

In: labelled predictions and decisions (n, classes). Out: accuracy, balanced accuracy and cost, what
each class's decisions reach, and the trade-off between them.
"""

from typing import Any

import numpy as np

from kaggle_pipeline.config.experiment import DecisionConfig
from kaggle_pipeline.evaluation.decision.fitting import (
    EXPONENTS,
    exponent_rule,
    exponent_threshold,
)
from kaggle_pipeline.evaluation.decision.rules import (
    ThresholdRule,
    cost_matrix,
    equal_costs,
    yes_or_no_costs,
)
from kaggle_pipeline.evaluation.labelled import LabelledPredictions
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import ratio, score_mapping

Array = np.ndarray


def values_of(
    labelled: LabelledPredictions, decided: Array, config: DecisionConfig
) -> dict[str, Array]:
    """Return accuracy, balanced accuracy and, where the metric is that, cost; (1 + replicates,)."""
    spec, weights, truth = labelled.spec, labelled.weights, labelled.truth
    found = {
        "accuracy": weighted_scores.accuracy(weights, truth, decided, spec.task),
        "balanced_accuracy": weighted_scores.balanced_accuracy(weights, truth, decided, spec.task),
    }
    if config.metric == "cost":
        found["cost"] = weighted_scores.weighted_mean(weights, _costs(labelled, decided, config))
    return found


def _costs(labelled: LabelledPredictions, decided: Array, config: DecisionConfig) -> Array:
    """Cost (n,) of each row's decisions."""
    spec, truth = labelled.spec, labelled.truth
    if spec.task == "multiclass":
        return (truth @ np.asarray(cost_matrix(config, spec.classes)) * decided).sum(axis=1)
    missed, alarm = np.array([yes_or_no_costs(config, name) for name in spec.classes]).T
    return (truth * (1 - decided) * missed + (1 - truth) * decided * alarm).sum(axis=1)


def describe_decisions(
    labelled: LabelledPredictions, decided: Array, config: DecisionConfig
) -> dict[str, dict]:
    """Return :func:`values_of` as scores with intervals."""
    return {
        name: score_mapping(found, "a class has no photo")
        for name, found in values_of(labelled, decided, config).items()
    }


def change(
    labelled: LabelledPredictions, before: Array, after: Array, config: DecisionConfig
) -> dict[str, dict]:
    """Return the scores of ``after`` less those of ``before``, in pairs."""
    old, new = (values_of(labelled, one, config) for one in (before, after))
    return {name: score_mapping(new[name] - old[name], "no score to compare") for name in new}


def per_class(labelled: LabelledPredictions, decided: Array) -> dict[str, dict]:
    """Return :func:`reached` by class."""
    return {
        name: reached(labelled, name, decided[:, i] == 1)
        for i, name in enumerate(labelled.spec.classes)
    }


def reached(labelled: LabelledPredictions, name: str, called: Array) -> dict[str, dict]:
    """Return what decisions for one class reach, with intervals.

    Parameters
    ----------
    labelled : LabelledPredictions
    name : str
        The class; with several each is set against the rest.
    called : array of shape (n,), bool

    Returns
    -------
    dict
        ``sensitivity, specificity, precision``; ``flagged``: the share of all photos that are
        called; ``photos_per_find``: photos that are looked at for each one that is of the class.
    """
    truth, called = labelled.truth[:, labelled.spec.classes.index(name)], called.astype(int)
    columns = np.stack(
        [truth * called, truth, (1 - truth) * (1 - called), 1 - truth, called], axis=1
    )
    hit, positive, spared, negative, flagged = weighted_scores.weighted_sums(
        labelled.weights, columns
    ).T
    return {
        "sensitivity": score_mapping(ratio(hit, positive), "no positive photo"),
        "specificity": score_mapping(ratio(spared, negative), "no negative photo"),
        "precision": score_mapping(ratio(hit, flagged), "no photo reaches it"),
        "flagged": score_mapping(ratio(flagged, positive + negative), "no photo"),
        "photos_per_find": score_mapping(ratio(flagged, hit), "none is found"),
    }


def confusion(labelled: LabelledPredictions, decided: Array) -> list[dict[str, Any]]:
    """Return counts, truth in rows and decisions in columns: one table, or one a class."""
    from sklearn.metrics import confusion_matrix

    spec, truth = labelled.spec, labelled.truth
    if spec.task == "multiclass":
        matrix = confusion_matrix(
            truth.argmax(axis=1), decided.argmax(axis=1), labels=range(len(spec.classes))
        )
        return [{"of": "all classes", "labels": list(spec.classes), "matrix": matrix.tolist()}]
    return [
        {
            "of": name,
            "labels": ["no", "yes"],
            "matrix": confusion_matrix(truth[:, i], decided[:, i], labels=[0, 1]).tolist(),
        }
        for i, name in enumerate(spec.classes)
    ]


def trade_off(
    labelled: LabelledPredictions, calibrated: Array, costs: tuple | None, config: DecisionConfig
) -> list[dict[str, Any]]:
    """Return what each exponent would give: an entry each, without intervals.

    Parameters
    ----------
    labelled : LabelledPredictions
    calibrated : array of shape (n, classes)
        Nested.
    costs : tuple of tuple of float, or None
        Of a softmax.
    config : DecisionConfig

    Returns
    -------
    list of dict
        ``exponent, accuracy, balanced_accuracy``, ``cost`` where that is the metric, and by class
        ``sensitivity``, ``specificity`` and (but for a softmax) ``threshold``.
    """
    spec, truth = labelled.spec, labelled.truth
    alone = LabelledPredictions(spec, labelled.rows, truth, calibrated, labelled.weights[:1])
    found = []
    for exponent in EXPONENTS:
        limits = {}
        if spec.task == "multiclass":
            rule = exponent_rule(truth, exponent, costs or equal_costs(len(spec.classes)))
        else:
            limits = {
                name: exponent_threshold(column, exponent, *yes_or_no_costs(config, name))
                for name, column in zip(spec.classes, truth.T, strict=True)
            }
            rule = ThresholdRule(tuple(limits.values()))
        decided = rule.decide(calibrated)
        values = {key: one[0] for key, one in values_of(alone, decided, config).items()}
        recalls = weighted_scores.recalls(alone.weights, truth, decided)[0]
        spared = weighted_scores.recalls(alone.weights, 1 - truth, 1 - decided)[0]
        found.append(
            {
                "exponent": exponent,
                **{key: None if np.isnan(one) else float(one) for key, one in values.items()},
                "sensitivity": _by_class(spec.classes, recalls),
                "specificity": _by_class(spec.classes, spared),
                "threshold": limits,
            }
        )
    return found


def _by_class(classes: tuple[str, ...], values: Array) -> dict[str, float | None]:
    pairs = zip(classes, values, strict=True)
    return {name: None if np.isnan(value) else float(value) for name, value in pairs}
