"""A run's trained linear heads, opened to predict: new photos pass the run's encoders first.

In: a run folder with ``embedding/`` and ``embeddings/``. Out: settings, then models by fold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import labels_in_words, read_examples, split_rows
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.cross_validation import trained_on_all
from kaggle_pipeline.models.embedding.model import EmbeddingModel
from kaggle_pipeline.models.embedding.nearest import NearestPhotos
from kaggle_pipeline.models.embedding.vector_store import FOLDER, VectorStore
from kaggle_pipeline.models.embedding.vector_table import VectorTable
from kaggle_pipeline.records.geometry import RecordFit
from kaggle_pipeline.stages.embed import encode_photos, open_encoders, stored_vectors
from kaggle_pipeline.stages.photo_records import read_photos
from kaggle_pipeline.stages.trained import TrainedImageModels, read_stage

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator
    from kaggle_pipeline.models.embedding.encoder import Encoder


class NotAtHand(PipelineError):
    """An encoder cannot be opened here: its package, or its weights, are not there."""


@dataclass(frozen=True)
class TrainedHeads:
    """What a run's embedding stage says of itself; the like of ``TrainedImageModels``.

    Attributes
    ----------
    stage : pathlib.Path
        The folder ``embedding/``.
    config : Experiment
        Of that stage.
    spec : DatasetSpec
    folds : dict of int to pathlib.Path
    missing : list of int
        Folds of the run that are not trained.
    fit : RecordFit
        How the run's photos were made square, as new ones are to be.
    of_all : pathlib.Path or None
        Folder of the head that learned from all rows, where there is one.
    """

    stage: Path
    config: Experiment
    spec: DatasetSpec
    folds: dict[int, Path]
    missing: list[int]
    fit: RecordFit
    of_all: Path | None = None
    mixed_precision = False
    _vectors: dict[tuple, VectorTable] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, run_dir: Path) -> "TrainedHeads":
        """Read the settings.

        Raises
        ------
        PipelineError
            If the run has no trained head, or one that reads vectors which others made.
        """
        stage = Path(run_dir) / "embedding"
        found = cls(*read_stage(stage), trained_on_all(stage))
        for one in found.config.embedding.encoders:
            if not one.reads_photos:
                raise PipelineError(
                    f"{found.stage} was trained on vectors of {one.what}: new photos have none; "
                    "their encoder is not known"
                )
        return found

    @property
    def places(self) -> dict[int | None, Path]:
        """The folder of every trained head: by fold, and of None the head of all rows."""
        return {**self.folds, **({None: self.of_all} if self.of_all else {})}

    @property
    def metadata(self) -> bool:
        """Whether the heads read metadata beside the photo."""
        return self.config.embedding.metadata

    @property
    def lacking(self) -> str:
        """What they learned and were scored with, and a photo alone lacks; empty if nothing."""
        config = self.config.embedding
        parts = ["metadata"] * config.metadata + ["the patient's other photos"] * config.context
        return " and ".join(parts)

    def load(
        self,
        fold: int | None,
        device: "Accelerator",
        shards_of: Callable[[pd.Index], list[Path]],
        features_dir: Path,
    ) -> "_Head":
        """Return one fold's model; ``predict`` encodes the photos, once for all folds."""

        return _Head(self, fold, lambda examples: self.encode(examples, shards_of, device))

    def encode(
        self,
        examples: pd.DataFrame,
        shards_of: Callable[[pd.Index], list[Path]],
        device: "Accelerator",
    ) -> VectorTable:
        """Return what the heads see of new photos; the same ones are encoded once."""
        known = tuple(examples.index)
        if known not in self._vectors:
            shards = shards_of(examples.index)
            self._vectors[known] = self._encode(examples, shards, device)
        return self._vectors[known]

    def nearest(self) -> NearestPhotos | None:
        """Return the training photos to find the nearest of, their vectors without context.

        None where the run's folder holds no vectors, as a bundle.
        """
        stores = {one.folder: self._store(one.folder) for one in self.config.embedding.encoders}
        path = self.stage.parent / "prepare" / "examples.csv"
        if not path.exists() or not all(one.has_vectors for one in stores.values()):
            return None
        known = split_rows(read_examples(path, self.spec), "train")
        found = {name: one.read().mean(known.index, one.folder) for name, one in stores.items()}
        table = VectorTable.build(known.index, found)
        return NearestPhotos(table, known["group_id"], labels_in_words(known, self.spec))

    def open_encoders(self, device: "Accelerator", batch_size: int) -> dict[str, "Encoder"]:
        """Return the encoders that made the training photos' vectors, their weights compared.

        Raises
        ------
        NotAtHand
            If one cannot be had.
        PipelineError
            If one has other weights than it had then.
        """
        try:
            encoders = open_encoders(self.config.embedding.encoders, device, batch_size)
        except PipelineError as error:
            raise NotAtHand(str(error)) from None
        for name, encoder in encoders.items():
            store = self._store(name)
            if not store.finished:
                raise PipelineError(
                    f"{store.folder} is not here: it says of which weights the vectors were that "
                    f"{self.stage} was trained on"
                )
            store.require_same_weights(encoder.about)
        return encoders

    def table(self, examples: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> VectorTable:
        """Return what the heads see of photos, of vectors (n, views, width) in their order."""
        config = self.config.embedding
        means = {
            name: stored_vectors(array, config).mean(axis=1, dtype=np.float32)
            for name, array in arrays.items()
        }
        patient = examples["group_id"] if config.context else None
        return VectorTable.build(examples.index, means, patient)

    def head(self, fold: int | None, vectors: VectorTable) -> EmbeddingModel:
        """Return one fold's head, or of None that of all rows; it knows these vectors."""
        model = EmbeddingModel(self.config.embedding, self.spec, vectors, seed=0)
        return model.load(self.places[fold])

    def _store(self, name: str) -> VectorStore:
        return VectorStore(self.stage.parent / FOLDER / name)

    def _encode(
        self, examples: pd.DataFrame, shards: list[Path], device: "Accelerator"
    ) -> VectorTable:
        """The vectors of new photos, by the encoders that made the training photos'."""
        batch_size = self.config.embedding.batch_size
        encoders = self.open_encoders(device, batch_size)
        photos = read_photos(shards, self.spec.record_id, set(examples.index))
        ids, arrays = encode_photos(photos, encoders, batch_size)
        rows = ids.get_indexer(examples.index)
        return self.table(examples, {name: array[rows] for name, array in arrays.items()})


@dataclass(frozen=True)
class _Head:
    """One fold's head and what makes its vectors."""

    trained: TrainedHeads
    fold: int | None
    vectors: Callable[[pd.DataFrame], VectorTable]

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities by image id, a column a class."""
        return self.trained.head(self.fold, self.vectors(examples)).predict(examples)


def open_trained(run_dir: Path) -> TrainedImageModels | TrainedHeads:
    """Return what reads a run's photos: its image model, or the heads where it has none.

    Raises
    ------
    PipelineError
        If neither is trained.
    """
    if (run_dir / "embedding").is_dir() and not (run_dir / "image").is_dir():
        return TrainedHeads.open(run_dir)
    return TrainedImageModels.open(run_dir)
