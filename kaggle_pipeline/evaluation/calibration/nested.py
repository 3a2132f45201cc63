"""What a calibration is worth on groups that it was not fitted on.

In: out-of-fold predictions beside the truth. Out: nested calibrated probabilities, also decisions
for ``evaluation/decision``; their scores before and after with intervals, as plain JSON types.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.evaluation.calibration.maps import apply_maps, fit_maps
from kaggle_pipeline.evaluation.evaluate import reliabilities, reliability_curve
from kaggle_pipeline.evaluation.labelled import LabelledPredictions
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, score_mapping, score_of

Array = np.ndarray
FOLDS = 5
"""Parts of the groups; a part is scored with what the others gave."""
Fit = Callable[[Array, Array], Callable[[Array], Array]]
"""From truth and calibrated probabilities (n, classes) to a function: such ones -> decisions."""


@dataclass(frozen=True)
class Nested:
    """Calibrated rows, each by curves and rules of other groups.

    Attributes
    ----------
    probabilities : numpy.ndarray of shape (n, classes)
    decided : dict of str to numpy.ndarray of shape (n, classes), int
        By the name of a rule: 0 or 1.
    """

    probabilities: Array
    decided: dict[str, Array]


def lacking(labelled: LabelledPredictions) -> dict[str, str]:
    """Return why a class cannot be calibrated, for those that cannot.

    Every one of the :data:`FOLDS` parts needs a group with an image of the class, and one with
    another: else what is fitted, or what it is scored on, would be no more than a guess.
    """
    found, unit = {}, labelled.spec.group or "photo"
    for name, column in zip(labelled.spec.classes, labelled.truth.T, strict=True):
        for value, what in ((1, "a positive"), (0, "a negative")):
            groups = labelled.rows["group_id"][column == value].nunique()
            if groups < FOLDS:
                of = labelled.spec.class_label(name)
                found[name] = f"{groups} {unit}s have {what} photo of {of}, {FOLDS} are needed"
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
    *,
    rules: Mapping[str, Fit] = MappingProxyType({}),
    leave: Collection[str] = (),
) -> Nested:
    """Calibrate every row by curves, and decide it by rules, that its group had no part in.

    Parameters
    ----------
    method : {"temperature", "isotonic", "none"}
    labelled : LabelledPredictions
    folds : Folds
        Of all its rows, from :func:`divide`.
    rules : mapping of str to callable
        How each rule is learned.
    leave : collection of str
        Classes that are not calibrated, unless by one temperature for all.
    """
    spec, index = labelled.spec, labelled.rows.index
    raw, truth = (pd.DataFrame(values, index, list(spec.classes))
                  for values in (labelled.probabilities, labelled.truth))  # fmt: skip
    fold = folds.table["fold"].loc[index].to_numpy()
    found = np.full(labelled.probabilities.shape, np.nan)
    decided = {name: np.zeros(found.shape, int) for name in rules}
    for number in folds.numbers:
        inside, outside = fold == number, fold != number
        maps = fit_maps(method, raw[outside], truth[outside], spec.task, leave=leave)
        found[inside] = apply_maps(maps, raw[inside], spec.task)
        fitted_on = apply_maps(maps, raw[outside], spec.task)
        for name, fit in rules.items():
            decide = fit(labelled.truth[outside], fitted_on)
            decided[name][inside] = decide(found[inside])
    return Nested(found, decided)


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
    reason = "a class has no positive or no negative photo"
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


def left_alone(method: str, task: str, why: Mapping[str, str]) -> set[str]:
    """Return the classes that ``method`` leaves as they are for want of images."""
    return set() if (method, task) == ("temperature", "multiclass") else set(why)
