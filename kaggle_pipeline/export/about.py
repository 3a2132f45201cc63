"""What an exported file says of itself: labels, preprocessing, thresholds, scores, a model card.

In: a run's settings and what was fitted. Out: plain JSON types. Nothing of it names a photo or a
patient.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.records.geometry import RecordFit
from kaggle_pipeline.report.scores import headline

LAYOUT = 1
"""Of what is written here; a change that a reader must know of adds one."""


def describe_export(
    stage: Path,
    config: Experiment,
    spec: DatasetSpec,
    fit: RecordFit,
    folds: list[int],
    calibration: Calibration | None,
    decision: Decision | None,
    own_views: str | None = None,
    quantize: str = "none",
    photos: int | None = None,
    why: str = "",
) -> dict[str, Any]:
    """Return what is to be known about the file, ``card`` among it: the same in Markdown.

    Parameters
    ----------
    stage : pathlib.Path
        The folder ``image/``: its ``metrics.json`` has the scores.
    config : Experiment
        Of that stage.
    spec : DatasetSpec
    fit : RecordFit
        How a photo becomes a square.
    folds : list of int
        Empty for the model of all rows.
    calibration, decision
        What the file holds of them.
    own_views : str, optional
        Views that scores, calibration and decision are of, where they are not the file's,
        ``config.image.tta``.
    quantize : str
        How the weights are stored; ``none`` for float32.
    photos : int, optional
        How many the file takes at once; None: any number.
    why : str
        Why calibration and decision are left out, where the run has them.
    """
    image, recipe = config.image, fit.recipe(config.records)
    learned = calibration is not None and calibration.method != "none"
    about: dict[str, Any] = {
        "layout": LAYOUT,
        "dataset": spec.id,
        "title": spec.heading,
        "made_up": spec.made_up,
        "task": spec.task,
        "classes": list(spec.classes),
        "labels": [spec.class_label(name) for name in spec.classes],
        "input": {
            "name": "image", "dtype": "uint8", "colours": "RGB", "range": [0, 255],
            "shape": [photos or "photos", image.image_size_px, image.image_size_px, 3],
        },
        "photo": {
            "fit": recipe.fit, "side_px": recipe.image_size_px, "jpeg_quality": recipe.quality,
            "then_side_px": image.image_size_px,
        },
        "outputs": {
            "score": "the mean of the networks, uncalibrated",
            "probability": "calibrated" if learned else "as score, which is not calibrated",
        },
        "backbone": image.backbone,
        "views": image.tta,
        "own_views": own_views or image.tta,
        "quantize": quantize,
        "folds": folds,
        "scores": _scores(stage) | {"of_the_photo_alone": not why},
        "calibration": {
            "method": calibration.method if calibration else "none",
            "why": calibration.why if calibration else why or "the run has none",
        },
        "versions": versions(),
        "disclaimer": DISCLAIMER,
    }  # fmt: skip
    if decision is not None:
        about["outputs"]["decision"] = (
            "1 for what the photo is called"
            if spec.task == "multiclass"
            else "1 for each class that reaches its threshold"
        )
        about["decision"] = {"rule": decision.rule.to_mapping(), "why": decision.why}
        about["thresholds"] = {
            name: [{key: one[key] for key in ("sensitivity", "threshold")} for one in found]
            for name, found in decision.thresholds.items()
        }
    return about | {"card": _card(about)}


def _scores(stage: Path) -> dict[str, Any]:
    path = Path(stage) / "metrics.json"
    metrics = read_json(path) if path.exists() else {}
    if not metrics:
        return {}
    return {
        "out_of_fold_auc": headline(stage, metrics)[0],
        "photos": metrics.get("n"),
        "groups_ignored": metrics.get("groups_ignored"),
    }


_MORE = " Measured with more than the photo, which is all that this file sees."


def _card(about: Mapping[str, Any]) -> str:
    """The model card, Markdown."""
    scores, photo = about["scores"], about["photo"]
    alone = scores["of_the_photo_alone"]
    measured = "AUC, calibration and decision are" if alone else "the AUC is"
    of = f"the mean of {len(about['folds'])} folds' networks" if about["folds"] else (
        f"the network that learned from all rows; {measured} of the folds'"
    )  # fmt: skip
    square = {"crop": "cropped to its middle square", "stretch": "stretched to a square"}
    apart = [f"views {about['own_views']}"] * (about["views"] != about["own_views"])
    apart += ["weights of float32"] * (about["quantize"] != "none")
    note = [f"- {measured[0].upper()}{measured[1:]} of the run itself, with {' and '.join(apart)}."]
    made_up = ["- It learned from made-up lesions: it knows nothing about skin."]
    lines = [
        f"# {about['title']}: {about['backbone']}",
        "",
        about["disclaimer"],
        "",
        f"- Answers for: {', '.join(about['labels'])} ({about['task']}).",
        f"- Made of: {of}; views: {about['views']}; quantised: {about['quantize']}.",
        f"- AUC, out of fold [95 % interval]: {scores.get('out_of_fold_auc', 'not known')}; "
        f"{scores.get('photos', 'unknown')} photos.{'' if alone else _MORE}",
        f"- Calibration: {about['calibration']['method']} ({about['calibration']['why']}).",
        *(note if apart else []),
        f"- A photo is {square[photo['fit']]} of {photo['side_px']} px.",
        *(made_up if about["made_up"] else []),
        "- On photos of another clinic, camera or kind it may do worse. Public data sets contain "
        "little dark skin.",
        "- A low probability does not mean that a lesion is harmless.",
    ]
    return "\n".join(lines) + "\n"
