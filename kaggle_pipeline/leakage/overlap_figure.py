"""Figure of the groups that splits share."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kaggle_pipeline.core.figures import GREY, new_figure, save_figure


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
    axes.set_title(f"{group.capitalize()}s in common, part by part:\n{verdict}", fontsize=11)
    save_figure(figure, path)
