"""Figures of an evaluation, and the evaluation as a file.

In: what ``evaluation.evaluate`` returned. Out: ``evaluation.json`` and PNG files beside it. The
figures draw numbers of that mapping and compute none; :func:`plot_roc` alone sorts predictions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kaggle_pipeline.core.figures import BLUE, GREY, RED, new_figure, save_figure, shorten
from kaggle_pipeline.core.files import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 10
"""Bins of fewer images are drawn hollow."""


def write_evaluation(folder: Path, evaluation: Mapping, *, prefix: str = "") -> list[Path]:
    """Write an evaluation and its figures.

    Parameters
    ----------
    folder : pathlib.Path
    evaluation : mapping
        From :func:`~kaggle_pipeline.evaluation.evaluate.evaluate`.
    prefix : str
        Before every name, such as ``"test_"`` for a held-out part beside out-of-fold predictions.

    Returns
    -------
    list of pathlib.Path
        ``evaluation.json``, ``confusion.png``, ``reliability.png``, ``class_roc.png`` (unless no
        class has a curve) and ``subgroups.png`` (unless no subgroup has a score).
    """
    folder = Path(folder)
    files = [folder / f"{prefix}evaluation.json"]
    write_json(files[0], evaluation)
    drawn = {"confusion": plot_confusion, "reliability": plot_reliability}
    if any(evaluation["roc"].values()):
        drawn["class_roc"] = plot_class_roc
    if subgroup_scores(evaluation):
        drawn["subgroups"] = plot_subgroups
    for name, plot in drawn.items():
        files.append(folder / f"{prefix}{name}.png")
        plot(evaluation, files[-1])
    return files


def class_word(evaluation: Mapping, name: str) -> str:
    """Return what a class is called in words; evaluations of before have its name alone."""
    return evaluation.get("class_labels", {}).get(name, name)


def describe_score(score: Mapping, digits: int = 3) -> str:
    """Return ``"0.861 [0.850, 0.872]"``, or a dash where there is no value."""
    if score["value"] is None:
        return "–"
    value, low, high = (f"{score[part]:.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


# ---------------------------------------------------------------------------- confusion


def plot_confusion(evaluation: Mapping, path: Path) -> None:
    """Draw the confusion tables: counts, and shares of each row, which also give the colour.

    Parameters
    ----------
    evaluation : mapping
    path : pathlib.Path
    """
    tables = evaluation["confusion"]["tables"]
    k = len(tables[0]["labels"])
    columns = min(3, len(tables))
    lines = -(-len(tables) // columns)
    side = max(2.6, 0.85 * k)
    figure = new_figure(columns * (side + 0.7) + 0.4, lines * (side + 0.5) + 0.9)
    axes = figure.subplots(lines, columns, squeeze=False)
    for place, one in enumerate(axes.flat):
        if place < len(tables):
            _draw_confusion(one, tables[place], titled=len(evaluation["classes"]) > 1)
        else:
            one.set_axis_off()
    figure.suptitle(
        f"Truth and decision, before calibration\n({evaluation['confusion']['decision']})",
        fontsize=11,
    )
    save_figure(figure, path)


def _draw_confusion(axes: "Axes", table: Mapping, *, titled: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    matrix = np.array(table["matrix"])
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    shades = LinearSegmentedColormap.from_list("shares", ["white", BLUE])
    axes.imshow(share, cmap=shades, vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        text = f"{count:,}\n{share[i, j]:.1%}" if total[i, 0] else "–"
        colour = "white" if share[i, j] > 0.6 else "black" if count else GREY
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    names = [shorten(name) for name in table["labels"]]
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 2 else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="decision", ylabel="truth")
    if titled and len(names) == 2:
        axes.set_title(shorten(table["of"].replace("_", " "), 30), fontsize=10)


# ---------------------------------------------------------------------------- calibration


def plot_reliability(evaluation: Mapping, path: Path) -> None:
    """Draw observed against predicted shares, bin by bin, over a histogram of the predictions.

    Parameters
    ----------
    evaluation : mapping
    path : pathlib.Path
    """
    curves = evaluation["calibration"]
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = new_figure(columns * 4.3, lines * 5.2)
    grid = figure.subplots(
        2 * lines, columns, squeeze=False, gridspec_kw={"height_ratios": [3, 1] * lines}
    )
    for place in range(lines * columns):
        line, column = divmod(place, columns)
        upper, lower = grid[2 * line, column], grid[2 * line + 1, column]
        if place < len(curves):
            name = describe_curve(curves[place], evaluation)
            _draw_reliability(upper, lower, curves[place], evaluation["task"], name)
        else:
            upper.set_axis_off()
            lower.set_axis_off()
    save_figure(figure, path)


def _draw_reliability(upper: "Axes", lower: "Axes", curve: Mapping, task: str, name: str) -> None:
    from matplotlib.ticker import FuncFormatter

    few = f"under {FEW} photos"
    draw_reliability(upper, curve["bins"], task, color=BLUE, style="o-", few=few)
    if few in upper.get_legend_handles_labels()[1]:
        upper.legend(fontsize=8, loc="upper left")
    upper.set_title(f"Calibration: {name}\nECE {describe_score(curve['ece'])}", fontsize=10)
    left = [one["from"] for one in curve["bins"]]
    width = curve["bins"][0]["to"] - left[0]
    lower.bar(left, [one["count"] for one in curve["bins"]], width, align="edge",
              color=BLUE, alpha=0.6, edgecolor="white", lw=0.5)  # fmt: skip
    lower.set_yscale("symlog", linthresh=1)
    lower.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    lower.set(xlim=(0, 1), xlabel="predicted probability", ylabel="photos")
    lower.grid(alpha=0.25)


def draw_reliability(
    axes: "Axes",
    bins: Sequence[Mapping],
    task: str,
    *,
    color: str,
    style: str,
    label: str | None = None,
    few: str | None = None,
) -> None:
    """Draw observed against predicted shares, with 95 % intervals, beside the diagonal.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    bins : sequence of mapping
        ``count, predicted, observed`` of each, as ``evaluation.json`` has them.
    task : {"binary", "multilabel", "multiclass"}
    color, style : str
        Of line and marks, such as ``"o-"``.
    label, few : str, optional
        What a legend says of the curve, and of bins of under :data:`FEW` images: these are hollow
        and hang on no line, for alike rows have no spread, which must not look like certainty.
    """
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    many = [one for one in bins if one["count"] >= FEW]
    observed = [one["observed"] for one in many]
    # A percentile interval may lie beside its estimate; a bar cannot have a negative length.
    errors = [
        [max(0, one["value"] - one["low"]) for one in observed],
        [max(0, one["high"] - one["value"]) for one in observed],
    ]
    axes.errorbar(
        [one["predicted"] for one in many], [one["value"] for one in observed], errors,
        fmt=style, ms=4, lw=1.5, elinewidth=1, capsize=2, color=color, alpha=0.9, label=label,
    )  # fmt: skip
    hollow = [one for one in bins if 0 < one["count"] < FEW]
    if hollow:
        axes.plot(
            [one["predicted"] for one in hollow], [one["observed"]["value"] for one in hollow],
            style[0], ms=4, mfc="white", color=color, zorder=4, label=few,
        )  # fmt: skip
    softmax = task == "multiclass"
    axes.set_ylabel("share that is right" if softmax else "share that is positive")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)


def describe_curve(curve: Mapping, evaluation: Mapping) -> str:
    """Return what a reliability curve is of, short enough for a title.

    ``evaluation`` says ``task`` and ``class_labels``, as a calibration does too.
    """
    if evaluation["task"] == "multiclass":
        return "most probable class"
    return shorten(class_word(evaluation, curve["of"]), 30)


# ---------------------------------------------------------------------------- ROC


def plot_roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Mapping[str, str],
    path: Path,
    *,
    what: str = "the class",
    band: Mapping | None = None,
) -> None:
    """Draw ROC curves of out-of-fold predictions.

    Parameters
    ----------
    curves : mapping of str to (targets, scores)
        By name of model (or class).
    labels : mapping of str to str
        What the legend says of each, such as its AUC with interval.
    path : pathlib.Path
    what : str
        What is looked for, in words.
    band : mapping, optional
        Of the last curve, as ``evaluation.json`` has it.
    """
    from sklearn.metrics import roc_curve

    rates = {name: roc_curve(*curve)[:2] for name, curve in curves.items()}
    legend = {name: f"{shorten(name, 34)}: {labels[name]}" for name in rates}
    _draw_roc(rates, legend, "ROC curves, out of fold", path, what=what, band=band)


def plot_class_roc(evaluation: Mapping, path: Path) -> None:
    """Draw one ROC curve a class; the legend gives each AUC with its interval.

    Of a single class the 95 % interval of the sensitivity is drawn as well.

    Parameters
    ----------
    evaluation : mapping
    path : pathlib.Path
    """
    known = {name: curve for name, curve in evaluation["roc"].items() if curve}
    rates = {
        name: (curve["false_positive_rate"], curve["true_positive_rate"])
        for name, curve in known.items()
    }
    words = {name: class_word(evaluation, name) for name in known}
    legend = {
        name: f"{shorten(words[name], 32)}: "
        f"AUC {describe_score(evaluation['per_class'][name]['auc'])}"
        for name in known
    }
    if len(evaluation["classes"]) == 1:
        (name,) = known
        title, what = f"ROC curve: {shorten(words[name], 30)}", words[name]
        band = known[name].get("band")
    else:
        title, what, band = "ROC curves, each class against the rest", "the class", None
    _draw_roc(rates, legend, title, path, what=what, band=band)


def _draw_roc(
    rates: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    legend: Mapping[str, str],
    title: str,
    path: Path,
    *,
    what: str,
    band: Mapping | None,
) -> None:
    """One curve a name, of false and true positive rates; ``band`` is that of the last one."""
    lines = len(rates) + 1 + bool(band)
    below = 0.12 + 0.19 * lines
    figure = new_figure(5.6, 5.7 + below)
    # The legend has a place of its own: beside the axes' label it would lie on it.
    axes, rest = figure.subplots(2, height_ratios=[5.7, below])
    rest.set_axis_off()
    for number, (name, (false_rate, true_rate)) in enumerate(rates.items()):
        colour = BLUE if len(rates) == 1 else f"C{number % 10}"
        axes.plot(
            false_rate, true_rate, lw=1.8, ls="-" if number < 10 else "--", color=colour,
            label=legend[name],
        )  # fmt: skip
    if band:
        edges = (band[part] for part in ("false_positive_rate", "lower", "upper"))
        axes.fill_between(
            *edges, color=colour, lw=0, alpha=0.18,
            label="its 95 % interval" if len(rates) > 1 else "95 % interval of the sensitivity",
        )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="guessing: AUC 0.5")
    ticks = np.linspace(0, 1, 6)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=ticks, yticks=ticks)
    axes.set_xlabel("share of the other photos flagged wrongly (1 − specificity)")
    axes.set_ylabel(f"share of {shorten(what, 30)} found (sensitivity)")
    axes.set_box_aspect(1)
    axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize=11)
    rest.legend(*axes.get_legend_handles_labels(), loc="upper center", fontsize=9, frameon=False)
    save_figure(figure, path)


# ---------------------------------------------------------------------------- subgroups


def plot_subgroups(evaluation: Mapping, path: Path) -> None:
    """Draw a forest plot: each subgroup's AUC (for ``multiclass`` also accuracy) and interval.

    A score that no subgroup has is left out; :func:`subgroup_scores` names the others.

    Parameters
    ----------
    evaluation : mapping
    path : pathlib.Path
    """
    lines, panels = _forest_lines(evaluation), subgroup_scores(evaluation)
    figure = new_figure(3.0 + 4.0 * len(panels), 1.55 + 0.27 * len(lines))
    # Beside each panel a place for its numbers, so that the axis and its label are centred.
    grid = figure.subplots(1, 2 * len(panels), sharey=True, width_ratios=[2.6, 1.4] * len(panels))
    for (axes, numbers), (key, label) in zip(
        zip(grid[::2], grid[1::2], strict=True), panels.items(), strict=True
    ):
        _draw_forest(axes, numbers, lines, key, evaluation["scores"][key])
        axes.set_xlabel(f"{label} with its 95 % interval")
    names = [name for name, _ in lines]
    grid[0].set_yticks(range(len(lines)), names, fontsize=9)
    for tick, (_, entry) in zip(grid[0].get_yticklabels(), lines, strict=True):
        if entry is None:
            tick.set_fontweight("bold")
    grid[0].set_ylim(len(lines) - 0.4, -0.6)
    figure.suptitle("Scores by subgroup", fontsize=11)
    found = {}
    for axes in grid[::2]:
        found |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(found.values(), found, loc="outside lower center", fontsize=9, frameon=False,
                  ncols=len(found))  # fmt: skip
    save_figure(figure, path)


def subgroup_scores(evaluation: Mapping) -> dict[str, str]:
    """Return the scores that at least one subgroup has: key → what it is called."""
    panels = {"auc": "mean AUC" if len(evaluation["classes"]) > 1 else "AUC"}
    if evaluation["task"] == "multiclass":
        panels["accuracy"] = "accuracy"
    return {
        key: label
        for key, label in panels.items()
        if any(entry[key]["value"] is not None for entry in evaluation["subgroups"])
    }


def _forest_lines(evaluation: Mapping) -> list[tuple[str, Mapping | None]]:
    """Label and subgroup of each line, headings (None) between the features."""
    lines, feature = [], None
    several = len(evaluation["classes"]) > 1
    for entry in evaluation["subgroups"]:
        if entry["feature"] != feature:
            feature = entry["feature"]
            lines.append((shorten(feature, 28), None))
        count = f"n = {entry['n']:,}"
        if not several:
            count += f", {sum(entry['positives'].values()):,} positive"
        lines.append((f"{shorten(entry['value'], 28)} ({count})", entry))
    return lines


def _draw_forest(
    axes: "Axes",
    numbers: "Axes",
    lines: Sequence[tuple[str, Mapping | None]],
    key: str,
    overall: Mapping,
) -> None:
    """Intervals in ``axes``, the numbers they stand for in ``numbers``."""
    drawn = {y: entry[key] for y, (_, entry) in enumerate(lines) if entry}
    known = {y: score for y, score in drawn.items() if score["value"] is not None}
    bounds = [score[end] for score in known.values() for end in ("low", "high", "value")]
    if overall["value"] is not None:
        bounds += [overall["low"], overall["high"]]
        axes.axvline(overall["value"], color=BLUE, lw=1, ls="--", label="all photos")
        axes.axvspan(overall["low"], overall["high"], color=BLUE, alpha=0.12, lw=0,
                     label="95 % interval of all photos")  # fmt: skip
    low, high = (min(bounds), max(bounds)) if bounds else (0, 1)
    margin = max(0.02, 0.06 * (high - low))
    if key == "auc" and low - margin < 0.5:
        axes.axvline(0.5, color=RED, lw=0.8, label="guessing: 0.5")
    axes.set_xlim(low - margin, high + margin)
    for y, score in drawn.items():
        if score["value"] is None:
            numbers.text(0, y, score["reason"].split(":")[0], va="center", fontsize=8, color=GREY)
            continue
        axes.plot([score["low"], score["high"]], [y, y], color=BLUE, lw=1.6)
        axes.plot(score["value"], y, "s", ms=5, color=BLUE)
        numbers.text(0, y, describe_score(score), va="center", fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    numbers.set_axis_off()
