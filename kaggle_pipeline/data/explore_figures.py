"""Figures of a data set, for ``explore.py``.

In: training rows, and the ids of each class. Out: matplotlib figures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.core.figures import BLUE, GREY, new_figure, shorten
from kaggle_pipeline.core.photos import read_image
from kaggle_pipeline.data.spec import DatasetSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = 6
"""Photos a class."""
THUMBNAIL_PX = 160
MISSING = "missing"


def _colours(groups: Mapping[str, pd.Index]) -> list[str]:
    """Grey for the rows of no class, then a colour a class."""
    plain = len(groups) and next(iter(groups)).startswith(("not ", "none of"))
    rest = len(groups) - bool(plain)
    return [GREY] * bool(plain) + ([BLUE] if rest == 1 else [f"C{i % 10}" for i in range(rest)])


def draw_classes(groups: Mapping[str, pd.Index]) -> "Figure":
    """Draw how many training images each class has."""
    figure = new_figure(6.4, 1.2 + 0.42 * len(groups))
    axes = figure.subplots()
    counts = [len(ids) for ids in groups.values()]
    total = len(set().union(*groups.values()))
    axes.barh([shorten(name, 36) for name in groups], counts, color=_colours(groups))
    for y, count in enumerate(counts):
        axes.text(count, y, f"  {count:,} ({count / total:.1%})", va="center", fontsize=9)
    axes.set_xlim(0, 1.3 * max(counts))
    axes.invert_yaxis()
    axes.set_xlabel("training photos")
    axes.set_title("Class balance", fontsize=11)
    _tidy(axes)
    return figure


def draw_numeric(
    train: pd.DataFrame, groups: Mapping[str, pd.Index], feature: str, spec: DatasetSpec
) -> "Figure":
    """Draw histograms one above the other, each scaled to its own class; dashed: median."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    values = train[feature]
    low, high = values.min(), values.max()
    if step := spec.numeric[feature].step:
        bins = np.arange(step * np.floor(low / step), high + 2 * step, step)
    else:
        bins = np.linspace(low, high if high > low else low + 1, 21)
    figure = new_figure(6.4, 1.1 + 0.95 * len(groups))
    all_axes = np.atleast_1d(figure.subplots(len(groups), 1, sharex=True))
    for axes, (name, ids), colour in zip(all_axes, groups.items(), _colours(groups), strict=True):
        known = values.loc[ids].dropna()
        if len(known):
            axes.hist(known, bins, weights=np.full(len(known), 1 / len(known)), color=colour,
                      edgecolor="white", lw=0.5)  # fmt: skip
            axes.axvline(known.median(), color="black", lw=1, ls="--")
        median = f", median {known.median():g}" if len(known) else ""
        axes.set_title(
            f"{shorten(name, 40)} ({len(known):,} known{median})", fontsize=9, loc="left"
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(2))
        _tidy(axes)
    all_axes[-1].set_xlabel(spec.feature_label(feature))
    figure.suptitle(f"{spec.feature_label(feature).capitalize()} by class", fontsize=11)
    return figure


def draw_categorical(
    train: pd.DataFrame, groups: Mapping[str, pd.Index], feature: str, spec: DatasetSpec
) -> "Figure":
    """Draw the share of each class within a value: counts would hide a rare class.

    Of one class against the rest only that class is drawn, on a scale of its own.
    """
    from matplotlib.ticker import PercentFormatter

    words = train[feature].astype(object).where(train[feature].notna(), MISSING)
    known = set(words)
    order = [word for word in (*spec.categorical[feature], MISSING) if word in known]
    table = {name: words.loc[ids].value_counts() for name, ids in groups.items()}
    counts = pd.DataFrame(table, index=order).fillna(0)
    shares = counts.div(counts.sum(axis=1), axis=0)
    colours = dict(zip(groups, _colours(groups), strict=True))
    single = len(spec.classes) == 1
    shown = list(groups)[-1:] if single else list(groups)
    figure = new_figure(8.2, 1.5 + 0.36 * len(order) + (0 if single else 0.1 * len(groups)))
    axes, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1.3])
    left = np.zeros(len(order))
    for name in shown:
        axes.barh(range(len(order)), shares[name], left=left, color=colours[name], label=name)
        left = left + shares[name].to_numpy()
    axes.set_yticks(range(len(order)), [shorten(word, 22) for word in order])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(f"share that is {shorten(shown[0], 30)}" if single else "share of labels")
    if single:
        for y, share in enumerate(left):
            axes.text(share, y, f" {share:.1%}", va="center", fontsize=9)
    end = 1.2 * max(left.max(), 0.01) if single else 1  # a fifth for the numbers beside the bars
    axes.set_xlim(0, end)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= min(1, end)])
    _label_bars(right, words.value_counts()[order])
    right.set(xticks=[], xlabel="training photos")
    figure.suptitle(f"{spec.feature_label(feature).capitalize()}: classes within", fontsize=11)
    if not single:
        names = [shorten(name, 22) for name in groups]
        figure.legend(axes.containers, names, loc="outside lower center", fontsize=8,
                      ncols=min(4, len(groups)))  # fmt: skip
    _tidy(axes)
    _tidy(right)
    return figure


