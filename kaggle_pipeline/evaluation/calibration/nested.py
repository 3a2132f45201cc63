"""What a calibration is worth on groups that it was not fitted on.

In: out-of-fold predictions beside the truth. Out: nested calibrated probabilities and decisions,
their scores before and after with intervals, as plain JSON types.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.evaluation.calibration.maps import apply_maps, fit_maps
from kaggle_pipeline.evaluation.evaluate import reliabilities, reliability_curve
from kaggle_pipeline.evaluation.labelled import LabelledPredictions
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, ratio, score_mapping, score_of

Array = np.ndarray
FOLDS = 5
"""Parts of the groups; a part is judged by what the others gave."""
Called = dict[tuple[str, float], Array]
"""By class and wanted sensitivity: whether each row reaches the threshold."""


@dataclass(frozen=True)
class Nested:
    """Calibrated rows, each by curves and thresholds of other groups.

    Attributes
    ----------
    probabilities : numpy.ndarray of shape (n, classes)
    called : dict of (str, float) to numpy.ndarray of shape (n,), bool
    """

    probabilities: Array
    called: Called


def lacking(labelled: LabelledPredictions) -> dict[str, str]:
    """Return why a class cannot be calibrated, for those that cannot.

    Every one of the :data:`FOLDS` parts needs a group with an image of the class, and one with
    another: else what is fitted, or what it is judged by, would be no more than a guess.
    """
    found, unit = {}, labelled.spec.group or "image"
    for name, column in zip(labelled.spec.classes, labelled.truth.T, strict=True):
        for value, what in ((1, "a positive"), (0, "a negative")):
            groups = labelled.rows["group_id"][column == value].nunique()
            if groups < FOLDS:
                found[name] = f"{groups} {unit}s have {what} image of {name}, {FOLDS} are needed"
                break
    return found


def divide(labelled: LabelledPredictions, seed: int) -> Folds:
    """Return :data:`FOLDS` parts of the rows; a group is never split.

    Raises
    ------
    PipelineError
        If there are fewer groups than parts.
    """
    classes = list(labelled.spec.classes)
    truth = pd.DataFrame(labelled.truth, labelled.rows.index, classes)
    rows = truth.assign(group_id=labelled.rows["group_id"])
    return make_folds(rows, labelled.spec, FoldsConfig(k=FOLDS), seed)


def nest(
    method: str,
    labelled: LabelledPredictions,
    folds: Folds,
    sensitivities: Sequence[float],
    leave: Collection[str] = (),
) -> Nested:
    """Calibrate every row by curves, and call it by thresholds, that its group had no part in.

    Parameters
    ----------
    method : {"temperature", "isotonic", "none"}
    labelled : LabelledPredictions
    folds : Folds
        Of all its rows, from :func:`divide`.
    sensitivities : sequence of float
    leave : collection of str
        Classes that are neither calibrated (unless by one temperature for all) nor called.
    """
    spec, index = labelled.spec, labelled.rows.index
    raw, truth = (pd.DataFrame(values, index, list(spec.classes))
                  for values in (labelled.probabilities, labelled.truth))  # fmt: skip
    fold = folds.table["fold"].loc[index].to_numpy()
    found = np.full(labelled.probabilities.shape, np.nan)
    wanted = [(name, one) for name in spec.classes if name not in leave for one in sensitivities]
    called = {key: np.zeros(len(index), bool) for key in wanted}
    for number in folds.numbers:
        inside, outside = fold == number, fold != number
        maps = fit_maps(method, raw[outside], truth[outside], spec.task, leave=leave)
        found[inside] = apply_maps(maps, raw[inside], spec.task)
        fitted_on = apply_maps(maps, raw[outside], spec.task)
        for name, one in wanted:
            column = spec.classes.index(name)
            limit = threshold_for(labelled.truth[outside, column], fitted_on[:, column], one)
            called[name, one][inside] = found[inside, column] >= limit
    return Nested(found, called)


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


# ---------------------------------------------------------------------------- scores


def values_of(labelled: LabelledPredictions, probabilities: Array) -> dict[str, Array]:
    """Return log loss, Brier score, ECE and AUC, (1 + replicates,) each; several classes: means."""
    task, weights, truth = labelled.spec.task, labelled.weights, labelled.truth
    again = LabelledPredictions(labelled.spec, labelled.rows, truth, probabilities, weights)
    return {
        "log_loss": weighted_scores.log_loss(weights, truth, probabilities, task),
        "brier": weighted_scores.brier(weights, truth, probabilities, task),
        "ece": np.mean([one.ece for one in reliabilities(again).values()], axis=0),
        "auc": MeanAuc(truth, probabilities).each(weights),
    }


def describe(values: Mapping[str, Array]) -> dict[str, dict]:
    """Return :func:`values_of` as scores with intervals."""
    # The ECE counts noise of either sign as error, so its replicates lie above the estimate.
    reason = "a class has no positive or no negative image"
    return {
        name: score_mapping(found, reason if name == "auc" else "", centred=name == "ece")
        for name, found in values.items()
    }


def choose(asked: str, values: Mapping[str, Mapping[str, Array]]) -> tuple[str, str]:
    """Return the method to use and why.

    Parameters
    ----------
    asked : {"auto", "temperature", "isotonic", "none"}
    values : mapping of str to mapping
        :func:`values_of` by method, for ``auto`` of all three, on the same replicates.
    """
    if asked != "auto":
        return asked, "the config says so"
    chosen, why = "temperature", "the simplest that no other clearly beats"
    for other in ("isotonic", "none"):
        gain = score_of(values[chosen]["log_loss"] - values[other]["log_loss"])
        if gain is not None and gain.low > 0:
            why = f"its nested log loss is {gain} better than that of {chosen}"
            chosen = other
    return chosen, why


def change(before: Mapping[str, Array], after: Mapping[str, Array]) -> dict[str, dict]:
    """Return after less before, in pairs, of all but the ECE, whose noise is no difference's."""
    return {
        name: score_mapping(after[name] - before[name], "no score to compare")
        for name in ("log_loss", "brier", "auc")
    }


def curves(labelled: LabelledPredictions, probabilities: Array) -> list[dict]:
    """Return reliability curves of ``probabilities``, as in ``evaluation.json``."""
    again = LabelledPredictions(
        labelled.spec, labelled.rows, labelled.truth, probabilities, labelled.weights
    )
    return [reliability_curve(of, found) for of, found in reliabilities(again).items()]


def reached(labelled: LabelledPredictions, name: str, called: Array) -> dict[str, dict]:
    """Return sensitivity, specificity and precision of decisions for one class, with intervals.

    Parameters
    ----------
    labelled : LabelledPredictions
    name : str
        The class; with several each is set against the rest.
    called : array of shape (n,), bool
    """
    truth, called = labelled.truth[:, labelled.spec.classes.index(name)], called.astype(int)
    columns = np.stack([truth * called, truth, (1 - truth) * (1 - called), 1 - truth, called], 1)
    hit, positive, spared, negative, flagged = weighted_scores.weighted_sums(
        labelled.weights, columns
    ).T
    return {
        "sensitivity": score_mapping(ratio(hit, positive), "no positive image"),
        "specificity": score_mapping(ratio(spared, negative), "no negative image"),
        "precision": score_mapping(ratio(hit, flagged), "no image reaches it"),
    }


def left_alone(method: str, task: str, why: Mapping[str, str]) -> set[str]:
    """Return the classes that ``method`` leaves as they are for want of images."""
    return set() if (method, task) == ("temperature", "multiclass") else set(why)
