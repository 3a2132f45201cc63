"""A reading and its report as HTML, for the page and for the printer.

In: readings. Out: ``Html`` whose words hold for who sees no colour and
no picture; every text from outside is escaped.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import numpy as np

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.decision.rules import NONE_OF_THEM
from kaggle_pipeline.report import html
from kaggle_pipeline.report.decision import DECISION_AND_THRESHOLD
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.report.report import ADVICE, MADE_UP, describe_run
from kaggle_pipeline.webapp.html_figures import (
    STYLE,
    bars,
    block,
    heat_picture,
    picture,
    scale,
)
from kaggle_pipeline.webapp.labels import part_label, percent
from kaggle_pipeline.webapp.service import Look, Reading, Service

NO_NUMBER = "No reliable number"
"""What stands in the place of a probability that means nothing."""
_RARE = 0.005
"""Below this share "about 0 of 100" would be said, which reads like none at all."""


def disclaimer(spec: DatasetSpec) -> Html:
    """Return the sentences that stand on every page and reading."""
    drawn = [html.element("p", html.element("strong", MADE_UP))] if spec.made_up else []
    return html.note(html.element("strong", f"{DISCLAIMER} "), ADVICE, *drawn)


def reading_block(
    service: Service,
    reading: Reading,
    name: str,
    sensitivity: float,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Html:
    """Return one lesion's reading.

    Parameters
    ----------
    service : Service
    reading : Reading
    name : str
        The class to explain.
    sensitivity : float
        Wanted of the threshold.
    beside : mapping of str to bytes
        Nearest training photos as JPEGs by id, where they were asked for.
    """
    word = service.spec.class_label(name)
    p, low, high = (float(one[name]) for one in (reading.probability, reading.low, reading.high))
    threshold = service.distribution.threshold(name, sensitivity)
    tick = threshold.value if threshold else None
    label = f"Probability {percent(p)}, fold models {percent(low)} to {percent(high)}"
    if tick is not None:
        label += f", threshold {percent(tick)}"
    lead = html.element("p", f"Probability of {word}", class_="lead")
    number = [
        html.element("p", percent(p), class_="big"),
        scale(p, low, high, tick, label),
        html.element("p", _folds(service, low, high), class_="faint"),
    ]
    facts = [html.element("li", one) for one in _facts(service, reading, name, sensitivity)]
    saying = [html.element("ul", *facts)]
    if len(service.classes) > 1:
        saying += [html.element("h3", "All classes"), _all_classes(service, reading)]
    saying += [
        html.element("h3", _parts_title(service, reading)), _parts(service, reading, name)
    ]  # fmt: skip
    mapped = reading.look.answer.heat is not None
    seen = [
        html.element("h3", "Photo and heat map" if mapped else "Photo"),
        _photos(reading, name, service), _nearest(service, reading, beside),
    ]  # fmt: skip
    if reading.look.unlike:  # doubt takes the number's place
        parts = [
            lead,
            html.element("p", NO_NUMBER, class_="big"),
            _doubts(service, reading),
            *seen,
            html.details("What the model says all the same", *number, *saying),
        ]
    else:
        parts = [_doubts(service, reading), lead, *number, *saying[:-2], *seen, *saying[-2:]]
    return block(*parts, disclaimer(service.spec))


def report_page(service: Service, title: str, now: datetime, *pieces: Html) -> str:
    """Return a page to keep or to print that needs nothing but itself.

    It says when it was made (``now``), by which run and by which models.
    """
    models = service.models
    parts = ", ".join(part_label(name) for name in models.blend.weights)
    finished = describe_run(service.run_dir).strip()
    count = len(models.folds)
    lines = [
        f"Made on {now.day} {now:%B %Y} at {now:%H:%M} by the run “{models.config.name}”, trained "
        f"on {service.spec.heading}. {finished}",
        f"Models: {parts}. What reads the photo: {models.reader.described}; "
        f"{count} fold{'s' * (count > 1)}.",
    ]
    facts = block(*(html.element("p", one, class_="faint") for one in lines))
    return html.page(title, html.element("style", Html(STYLE)), facts, *pieces)


def report_name(service: Service, what: str, now: datetime, ending: str = ".html") -> str:
    """Return a file name that tells of what, by which run and of which day a report is."""
    words = f"{what}_{service.models.config.name}_{now:%Y-%m-%d}"
    return re.sub(r"[^\w.-]+", "-", words) + ending


# ---------------------------------------------------------------------------- of one reading


def _folds(service: Service, low: float, high: float) -> str:
    count = len(service.models.folds)
    if count == 1:
        said = "One model alone was trained, so it is not known how far another model would differ."
        return f"{said} {missing_line(service)}".strip()
    said = (
        f"The mean of {count} models, each trained on another part of the data; alone they give "
        f"{percent(low)} to {percent(high)}."
    )
    return f"{said} {missing_line(service)}".strip()


def missing_line(service: Service) -> str:
    """Return which folds have no model here, in a sentence; nothing where all have one."""
    lacking = service.models.missing
    return f"Folds {lacking} are not trained and are missing from the mean." if lacking else ""


def context_line(service: Service, reading: Reading) -> str:
    """Return what the number of photos changes, where a model compares a patient's photos."""
    found, together = [], reading.together
    for name in service.models.with_context:
        if name != "embedding":
            found.append(
                f"The tabular model also uses the number of this patient’s photos: {together}."
            )
        elif together > 1:
            found.append(
                f"The linear head compares each photo with the patient’s others: {together} photos "
                "are read together."
            )
    return " ".join(dict.fromkeys(found))


