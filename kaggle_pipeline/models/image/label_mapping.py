"""What the network is asked: the data set's classes, or the finer diagnoses behind them.

In: examples, the data set's spec, the network's answers. Out: the spec of the question that is
learned, targets for it, and answers turned back into probabilities of the classes.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.data.spec import DatasetSpec, Diagnoses


def learned_spec(config: ImageConfig, spec: DatasetSpec) -> DatasetSpec:
    """Return the spec whose ``task`` and ``classes`` the network has, given that of the data set.

    Raises
    ------
    PipelineError
        If diagnoses are asked for and the data set declares none.
    """
    if config.target == "classes":
        return spec
    names = tuple(_diagnoses(spec).names)
    return replace(spec, task="multiclass", classes=names)


def learned_targets(examples: pd.DataFrame, config: ImageConfig, spec: DatasetSpec) -> np.ndarray:
    """Return targets of training rows for the question that is learned.

    Parameters
    ----------
    examples : pandas.DataFrame
        With the classes' columns, and the diagnosis where it is the target.
    config : ImageConfig
    spec : DatasetSpec
        Of the data set.

    Returns
    -------
    float32 array of shape (n, answers)

    Raises
    ------
    PipelineError
        If a row's diagnosis is missing, is a word that the spec does not know, or contradicts the
        row's classes.
    """
    classes = examples[list(spec.classes)].to_numpy(np.float32)
    if config.target == "classes":
        return classes
    known = _diagnoses(spec)
    if known.column not in examples.columns:
        raise PipelineError(
            f"image.target: the data has no column {known.column!r}; say classes, or get the full "
            "tables"
        )
    said = examples[known.column]
    names = said.map(known.words)
    for image_id in names.index[names.isna()]:
        word = said[image_id]
        if pd.isna(word):
            raise PipelineError(
                f"image {image_id} has no {known.column}, which image.target = diagnosis needs"
            )
        hint = nearest(str(word), list(known.words))
        raise PipelineError(f"image {image_id}: unknown {known.column} {word!r}{hint}")
    targets = (names.to_numpy()[:, None] == np.array(list(known.names))).astype(np.float32)
    odd = (class_probabilities(targets, config, spec) != classes).any(axis=1)
    if odd.any():
        row = examples.loc[odd].iloc[0]
        raise PipelineError(
            f"image {row.name}: {known.column} {row[known.column]!r} contradicts its "
            f"{', '.join(f'{name} {row[name]:g}' for name in spec.classes)}"
        )
    return targets


def class_probabilities(answers: np.ndarray, config: ImageConfig, spec: DatasetSpec) -> np.ndarray:
    """Return probabilities (n, classes), each the sum over the diagnoses that belong to it.

    Diagnoses exclude each other, so their probabilities add up.
    """
    if config.target == "classes":
        return answers
    # A softmax in float32 can exceed 1 by a rounding.
    return np.clip(answers @ membership(spec).astype(answers.dtype), 0, 1)


def membership(spec: DatasetSpec) -> np.ndarray:
    """Return 1 where a diagnosis (row) belongs to a class (column), float32."""
    owners = _diagnoses(spec).names.values()
    return np.array([[owner == name for name in spec.classes] for owner in owners], np.float32)


def _diagnoses(spec: DatasetSpec) -> Diagnoses:
    if spec.diagnoses is None:
        raise PipelineError(f"image.target: {spec.id} declares no diagnoses; say classes")
    return spec.diagnoses