def _label_bars(axes: "Axes", counts: pd.Series) -> None:
    """Grey bars from the top down, their counts beside them."""
    axes.barh(range(len(counts)), counts, color=GREY)
    for y, count in enumerate(counts):
        axes.text(count, y, f" {count:,}", va="center", fontsize=8)
    axes.set_xlim(0, 1.5 * counts.max())


def draw_groups(examples: pd.DataFrame, group: str) -> "Figure":
    """Draw how many images the groups have; many sizes are gathered in doubling ranges."""
    sizes = examples.groupby("group_id").size()
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    if sizes.max() <= 20:
        counts = sizes.value_counts().sort_index()
        names = [str(size) for size in counts.index]
    else:
        edges = 2 ** np.arange(int(np.ceil(np.log2(sizes.max()))) + 1)
        place = np.searchsorted(edges, sizes)
        counts = pd.Series(np.bincount(place, minlength=len(edges)))
        ends = zip([0, *edges[:-1]], edges, strict=True)
        names = [f"{low + 1}–{high}" if high > low + 1 else str(high) for low, high in ends]
    axes.bar(names, counts, color=BLUE)
    for x, count in enumerate(counts):
        axes.text(x, count, f"{count:,}", ha="center", va="bottom", fontsize=8)
    axes.set(xlabel=f"photos of one {group}", ylabel=f"{group}s")
    axes.set_title(
        f"{len(sizes):,} {group}s, median {sizes.median():g}, at most {sizes.max():,} photos",
        fontsize=11,
    )
    _tidy(axes)
    return figure


def draw_missing(shares: pd.DataFrame, spec: DatasetSpec) -> "Figure":
    """Draw the share of missing values, a pair of bars a column of the table."""
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(6.4, 1.3 + 0.3 * len(shares) * len(shares.columns))
    axes = figure.subplots()
    height = 0.8 / len(shares.columns)
    for place, (split, colour) in enumerate(zip(shares, (BLUE, GREY), strict=False)):
        y = np.arange(len(shares)) + place * height
        axes.barh(y, shares[split], height, color=colour, label=split)
        for one, share in zip(y, shares[split], strict=True):
            axes.text(share, one, f" {share:.1%}", va="center", fontsize=8)
    names = [spec.feature_label(name).capitalize() for name in shares.index]
    axes.set_yticks(np.arange(len(shares)) + (len(shares.columns) - 1) * height / 2, names)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, max(0.05, 1.15 * shares.to_numpy().max()))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1])
    axes.set_title("Missing values", fontsize=11)
    figure.legend(loc="outside right upper", fontsize=9)
    _tidy(axes)
    return figure


def draw_samples(
    train: pd.DataFrame, groups: Mapping[str, pd.Index], data_dir: Path, seed: int
) -> "Figure":
    """Draw a row of photos a class, chosen by ``seed``."""
    rng = np.random.default_rng(seed)
    figure = new_figure(1.35 * SAMPLES, 1.6 * len(groups))
    grid = figure.subplots(len(groups), SAMPLES, squeeze=False)
    for line, (name, ids) in zip(grid, groups.items(), strict=True):
        paths = train.loc[ids, "image_path"].dropna()
        chosen = rng.choice(len(paths), min(SAMPLES, len(paths)), replace=False)
        for axes in line:
            axes.set_axis_off()
        for axes, number in zip(line, chosen, strict=False):
            axes.imshow(_thumbnail(data_dir / paths.iloc[number]))
        line[0].set_title(shorten(name, 40), fontsize=10, loc="left")
    return figure


def _thumbnail(path: Path) -> np.ndarray:
    """The middle square of a photo, small."""
    photo = read_image(path, smallest_side_px=THUMBNAIL_PX)
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((THUMBNAIL_PX, THUMBNAIL_PX)))


def _tidy(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
