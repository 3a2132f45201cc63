"""Scores of a stage in words, for ``report.py``.

In: ``evaluation.json`` (or, before there was one, ``metrics.json``) and the pictures beside it.
Out: tables that say what each number means.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.plots import describe_score, subgroup_scores
from kaggle_pipeline.evaluation.subgroups import MIN_GROUPS, MIN_ROWS
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html

_SCORES = {
    "auc": (
        "AUC",
        "Chance that a random positive photo gets a higher score than a random negative one.",
    ),
    "balanced_accuracy": (
        "Balanced accuracy",
        "Share of each class that is recognised, averaged over the classes: a rare class counts "
        "as much as a common one.",
    ),
    "accuracy": (
        "Accuracy",
        "Share of correct decisions. If a class is rare, always saying no scores high as well.",
    ),
    "average_precision": (
        "Average precision",
        "Area under the precision-recall curve. Guessing scores the share of positives.",
    ),
    "sensitivity_at_80_specificity": (
        "Sensitivity at 80 % specificity",
        "Share of positives found when 20 % of the negatives are wrongly flagged.",
    ),
    "sensitivity_at_90_specificity": (
        "Sensitivity at 90 % specificity",
        "Share of positives found when 10 % of the negatives are wrongly flagged.",
    ),
    "brier": ("Brier score", "Mean squared error of the probabilities; lower is better."),
    "ece": (
        "Calibration error (ECE)",
        "Average gap between predicted probability and observed share, in 15 bins; lower is "
        "better.",
    ),
}
_MEANS = ("auc", "average_precision", "sensitivity_at_80_specificity",
          "sensitivity_at_90_specificity")  # fmt: skip
"""Averaged over the classes, each against the rest, where there are several."""
_PICTURES = {
    "confusion": "confusion matrix; rows are true, columns predicted classes, with row shares.",
    "class_roc": "ROC curves; the nearer the top left corner, the better.",
    "reliability": "observed share against predicted probability (best on the diagonal), and how "
    "often each probability is predicted.",
    "subgroups": "scores by subgroup. Squares with lines: a subgroup’s score and its 95 % "
    "interval; dashed line with a band: the same of all photos. A subgroup beside the band differs "
    "from the whole; many small ones do so by chance.",
}

_UNCALIBRATED = "on the model’s own scores, before calibration"
"""The decision that is used is learned on calibrated ones and has a part of its own."""


def headline(folder: Path, metrics: Mapping) -> tuple[str, str, str]:
    """Return the AUC out of fold, that of the test part, and the number of images judged."""
    names = {part: f"oof_auc{end}" for part, end in
             (("value", ""), ("low", "_low"), ("high", "_high"))}  # fmt: skip
    out_of_fold = describe_score({part: metrics.get(name) for part, name in names.items()})
    path = Path(folder) / "test_evaluation.json"
    test = describe_score(read_json(path)["scores"]["auc"]) if path.exists() else "–"
    return out_of_fold, test, f"{metrics['n']:,}"


def evaluation_section(
    folder: Path, prefix: str, title: str, spec: DatasetSpec, metrics: Mapping | None
) -> Html:
    """Return scores, pictures and, folded away, the tables behind them.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage.
    prefix : str
        ``""`` for out-of-fold predictions, ``"test_"`` for a held-out part.
    title : str
        Of the stage, for the pictures' texts.
    spec : DatasetSpec
    metrics : mapping or None
        ``metrics.json``, used where there is no ``<prefix>evaluation.json``.
    """
    folder = Path(folder)
    path = folder / f"{prefix}evaluation.json"
    if not path.exists():
        metrics = metrics or {}
        auc = html.element("p", f"AUC {headline(folder, metrics)[0]} on {metrics['n']:,} photos.")
        return html.join([auc, html.picture(folder / f"{prefix}roc.png", f"{title}: ROC curve.")])
    found = read_json(path)
    counts = ", ".join(
        f"{one['positive']:,} {spec.class_label(name)}" for name, one in found["counts"].items()
    )
    lacking = [spec.class_label(name) for name, one in found["counts"].items()
               if not (one["positive"] and one["negative"])]  # fmt: skip
    parts = [
        html.element(
            "p",
            f"{found['n']:,} photos ({counts}) of {found['groups']:,} {found['group']}s. In "
            f"brackets: 95 % confidence intervals from {found['n_replicates']:,} bootstrap "
            f"samples of whole {found['group']}s.",
        ),
        _nothing_to_score(lacking) if lacking else "",
        html.element("p", _few(found, spec)),
        _score_table(found),
    ]
    if len(found["classes"]) > 1:
        parts.append(_class_table(found, spec))
    for name, alt in _PICTURES.items():
        parts.append(html.picture(folder / f"{prefix}{name}.png", f"{title}: {alt}"))
    if found["subgroups"] and not subgroup_scores(found):
        few = f"{MIN_ROWS} photos with and without the class, of {MIN_GROUPS} {found['group']}s"
        parts.append(html.element("p", f"No subgroup has enough photos for a score ({few})."))
    parts.append(html.details("Scores by subgroup", _subgroup_table(found, spec)))
    parts.append(
        html.details(
            f"Precision, recall and F1 of decisions {_UNCALIBRATED}", _report_table(found, spec)
        )
    )
    return html.join(parts)


def _nothing_to_score(lacking: Sequence[str]) -> Html:
    names = ", ".join(lacking)
    return html.note(
        f"No photo, or every photo, scored here is of {names}. So what needs all classes, such as "
        "the mean AUC, has no value; the other classes’ scores stand in the table by class.",
        warning=True,
    )


def _few(found: Mapping, spec: DatasetSpec) -> str:
    """Which classes have so few images that their scores say little; empty where none has."""
    few = [spec.class_label(name) for name, one in found["counts"].items()
           if 0 < one["positive"] < MIN_ROWS]  # fmt: skip
    if not few:
        return ""
    return f"Under {MIN_ROWS} photos, so scores that say little: {', '.join(few)}."


def _score_table(found: Mapping) -> Html:
    several = len(found["classes"]) > 1
    rows = []
    for key, (name, meaning) in _SCORES.items():
        if key not in found["scores"]:
            continue
        score = found["scores"][key]
        if several and key in _MEANS:
            meaning += " Mean over the classes, each against the rest."
        if key in ("accuracy", "balanced_accuracy"):
            meaning += f" Decision: {found['confusion']['decision']}, {_UNCALIBRATED}."
        if not several:
            threshold = found["per_class"][found["classes"][0]].get(key, {}).get("threshold")
            if threshold is not None:
                meaning += f" Measured at a threshold of {threshold:.3g}."
        rows.append([name, _value(score), meaning])
    return html.table(["score", "value", "what it means"], rows, stack=True)


def _value(score: Mapping) -> str:
    if score["value"] is None:
        return f"– ({score['reason']})"
    return describe_score(score)


def _class_table(found: Mapping, spec: DatasetSpec) -> Html:
    keys = [key for key in _SCORES if key in next(iter(found["per_class"].values()))]
    rows = [
        [spec.class_label(name), f"{found['counts'][name]['positive']:,}",
         *(_narrow(scores[key]) for key in keys)]
        for name, scores in found["per_class"].items()
    ]  # fmt: skip
    return html.table(["class", "photos", *(_SCORES[key][0] for key in keys)], rows, stack=True)


def _narrow(score: Mapping) -> Html | str:
    """A score with its interval below it, for a table of many columns."""
    value, _, interval = _value(score).partition(" ")
    return html.join([value, html.element("small", interval)]) if interval else value


def _subgroup_table(found: Mapping, spec: DatasetSpec) -> Html:
    several = len(found["classes"]) > 1
    header = ["subgroup", "photos", "positive", "mean AUC" if several else "AUC"]
    softmax = found["task"] == "multiclass"
    header += ["accuracy"] if softmax else []
    header += [f"AUC {spec.class_label(name)}" for name in found["classes"]] if several else []
    rows = []
    for one in found["subgroups"]:
        positive = (f"{count:,} {spec.class_label(name)}" if several else f"{count:,}"
                    for name, count in one["positives"].items())  # fmt: skip
        row = [f"{one['feature']}: {one['value']}", f"{one['n']:,}", ", ".join(positive)]
        row.append(_narrow(one["auc"]))
        row += [_narrow(one["accuracy"])] if softmax else []
        row += [_narrow({"reason": "", **score}) for score in one.get("class_auc", {}).values()]
        rows.append(row)
    return html.table(header, rows, stack=True)


def _report_table(found: Mapping, spec: DatasetSpec) -> Html:
    rows = []
    for name, scores in found["report"].items():
        if isinstance(scores, Mapping):
            rates = [scores[key] for key in ("precision", "recall", "f1-score")]
            shown = ("–" if rate is None else f"{rate:.3f}" for rate in rates)
            negative = name.startswith("not ") and name[4:] in spec.classes
            word = f"not {spec.class_label(name[4:])}" if negative else spec.class_label(name)
            rows.append([word, *shown, f"{scores['support']:,.0f}"])
    return html.table(["class", "precision", "recall", "F1", "photos"], rows)
