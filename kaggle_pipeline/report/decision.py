"""A stage's decision in words, for ``report.py``.

In: ``decision.json`` and its picture. Out: tables that say what the decision reaches and costs.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.decision.decision import FILE, read_thresholds
from kaggle_pipeline.evaluation.decision.rules import NONE_OF_THEM, equal_costs
from kaggle_pipeline.evaluation.plots import describe_score
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html

_SCORES = {
    "accuracy": "Accuracy: share of right decisions",
    "balanced_accuracy": "Balanced accuracy: mean of the classes’ recalls (yes or no: mean of "
    "sensitivity and specificity)",
    "cost": "Cost: mean of the experiment’s costs a photo; lower is better",
}
_REACHED = {
    "sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision",
    "photos_per_find": "photos looked at for each found",
}  # fmt: skip
DECISION_AND_THRESHOLD = (
    "Decision and threshold are two uses of the same probability: the decision is the run’s one "
    "answer for a photo, weighing misses against false alarms; a threshold flags photos by how "
    "many of a class you want to find. So a photo can be flagged although the decision is no."
)
"""How the two are related, in the report and on the page."""


def decision_section(folder: Path, title: str, spec: DatasetSpec) -> Html | None:
    """Return what a stage's images are called and what that is worth; None without.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage.
    title : str
        Of the stage, for the picture's text.
    spec : DatasetSpec
        What the classes are called.
    """
    path = Path(folder) / FILE
    heading = html.element("h3", "Decision")
    if not path.exists():  # a run made before: its thresholds stand beside its calibration
        thresholds = read_thresholds(folder)
        return (
            html.join([heading, *_thresholds(thresholds, "nested", spec)]) if thresholds else None
        )
    found = read_json(path)
    if not found["learned"]:
        return html.join([heading, html.element("p", f"{_plain(found)}: {found['why']}.")])
    study = found["study"]
    intro = (
        f"The decision is learned on calibrated out-of-fold probabilities ({found['why']}). The "
        f"scores below are cross-validated: no photo is decided by a rule that was learned on its "
        f"own {study['group']}. The plain decision beside it ({_plain(found)}) "
        "learns nothing; it shows what learning changes, and nothing uses it."
    )
    parts = [
        heading,
        html.element("p", intro),
        html.element("p", describe_rule(found, spec)),
        *([html.element("p", DECISION_AND_THRESHOLD)] if found["thresholds"] else []),
        *_comparison(study, found, spec),
        html.picture(Path(folder) / "decision.png", f"{title}: what a decision trades for what."),
        *_thresholds(found["thresholds"], "nested", spec),
    ]
    if "test" in found:
        test = found["test"]
        told = f"On the held-out test part, {test['n']:,} photos:"
        parts += [html.element("p", told), *_comparison(test, found, spec)]
        parts += _thresholds(test["thresholds"], "reached", spec)
    return html.join(parts)


def describe_rule(found: Mapping, spec: DatasetSpec) -> str:
    """Return the rule of ``decision.json`` in a sentence."""
    rule, classes = found["rule"], [spec.class_label(name) for name in found["classes"]]
    if "thresholds" in rule:
        limits = zip(classes, rule["thresholds"], strict=True)
        told = ", ".join(f"{name} from {limit:.3g} on" for name, limit in limits)
        return f"Decided by the calibrated probability: {told}; else “{NONE_OF_THEM}”."
    weights = zip(classes, rule["weights"], strict=True)
    told = ", ".join(f"{name} {weight:.3g}" for name, weight in weights)
    power = rule["exponent"]
    how = "" if power is None else f" (the class shares to the power −{power:g})"
    equal = np.array_equal(rule["costs"], equal_costs(len(classes)))
    which = "The highest is the decision." if equal else "The decision of the least cost is taken."
    return f"Each calibrated probability is multiplied by a weight{how}: {told}. {which}"


def _plain(found: Mapping) -> str:
    softmax = found["task"] == "multiclass"
    return "the most probable class" if softmax else "yes from a probability of 0.5"


def _comparison(study: Mapping, found: Mapping, spec: DatasetSpec) -> list[Html]:
    header = ["score", "plain decision", "learned decision", "difference, paired"]
    rows = [
        [_SCORES[key], describe_score(study["scores"]["plain"][key]), describe_score(score),
         describe_score(study["change"][key])]
        for key, score in study["scores"]["learned"].items()
    ]  # fmt: skip
    parts = [html.table(header, rows, stack=True)]
    rows = [
        [spec.class_label(name), *(describe_score(study["per_class"][when][name][key])
                 for when in ("plain", "learned") for key in ("sensitivity", "precision"))]
        for name in found["classes"]
    ]  # fmt: skip
    header = ["class", *(f"{key}, {when}" for when in ("plain", "learned")
                         for key in ("sensitivity", "precision"))]  # fmt: skip
    parts.append(html.table(header, rows, stack=True))
    tables = [
        html.table(
            [f"truth \\ decision ({one['of']})", *one["labels"]],
            [[name, *row] for name, row in zip(one["labels"], one["matrix"], strict=True)],
        )
        for one in study["confusion"]
    ]
    parts.append(html.details("Truth and learned decision, counts", *tables))
    return parts


def _thresholds(thresholds: Mapping, key: str, spec: DatasetSpec) -> list[Html]:
    rows = [
        [spec.class_label(name), f"{one['sensitivity']:.0%}", f"{one['threshold']:.3g}",
         *(describe_score(one[key][score]) if score in one[key] else "–" for score in _REACHED)]
        for name, entries in thresholds.items()
        for one in entries
    ]  # fmt: skip
    if not rows:
        return []
    columns = ["class", "wanted: share found", "flag from", *_REACHED.values()]
    known = [place for place in range(len(columns)) if {row[place] for row in rows} != {"–"}]
    header = [columns[place] for place in known]
    rows = [[row[place] for place in known] for row in rows]
    return [
        html.element("p", _read_a_row(thresholds, key, spec)),
        html.table(header, rows, stack=True),
    ]


def _read_a_row(thresholds: Mapping, key: str, spec: DatasetSpec) -> str:
    """What the table of thresholds says, by the example of the main class's middle row."""
    name = spec.main_class if thresholds.get(spec.main_class) else next(
        name for name, entries in thresholds.items() if entries
    )  # fmt: skip
    entries = thresholds[name]
    one, word = entries[len(entries) // 2], spec.class_label(name)
    said = (
        f"Thresholds, each class alone. How to read a row: to find {one['sensitivity']:.0%} of the "
        f"{word} photos, flag every photo whose calibrated probability is {one['threshold']:.3g} "
        "or more."
    )
    found, spared = one[key]["sensitivity"]["value"], one[key]["specificity"]["value"]
    if found is None or spared is None:
        return said
    return (
        f"{said} On photos that had no part in choosing it, this found {found:.0%} of {word} "
        f"(sensitivity) and flagged {1 - spared:.0%} of the other photos wrongly (specificity "
        f"{spared:.0%})."
    )
