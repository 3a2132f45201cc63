"""A patient's lesions side by side as HTML, for the page and for the printer.

In: readings and their comparison. Out: a ranked table, and a card a lesion in the same order.
"""

from collections.abc import Sequence

import pandas as pd

from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.webapp.html_blocks import NO_NUMBER, context_line, disclaimer, threshold_text
from kaggle_pipeline.webapp.html_figures import block, heat_picture, image, picture, thumbnail
from kaggle_pipeline.webapp.labels import percent
from kaggle_pipeline.webapp.service import Reading, Service

UNUSUAL = 1.5
"""Outlier factor from which a lesion is called unlike the patient's others; 1 is like them."""
_FEW = 3
"""With fewer photos there is no pattern to stand out from."""


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
    tick = threshold.value if threshold else None
    word = service.spec.class_label(name)
    rows = []
    for row in table.itertuples():
        rows.append(
            [
                str(row.place), _named_thumbnail(readings[row.Index]),
                _number(readings[row.Index], row.probability),
                "; ".join(_marks(readings[row.Index], row, len(table), tick)) or "–",
                f"{percent(row.low)} – {percent(row.high)}", _points(row.above_median),
                f"{row.outlier_factor:.2f}",
            ]
        )  # fmt: skip
    header = ["rank", "photo", word, "notes", "each model alone",
              "against the patient’s median", "outlier factor"]  # fmt: skip
    cards = [
        _card(service, readings[row.Index], row, name, len(table), tick)
        for row in table.itertuples()
    ]
    how = (
        f"Ranked by the probability of {word}, highest first. The outlier factor compares each "
        f"photo with the patient’s other photos: 1 looks like them, {UNUSUAL:g} or more looks "
        "different. Such an “ugly duckling” deserves a closer look even if its probability is low. "
        "So does a photo that is unlike the training photos: its number means little."
    )
    few = [html.note(f"At least {_FEW} photos are needed to compare a lesion with the others.")]
    return block(
        html.element("p", how),
        *(few if len(table) < _FEW else []),
        html.table(header, rows, stack=True),
        html.element("div", *cards, class_="gallery"),
        html.element("p", threshold_text(service, name, sensitivity), class_="faint"),
        html.element("p", context_line(service, readings[0]), class_="faint"),
        disclaimer(service.spec),
    )


def _named_thumbnail(reading: Reading) -> Html:
    look = reading.look
    small = image(thumbnail(look.shown), f"Thumbnail of {look.name}", class_="thumb")
    return html.element("span", small, html.element("span", look.name), class_="named")


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points".replace("-", "−")


def _number(reading: Reading, probability: float) -> Html | str:
    """The probability, or, where it means little, that it does and the number in small."""
    if not reading.look.unlike:
        return percent(probability)
    return html.join([NO_NUMBER.lower(), html.element("small", f"({percent(probability)})")])


def _marks(reading: Reading, row: tuple, count: int, threshold: float | None) -> list[str]:
    """What stands out, a few words each."""
    found = []
    if reading.look.unlike:
        found.append("unlike the training photos")
    elif threshold is not None and row.probability >= threshold:
        found.append("above the threshold")
    if count >= _FEW and row.outlier_factor >= UNUSUAL:
        found.append(f"unlike the patient’s others ({row.outlier_factor:.1f})")
    if row.doubts > reading.look.unlike:
        found.append("less reliable, see below")
    return found


def _card(
    service: Service, reading: Reading, row: tuple, name: str, count: int, threshold: float | None
) -> Html:
    look = reading.look
    shown = [picture(look.shown, f"Photo {row.file}", "photo")]
    if look.answer.heat is not None:
        over = heat_picture(look.shown, look.answer.heat[service.classes.index(name)])
        shown.append(picture(over, f"Heat map over {row.file}", "Grad-CAM"))
    pair = html.element("div", *shown, class_="pair")
    labels = ", ".join(one.label for one in look.answer.nearest)
    near = [html.element("p", f"Nearest training photos: {labels}.", class_="faint")]
    badges = [html.element("span", one, class_="badge stands")
              for one in _marks(reading, row, count, threshold)]  # fmt: skip
    number = NO_NUMBER if look.unlike else percent(row.probability)
    return html.element(
        "section",
        html.element("h3", f"{row.place}. {row.file}"),
        html.element("p", number, class_="big"),
        html.element("p", *badges),
        pair,
        *(near if labels else []),
        *(html.note(one, warning=True) for one in look.doubts),
        class_="card",
    )
