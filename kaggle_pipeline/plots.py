"""Figures from saved artefacts.

In: files of a run. Out: PNG files beside them. Nothing here computes a result that is not on disk.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from kaggle_pipeline.rundir import atomic_path

BLUE, GREY, RED = "#20639b", "#8a8f98", "#c0392b"
_CURVES = {"loss": "loss", "auc": "ROC AUC", "accuracy": "accuracy"}


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


def plot_overlap(shared: Mapping[str, Mapping[str, int]], group: str, path: Path) -> None:
    """Draw how many groups each two parts have in common; anything off the diagonal is a leak.

    Parameters
    ----------
    shared : mapping
        ``shared_groups`` of a leakage report.
    group : str
        What a group is, for the title.
    path : pathlib.Path
    """
    names = list(shared)
    counts = np.array([[shared[a][b] for b in names] for a in names])
    figure = new_figure(1.8 + 0.75 * len(names), 1.6 + 0.7 * len(names))
    axes = figure.subplots()
    off_diagonal = ~np.eye(len(names), dtype=bool)
    leaks = (counts > 0) & off_diagonal
    colour = np.ones((*counts.shape, 3))
    colour[~off_diagonal] = (0.82, 0.89, 0.95)
    colour[leaks] = (0.96, 0.70, 0.66)
    axes.imshow(colour)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, f"{count:,}", ha="center", va="center", color="black" if count else GREY)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    verdict = "SHARED: a leak" if leaks.any() else "none shared"
    axes.set_title(f"{group.capitalize()}s in common, part by part: {verdict}", fontsize=11)
    save_figure(figure, path)


def plot_histories(histories: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw loss, AUC and (of a softmax) accuracy by epoch: thin lines training, thick validation.

    Parameters
    ----------
    histories : mapping of str to pandas.DataFrame
        By name of the curve, ``history.csv`` of each fit: ``epoch``, then each metric for
        training and, prefixed with ``val_``, for the watched rows.
    path : pathlib.Path
    """
    metrics = [name for name in _CURVES if all(name in table for table in histories.values())]
    figure = new_figure(4.75 * len(metrics), 3.8)
    for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for number, (label, history) in enumerate(histories.items()):
            colour = f"C{number % 10}"
            epochs = history["epoch"] + 1
            axes.plot(epochs, history[metric], ".-", ms=3, color=colour, lw=0.8, alpha=0.6)
            if f"val_{metric}" in history:
                axes.plot(epochs, history[f"val_{metric}"], ".-", color=colour, lw=1.8, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylabel(_CURVES[metric])
        axes.grid(alpha=0.25)
    axes.legend(fontsize=8, title="validation", title_fontsize=8)
    figure.suptitle(
        "Learning curves (thin: training, made harder by dropout and the like)", fontsize=11
    )
    save_figure(figure, path)


def plot_roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: Mapping[str, str], path: Path
) -> None:
    """Draw ROC curves of out-of-fold predictions.

    Parameters
    ----------
    curves : mapping of str to (targets, scores)
        By name of model (or class).
    labels : mapping of str to str
        What the legend says of each, such as its AUC with interval.
    path : pathlib.Path
    """
    figure = new_figure(5.6, 5.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for number, (name, (targets, scores)) in enumerate(curves.items()):
        false_rate, true_rate, _ = roc_curve(targets, scores)
        axes.plot(false_rate, true_rate, lw=2, color=f"C{number}", label=f"{name}: {labels[name]}")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title("Out-of-fold ROC", fontsize=11)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=9)
    save_figure(figure, path)
