"""Columns that say too much: those that settle the target, and what each column is worth alone.

In: training rows. Out: yes or no; a table of out-of-fold AUCs.
"""

import numpy as np
import pandas as pd

from kaggle_pipeline.data.folds import TRAIN_ONLY, Folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc

_SETTLED = 0.999
"""An AUC that no honest feature reaches on real patients."""
_FEW = 5
"""With fewer rows of a class than this, chance can separate it."""


def settles_target(train: pd.DataFrame, column: str, spec: DatasetSpec) -> bool:
    """Whether the value, or its being there at all, all but settles a class.

    A column of many different words could do so by chance alone, so words count only where most
    rows share theirs with another; numbers count by their order.
    """
    values = train[column]
    known = values.notna()
    signals = [known.to_numpy(float)]
    if values.dtype.kind in "fiub":
        signals.append(values.to_numpy(float))
    words = values.astype(object).where(known, "missing")
    counts = words.map(words.value_counts())
    if words.nunique() >= 2 and (counts >= 2).mean() >= 0.9:
        signals += [
            train[name].groupby(words).transform("mean").to_numpy(float) for name in spec.classes
        ]
    return any(_separates(signal, train[name]) for signal in signals for name in spec.classes)


def _separates(signal: np.ndarray, target: pd.Series) -> bool:
    """Whether sorting by ``signal`` (NaN left out) puts one class wholly behind the other."""
    known = ~np.isnan(signal)
    truth = target.to_numpy(int)[known]
    if min(truth.sum(), len(truth) - truth.sum()) < _FEW:
        return False
    return not 1 - _SETTLED < roc_auc(truth, signal[known]) < _SETTLED


def single_feature_table(
    examples: pd.DataFrame, spec: DatasetSpec, folds: Folds
) -> list[dict[str, float | str | bool]]:
    """Return the out-of-fold AUC that each column reaches alone, best first.

    A decision tree is fitted on the other folds, so the folds keep groups apart; the AUC is the
    mean over the folds. Width times height is tried beside the declared columns: on SIIM-ISIC it
    alone reaches 0.79, which says where a photo was taken and nothing about the lesion.
    """
    train = examples.loc[folds.table.index]
    fold = folds.table["fold"].to_numpy()
    if len(np.unique(fold)) < 2:  # nothing to learn from beside what is scored
        return []
    columns = {name: train[[name]] for name in (*spec.features, *spec.acquisition) if name in train}
    if spec.features:
        columns["all declared features"] = train[list(spec.features)]
    if set(spec.acquisition) <= set(train.columns):
        product = train[list(spec.acquisition)].prod(axis=1, min_count=len(spec.acquisition))
        columns[" × ".join(spec.acquisition)] = product.to_frame("product")
    rows = []
    for name, frame in columns.items():
        if frame.notna().any(axis=None):
            auc = _grouped_auc(frame, train[list(spec.classes)], fold)
            if np.isnan(auc):  # no fold has both classes: nothing was judged
                continue
            acquisition = any(part in name for part in spec.acquisition)
            rows.append({"feature": name, "oof_auc": round(auc, 4), "acquisition": acquisition})
    return sorted(rows, key=lambda row: -row["oof_auc"])


def _grouped_auc(frame: pd.DataFrame, targets: pd.DataFrame, fold: np.ndarray) -> float:
    """Mean over classes and folds of the AUC of a model that saw the other folds only."""
    from sklearn.tree import DecisionTreeClassifier

    coded = frame.apply(lambda c: c if c.dtype.kind in "fi" else c.astype("category").cat.codes)
    x = coded.to_numpy(float)
    aucs = []
    for name in targets:
        y = targets[name].to_numpy(int)
        for number in np.unique(fold[fold != TRAIN_ONLY]):
            inside, outside = fold == number, fold != number
            if min(np.ptp(y[inside]), np.ptp(y[outside])) == 0:
                continue  # a class is missing: nothing to learn or to judge here
            tree = DecisionTreeClassifier(
                min_samples_leaf=max(5, len(y) // 200), max_leaf_nodes=64, random_state=0
            ).fit(x[outside], y[outside])
            aucs.append(roc_auc(y[inside], tree.predict_proba(x[inside])[:, 1]))
    return float(np.mean(aucs)) if aucs else float("nan")
