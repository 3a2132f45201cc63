"""Pictures and bars of a reading as HTML that needs nothing but itself.

In: JPEG bytes, heat maps, probabilities. Out: :class:`~kaggle_pipeline.report.html.Html`.
"""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.webapp.labels import percent

_COLOURS = "viridis"  # stands out from skin and is read alike by the colour-blind
_STRENGTH = 0.75
THUMBNAIL_PX = 128
"""Twice what a row shows, for screens with fine pixels."""


def picture(jpeg: bytes, alt: str, caption: str = "") -> Html:
    """Return a JPEG as part of the page."""
    return html.element("figure", image(jpeg, alt), html.element("figcaption", caption or alt))


def image(jpeg: bytes, alt: str, class_: str = "photo") -> Html:
    """Return a JPEG as part of the page, without a caption."""
    data = base64.b64encode(jpeg).decode()
    named = f'class="{html.text(class_)}" alt="{html.text(alt)}"'
    return Html(f'<img {named} src="data:image/jpeg;base64,{data}">')


def thumbnail(jpeg: bytes) -> bytes:
    """Return a JPEG whose longer side has ``THUMBNAIL_PX`` at most, for a row of a table."""
    photo = Image.open(io.BytesIO(jpeg)).convert("RGB")
    photo.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def heat_picture(jpeg: bytes, heat: np.ndarray) -> bytes:
    """Return the photo with a heat map over it, as JPEG.

    Parameters
    ----------
    jpeg : bytes
        A photo of any proportions, all of which the network saw.
    heat : numpy.ndarray of shape (h, w)
        Over the square that the photo was for the network. At least 0; the greatest value is drawn
        strongest, whatever it is.
    """
    photo = Image.open(io.BytesIO(jpeg)).convert("RGB")
    peak = float(heat.max())
    scaled = Image.fromarray((255 * heat / peak if peak > 0 else 0 * heat).astype(np.uint8))
    spread = np.asarray(scaled.resize(photo.size, Image.Resampling.BICUBIC), float) / 255
    colours = matplotlib.colormaps[_COLOURS](spread)[..., :3] * 255
    opacity = (_STRENGTH * spread)[..., None]
    mixed = opacity * colours + (1 - opacity) * np.asarray(photo, float)
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def scale(
    value: float, low: float | None, high: float | None, tick: float | None, label: str
) -> Html:
    """Return a bar from 0 to 1 with a marker, a range around it and a tick for a threshold.

    ``label`` says all of it in words for who cannot see it.
    """
    parts = []
    if low is not None and high is not None:
        style = f"left:{100 * low:.2f}%;width:{100 * max(high - low, 0):.2f}%"
        parts.append(html.element("span", class_="range", style=style))
    if tick is not None:
        parts.append(html.element("span", class_="tick", style=f"left:{100 * tick:.2f}%"))
    parts.append(html.element("span", class_="dot", style=f"left:{100 * value:.2f}%"))
    return html.element("div", *parts, class_="scale", role="img", **{"aria-label": label})


def bars(rows: list[tuple[str, float, float, float]]) -> Html:
    """Return a table of names with a bar each: (name, value, low, high), in the given order.

    The ranges are left out where there are none, as one model alone has none.
    """
    ranges = any(low < high for _, _, low, high in rows)
    lines = []
    for name, value, low, high in rows:
        bar = html.element("span", style=f"width:{100 * value:.2f}%", class_="fill")
        cells = [
            html.element("th", name, scope="row"),
            html.element("td", html.element("div", bar, class_="bar", **{"aria-hidden": "true"})),
            html.element("td", percent(value), class_="number"),
        ]
        if ranges:
            text = f"{percent(low)} – {percent(high)}"
            cells.append(html.element("td", text, class_="number faint"))
        lines.append(html.element("tr", *cells))
    titles = ("class", "", "probability", *(["each model alone"] if ranges else []))
    head = html.element("tr", *(html.element("th", name, scope="col") for name in titles))
    table = html.element(
        "table", html.element("thead", head), html.element("tbody", *lines), class_="bars"
    )
    return html.element("div", table, class_="wide")


