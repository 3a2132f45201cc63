"""SMOTE: invented training rows of the rare class. Only ever called inside ``fit``.

In: training rows. Out: a balanced matrix. imbalanced-learn is imported where it is used: Kaggle's
TPU image has none.
"""

from typing import Literal

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder

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
    if method == "smotenc" and (encoder.categorical or encoder.indicators):
        mixed, balanced = _invent_rows(examples, classes, encoder, neighbours, seed)
        return np.vstack([matrix, mixed[len(matrix) :]]), balanced
    sampler = _import_sampler("SMOTE")(k_neighbors=neighbours, random_state=seed)
    matrix, balanced = sampler.fit_resample(matrix, classes)
    return matrix.astype(np.float32), np.asarray(balanced)


def _invent_rows(
    examples: pd.DataFrame,
    classes: np.ndarray,
    encoder: FeatureEncoder,
    neighbours: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows encoded, original ones first, and their class.

    Neighbours are near in what the network sees: numbers as the encoder scales them, a missing one
    where the encoder puts it. In raw units a count of images would outweigh every share.
    """
    scaled, names = encoder.scale(examples), list(encoder.categorical)
    # "Missing" is a category of its own here; whether a number was missing is one too.
    words = examples[names].astype(object).where(examples[names].notna(), _MISSING)
    flags = {name: f"{name} {_MISSING}" for name in encoder.numeric if encoder.indicators}
    for name, flag in flags.items():
        words[flag] = scaled[name].isna().map({True: "yes", False: "no"})
    options = {"k_neighbors": neighbours, "random_state": seed}
    if encoder.numeric:
        sampler = _import_sampler("SMOTENC")(categorical_features=list(words), **options)
        table = pd.concat([scaled.fillna(0.0), words], axis=1)
    else:
        sampler, table = _import_sampler("SMOTEN")(**options), words
    table, balanced = sampler.fit_resample(table, classes)
    text = table[names].astype(object)
    numbers = table[encoder.numeric].astype(float)
    for name, flag in flags.items():
        numbers[name] = numbers[name].mask(table[flag] == "yes")
    return encoder.join(numbers, text.where(text != _MISSING, np.nan)), np.asarray(balanced)


def _import_sampler(name: str) -> type:
    try:
        import imblearn.over_sampling
    except ImportError:
        raise PipelineError(
            "tabular.resampling needs imbalanced-learn: pip install imbalanced-learn, or say "
            "--set tabular.resampling=none"
        ) from None
    return getattr(imblearn.over_sampling, name)
