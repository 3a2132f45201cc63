"""Figure of a decision: what others would give, and the one that is used.

In: what ``Decision.to_mapping`` returned. Out: a PNG file; nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_pipeline.core.figures import (
    BLUE,
    GREY,
    RED,
    new_figure,
    plain_ticks,
    save_figure,
    shorten,
)  # fmt: skip
from kaggle_pipeline.evaluation.plots import class_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 3
"""With more classes than that, only the first one's sensitivity is drawn in strong colours."""


def plot_decision(decision: Mapping, path: Path) -> None:
    """Draw accuracy and sensitivities against the exponent, or against each question's threshold.

    Every image is calibrated by a curve that its group had no part in. Nothing is drawn where there
    were too few images to learn from.

    Parameters
    ----------
    decision : mapping
        ``decision.json``; ``class_labels`` beside it says what the classes are called.
    path : pathlib.Path
    """
    points = decision["study"].get("trade_off")
    if not points:
        return
    classes, several = decision["classes"], decision["task"] == "multiclass"
    panels = [classes] if several else [[name] for name in classes]
    figure = new_figure(6.4 * len(panels), 4.8)
    for axes, shown in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if several:
            _draw_softmax(axes, points, decision)
            _mark(axes, decision["rule"]["exponent"])
        else:
            _draw_question(axes, points, shown[0])
            axes.set_title(shorten(class_word(decision, shown[0]), 30), fontsize=10)
            _mark(axes, decision["rule"]["thresholds"][classes.index(shown[0])])
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    figure.suptitle("What a decision trades for what, cross-validated", fontsize=11)
    save_figure(figure, path)


def _mark(axes: "Axes", used: float | None) -> None:
    if used is not None:
        axes.axvline(used, color="black", linewidth=1, linestyle=":", label="used")


def _draw_softmax(axes: "Axes", points: Sequence[Mapping], decision: Mapping) -> None:
    x = [one["exponent"] for one in points]
    axes.plot(x, [one["accuracy"] for one in points], color=BLUE, label="accuracy")
    axes.plot(x, [one["balanced_accuracy"] for one in points], color=RED, label="balanced accuracy")
    classes = decision["classes"]
    for number, name in enumerate(classes):
        y = [one["sensitivity"][name] for one in points]
        strong = {"color": "black", "linestyle": "--"} if not number else {"color": GREY}
        if number and len(classes) > _MANY:
            axes.plot(x, y, linewidth=0.8, **strong)
            axes.annotate(shorten(name, 8), (x[-1], y[-1]), fontsize=7, color=GREY)
        else:
            axes.plot(
                x, y, label=f"sensitivity {shorten(class_word(decision, name), 24)}", **strong
            )
    axes.set_xlabel("exponent a: probabilities are divided by (class share) ** a")


def _draw_question(axes: "Axes", points: Sequence[Mapping], name: str) -> None:
    x = [one["threshold"][name] for one in points]
    sensitivity, specificity = ([one[key][name] for one in points]
                                for key in ("sensitivity", "specificity"))  # fmt: skip
    mean = [(a + b) / 2 for a, b in zip(sensitivity, specificity, strict=True)]
    axes.plot(x, sensitivity, color=RED, label="sensitivity")
    axes.plot(x, specificity, color=BLUE, label="specificity")
    axes.plot(x, mean, color="black", linestyle="--", label="mean of both")
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel("threshold on the calibrated probability")