STYLE = (
    html.PIECES
    + """
.kp { --line: color-mix(in srgb, currentColor 18%, transparent);
      --soft: color-mix(in srgb, currentColor 7%, transparent);
      --faint: color-mix(in srgb, currentColor 72%, transparent); --accent: #2a78b5;
      line-height: 1.5; overflow-wrap: break-word; }
.kp h2, .kp h3 { margin: 0 0 .4rem; padding: 0 !important; line-height: 1.25; }
.kp h2 { font-size: 1.35rem; border: 0; } .kp h3 { font-size: 1.05rem; margin-top: 1.2rem; }
.kp p { margin: .3rem 0 .6rem; } .kp .faint, .kp figcaption { color: var(--faint); }
.kp .lead { font-size: 1rem; margin-bottom: 0; }
.kp .big { font-size: 2.6rem; font-weight: 650; line-height: 1.1; margin: 0 0 .5rem; }
.kp .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr));
            gap: 1rem; margin: .6rem 0; max-width: 44rem; }
.kp .alone { max-width: 22rem; }
.kp .near { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr));
            gap: .7rem; margin: .6rem 0; max-width: 44rem; }
.kp figure { margin: 0; } .kp img { max-width: 100%; height: auto; display: block; }
.kp img.photo { border-radius: .5rem; } .kp img.photo:not([width]) { width: 100%; }
.kp figcaption { font-size: .875rem; margin-top: .3rem; }
.kp td small { display: block; color: var(--faint); }
.kp .named { display: block; width: 8rem; font-size: .825rem; line-height: 1.3; }
.kp .named img.thumb { width: 4rem; border-radius: .3rem; margin-bottom: .2rem; }
.kp.full figure { margin: 0 0 1rem; } .kp h4 { font-size: 1rem; margin: 1rem 0 .3rem; padding: 0; }
.kp .scale { position: relative; height: .7rem; border-radius: .35rem; margin: .45rem 0 .35rem;
             background: var(--line); max-width: 44rem; }
.kp .scale span { position: absolute; top: 0; height: 100%; display: block; }
.kp .scale .range { background: color-mix(in srgb, var(--accent) 45%, transparent);
                    border-radius: .35rem; min-width: .3rem; }
.kp .scale .dot { width: 1.05rem; height: 1.05rem; margin: -.175rem 0 0 -.525rem;
                  border-radius: 50%; background: var(--accent); border: 2px solid #fff;
                  box-sizing: border-box; box-shadow: 0 0 0 1px var(--faint); }
.kp .scale .tick { width: 2px; margin-left: -1px; top: -.35rem; height: 1.4rem;
                   background: currentColor; }
.kp table { border-collapse: collapse; font-size: .925rem; width: auto; max-width: 100%; }
.kp th, .kp td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
                 border: 0; border-bottom: 1px solid var(--line); font-weight: 400; }
.kp thead th { color: var(--faint); font-size: .85rem; } .kp tbody th { font-weight: 550; }
.kp td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.kp .bars td:nth-child(2) { width: 12rem; min-width: 5rem; vertical-align: middle; }
.kp .bar { background: var(--line); height: .6rem; border-radius: .3rem; overflow: hidden; }
.kp .fill { display: block; height: 100%; background: var(--accent); }
.kp .note { border-left: .3rem solid #b58900; background: rgba(181, 137, 0, .13);
            padding: .5rem .9rem; margin: .6rem 0; border-radius: 0 .35rem .35rem 0;
            max-width: 60rem; }
.kp .warning { border-left-color: #c0392b; background: rgba(192, 57, 43, .13); }
.kp .note p, .kp .note ul { margin: .15rem 0; } .kp ul { padding-left: 1.2rem; }
.kp .plain { border-left-color: var(--accent); background: var(--soft); }
.kp .gallery { display: grid; gap: 1.2rem; margin: .8rem 0;
               grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); }
.kp .card { border: 1px solid var(--line); border-radius: .6rem; padding: .8rem;
            break-inside: avoid; }
.kp .card h3 { margin-top: 0; font-size: 1rem; }
.kp .card .pair { grid-template-columns: 1fr 1fr; gap: .4rem; }
.kp .card .big { font-size: 1.6rem; } .kp .card figcaption { font-size: .8rem; }
.kp .badge { display: inline-block; border: 1px solid var(--line); border-radius: 1rem;
             padding: 0 .6rem; font-size: .825rem; margin: 0 .3rem .3rem 0; }
.kp .badge.stands { border-color: #c0392b; }
.kp summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 640px) {
  .kp .stack th, .kp .stack td { border: 0; padding: 0; }
  .kp .stack td small { display: inline; } .kp .stack table { width: 100%; }
}
@media print { .kp .card { break-inside: avoid; } .kp img { max-width: 9cm; } }
"""
)
"""Of everything here, inside an element of the class ``kp``; it takes on a light or dark page."""


def block(*content: object, tag: str = "div", class_: str = "") -> Html:
    """Return content that :data:`STYLE` applies to."""
    return html.element(tag, *content, class_=f"kp {class_}".strip())
