"""A run's trained metadata models, opened to predict: of a learner's folds, or of all rows.

In: a stage's folder, such as ``tabular/``. Out: probabilities of rows of metadata.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.patient_context import PREFIX, patient_context
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.cross_validation import trained_folds, trained_on_all
from kaggle_pipeline.models.protocols import Model


class TrainedTabular:
    """One metadata stage, its models read.

    Parameters
    ----------
    stage : pathlib.Path
    spec : DatasetSpec
    folds : collection of int
        Of the model of photos that it is blended with.
    of_all : bool
        Take the model of all rows where there is one, as the submission does.

    Attributes
    ----------
    features : tuple of str
        Metadata that it reads.
    uses_context : bool
        Whether it compares a photo's metadata with those of the patient's others.

    Raises
    ------
    PipelineError
        If other folds are trained, or it reads a feature that the data set does not declare.
    """

    def __init__(
        self, stage: Path, spec: DatasetSpec, folds: Collection[int], *, of_all: bool = False
    ) -> None:
        whole = trained_on_all(stage) if of_all else None
        places = trained_folds(stage)
        if whole is None and set(places) != set(folds):
            raise PipelineError(
                f"{stage} has folds {sorted(places)} and the model of photos {sorted(folds)}: "
                "train those that are missing"
            )
        config = load_experiment(stage / "config.yaml").tabular
        self._spec = spec
        chosen = [places[fold] for fold in folds] if whole is None else [whole]
        self._models = [_load(stage.name, place, config, spec) for place in chosen]
        encoders = [model.encoder_ for model in self._models]
        columns = {name for one in encoders for name in (*one.numeric, *one.categorical)}
        context = {name for name in columns if name.startswith(PREFIX)} - set(spec.features)
        self.uses_context = bool(context)
        strange = columns - context - set(spec.features)
        if strange:
            raise PipelineError(
                f"{stage} reads {min(strange)!r}, which is no feature of {spec.id}: it cannot be "
                "asked for of new photos"
            )
        # Context is made of all features, whichever the model reads beside it.
        self.features = spec.features if context else tuple(columns)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """Return probabilities (models, n, classes), float64.

        Parameters
        ----------
        rows : pandas.DataFrame
            A row a photo: ``group_id``, the patient, and every feature, NaN where unknown. Context
            is of these rows alone.
        """
        if self.uses_context:
            rows = rows.join(patient_context(rows, self._spec))
        return np.stack([model.predict(rows).to_numpy(float) for model in self._models])


def _load(name: str, place: Path, config: object, spec: DatasetSpec) -> Model:
    """Return a trained metadata model; the encoder that it stored knows its features."""
    if name == "tabular":
        from kaggle_pipeline.models.tabular.model import TabularModel

        return TabularModel(config, spec, seed=0).load(place)
    from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel

    return LearnerModel(name, config, spec, spec.features, seed=0).load(place)
