"""A reading, a patient and their report as HTML, for the page and for the printer.

In: readings. Out: ``Html`` whose words hold for who sees no colour and
no picture; every text from outside is escaped.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.evaluation.decision.rules import NONE_OF_THEM
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.report.report import ADVICE
from kaggle_pipeline.webapp.html_figures import (
    STYLE,
    bars,
    block,
    heat_picture,
    image,
    picture,
    scale,
    thumbnail,
)
from kaggle_pipeline.webapp.labels import part_label, percent
from kaggle_pipeline.webapp.service import Reading, Service

UNUSUAL = 1.5
"""Outlier factor from which a lesion is called unlike the patient's others; 1 is like them."""
_RARE = 0.005
"""Below this share "about 0 of 100" would be said, which reads like none at all."""
_FEW = 3
"""With fewer photos there is no pattern to stand out from."""


def disclaimer() -> Html:
    """Return the sentence that stands on every reading."""
    return html.note(html.element("strong", f"{DISCLAIMER} "), ADVICE)


def reading_block(service: Service, reading: Reading, name: str, sensitivity: float) -> Html:
    """Return one lesion's reading.

    Parameters
    ----------
    service : Service
    reading : Reading
    name : str
        The class to explain.
    sensitivity : float
        Wanted of the threshold.
    """
    word = service.spec.class_label(name)
    p, low, high = (float(one[name]) for one in (reading.probability, reading.low, reading.high))
    threshold = service.distribution.threshold(name, sensitivity)
    tick = threshold.value if threshold else None
    label = f"Probability {percent(p)}, fold models {percent(low)} to {percent(high)}"
    if tick is not None:
        label += f", threshold {percent(tick)}"
    parts = [
        html.element("p", f"Probability of {word}", class_="lead"),
        html.element("p", percent(p), class_="big"),
        scale(p, low, high, tick, label),
        html.element("p", _folds(service, low, high), class_="faint"),
        _doubts(reading),
        html.element("ul", *(html.element("li", one) for one in
                             _facts(service, reading, name, sensitivity))),
    ]  # fmt: skip
    if len(service.classes) > 1:
        parts += [html.element("h3", "All classes"), _all_classes(service, reading)]
    parts += [
        html.element("h3", "Photo and heat map"),
        _photos(reading, name, service),
        html.element("h3", "Photo and metadata separately"),
        _parts(service, reading, name),
    ]
    return block(*parts, disclaimer())


def patient_block(
    service: Service, readings: Sequence[Reading], table: pd.DataFrame, name: str,
    sensitivity: float,
) -> Html:  # fmt: skip
    """Return a patient's lesions: the ranked table, then a gallery in the same order.

    Parameters
    ----------
    service : Service
    readings : sequence of Reading
    table : pandas.DataFrame
        Of ``service.compare``, indexed by the readings' positions.
    name : str
    sensitivity : float
    """
    threshold = service.distribution.threshold(name, sensitivity)
    word = service.spec.class_label(name)
    rows = []
    for row in table.itertuples():
        rows.append(
            [
                str(row.place), _named_thumbnail(readings[row.Index]), percent(row.probability),
                _stands(row, len(table), threshold.value if threshold else None),
                f"{percent(row.low)} – {percent(row.high)}", _points(row.above_median),
                f"{row.outlier_factor:.2f}",
            ]
        )  # fmt: skip
    # Notes stand where a phone shows them without scrolling sideways.
    header = ["rank", "photo", word, "notes", "fold models",
              "against the patient’s median", "outlier factor"]  # fmt: skip
    cards = [_card(service, readings[row.Index], row, name) for row in table.itertuples()]
    how = (
        f"Ranked by the probability of {word}, highest first. The outlier factor compares each "
        f"photo with the patient’s other photos: 1 looks like them, {UNUSUAL:g} or more looks "
        "different. Such an “ugly duckling” deserves a closer look even if its probability is low."
    )
    few = [html.note(f"At least {_FEW} photos are needed to compare a lesion with the others.")]
    return block(
        html.element("p", how),
        *(few if len(table) < _FEW else []),
        html.table(header, rows),
        html.element("div", *cards, class_="gallery"),
        _threshold_line(service, name, sensitivity),
        html.element("p", _context_line(service, readings[0]), class_="faint"),
        disclaimer(),
    )