def _doubts(service: Service, reading: Reading) -> Html:
    found = list(reading.look.doubts)
    found += _known_less(service, reading)
    if guessing := service.models.guessing:
        found.append(f"On this run’s own validation photos, {guessing}.")
    if not found:
        return Html("")
    lines = [html.element("p", one) for one in found]
    return html.note(html.element("strong", "This result is less reliable."), *lines, warning=True)


def _known_less(service: Service, reading: Reading) -> list[str]:
    """What the run was scored with and nobody gave: its scores say nothing of such a number."""
    found, models = [], service.models
    if models.features and set(reading.unknown) == set(models.features):
        names = ", ".join(service.spec.feature_label(one) for one in models.features)
        found.append(
            f"Nothing is known of the patient here. The run was scored with {names}: give what "
            "you know."
        )
    if "embedding" in models.with_context and reading.together == 1:
        found.append(
            "The linear head was scored with all photos of a patient, each compared with the "
            "others. Here is only one: give the others too, on the page “A patient”."
        )
    return found


def _facts(service: Service, reading: Reading, name: str, sensitivity: float) -> list[object]:
    distribution, word = service.distribution, service.spec.class_label(name)
    threshold = distribution.threshold(name, sensitivity)
    facts = [_decision(service, reading)] if reading.decision else []
    facts += [
        f"{_compared(float(reading.rank[name]))} Compared are {distribution.size:,} of them, each "
        f"scored by a model that did not train on it; {percent(distribution.prevalence(name))} are "
        f"{word}."
    ]
    if threshold:
        above = float(reading.probability[name]) >= threshold.value
        side = "At or above" if above else "Below"
        facts.append(
            f"{side} the threshold of {percent(threshold.value)}: this photo is "
            f"{'' if above else 'not '}flagged. {threshold_text(service, name, sensitivity)}"
        )
        if reading.decision:
            facts.append(DECISION_AND_THRESHOLD)
    if not service.is_calibrated(name):
        facts.append(
            f"This run is not calibrated{' for this class' if service.calibration else ''}: use "
            f"the number to compare lesions, not as the chance that this one is {word}."
        )
    if reading.given:
        given = ", ".join(
            f"{service.spec.feature_label(name)}: {value:g}" if isinstance(value, float)
            else f"{service.spec.feature_label(name)}: {value}"
            for name, value in reading.given.items()
        )  # fmt: skip
        facts.append(f"Given: {given}.")
    if reading.unknown:
        names = ", ".join(service.spec.feature_label(one) for one in reading.unknown)
        facts.append(f"Not given: {names}. That counts as missing.")
    if line := context_line(service, reading):
        facts.append(line)
    if reading.look.unlikeness is None:
        why = "there are none here" if service.reference is None else service.reference.few
        facts.append(f"Whether the photo looks like the training photos was not checked: {why}.")
    return facts


def _decision(service: Service, reading: Reading) -> str:
    """What the lesion is called, and what that decision is best at."""
    named = " and ".join(service.spec.class_label(one) for one in reading.decision.split(" + "))
    if reading.decision == NONE_OF_THEM:
        named = f"not {' or '.join(service.spec.class_label(one) for one in service.classes)}"
    found = service.decision
    if not found.learned:
        return f"Decision: {named} (the plain rule, since none was learned: {found.why})."
    scores = found.study["scores"]["learned"]
    accuracy, balanced = (
        percent(scores[key]["value"]) for key in ("accuracy", "balanced_accuracy")
    )
    return (
        f"Decision: {named}. By cross-validation {accuracy} of this run’s decisions were right "
        f"({balanced} on average over the classes). How it decides: {found.why}; what that trades "
        "for what is drawn under “This run”."
    )


