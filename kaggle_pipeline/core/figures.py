"""Figures from saved artefacts.

In: files of a run. Out: PNG files beside them. Nothing here computes a result that is not on disk.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kaggle_pipeline.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 200
"""Of a PNG file: a page shows it at 96, so it stays sharp on screens with fine pixels."""
BLUE, GREY, RED = "#20639b", "#8a8f98", "#c0392b"
_PAD = 0.08
"""Inches around what is drawn."""


def new_figure(width: float, height: float, **options: object) -> "Figure":
    """Return a figure of its own, ``width`` by ``height`` inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **options)
    figure.get_layout_engine().set(w_pad=_PAD, h_pad=_PAD)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path, *, photos: bool = False) -> None:
    """Write the figure as PNG at :data:`DPI`, atomically.

    Without ``photos`` it has 256 colours, which a drawing does not exceed visibly: a third of the
    bytes.
    """
    figure.set_dpi(DPI)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    if not photos:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        picture.save(temporary, dpi=(DPI, DPI), optimize=True)


def plain_ticks(axis: "Axis") -> None:
    """Label a logarithmic axis with numbers as people write them: 0.06, not 6 × 10⁻².

    Between two powers of ten 2 and 5 are named, and more where the axis spans less than that.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    low, high = sorted(axis.get_view_interval())
    wide = low <= 0 or high / low > 20
    axis.set_minor_locator(LogLocator(subs=(2, 5) if wide else (2, 3, 4, 5, 6, 8)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_tick_params(which="both", labelsize=9)


def shorten(name: str, length: int = 16) -> str:
    """Return ``name`` as a figure can hold it: not too long, and no "$", which starts a formula."""
    name = name if len(name) <= length else f"{name[: length - 1]}…"
    return name.replace("$", r"\$")