def report_page(title: str, *pieces: Html) -> str:
    """Return a page to keep or to print that needs nothing but itself."""
    return html.page(title, html.element("style", Html(STYLE)), *pieces)


# ---------------------------------------------------------------------------- of one reading


def _folds(service: Service, low: float, high: float) -> str:
    count = len(service.models.folds)
    if count == 1:
        said = "Only one fold is trained, so it is not known how far another model would differ."
        return f"{said} {missing_line(service)}".strip()
    said = f"The mean of {count} fold models; each alone gives {percent(low)} to {percent(high)}."
    return f"{said} {missing_line(service)}".strip()


def missing_line(service: Service) -> str:
    """Return which folds have no model here, in a sentence; nothing where all have one."""
    lacking = service.models.missing
    return f"Folds {lacking} are not trained and are missing from the mean." if lacking else ""


def _context_line(service: Service, reading: Reading) -> str:
    if not service.models.uses_context:
        return ""
    return f"The metadata model also uses the number of this patient’s photos: {reading.together}."


def _doubts(reading: Reading) -> Html:
    if not reading.look.doubts:
        return Html("")
    lines = [html.element("p", one) for one in reading.look.doubts]
    return html.note(html.element("strong", "This result is less reliable."), *lines, warning=True)


def _facts(service: Service, reading: Reading, name: str, sensitivity: float) -> list[object]:
    distribution, word = service.distribution, service.spec.class_label(name)
    facts = [_decision(service, reading)] if reading.decision else []
    facts += [
        f"{_compared(float(reading.rank[name]))} The training set has {distribution.size:,} "
        f"photos; {percent(distribution.prevalence(name))} of them are {word}."
    ]
    threshold = distribution.threshold(name, sensitivity)
    if threshold:
        above = float(reading.probability[name]) >= threshold.value
        side = "At or above" if above else "Below"
        facts.append(
            f"{side} the threshold of {percent(threshold.value)}: this photo is "
            f"{'' if above else 'not '}flagged. {_threshold_text(service, name, sensitivity)}"
        )
    if not service.is_calibrated(name):
        facts.append(
            f"This run is not calibrated{' for this class' if service.calibration else ''}: use "
            f"the number to compare lesions, not as the chance that this one is {word}."
        )
    if reading.unknown:
        names = ", ".join(service.spec.feature_label(one) for one in reading.unknown)
        facts.append(f"Not given: {names}. The metadata model treats that as missing.")
    if service.models.uses_context:
        facts.append(_context_line(service, reading))
    if reading.look.unlikeness is None:
        why = "there are none here" if service.reference is None else "there are too few"
        facts.append(f"Whether the photo looks like the training photos was not checked: {why}.")
    return facts


def _decision(service: Service, reading: Reading) -> str:
    """What the lesion is called, and what that decision is best at."""
    named = " and ".join(service.spec.class_label(one) for one in reading.decision.split(" + "))
    if reading.decision == NONE_OF_THEM:
        named = f"not {' or '.join(service.spec.class_label(one) for one in service.classes)}"
    found = service.decision
    if not found.learned:
        return f"Decision: {named} (the plain one: {found.why})."
    scores = found.study["scores"]["learned"]
    accuracy, balanced = (
        percent(scores[key]["value"]) for key in ("accuracy", "balanced_accuracy")
    )
    return (
        f"Decision: {named}. This run’s decision is {found.why}; by cross-validation {accuracy} of "
        f"its decisions were right, and {balanced} on average over the classes. "
        "What it trades for what is drawn under “This run”."
    )


def _threshold_text(service: Service, name: str, sensitivity: float) -> str:
    threshold = service.distribution.threshold(name, sensitivity)
    if threshold is None:
        return ""
    spared, low, high = threshold.specificity
    interval = "" if np.isnan(low) else f", 95 % interval {percent(low)} to {percent(high)}"
    how = (
        "measured by cross-validation"
        if threshold.nested
        else "measured on the photos it was chosen on, so it may be lower on new ones"
    )
    return (
        f"A threshold of {percent(threshold.value)} is chosen to flag {100 * sensitivity:g} % of "
        f"the {service.spec.class_label(name)} photos (sensitivity). It also flags, wrongly, "
        f"{percent(1 - spared)} of the other photos (specificity {percent(spared)}{interval}; "
        f"{how})."
    )


