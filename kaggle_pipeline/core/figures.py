"""Figures from saved artefacts.

In: files of a run. Out: PNG files beside them. Nothing here computes a result that is not on disk.
"""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kaggle_pipeline.core.files import atomic_path

BLUE, GREY, RED = "#20639b", "#8a8f98", "#c0392b"


def new_figure(width: float, height: float, **options: object) -> Figure:
    """Return a figure of its own, ``width`` by ``height`` inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG at 130 dots an inch, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def shorten(name: str, length: int = 16) -> str:
    """Return ``name`` as a figure can hold it: not too long, and no "$", which starts a formula."""
    name = name if len(name) <= length else f"{name[: length - 1]}…"
    return name.replace("$", r"\$")