def threshold_text(service: Service, name: str, sensitivity: float) -> str:
    """Return what a threshold finds and what it costs, in photos out of a hundred."""
    threshold = service.distribution.threshold(name, sensitivity)
    if threshold is None:
        return ""
    word = service.spec.class_label(name)
    spared, low, high = threshold.specificity
    interval = "" if np.isnan(low) else f", 95 % interval {percent(1 - high)} to {percent(1 - low)}"
    how = (
        "measured on photos that had no part in choosing it"
        if threshold.nested
        else "measured on the photos it was chosen on, so it may be more on new ones"
    )
    wanted = f"{100 * sensitivity:g}"
    return (
        f"The threshold is set so that of 100 {word} photos about {wanted} are flagged "
        f"(sensitivity {wanted} %) and the others are missed. Of 100 other photos about "
        f"{100 * (1 - spared):.0f} are flagged too, wrongly (specificity {percent(spared)}; "
        f"false alarms {percent(1 - spared)}{interval}; {how})."
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
    width, height = look.size_px
    side, size = min(width, height), f"{width} × {height} pixels"
    if width == height:
        seen = f"the whole photo ({size})"
    elif service.models.fit.fit == "crop":
        seen = f"the middle of the photo ({side} × {side} of {size})"
    else:
        seen = f"the whole photo ({size}), stretched to a square"
    if side != (sees_px := service.models.image_size_px):
        seen += f", at {sees_px} × {sees_px}"
    shown = [picture(look.shown, f"What the model sees: {seen}.")]
    if look.answer.heat is None:
        return html.element("div", *shown, class_="pair alone")
    share = service.models.config.image.pool_share
    shown.append(_heat(look, service.classes.index(name), service.spec.class_label(name), share))
    return html.element("div", *shown, class_="pair")


def _heat(look: Look, number: int, word: str, share: float) -> Html:
    """Where the networks looked, over the photo; they read its central ``share`` of each side."""
    heat = look.answer.heat[number]
    found = (
        f"Heat map (Grad-CAM): bright areas raised the model’s score for {word} most. The colours "
        "are scaled to this photo, so do not compare photos. A bright area is not a diseased area."
        if heat.max() > 0
        else f"Heat map (Grad-CAM): no area of this photo raised the score for {word}."
    )
    if share < 1:
        found += f" The model reads the middle alone, {percent(share)} of each side: the square."
    return picture(heat_picture(look.shown, heat), f"Heat map over the photo for {word}.", found)


def _nearest(service: Service, reading: Reading, beside: Mapping[str, bytes]) -> Html:
    """The nearest training photos, by label and likeness; no id, which may be a name."""
    near = reading.look.answer.nearest
    if not near:
        if service.models.heads is None or service.models.heads.training is not None:
            return Html("")
        return html.element("p", "The training photos’ vectors are not in this run’s folder: the "
                            "nearest photos are not known.", class_="faint")  # fmt: skip
    unit = service.spec.group
    each = f", one a {unit}," if unit else ""
    words = (
        f"The training photos{each} whose vectors are nearest to this photo’s, as the encoder sees "
        "them; 1 means that it sees no difference. They show what the encoder finds alike, not "
        "why the model says its number."
    )
    if beside:
        found = [
            picture(beside[one.image_id], f"A training photo: {one.label}",
                    f"{one.label}, similarity {one.similarity:.2f}")
            for one in near if one.image_id in beside
        ]  # fmt: skip
        shown = html.element("div", *found, class_="near")
    else:
        rows = [[one.label, f"{one.similarity:.2f}"] for one in near]
        shown = html.table(["training photo of", "similarity"], rows, stack=True)
    return html.join([html.element("h3", "Nearest training photos"), shown,
                      html.element("p", words, class_="faint")])  # fmt: skip


def _parts_title(service: Service, reading: Reading) -> str:
    alone = list(reading.parts) == [service.models.photo_stage]
    return "Before calibration" if alone else "Each model separately"


def _parts(service: Service, reading: Reading, name: str) -> Html:
    shares = service.models.effective_shares
    several = len(reading.parts) > 1
    rows = [
        [part_label(part), percent(float(found[name])),
         *([f"{reading.weights[part]:.2f}"] if several else []),
         *([f"{shares[part]:.0%}"] if several and part in shares else [])]
        for part, found in reading.parts.items()
    ]  # fmt: skip
    header = ["model", "probability", *(["weight"] if several else []),
              *(["share of the blend"] if several and shares else [])]  # fmt: skip
    table = html.table(header, rows, stack=True)
    photo_stage = service.models.photo_stage
    if list(reading.parts) == [photo_stage]:
        more = service.models.features or service.models.with_context
        text = (
            "This is the model’s own score, before calibration; the probability above is what to "
            "expect. "
        )
        text += (
            "The command predict answers so with --metadata; of photos alone its numbers differ."
            if more
            else "This run uses the photo alone, nothing that is known of the patient. The command "
            "predict writes both."
        )
        return html.join([table, html.element("p", text, class_="faint")])
    text = (
        "Before blending and calibration. Each model has its own scale, so do not compare these "
        f"numbers with each other. The command predict answers so with --metadata; of photos alone "
        f"it takes the {photo_stage} model, so its numbers differ from the probability above."
    )
    if several and shares:
        text += (
            " Share of the blend: how much a model moves the result, its weight times the spread "
            "of its scores."
        )
    if photo_stage == "image" and "image" not in reading.parts:
        text = (
            "The image model has no weight in this run’s blend: the probability comes from the "
            "other models alone. The heat map explains the image model, which is not used here. "
            + text
        )
    return html.join([table, html.element("p", text, class_="faint")])
