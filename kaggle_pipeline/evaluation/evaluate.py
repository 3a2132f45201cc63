"""What predictions are worth: scores with intervals, errors, calibration, and for whom.

In: examples and probabilities, joined by image id. Out: a mapping of plain JSON types, which
``plots.py`` writes and draws. Every interval comes from one bootstrap over whole groups.
A score that the rows cannot give is None with a ``reason``, never a number.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.labelled import LabelledPredictions, join_truth
from kaggle_pipeline.evaluation.subgroups import subgroup_table
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import score_mapping

Array = np.ndarray
ROC_POINTS = 200
"""A drawn curve needs no more; 33,000 would make the file large."""


def evaluate(
    examples: pd.DataFrame,
    probabilities: pd.DataFrame,
    spec: DatasetSpec,
    *,
    seed: int,
    n_replicates: int = 1000,
    truth: pd.DataFrame | None = None,
    marks: Mapping[str, pd.Series] | None = None,
) -> dict:
    """Score predictions from every side these fields ask about.

    Parameters
    ----------
    examples : pandas.DataFrame
        Validated; gives groups, features and (unless ``truth`` is given) targets. Rows that are
        not predicted are left out.
    probabilities : pandas.DataFrame
        Indexed by image id, a column a class, in [0, 1].
    spec : DatasetSpec
    seed : int
        Seed of the bootstrap.
    n_replicates : int
        Bootstrap replicates, each of which draws as many groups as there are.
    truth : pandas.DataFrame, optional
        Targets by image id, where the examples do not hold them (a test part).
    marks : mapping of str to pandas.Series, optional
        Further subgroups by image id: name -> yes or no (bool), or text; NaN is "missing".

    Returns
    -------
    dict
        ``task, classes, class_labels, group, n, groups, counts, seed, n_replicates, scores,
        per_class, report, confusion, calibration, roc, subgroups``. A score is
        ``{"value", "low", "high"}`` with its 95 % interval; without a value it has a ``reason``.

    Raises
    ------
    PipelineError
        If an id is unknown or doubled, or a truth or probability is not usable.
    """
    labelled = join_truth(examples, probabilities, spec, seed, n_replicates, truth)
    ranks = {
        name: weighted_scores.rank_scores(target, probability, labelled.weights)
        for name, target, probability in _by_class(labelled)
    }
    calibration = reliabilities(labelled)
    return {
        "task": spec.task,
        "classes": list(spec.classes),
        "class_labels": {name: spec.class_label(name) for name in spec.classes},
        "group": spec.group or "photo",
        "n": len(labelled.rows),
        "groups": int(labelled.rows["group_id"].nunique()),
        "counts": _counts(labelled),
        "seed": seed,
        "n_replicates": n_replicates,
        "scores": _overall(labelled, ranks, calibration),
        "per_class": _per_class(labelled, ranks),
        "report": _report(labelled),
        "confusion": _confusion(labelled),
        "calibration": [reliability_curve(of, found) for of, found in calibration.items()],
        "roc": {
            name: _roc(target, score, labelled.weights)
            for name, target, score in _by_class(labelled)
        },
        "subgroups": subgroup_table(
            labelled.rows,
            labelled.truth,
            labelled.probabilities,
            spec,
            labelled.weights,
            marks or {},
        ),
    }


def _by_class(labelled: LabelledPredictions) -> list[tuple[str, Array, Array]]:
    """Name, truth (n,) and probability (n,) of every class."""
    columns = (labelled.spec.classes, labelled.truth.T, labelled.probabilities.T)
    return list(zip(*columns, strict=True))


def _counts(labelled: LabelledPredictions) -> dict[str, dict[str, int]]:
    positive = labelled.truth.sum(axis=0)
    return {
        name: {"positive": int(count), "negative": int(len(labelled.truth) - count)}
        for name, count in zip(labelled.spec.classes, positive, strict=True)
    }


def _lacking(labelled: LabelledPredictions) -> dict[str, str]:
    """Why a class cannot be scored, for those that cannot."""
    return {
        name: f"no {kind} row of {labelled.spec.class_label(name)}"
        for name, counts in _counts(labelled).items()
        for kind, count in counts.items()
        if not count
    }


def _overall(
    labelled: LabelledPredictions,
    ranks: Mapping[str, Mapping[str, Array]],
    calibration: Mapping[str, weighted_scores.Reliability],
) -> dict[str, dict]:
    """Scores over all classes; those of a ranking and the ECE are means over the classes."""
    task, weights, truth = labelled.spec.task, labelled.weights, labelled.truth
    reason = "; ".join(_lacking(labelled).values())
    scores = {
        name: score_mapping(np.mean([one[name] for one in ranks.values()], axis=0), reason)
        for name in weighted_scores.RANK_SCORES
    }
    plain = {
        "accuracy": weighted_scores.accuracy(weights, truth, labelled.decided, task),
        "balanced_accuracy": weighted_scores.balanced_accuracy(
            weights, truth, labelled.decided, task
        ),
        "brier": weighted_scores.brier(weights, truth, labelled.probabilities, task),
    }
    scores |= {name: score_mapping(values, reason) for name, values in plain.items()}
    # Every replicate adds noise to every bin, and the ECE counts noise of either sign as error
    # (Roelofs et al. 2022, arXiv:2012.08668): plain percentiles would lie above the estimate.
    ece = np.mean([found.ece for found in calibration.values()], axis=0)
    return {**scores, "ece": score_mapping(ece, reason, centred=True)}


def _per_class(
    labelled: LabelledPredictions, ranks: Mapping[str, Mapping[str, Array]]
) -> dict[str, dict]:
    """Each class against the rest; a threshold says where its sensitivity was read off."""
    lacking = _lacking(labelled)
    found = {}
    for name, target, probability in _by_class(labelled):
        reason = lacking.get(name, "")
        scores = {one: score_mapping(values, reason) for one, values in ranks[name].items()}
        for percent in weighted_scores.SPECIFICITIES_PERCENT:
            scores[f"sensitivity_at_{percent}_specificity"]["threshold"] = (
                None if reason else weighted_scores.threshold_at(target, probability, percent / 100)
            )
        pair = (target[:, None], probability[:, None], "binary")
        scores["brier"] = score_mapping(weighted_scores.brier(labelled.weights, *pair), reason)
        found[name] = scores
    return found


def _report(labelled: LabelledPredictions) -> dict[str, object]:
    """scikit-learn's classification report of the decisions; None where it divides by zero."""
    from sklearn.metrics import classification_report

    names = list(labelled.spec.classes)
    truth, decided, labels = labelled.truth, labelled.decided, range(len(names))
    if labelled.spec.task == "multiclass":
        truth, decided = truth.argmax(axis=1), decided.argmax(axis=1)
    elif len(names) == 1:
        truth, decided, labels = truth[:, 0], decided[:, 0], (0, 1)
        names = [f"not {names[0]}", *names]
    report = classification_report(
        truth, decided, labels=list(labels), target_names=names, output_dict=True,
        zero_division=np.nan,
    )  # fmt: skip
    return _plain(report)


