"""Figure of a calibration.

In: what ``Calibration.to_mapping`` returned. Out: a PNG file; nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from kaggle_pipeline.core.figures import BLUE, GREY, RED, new_figure, save_figure, shorten
from kaggle_pipeline.evaluation.plots import FEW, describe_score

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
        _draw(axes, drawn, softmax=calibration["task"] == "multiclass")
    title = f"Calibration by the method {calibration['method']!r}, nested"
    figure.suptitle(f"{title}\n(hollow: under {FEW} images)", fontsize=11)
    save_figure(figure, path)


def _draw(axes: Axes, curves: Mapping[str, Mapping], *, softmax: bool) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    for when, curve in curves.items():
        many = [one for one in curve["bins"] if one["count"] >= FEW]
        observed = [one["observed"] for one in many]
        colour, style = _STYLES[when]
        axes.errorbar(
            [one["predicted"] for one in many], [one["value"] for one in observed],
            _bars(observed), fmt=style, ms=4, lw=1.5, elinewidth=1, capsize=2, color=colour,
            alpha=0.9, label=f"{when}: ECE {describe_score(curve['ece'])}",
        )  # fmt: skip
        few = [one for one in curve["bins"] if 0 < one["count"] < FEW]
        axes.plot(
            [one["predicted"] for one in few], [one["observed"]["value"] for one in few],
            style[0], ms=4, mfc="white", color=colour, zorder=4,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="predicted probability")
    axes.set_ylabel("share that is right" if softmax else "share that is positive")
    name = next(iter(curves.values()))["of"]
    axes.set_title("most probable class" if softmax else shorten(name, 30), fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes.grid(alpha=0.25)


def _bars(scores: Sequence[Mapping]) -> list[list[float]]:
    """Lengths below and above; a percentile interval may lie beside its estimate."""
    return [
        [max(0, one["value"] - one["low"]) for one in scores],
        [max(0, one["high"] - one["value"]) for one in scores],
    ]
