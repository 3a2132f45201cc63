"""SMOTE: invented training rows of the rare class. Only ever called inside ``fit``.

In: training rows. Out: a balanced matrix. imbalanced-learn is imported where it is used: Kaggle's
TPU image has none.
"""

from typing import Literal

import numpy as np
import pandas as pd

from kaggle_pipeline.encode import FeatureEncoder
from kaggle_pipeline.errors import PipelineError

Method = Literal["smotenc", "smote", "none"]
_NEIGHBOURS = 5
_MISSING = "missing"


def resample_rows(
    examples: pd.DataFrame, classes: np.ndarray, encoder: FeatureEncoder, method: Method, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return encoded training rows and their class, balanced by ``method``.

    Parameters
    ----------
    examples : pandas.DataFrame
        Training rows.
    classes : array of shape (n,), int
    encoder : FeatureEncoder
        Fitted on these rows.
    method : {"smotenc", "smote", "none"}
        ``smotenc`` takes each invented row's categories from the majority of its neighbours
        (Chawla et al. 2002, doi:10.1613/jair.953, section 6.1); ``smote`` interpolates the encoded
        columns, one-hot ones included, as the published recipe does.
    seed : int

    Returns
    -------
    tuple of numpy.ndarray
        float32 (m, columns) and int (m,), original rows first.

    Raises
    ------
    PipelineError
        If imbalanced-learn is missing or a class has too few rows.
    """
    matrix = encoder.transform(examples)
    if method == "none":
        return matrix, classes
    smallest = int(np.bincount(classes)[np.unique(classes)].min())
    if smallest < 2:
        raise PipelineError(
            f"tabular.resampling={method} needs 2 rows of each class, the rarest has {smallest}: "
            "say --set tabular.resampling=none"
        )
    neighbours = min(_NEIGHBOURS, smallest - 1)
    if method == "smotenc" and encoder.categorical:
        return _resample_raw(examples, classes, encoder, neighbours, seed)
    sampler = _import_sampler("SMOTE")(k_neighbors=neighbours, random_state=seed)
    matrix, balanced = sampler.fit_resample(matrix, classes)
    return matrix.astype(np.float32), np.asarray(balanced)


def _resample_raw(
    examples: pd.DataFrame,
    classes: np.ndarray,
    encoder: FeatureEncoder,
    neighbours: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Invent rows among the raw columns, then encode originals and inventions alike."""
    # "Missing" is a category of its own here, and a missing number 0, which encodes to 0; whether
    # it was missing is a category too.
    names = list(encoder.categorical)
    words = examples[names].astype(object).where(examples[names].notna(), _MISSING)
    flags = {name: f"{name} {_MISSING}" for name in encoder.numeric if encoder.indicators}
    for name, flag in flags.items():
        words[flag] = examples[name].isna().map({True: "yes", False: "no"})
    options = {"k_neighbors": neighbours, "random_state": seed}
    if encoder.numeric:
        sampler = _import_sampler("SMOTENC")(categorical_features=list(words), **options)
        table = pd.concat([examples[encoder.numeric].fillna(0.0).astype(float), words], axis=1)
    else:
        sampler, table = _import_sampler("SMOTEN")(**options), words
    table, balanced = sampler.fit_resample(table, classes)
    table[names] = table[names].astype(object).where(table[names] != _MISSING, np.nan)
    for name, flag in flags.items():
        table[name] = table[name].mask(table[flag] == "yes")
    return encoder.transform(table), np.asarray(balanced)


def _import_sampler(name: str) -> type:
    try:
        import imblearn.over_sampling
    except ImportError:
        raise PipelineError(
            "tabular.resampling needs imbalanced-learn: pip install imbalanced-learn, or say "
            "--set tabular.resampling=none"
        ) from None
    return getattr(imblearn.over_sampling, name)
