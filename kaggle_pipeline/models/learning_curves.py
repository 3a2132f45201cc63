"""Figure of every fold's training history."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.figures import new_figure, save_figure

_CURVES = {"loss": "loss", "auc": "ROC AUC", "accuracy": "accuracy"}


def plot_histories(histories: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw loss, AUC and (of a softmax) accuracy by epoch: thin lines training, thick validation.

    Parameters
    ----------
    histories : mapping of str to pandas.DataFrame
        By name of the curve, ``history.csv`` of each fit: ``epoch``, then each metric for
        training and, prefixed with ``val_``, for the watched rows.
    path : pathlib.Path
    """
    from matplotlib.ticker import MaxNLocator

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
