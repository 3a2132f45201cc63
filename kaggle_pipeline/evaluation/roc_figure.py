"""Figure of several models' ROC curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from kaggle_pipeline.core.figures import GREY, new_figure, save_figure


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
