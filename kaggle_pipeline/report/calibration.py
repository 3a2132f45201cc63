"""A stage's calibration in words, for ``report.py``.

In: ``calibration.json`` and its picture. Out: tables that say what each number means.
"""

from collections.abc import Mapping
from pathlib import Path

from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.plots import describe_score
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html

_SCORES = {
    "ece": "Calibration error (ECE): average gap between predicted probability and observed share",
    "log_loss": "Log loss: penalty for confident wrong predictions; lower is better",
    "brier": "Brier score: mean squared error; lower is better",
    "auc": "AUC: the ranking of the photos, which calibration should not change",
}
_METHODS = {
    "none": "none, the model’s own probabilities are kept",
    "temperature": "temperature scaling with a shift (Platt scaling; softmax: no shift)",
    "isotonic": "isotonic regression (a curve that never falls; it makes ties)",
}


def calibration_section(folder: Path, title: str, spec: DatasetSpec) -> Html | None:
    """Return how a stage's probabilities were calibrated and what that is worth; None without.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage.
    title : str
        Of the stage, for the picture's text.
    spec : DatasetSpec
        What the classes are called.
    """
    path = Path(folder) / "calibration.json"
    if not path.exists():
        return None
    found = read_json(path)
    study = found["study"]
    intro = (
        f"Method: {_METHODS[found['method']]}; {found['why']}. It is fitted on out-of-fold "
        "probabilities. The scores below are cross-validated: no photo is calibrated by a curve "
        f"that was fitted on its own {study['group']}."
    )
    parts = [html.element("h3", "Calibration"), html.element("p", intro), _score_table(found)]
    alt = f"{title}: observed share against predicted probability, before and after calibration."
    parts.append(html.picture(Path(folder) / "calibration.png", alt))
    lacking = [html.element("li", f"{spec.class_label(name)}: {why}")
               for name, why in found["lacking"].items()]  # fmt: skip
    if lacking:
        parts.append(html.element("p", "Without a calibration curve of their own:"))
        parts.append(html.element("ul", *lacking))
    if "test" in found:
        parts += _test_part(found["test"])
    return html.join(parts)


def _score_table(found: Mapping) -> Html:
    scores = found["study"]["scores"]
    used = found["method"]
    header = [
        "cross-validated score",
        *(f"{name} (used)" if name == used else name for name in scores),
    ]
    rows = [
        [meaning, *(describe_score(one[key], 4) for one in scores.values())]
        for key, meaning in _SCORES.items()
    ]
    return html.table(header, rows, stack=True)


def _test_part(test: Mapping) -> list[Html]:
    rows = [
        [meaning, *(describe_score(test["scores"][when][key], 4) for when in ("before", "after"))]
        for key, meaning in _SCORES.items()
    ]
    told = f"On the held-out test part, {test['n']:,} photos:"
    return [html.element("p", told), html.table(["score", "before", "after"], rows, stack=True)]
