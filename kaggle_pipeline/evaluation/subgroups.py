"""Scores by sex, age, site and whatever else divides the rows.

In: scored rows and the weights of a bootstrap. Out: a list of subgroups with scores, or with the
reason why there is none: a number from a handful of rows would be read as one.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import WeightedAuc, score_mapping

Array = np.ndarray
MIN_ROWS = 10
"""Positive and negative rows that an AUC needs."""
MIN_GROUPS = 5
"""Groups these must come from: with fewer, replicates without any are common (e^-3 = 5 % for 3)."""
MISSING = "missing"


def subgroup_table(
    rows: pd.DataFrame,
    truth: Array,
    probabilities: Array,
    spec: DatasetSpec,
    weights: Array,
    marks: Mapping[str, pd.Series],
) -> list[dict]:
    """Return one mapping a subgroup.

    Parameters
    ----------
    rows : pandas.DataFrame
        Examples, in the order of the arrays.
    truth, probabilities : array of shape (n, classes)
    spec : DatasetSpec
    weights : array of shape (1 + replicates, n)
        Of the whole bootstrap: a subgroup is what each replicate happens to hold of it.
    marks : mapping of str to pandas.Series
        Further subgroups, by image id.

    Returns
    -------
    list of dict
        ``feature, value, n, groups, positives`` (by class), ``auc`` (mean over the classes);
        with several classes ``class_auc`` (by class); for ``multiclass`` also ``accuracy``.
    """
    right = (weighted_scores.decide(probabilities, spec.task) == truth).all(axis=1)
    codes = pd.factorize(rows["group_id"])[0]
    table = []
    for feature, labels in subgroup_labels(rows, spec, marks).items():
        for value in labels.cat.categories:
            chosen = (labels == value).to_numpy()
            if not chosen.any():
                continue
            part = weights[:, chosen]
            groups = codes[chosen]
            aucs, reasons = _class_aucs(truth[chosen], probabilities[chosen], part, groups, spec)
            mean = np.mean(list(aucs.values()), axis=0)
            entry = {
                "feature": feature,
                "value": str(value),
                "n": int(chosen.sum()),
                "groups": len(np.unique(groups)),
                "positives": dict(
                    zip(spec.classes, truth[chosen].sum(axis=0).tolist(), strict=True)
                ),
                "auc": score_mapping(mean, "; ".join(filter(None, reasons.values()))),
            }
            if len(spec.classes) > 1:
                entry["class_auc"] = {
                    name: score_mapping(values, reasons[name]) for name, values in aucs.items()
                }
            if spec.task == "multiclass":
                entry["accuracy"] = _accuracy(right[chosen], part, groups, spec.group)
            table.append(entry)
    return table


def subgroup_labels(
    rows: pd.DataFrame, spec: DatasetSpec, marks: Mapping[str, pd.Series]
) -> dict[str, pd.Series]:
    """Return, by feature, the subgroup of each row (ordered categories, ``missing`` last).

    A feature of which no row knows a value is left out.
    """
    labels = {}
    for feature, number in spec.numeric.items():
        if number.bands and feature in rows:
            labels[number.name or feature] = _as_bands(rows[feature], number.bands)
    for feature, vocabulary in spec.categorical.items():
        labels[feature] = _as_labels(rows[feature], vocabulary)
    for name, mark in marks.items():
        values = mark.reindex(rows.index).astype(object)
        words = values.map(lambda value: {True: "yes", False: "no"}.get(value, value))
        words = words.where(values.notna(), np.nan)
        labels[name] = _as_labels(words, sorted(words.dropna().astype(str).unique()))
    return {name: one for name, one in labels.items() if (one != MISSING).any()}


def _as_labels(values: pd.Series, vocabulary: Sequence[str]) -> pd.Series:
    words = values.astype(object).where(values.notna(), MISSING).astype(str)
    return words.astype(pd.CategoricalDtype(list(dict.fromkeys([*vocabulary, MISSING]))))


def _as_bands(values: pd.Series, edges: Sequence[float]) -> pd.Series:
    """Whole numbers are named by their first and last, ``30–44``; others ``0.5 to under 1.5``."""
    whole = all(float(edge).is_integer() for edge in edges)
    between = [f"{a:g}–{b - 1:g}" if whole else f"{a:g} to under {b:g}" for a, b in pairwise(edges)]
    names = [f"under {edges[0]:g}", *between, f"{edges[-1]:g} and over"]
    cut = pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=names)
    return _as_labels(cut, names)


def _class_aucs(
    truth: Array,
    probabilities: Array,
    weights: Array,
    groups: Array,
    spec: DatasetSpec,
) -> tuple[dict[str, Array], dict[str, str]]:
    """By class: AUC under every row of weights (NaN where it is not scored), and why not."""
    aucs, reasons = {}, {}
    for column, name in enumerate(spec.classes):
        target = truth[:, column]
        reasons[name] = _too_few(target, groups, spec.class_label(name), spec.group)
        if reasons[name]:
            aucs[name] = np.full(len(weights), np.nan)
        else:
            aucs[name] = WeightedAuc(target, probabilities[:, column]).each(weights)
    return aucs, reasons


def _too_few(target: Array, groups: Array, name: str, group: str | None) -> str:
    """Why these rows cannot give an AUC; empty where they can."""
    for value, kind in ((1, "positive"), (0, "negative")):
        of_kind = target == value
        count = int(of_kind.sum())
        if count < MIN_ROWS:
            return f"not enough rows: {count} {kind} of {name}, {MIN_ROWS} needed"
        sources = len(np.unique(groups[of_kind]))
        if sources < MIN_GROUPS:
            return (
                f"not enough {group or 'photo'}s: {kind} rows of {name} come from {sources}, "
                f"{MIN_GROUPS} needed"
            )
    return ""


def _accuracy(right: Array, weights: Array, groups: Array, group: str | None) -> dict:
    reason = ""
    if len(right) < MIN_ROWS:
        reason = f"not enough rows: {len(right)}, {MIN_ROWS} needed"
    elif len(np.unique(groups)) < MIN_GROUPS:
        reason = f"not enough {group or 'photo'}s: {len(np.unique(groups))}, {MIN_GROUPS} needed"
    values = weighted_scores.weighted_mean(weights, right)
    return score_mapping(np.full(len(weights), np.nan) if reason else values, reason)
