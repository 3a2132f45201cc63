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

_BLUE, _GREY, _RED = "#20639b", "#8a8f98", "#c0392b"


def _figure(width: float, height: float, **options: object) -> Figure:
    """A figure of its own, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


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
    figure = _figure(1.8 + 0.75 * len(names), 1.6 + 0.7 * len(names))
    axes = figure.subplots()
    off_diagonal = ~np.eye(len(names), dtype=bool)
    leaks = (counts > 0) & off_diagonal
    colour = np.ones((*counts.shape, 3))
    colour[~off_diagonal] = (0.82, 0.89, 0.95)
    colour[leaks] = (0.96, 0.70, 0.66)
    axes.imshow(colour)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, f"{count:,}", ha="center", va="center", color="black" if count else _GREY)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    verdict = "SHARED: a leak" if leaks.any() else "none shared"
    axes.set_title(f"{group.capitalize()}s in common, part by part: {verdict}", fontsize=11)
    _save(figure, path)


def plot_histories(histories: Mapping[int, pd.DataFrame], path: Path) -> None:
    """Draw loss and AUC by epoch, thin lines for training and thick ones for validation.

    Parameters
    ----------
    histories : mapping of int to pandas.DataFrame
        ``history.csv`` of each fold: ``epoch``, ``loss``, ``auc``, ``val_loss``, ``val_auc``.
    path : pathlib.Path
    """
    figure = _figure(9.5, 3.8)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "auc"), strict=True):
        for fold, history in histories.items():
            colour = f"C{fold % 10}"
            epochs = history["epoch"] + 1
            axes.plot(epochs, history[metric], ".-", ms=3, color=colour, lw=0.8, alpha=0.6)
            if f"val_{metric}" in history:
                label = f"fold {fold}"
                axes.plot(epochs, history[f"val_{metric}"], ".-", color=colour, lw=1.8, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel({"loss": "loss", "auc": "ROC AUC"}[metric])
        axes.grid(alpha=0.25)
    axes.legend(fontsize=8, title="validation", title_fontsize=8)
    figure.suptitle(
        "Learning curves (thin: training, made harder by dropout and the like)", fontsize=11
    )
    _save(figure, path)


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
    figure = _figure(5.6, 5.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--")
    for number, (name, (targets, scores)) in enumerate(curves.items()):
        false_rate, true_rate, _ = roc_curve(targets, scores)
        axes.plot(false_rate, true_rate, lw=2, color=f"C{number}", label=f"{name}: {labels[name]}")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title("Out-of-fold ROC", fontsize=11)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=9)
    _save(figure, path)
