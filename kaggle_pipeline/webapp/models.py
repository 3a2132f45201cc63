"""A run's trained models, in memory and ready: image, metadata, blend.

In: a run's folder. Out: :class:`RunModels`, which answers for square photos and for metadata.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.run_folders import require_run
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.data.patient_context import PREFIX, patient_context
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.ensembling.blend import Blend
from kaggle_pipeline.models.composite import OneModelPerClass, SeedEnsemble
from kaggle_pipeline.models.cross_validation import trained_folds
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.convert import decoded_side_px, square_jpeg
from kaggle_pipeline.report.results import describe_guessing
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.webapp.photo_heads import PhotoHeads
from kaggle_pipeline.webapp.upload import Photo

if TYPE_CHECKING:
    from kaggle_pipeline.models.image.inference.gradcam import Explainer


@dataclass(frozen=True)
class ImagePrediction:
    """What the folds' image models say of one photo.

    Attributes
    ----------
    probabilities : numpy.ndarray of shape (folds, classes), float64
    embeddings : tuple of numpy.ndarray, float32
        Pooled features by fold, those of all its networks one after the other.
    heat : numpy.ndarray of shape (classes, h, w), float32
        Grad-CAM, mean over the folds; each fold's and class's greatest value is 1 before.
        Of several seeds it is the mean too, made alike.
    heads : numpy.ndarray of shape (folds, classes), float64, or None
        What the linear heads on frozen encoders say, where the run blends them.
    """

    probabilities: np.ndarray
    embeddings: tuple[np.ndarray, ...]
    heat: np.ndarray
    heads: np.ndarray | None = None


class RunModels:
    """All models of a run that its blend weighs.

    Parameters
    ----------
    run_dir : pathlib.Path
    device : {"auto", "cpu", "gpu", "tpu"}

    Attributes
    ----------
    config : Experiment
        Of the image stage.
    spec : DatasetSpec
    folds : tuple of int
    missing : list of int
        Folds of the run that have no trained image model.
    fit : RecordFit
        How its photos were made square, as new ones are.
    blend : Blend
        Of the image model alone where the run has no ``blend/``; models of weight 0 are left out.
    effective_shares : dict of str to float
        How much each model moves the blend; empty where the run does not say.
    guessing : str
        A sentence where the AUC's interval allows guessing, else empty.
    judged_as_used : bool
        Whether scores, calibration and thresholds are those of this very blend.
    scored_stage : pathlib.Path
        The stage whose ``oof.csv`` and scores are those of the final probability.

    Raises
    ------
    PipelineError
        If the run has no trained image model, a model of its blend is not there or has other folds,
        or reads a feature that the data set does not declare.
    """

    def __init__(self, run_dir: Path, device: str = "auto") -> None:
        run_dir = Path(run_dir)
        require_run(run_dir)
        trained = TrainedImageModels.open(run_dir)
        self.config, self.spec = trained.config, trained.spec
        _require_one_look(self.config, trained.stage)
        self.folds, self.missing = tuple(trained.folds), trained.missing
        self.fit = trained.fit
        stored = run_dir / "blend" / "blend.json"
        self.scored_stage = stored.parent if stored.exists() else trained.stage
        alone = {"space": "mean", "weights": {"image": 1.0}, "knots": {}}
        blend = Blend(**(read_json(stored) if stored.exists() else alone))
        metrics = self.scored_stage / "metrics.json"
        found = read_json(metrics) if metrics.exists() else {}
        self.effective_shares: dict[str, float] = found.get("effective_shares", {})
        self.guessing = describe_guessing(found)
        self.judged_as_used = blend.judged_as_used(len(self.folds) + len(self.missing))
        weights = {name: weight for name, weight in blend.weights.items() if weight > 0}
        self.blend = replace(blend, weights=weights)
        self._image = {fold: _load_networks(trained, fold, device) for fold in self.folds}
        self._others = {
            name: _Tabular(run_dir / name, self.spec, self.folds)
            for name in self.blend.weights
            if name not in ("image", "embedding")
        }
        self._heads = None
        if "embedding" in weights:
            self._heads = PhotoHeads(run_dir, self.folds, device)

    @property
    def image_size_px(self) -> int:
        """Side of the square that the network sees."""
        return self.config.image.image_size_px

    @property
    def detail_px(self) -> int:
        """Side of the photos that it learned from; enlarging adds no detail."""
        return min(self.image_size_px, self.config.records.image_size_px)

    @property
    def features(self) -> tuple[str, ...]:
        """Metadata that some model of the blend reads, in the data set's order."""
        read = {name for model in self._others.values() for name in model.features}
        return tuple(name for name in self.spec.features if name in read)

    @property
    def uses_context(self) -> bool:
        """Whether a model compares a lesion's metadata with that of the patient's others."""
        return any(one.uses_context for one in self._others.values())

    def jpeg(self, photo: Photo) -> bytes:
        """Return the photo as a record has it."""
        records, image = self.fit.recipe(self.config.records), photo.image
        if photo.original is not None:  # decoded as conversion would: at a part of its size
            side = decoded_side_px(records)
            image = decode_image(photo.original, photo.name, smallest_side_px=side)
        return square_jpeg(image, records, photo.original)

    def square(self, photo: Photo) -> np.ndarray:
        """Return the photo as the network sees it: by a record's way, uint8 (side, side, 3)."""
        return self.decode(self.jpeg(photo))

    def decode(self, jpeg: bytes) -> np.ndarray:
        """Return what the network sees of a record's JPEG."""
        from kaggle_pipeline.models.image.input.pipeline import decode_photo

        return decode_photo(jpeg, self.image_size_px)

    def look(self, square: np.ndarray, jpeg: bytes | None = None) -> ImagePrediction:
        """Ask every fold's network about a photo that :meth:`square` gave.

        ``jpeg`` is what it was decoded from; encoders see that, where the run has any.
        """
        probabilities, embeddings, heats = [], [], []
        for fold in self._image.values():
            answers = [[one.answer(square[None]) for one in networks] for networks in fold]
            probabilities.append(
                np.concatenate(
                    [np.mean([one.probabilities[0] for one in seeds], axis=0) for seeds in answers]
                )
            )
            embeddings.append(
                np.concatenate([one.embeddings[0] for seeds in answers for one in seeds])
            )
            heat = [np.mean([_scaled(one.heat[0]) for one in seeds], axis=0) for seeds in answers]
            heats.append(_scaled(np.concatenate(heat)))
        heads = self._heads.answer(jpeg) if self._heads and jpeg is not None else None
        return ImagePrediction(
            np.stack(probabilities), tuple(embeddings), np.mean(heats, axis=0), heads
        )

    def embed(self, fold: int, squares: np.ndarray) -> np.ndarray:
        """Return one fold's embeddings (n, channels) of squares (n, side, side, 3)."""
        networks = (one for seeds in self._image[fold] for one in seeds)
        return np.hstack([network.embed(squares) for network in networks])

    def ask_metadata(self, metadata: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return what each metadata model says: name → (folds, n, classes).

        Parameters
        ----------
        metadata : pandas.DataFrame
            A row a lesion, all features of the data set, NaN where unknown; all rows are one
            patient's.
        """
        rows = metadata.assign(group_id="patient")
        return {name: model.predict(rows) for name, model in self._others.items()}


def _load_networks(trained: TrainedImageModels, fold: int, device: str) -> "list[list[Explainer]]":
    """A fold's networks with their Grad-CAM: the seeds of its one model, or of one a class."""
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    chosen = choose_accelerator(device).alone()
    from kaggle_pipeline.models.image.inference.gradcam import Explainer

    # Photos come as squares, one by one: no records, and no features to keep.
    model = trained.load(fold, chosen, lambda ids: [], trained.stage / "features")
    several = isinstance(model, OneModelPerClass)
    models = list(model.models_.values()) if several else [model]
    seeds = [
        list(one.models_.values()) if isinstance(one, SeedEnsemble) else [one] for one in models
    ]
    return [
        [Explainer(one.network_, trained.config.image, one.spec, chosen) for one in same]
        for same in seeds
    ]


def _scaled(heat: np.ndarray) -> np.ndarray:
    """Heat (classes, h, w) with 1 as each class's greatest value."""
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def _require_one_look(config: Experiment, stage: Path) -> None:
    """Raise a PipelineError unless every network sees a photo alone, and all of one size."""
    image = config.image
    for key, value, plain in (
        ("metadata", image.metadata, False),
        ("fold_sizes_px", image.fold_sizes_px, None),
    ):
        if value != plain:
            raise PipelineError(
                f"{stage} was trained with image.{key} = {value}: the page reads runs with {plain}"
            )


class _Tabular:
    """One metadata stage: all its folds, and what they read."""

    def __init__(self, stage: Path, spec: DatasetSpec, folds: Sequence[int]) -> None:
        places = trained_folds(stage)
        if set(places) != set(folds):
            raise PipelineError(
                f"{stage} has folds {sorted(places)} and the image model {sorted(folds)}: train "
                "those that are missing"
            )
        config = load_experiment(stage / "config.yaml").tabular
        self._spec = spec
        self._models = [_load_tabular(stage.name, places[fold], config, spec) for fold in folds]
        encoders = [model.encoder_ for model in self._models]
        columns = {name for one in encoders for name in (*one.numeric, *one.categorical)}
        context = {name for name in columns if name.startswith(PREFIX)} - set(spec.features)
        self.uses_context = bool(context)
        strange = columns - context - set(spec.features)
        if strange:
            raise PipelineError(
                f"{stage} reads {min(strange)!r}, which is no feature of {spec.id}: the page "
                "cannot ask for it"
            )
        # Context is made of all features, whichever the model reads beside it.
        self.features = spec.features if context else tuple(columns)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        if self.uses_context:
            rows = rows.join(patient_context(rows, self._spec))
        return np.stack([model.predict(rows).to_numpy(float) for model in self._models])


def _load_tabular(name: str, place: Path, config: object, spec: DatasetSpec) -> Model:
    """Return a trained metadata model; the encoder that it stored knows its features."""
    if name == "tabular":
        from kaggle_pipeline.models.tabular.model import TabularModel

        return TabularModel(config, spec, seed=0).load(place)
    from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel

    return LearnerModel(name, config, spec, spec.features, seed=0).load(place)
