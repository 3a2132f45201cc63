"""Pieces of an HTML page that needs nothing but itself: no script, no link, no file beside it.

In: texts from anywhere, which are escaped, and pictures. Out: :class:`Html`.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template


class Html(str):
    """Text that is HTML already; every other text is escaped where a piece takes it in."""


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff;
       max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 2px solid
#20639b; } h3 { margin-top: 1.8rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, small { color: #56616f; font-size: .875rem; }
.result img { max-height: 58vh; width: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .925rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
         border-bottom: 1px solid #d9dee4; }
th { white-space: nowrap; } tbody th { max-width: 16rem; white-space: normal; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.note { border-left: .4rem solid #b58900; background: #fdf6e3; padding: .6rem 1rem;
        margin: 1rem 0; }
.warning { border-left-color: #c0392b; background: #fdecea; }
summary { cursor: pointer; margin: .5rem 0; } nav a { margin-right: 1rem; }
@media (max-width: 640px) {
  .stack thead { display: none; } .stack tr { display: block; padding: .5rem 0;
  border-bottom: 1px solid #d9dee4; } .stack th, .stack td { display: block; border: 0; padding: 0;
  max-width: none; }
}
"""

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

    ``stack``: on a phone the cells of a row lie below each other, as long texts need.
    """
    head = element("tr", *(element("th", name, scope="col") for name in header))
    body = [
        element("tr", element("th", row[0], scope="row"), *(_cell(cell) for cell in row[1:]))
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body))
    return element("div", whole, class_="wide stack" if stack else "wide")


def _cell(content: object) -> Html:
    """A cell; what begins like a number is not broken over lines."""
    if str(content)[:1].isdigit() and len(str(content)) < 30:
        return element("td", content, class_="number")
    return element("td", content)


def note(*content: object, warning: bool = False) -> Html:
    """Return a box that stands out."""
    return element("div", *content, class_="note warning" if warning else "note", role="note")


def details(summary: object, *content: object) -> Html:
    """Return content that is folded away behind ``summary``."""
    return element("details", element("summary", summary), *content)


def picture(path: Path, alt: str) -> Html:
    """Return a PNG as part of the page, or nothing where the file is missing.

    Parameters
    ----------
    path : pathlib.Path
    alt : str
        What it shows, for who cannot see it; also its caption.
    """
    path = Path(path)
    if not path.is_file():
        return Html("")
    data = base64.b64encode(path.read_bytes()).decode()
    image = Html(f'<img alt="{text(alt)}" src="data:image/png;base64,{data}">')
    return element("figure", image, element("figcaption", alt))


def page(title: str, *body: object) -> str:
    """Return a whole page; its content policy lets a browser load nothing from elsewhere."""
    return _PAGE.substitute(title=text(title), style=_STYLE, body=join(body))