def _plain(content: object) -> object:
    """Numbers as JSON knows them: NaN is None, numpy's types are Python's."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    number = float(content)
    return None if np.isnan(number) else number


def _confusion(labelled: LabelledPredictions) -> dict[str, object]:
    """Counts, truth in rows and decisions in columns: one table, or one a class."""
    from sklearn.metrics import confusion_matrix

    spec, truth, decided = labelled.spec, labelled.truth, labelled.decided
    if spec.task == "multiclass":
        matrix = confusion_matrix(
            truth.argmax(axis=1), decided.argmax(axis=1), labels=range(len(spec.classes))
        )
        table = {"of": "all classes", "labels": list(spec.classes), "matrix": matrix.tolist()}
        return {"decision": "the most probable class", "tables": [table]}
    tables = []
    for column, name in enumerate(spec.classes):
        matrix = confusion_matrix(truth[:, column], decided[:, column], labels=[0, 1])
        tables.append({"of": name, "labels": ["no", "yes"], "matrix": matrix.tolist()})
    return {"decision": f"yes from a probability of {weighted_scores.THRESHOLD}", "tables": tables}


def reliabilities(labelled: LabelledPredictions) -> dict[str, weighted_scores.Reliability]:
    """Return calibration by what is compared.

    That is the top label of a softmax, else every class's own probability.
    """
    if labelled.spec.task == "multiclass":
        pair = weighted_scores.top_label(labelled.truth, labelled.probabilities)
        return {"top label": weighted_scores.reliability(labelled.weights, *pair)}
    return {
        name: weighted_scores.reliability(labelled.weights, target, probability)
        for name, target, probability in _by_class(labelled)
    }


def reliability_curve(of: str, found: weighted_scores.Reliability) -> dict[str, object]:
    """Return a reliability curve as JSON types: a mapping a bin, None where the bin is empty."""
    bins = []
    for number, (count, predicted) in enumerate(
        zip(found.count[0], found.predicted[0], strict=True)
    ):
        edges = {
            "from": number / weighted_scores.N_BINS,
            "to": (number + 1) / weighted_scores.N_BINS,
        }
        observed = score_mapping(found.observed[:, number], "no row in this bin")
        mean = float(predicted) if count else None
        bins.append({**edges, "count": int(count), "predicted": mean, "observed": observed})
    return {"of": of, "ece": score_mapping(found.ece, "", centred=True), "bins": bins}


def _roc(target: Array, probability: Array, weights: Array) -> dict[str, object] | None:
    """At most :data:`ROC_POINTS` points of the curve, its ends among them, and its 95 % band.

    None without a curve; no band where no replicate has one.
    """
    from sklearn.metrics import roc_curve

    if np.ptp(target) == 0:
        return None
    false_rate, true_rate, _ = roc_curve(target, probability)
    at, low, high = weighted_scores.roc_band(target, probability, weights[1:])
    chosen = np.unique(np.linspace(0, len(false_rate) - 1, ROC_POINTS).round().astype(int))
    return {
        "false_positive_rate": false_rate[chosen].tolist(),
        "true_positive_rate": true_rate[chosen].tolist(),
        "band": None if np.isnan(low).any() else dict(
            zip(("false_positive_rate", "lower", "upper"),
                (part.round(5).tolist() for part in (at, low, high)), strict=True)
        ),
    }  # fmt: skip
