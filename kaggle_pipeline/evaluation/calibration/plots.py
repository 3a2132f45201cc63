"""Figure of a calibration.

In: what ``Calibration.to_mapping`` returned. Out: a PNG file; nothing is computed here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_pipeline.core.figures import BLUE, RED, new_figure, save_figure
from kaggle_pipeline.evaluation.plots import FEW, describe_curve, describe_score, draw_reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {"before": (RED, "s--"), "after": (BLUE, "o-")}


def plot_calibration(calibration: Mapping, path: Path) -> None:
    """Draw observed against predicted shares before and after, with 95 % intervals.

    After is nested: every image was calibrated by a curve that its group had no part in. Bins of
    few images are hollow and hang on no line.

    Parameters
    ----------
    calibration : mapping
        ``calibration.json``.
    path : pathlib.Path
    """
    curves = calibration["study"]["curves"]
    count = len(curves["before"])
    columns = min(3, count)
    lines = -(-count // columns)
    figure = new_figure(columns * 4.3, lines * 4.6)
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= count:
            axes.set_axis_off()
            continue
        drawn = {when: found[place] for when, found in curves.items() if found}
        _draw(axes, drawn, calibration)
    figure.suptitle(
        f"Before and after calibration ({calibration['method']})\nhollow: under {FEW} photos",
        fontsize=11,
    )
    save_figure(figure, path)


def _draw(axes: "Axes", curves: Mapping[str, Mapping], calibration: Mapping) -> None:
    for when, curve in curves.items():
        colour, style = _STYLES[when]
        label = f"{when}: ECE {describe_score(curve['ece'])}"
        draw_reliability(
            axes, curve["bins"], calibration["task"], color=colour, style=style, label=label
        )
    axes.set_xlabel("predicted probability")
    axes.set_title(describe_curve(next(iter(curves.values())), calibration), fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
