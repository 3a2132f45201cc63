"""Exploratory pictures of a data set.

In: the validated examples table, and the photos where they are at hand. Out: PNG files, and the
counts behind them in ``summary.json``. Rows of the test split are counted, never looked into.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.figures import save_figure
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.data import explore_figures as plots
from kaggle_pipeline.data.examples import SPLITS, split_rows, splits_of
from kaggle_pipeline.data.explore_figures import MISSING
from kaggle_pipeline.data.spec import DatasetSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore(
    examples: pd.DataFrame, spec: DatasetSpec, data_dir: Path, out_dir: Path, *, seed: int = 0
) -> list[Path]:
    """Draw what a person would look at before training anything.

    Parameters
    ----------
    examples : pandas.DataFrame
        Validated (see ``examples.py``).
    spec : DatasetSpec
    data_dir : pathlib.Path
        Where ``image_path`` begins.
    out_dir : pathlib.Path
        Gets the files.
    seed : int
        Chooses the sample photos.

    Returns
    -------
    list of pathlib.Path
        ``summary.json``, ``classes.png``, ``<numeric feature>.png``, ``<categorical>.png``,
        ``groups.png``, ``missing.png`` and ``samples.png``; a picture for which the data has
        nothing is left out.

    Raises
    ------
    PipelineError
        If there is no training row, or a sample photo cannot be read.
    """
    train = split_rows(examples, "train")
    if train.empty:
        raise PipelineError(f"{spec.id}: no training row to explore")
    out_dir = Path(out_dir)
    groups = in_words(class_groups(train, spec), spec)
    drawn: dict[str, Callable[[], Figure]] = {"classes": partial(plots.draw_classes, groups)}
    for feature in spec.features:
        if train[feature].notna().any():
            drawn[feature] = (
                partial(plots.draw_numeric, train, groups, feature, spec)
                if feature in spec.numeric
                else partial(plots.draw_categorical, train, groups, feature, spec)
            )
    if spec.group is not None:
        drawn["groups"] = partial(plots.draw_groups, examples, spec.group)
    drawn["missing"] = partial(plots.draw_missing, missing_shares(examples, spec), spec)
    if train["image_path"].notna().any():
        drawn["samples"] = partial(plots.draw_samples, train, groups, Path(data_dir), seed)
    files = [out_dir / "summary.json"]
    for name, draw in drawn.items():
        files.append(out_dir / f"{name.replace('/', '_')}.png")
        save_figure(draw(), files[-1], photos=name == "samples")
    write_json(files[0], summarise(examples, spec))  # last: it says that all is drawn
    return files


def class_groups(train: pd.DataFrame, spec: DatasetSpec) -> dict[str, pd.Index]:
    """Return the ids of each class, and of the rows of none where there are such.

    A row with two labels is in both.
    """
    targets = train[list(spec.classes)] == 1
    groups = {name: train.index[targets[name]] for name in spec.classes}
    none = train.index[~targets.any(axis=1)]
    if len(none):
        name = f"not {spec.classes[0]}" if len(spec.classes) == 1 else "none of these"
        groups = {name: none, **groups}
    return groups


def in_words(groups: Mapping[str, pd.Index], spec: DatasetSpec) -> dict[str, pd.Index]:
    """Return :func:`class_groups` with the classes called as people call them."""
    return {
        f"not {spec.class_label(name[4:])}"
        if name[4:] in spec.classes
        else spec.class_label(name): ids
        for name, ids in groups.items()
    }


def missing_shares(examples: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return shares of missing values: a row a feature (and ``photo file``), a column a split."""
    columns = [*spec.features, "image_path"]
    splits = [split for split in SPLITS if (examples["split"] == split).any()]
    shares = {s: split_rows(examples, s)[columns].isna().mean() for s in splits}
    return pd.DataFrame(shares).rename(index={"image_path": "photo file"})


def summarise(examples: pd.DataFrame, spec: DatasetSpec) -> dict:
    """Return the counts behind the pictures as JSON types; no id is among them.

    Returns
    -------
    dict
        ``images, groups`` (by split), ``classes, images_per_group`` (of the training rows),
        ``features`` (training rows by value; of a numeric one mean, deviation, least and largest)
        and ``missing`` (share by feature and split).
    """
    train = split_rows(examples, "train")
    sizes = train.groupby("group_id").size()
    told = splits_of(examples)
    return {
        "dataset": spec.id,
        "group": spec.group,
        "images": {s: int((examples["split"] == s).sum()) for s in told},
        "groups": {s: int(split_rows(examples, s)["group_id"].nunique()) for s in told},
        "classes": {name: len(ids) for name, ids in class_groups(train, spec).items()},
        "images_per_group": {
            "median": float(sizes.median()), "mean": round(float(sizes.mean()), 3),
            "largest": int(sizes.max()),
        },
        "features": {name: _summarise_feature(train[name], spec) for name in spec.features},
        "missing": {
            str(name): {split: round(float(share), 4) for split, share in row.items()}
            for name, row in missing_shares(examples, spec).iterrows()
        },
    }  # fmt: skip


def _summarise_feature(values: pd.Series, spec: DatasetSpec) -> dict[str, float | int]:
    if values.name in spec.categorical:
        words = values.astype(object).where(values.notna(), MISSING)
        counts = words.value_counts()
        return {str(word): int(counts[word]) for word in counts.index}
    if values.notna().sum() == 0:
        return {}
    numbers = {"mean": values.mean(), "sd": values.std(), "least": values.min(),
               "largest": values.max()}  # fmt: skip
    return {name: round(float(x), 3) for name, x in numbers.items() if not np.isnan(x)}
