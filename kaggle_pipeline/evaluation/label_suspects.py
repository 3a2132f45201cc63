"""Labels that fit least: confident learning on out-of-fold predictions, by cleanlab.

In: labels and out-of-fold probabilities. Out: a table of the images whose label is doubtful.
Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70 (arXiv:1911.00068).
"""

from importlib.util import find_spec

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec

_NEITHER = "not {}"


def find_suspects(labels: pd.DataFrame, oof: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return the images whose label confident learning doubts, the worst first.

    A class's threshold is the mean probability that its images get; an image is counted for the
    class whose threshold it exceeds. As many of each wrong pair are suspects as these counts say.

    Parameters
    ----------
    labels : pandas.DataFrame
        0 or 1 by image id, a column a class; rows without a label are left out.
    oof : pandas.DataFrame
        Probabilities of models that did not learn from the row, the same columns.
    spec : DatasetSpec
        Of several yes-or-no questions each is looked at alone.

    Returns
    -------
    pandas.DataFrame
        Index ``image_id``, which may stand there once a class: ``label`` (in words),
        ``more_likely``, ``fit`` (the probability of the label as it is, in [0, 1]).

    Raises
    ------
    PipelineError
        If cleanlab is not installed, or a class has no image.
    """
    if find_spec("cleanlab") is None:
        raise PipelineError("cleanlab is not installed: pip install 'kaggle-pipeline[audit]'")
    classes = list(spec.classes)
    known = labels.loc[oof.index, classes]
    if spec.task == "multiclass":
        rows = known.dropna().index
        words = [spec.class_label(name) for name in classes]
        given = known.loc[rows].to_numpy(int).argmax(axis=1)
        return _doubted(rows, given, oof.loc[rows, classes].to_numpy(float), words)
    parts = []
    for name in classes:
        rows = known[name].dropna().index
        chance = oof.loc[rows, name].to_numpy(float)
        words = [_NEITHER.format(spec.class_label(name)), spec.class_label(name)]
        given = known.loc[rows, name].to_numpy(int)
        parts.append(_doubted(rows, given, np.stack([1 - chance, chance], axis=1), words))
    return pd.concat(parts).sort_values("fit", kind="stable")


def _doubted(
    rows: pd.Index, given: np.ndarray, chances: np.ndarray, words: list[str]
) -> pd.DataFrame:
    from cleanlab.filter import find_label_issues

    lacking = sorted(set(range(len(words))) - set(given.tolist()))
    if lacking:
        raise PipelineError(f"no image of {words[lacking[0]]}: labels cannot be compared")
    chances = np.clip(chances, 1e-6, None)  # a float32 softmax may be 0
    chances = chances / chances.sum(axis=1, keepdims=True)
    order = find_label_issues(
        given, chances, return_indices_ranked_by="self_confidence", n_jobs=1, verbose=False
    )
    table = pd.DataFrame(
        {
            "label": [words[one] for one in given[order]],
            "more_likely": [words[one] for one in chances[order].argmax(axis=1)],
            "fit": chances[order, given[order]],
        },
        index=pd.Index(rows[order], name="image_id"),
    )
    return table[table["label"] != table["more_likely"]]
