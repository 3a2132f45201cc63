"""EmbeddingModel: a linear head on vectors, as the loop over folds wants a model to be.

In: examples, and vectors by image id. Out: probabilities by id; arrays and JSON on disk.
"""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.embedding import EmbeddingConfig
from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, atomic_path, read_json, write_json
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.data.folds import make_folds
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.embedding.linear_head import LinearHead, fit_head
from kaggle_pipeline.models.embedding.vector_table import VectorTable

_ARRAYS = "head.npz"


class EmbeddingModel:
    """A linear head on the vectors of encoders, fitted on the rows given to ``fit`` alone.

    A softmax for ``multiclass``, of two classes one question for both; else a question a class,
    each learned from the rows whose label is known.

    Parameters
    ----------
    config : EmbeddingConfig
    spec : DatasetSpec
    vectors : VectorTable
        Of all images that it will be asked about.
    seed : int
        Of the inner folds.

    Attributes
    ----------
    encoder_ : FeatureEncoder or None
        Of the metadata, where ``config.metadata`` asks for it.
    heads_ : list of LinearHead
        One, or one a class.
    """

    selection = "none"
    inner_share = 0.0

    def __init__(
        self, config: EmbeddingConfig, spec: DatasetSpec, vectors: VectorTable, *, seed: int
    ) -> None:
        self.config = config
        self.spec = spec
        self.vectors = vectors
        self.seed = seed

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "EmbeddingModel":
        """Learn from ``train``; ``valid`` is not looked at.

        Raises
        ------
        PipelineError
            If a class has no row, or every row.
        """
        classes = list(self.spec.classes)
        train = train.dropna(subset=classes, how="all")
        encoder = FeatureEncoder(self.spec.numeric, self.spec.categorical, indicators=True)
        self.encoder_ = encoder.fit(train) if self.config.metadata else None
        x, labels = self._matrix(train), train[classes]
        if self.spec.task == "multiclass":
            questions = [labels.to_numpy(int).argmax(axis=1)]
        else:
            questions = list(labels.to_numpy(float).T)
        count = len(classes) if self.spec.task == "multiclass" else 2
        fold = self._inner_folds(train.assign(**labels.fillna(0)))
        self.heads_ = []
        for name, answers in zip(classes, questions, strict=False):
            known = ~np.isnan(answers)
            if len(np.unique(answers[known])) < 2:
                if self.spec.task == "multiclass":  # all are of the class of that number
                    name, answers = classes[answers[0]], np.ones(len(answers))
                raise PipelineError(
                    f"embedding: all {known.sum()} training rows of a fold have {name} = "
                    f"{answers[known][0] if known.any() else 'nothing'}: use fewer folds"
                )
            self.heads_.append(
                fit_head(x[known], answers[known].astype(int), fold[known], max(count, 2))
            )
        return self

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities: index ``image_id`` in the examples' order, a column a class."""
        x = self._matrix(examples)
        found = [head.answer(x) for head in self.heads_]
        if self.spec.task != "multiclass":
            values = np.stack(found, axis=1)
        elif found[0].ndim == 1:  # of two classes the head says how probable the second is
            values = np.stack([1 - found[0], found[0]], axis=1)
        else:
            (values,) = found
        return pd.DataFrame(np.clip(values, 0.0, 1.0), examples.index, list(self.spec.classes))

    def save(self, folder: Path) -> None:
        """Write what was learned as arrays, and how it was chosen as JSON."""
        arrays = {}
        for number, head in enumerate(self.heads_):
            arrays |= {f"{number}.weights": head.weights, f"{number}.base": head.base}
        with atomic_path(Path(folder) / _ARRAYS) as temporary:
            np.savez_compressed(temporary, **arrays)
        settings = {
            "head": self.config.head,
            "dataset": self.spec.id,
            "seed": self.seed,
            "embedding": to_mapping(self.config),
            "parts": self.vectors.parts,
            "chosen": [
                {"penalty": one.penalty, "losses": {str(k): v for k, v in one.losses.items()}}
                for one in self.heads_
            ],
            "encoder": None if self.encoder_ is None else self.encoder_.to_mapping(),
        }
        write_json(Path(folder) / SAVED, settings)

    def load(self, folder: Path) -> "EmbeddingModel":
        """Read what :meth:`save` wrote; ``predict`` then gives the same numbers.

        Raises
        ------
        PipelineError
            If a file is missing or damaged, or the vectors are of other encoders.
        """
        settings = read_json(Path(folder) / SAVED)
        if settings["parts"] != self.vectors.parts:
            raise PipelineError(
                f"{folder} was trained on {settings['parts']}, the vectors are {self.vectors.parts}"
            )
        encoder = settings["encoder"]
        self.encoder_ = FeatureEncoder.from_mapping(encoder) if encoder else None
        path = Path(folder) / _ARRAYS
        require_written(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                self.heads_ = [
                    LinearHead(
                        stored[f"{number}.weights"], stored[f"{number}.base"], chosen["penalty"],
                        {float(key): loss for key, loss in chosen["losses"].items()},
                    )
                    for number, chosen in enumerate(settings["chosen"])
                ]  # fmt: skip
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise PipelineError(f"{path} cannot be read ({error}): train that fold again") from None
        return self

    def _matrix(self, examples: pd.DataFrame) -> np.ndarray:
        """Float32 (n, columns): vectors, context, metadata."""
        found = self.vectors.of(examples.index)
        if self.encoder_ is None:
            return found
        return np.hstack([found, self.encoder_.transform(examples)])

    def _inner_folds(self, train: pd.DataFrame) -> np.ndarray:
        """Inner fold of each training row, groups kept together; fewer where groups are few."""
        k = min(self.config.inner_folds, train["group_id"].nunique())
        if k < 2:
            return np.zeros(len(train), int)
        return make_folds(train, self.spec, FoldsConfig(k=k), self.seed).table["fold"].to_numpy()