def _compared(rank: float) -> str:
    """Where a probability stands among 100 training photos, in a sentence."""
    if rank < _RARE:
        return "Almost all training photos get a higher probability."
    if rank > 1 - _RARE:
        return "Almost all training photos get a lower probability."
    lower = round(100 * rank)
    return (
        f"Of 100 training photos, about {lower} get a lower probability and {100 - lower} a "
        "higher one."
    )


def _threshold_line(service: Service, name: str, sensitivity: float) -> Html:
    return html.element("p", _threshold_text(service, name, sensitivity), class_="faint")


def _all_classes(service: Service, reading: Reading) -> Html:
    ordered = reading.probability.sort_values(ascending=False)
    return bars(
        [
            (
                service.spec.class_label(one),
                float(p),
                float(reading.low[one]),
                float(reading.high[one]),
            )
            for one, p in ordered.items()
        ]
    )


def _photos(reading: Reading, name: str, service: Service) -> Html:
    look = reading.look
    heat = look.answer.heat[service.classes.index(name)]
    width, height = look.size_px
    word = service.spec.class_label(name)
    found = (
        f"Heat map (Grad-CAM): bright areas raised the model’s score for {word} most. The colours "
        "are scaled to this photo, so do not compare photos. A bright area is not a diseased area."
        if heat.max() > 0
        else f"Heat map (Grad-CAM): no area of this photo raised the score for {word}."
    )
    cropped = service.models.fit.fit == "crop"
    seen = "the middle square of the photo" if cropped else "the whole photo"
    rest = "." if cropped or width == height else ", stretched to a square."
    return html.element(
        "div",
        picture(look.shown, f"What the network sees: {seen} ({width} × {height} pixels){rest}"),
        picture(heat_picture(look.shown, heat), f"Heat map over the photo for {word}.", found),
        class_="pair",
    )


def _parts(service: Service, reading: Reading, name: str) -> Html:
    rows = [
        [part_label(part), percent(float(found[name])), f"{reading.weights[part]:.2f}"]
        for part, found in reading.parts.items()
    ]
    table = html.table(["model", "probability", "weight in the blend"], rows)
    if list(reading.parts) == ["image"]:
        text = "This run uses the photo alone. Sex, age and site are not used."
        return html.join([table, html.element("p", text, class_="faint")])
    text = (
        "Before blending and calibration. Each model has its own scale, so do not compare these "
        "numbers with each other."
    )
    if "image" not in reading.parts:
        text = (
            "The image model has no weight in this run’s blend: the probability comes from the "
            "metadata alone. The heat map explains the image model, which is not used here. " + text
        )
    return html.join([table, html.element("p", text, class_="faint")])


# ---------------------------------------------------------------------------- of a patient


def _named_thumbnail(reading: Reading) -> Html:
    look = reading.look
    small = image(thumbnail(look.shown), f"Thumbnail of {look.name}", class_="thumb")
    return html.element("span", small, html.element("span", look.name), class_="named")


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points".replace("-", "−")


def _stands(row: tuple, count: int, threshold: float | None) -> str:
    found = []
    if threshold is not None and row.probability >= threshold:
        found.append("above the threshold")
    if count >= _FEW and row.outlier_factor >= UNUSUAL:
        found.append("unlike the others")
    if row.doubts:
        found.append("less reliable, see below")
    return "; ".join(found) or "–"


def _card(service: Service, reading: Reading, row: tuple, name: str) -> Html:
    look = reading.look
    heat = look.answer.heat[service.classes.index(name)]
    pair = html.element(
        "div",
        picture(look.shown, f"Photo {row.file}", "photo"),
        picture(heat_picture(look.shown, heat), f"Heat map over {row.file}", "Grad-CAM"),
        class_="pair",
    )
    badges = []
    if row.outlier_factor >= UNUSUAL:
        text = f"unlike the others ({row.outlier_factor:.1f})"
        badges.append(html.element("span", text, class_="badge stands"))
    return html.element(
        "section",
        html.element("h3", f"{row.place}. {row.file}"),
        html.element("p", percent(row.probability), class_="big"),
        pair,
        *badges,
        *(html.note(one, warning=True) for one in look.doubts),
        class_="card",
    )
