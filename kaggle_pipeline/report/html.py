"""Pieces of an HTML page that needs nothing but itself: no script, no link, no file beside it.

In: texts from anywhere, which are escaped, and pictures. Out: :class:`Html`.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

from PIL import Image

from kaggle_pipeline.core.record import read_checked

CSS_DPI = 96
"""Pixels of a style sheet an inch."""


class Html(str):
    """Text that is HTML already; every other text is escaped where a piece takes it in."""


_STYLE = """
:root { color-scheme: light dark; --text: #1d2733; --ground: #fff; --faint: #56616f;
        --line: #d9dee4; --accent: #20639b; --note: #fdf6e3; --warning: #fdecea; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e4e8ed; --ground: #14181d; --faint: #a7b0bb; --line: #39424d;
          --accent: #79b8e8; --note: #2f2810; --warning: #3d1f1c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
       max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin-bottom: .3rem; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid var(--accent); } h3 { margin-top: 1.8rem; }
h4 { margin: 1rem 0 .3rem; }
a { color: var(--accent); }
figcaption, small, .faint { color: var(--faint); font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
         border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .925rem; }
thead th { vertical-align: bottom; } tbody th { max-width: 16rem; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
td small { display: block; white-space: nowrap; }
.note { border-left: .4rem solid #b58900; background: var(--note); padding: .6rem 1rem;
        margin: 1rem 0; }
.warning { border-left-color: #c0392b; background: var(--warning); }
summary { cursor: pointer; margin: .5rem 0; } nav a { margin-right: 1rem; }
"""
PIECES = """
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
@media screen and (prefers-color-scheme: dark) {
  img.plot { filter: invert(.92) hue-rotate(180deg); } }
.photos { display: grid; gap: .8rem; margin: .6rem 0 1.2rem;
          grid-template-columns: repeat(3, 1fr); max-width: 44rem; }
@media (min-width: 640px) { .photos { grid-template-columns: repeat(5, 1fr); } }
.photos figure { margin: 0; } .photos img { width: 100%; border-radius: .4rem; display: block; }
.wide { overflow-x: auto; }
@media (min-width: 800px) {
  .result { display: grid; grid-template-columns: minmax(0, 25rem) minmax(0, 1fr); gap: 2rem; }
  .result figure { margin-top: 0; } }
@media screen and (max-width: 640px) {
  figure:has(img.plot) { overflow-x: auto; } img.plot { min-width: 34rem; } }
@media (max-width: 640px) {
  .stack thead { display: none; }
  .stack tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .stack th, .stack td { display: block; border: 0; padding: 0; max-width: none; }
  .stack td[data-title]::before { content: attr(data-title) ": "; color: var(--faint); }
  .stack td.number { white-space: normal; }
  .stack td:has(img)::before { content: none; } .stack td small { display: inline; } }
"""
"""How pictures and tables lie, also on the page that reads lesions; drawings are turned dark on a
dark screen, photos and paper never. Colours come from the page: ``--line`` and ``--faint``."""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


def text(content: object) -> Html:
    """Return ``content`` as HTML: escaped, unless it is :class:`Html` already."""
    return content if isinstance(content, Html) else Html(escape(str(content), quote=True))


def join(parts: Iterable[object], between: str = "\n") -> Html:
    """Return the parts one after the other, each escaped unless it is :class:`Html`."""
    return Html(between.join(text(part) for part in parts))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return ``<tag attributes>content</tag>``; an attribute ``class_`` is written ``class``."""
    named = "".join(f' {name.rstrip("_")}="{text(x)}"' for name, x in attributes.items())
    return Html(f"<{tag}{named}>{join(content)}</{tag}>")


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, stack: bool = False
) -> Html:
    """Return a table that scrolls sideways where it is too wide; the first cell heads its row.

    ``stack``: on a phone the cells of a row lie below each other, each after its column's title,
    as long texts and many columns need.
    """
    head = element("tr", *(element("th", name, scope="col") for name in header))
    titles = list(header)[1:] if stack else [""] * (len(header) - 1)
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(_cell(cell, title) for cell, title in zip(row[1:], titles, strict=True)),
        )
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body))
    return element("div", whole, class_="wide stack" if stack else "wide")


def _cell(content: object, title: object) -> Html:
    """A cell; what begins like a number is not broken over lines."""
    named = {"data-title": title} if title else {}
    if str(content)[:1].isdigit() and len(str(content)) < 30:
        return element("td", content, class_="number", **named)
    return element("td", content, **named)


def note(*content: object, warning: bool = False) -> Html:
    """Return a box that stands out."""
    return element("div", *content, class_="note warning" if warning else "note", role="note")


def details(summary: object, *content: object) -> Html:
    """Return content that is folded away behind ``summary``."""
    return element("details", element("summary", summary), *content)


def picture(path: Path, alt: str, *, photos: bool = False) -> Html:
    """Return a PNG or JPEG as part of the page, or nothing where the file is missing.

    Parameters
    ----------
    path : pathlib.Path
        A PNG file that says its dots an inch is shown in its own size, so it is sharp.
    alt : str
        What it shows, for who cannot see it; also its caption.
    photos : bool
        Whether it shows photos, whose colours stay on a dark screen.
    """
    image = picture_alone(path, alt, photos=photos)
    return element("figure", image, element("figcaption", alt)) if image else image


def picture_alone(path: Path, alt: str, *, photos: bool = False) -> Html:
    """Return :func:`picture` without a caption."""
    path = Path(path)
    if not path.is_file():
        return Html("")
    content = read_checked(path)
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    class_, size = "photo" if photos else "plot", ""
    with Image.open(BytesIO(content)) as image:
        if "dpi" in image.info:
            size = f' width="{round(image.width / image.info["dpi"][0] * CSS_DPI)}"'
    data = base64.b64encode(content).decode()
    source = f"data:image/{kind};base64,{data}"
    return Html(f'<img class="{class_}" alt="{text(alt)}"{size} src="{source}">')


def page(title: str, *body: object) -> str:
    """Return a whole page; its content policy lets a browser load nothing from elsewhere."""
    return _PAGE.substitute(title=text(title), style=_STYLE + PIECES, body=join(body))
