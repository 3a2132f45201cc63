"""A run's trained models, in memory and ready: image, metadata, blend.

In: a run's folder. Out: :class:`RunModels`, which answers for square photos and for metadata.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.run_folders import require_run
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.data.patient_context import PREFIX, patient_context
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.ensembling.blend import Blend
from kaggle_pipeline.models.cross_validation import trained_folds
from kaggle_pipeline.models.embedding.nearest import Near
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.convert import decoded_side_px, square_jpeg
from kaggle_pipeline.report.results import describe_guessing
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.stages.trained_embedding import open_trained
from kaggle_pipeline.webapp.photo_heads import PhotoHeads
from kaggle_pipeline.webapp.photo_networks import PhotoNetworks
from kaggle_pipeline.webapp.upload import Photo


@dataclass(frozen=True)
class ImagePrediction:
    """What the folds' models of photos say of one.

    Attributes
    ----------
    parts : dict of str to numpy.ndarray of shape (folds, classes), float64
        What the networks (``image``) and the heads on frozen encoders (``embedding``) say.
    embeddings : tuple of numpy.ndarray, float32
        By :attr:`RunModels.embedding_folds`: pooled features, those of all of a fold's networks
        one after the other; without networks the encoders' vector.
    heat : numpy.ndarray of shape (classes, h, w), float32, or None
        Grad-CAM, mean over the folds; each fold's and class's greatest value is 1 before.
        Of several seeds it is the mean too, made alike. None without networks.
    nearest : tuple of Near
        The nearest training photos, by the encoders.
    """

    parts: dict[str, np.ndarray]
    embeddings: tuple[np.ndarray, ...]
    heat: np.ndarray | None = None
    nearest: tuple[Near, ...] = ()


class RunModels:
    """All models of a run that its blend weighs.

    Parameters
    ----------
    run_dir : pathlib.Path
    device : {"auto", "cpu", "gpu", "tpu"}

    Attributes
    ----------
    photo_stage : str
        What reads photos: ``image``, or ``embedding`` where the run has no network.
    config : Experiment
        Of that stage.
    spec : DatasetSpec
    folds : tuple of int
    missing : list of int
        Folds of the run that have no trained model of photos.
    embedding_folds : tuple of int
        What the embeddings of a photo are of: each fold; 0 alone where a frozen encoder makes one
        for all.
    networks : PhotoNetworks or None
    heads : PhotoHeads or None
    fit : RecordFit
        How its photos were made square, as new ones are.
    blend : Blend
        Of the photo stage alone where the run has no ``blend/``; models of weight 0 are left out.
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
        If the run has no trained model of photos, an encoder is not at hand, a model of its blend
        is not there or has other folds, or reads a feature that the data set does not declare.
    """

    def __init__(self, run_dir: Path, device: str = "auto") -> None:
        run_dir = Path(run_dir)
        require_run(run_dir)
        trained = open_trained(run_dir)
        self.photo_stage = trained.stage.name
        self.config, self.spec = trained.config, trained.spec
        self.folds, self.missing = tuple(trained.folds), trained.missing
        self.fit = trained.fit
        stored = run_dir / "blend" / "blend.json"
        self.scored_stage = stored.parent if stored.exists() else trained.stage
        alone = {"space": "mean", "weights": {self.photo_stage: 1.0}, "knots": {}}
        blend = Blend(**(read_json(stored) if stored.exists() else alone))
        metrics = self.scored_stage / "metrics.json"
        found = read_json(metrics) if metrics.exists() else {}
        self.effective_shares: dict[str, float] = found.get("effective_shares", {})
        self.guessing = describe_guessing(found)
        self.judged_as_used = blend.judged_as_used(len(self.folds) + len(self.missing))
        weights = {name: weight for name, weight in blend.weights.items() if weight > 0}
        self.blend = replace(blend, weights=weights)
        self.networks: PhotoNetworks | None = None
        self.heads: PhotoHeads | None = None
        if isinstance(trained, TrainedImageModels):
            self.networks = PhotoNetworks(trained, device)
        elif "image" in weights:
            raise PipelineError(f"{stored} weighs the image model, which {run_dir} does not hold")
        if self.networks is None or "embedding" in weights:
            self.heads = PhotoHeads(run_dir, self.folds, device)
        self.embedding_folds = self.folds if self.networks else (0,)
        self._others = {
            name: _Tabular(run_dir / name, self.spec, self.folds)
            for name in self.blend.weights
            if name not in ("image", "embedding")
        }

    @property
    def image_size_px(self) -> int:
        """Side of the square that the network sees, or the largest encoder."""
        return self.config.image.image_size_px if self.networks else self.heads.side_px

    @property
    def described(self) -> str:
        """What reads the photos, for a person."""
        if self.networks:
            image, side = self.config.image, self.image_size_px
            return f"{image.backbone}, {side} × {side} pixels, test-time augmentation: {image.tta}"
        encoders = ", ".join(one.source for one in self.config.embedding.encoders)
        return f"linear head on frozen encoders: {encoders}"

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
        """Return what the network sees of a record's JPEG; of encoders the largest."""
        if self.networks is None:
            return self.shrink(decode_image(jpeg, "the photo"))
        from kaggle_pipeline.models.image.input.pipeline import decode_photo

        return decode_photo(jpeg, self.image_size_px)

    def shrink(self, photo: Image.Image) -> np.ndarray:
        """Return the middle square of a photo as large as an encoder's input."""
        return np.asarray(ImageOps.fit(photo, (self.image_size_px, self.image_size_px)))

    def look(self, square: np.ndarray, jpeg: bytes) -> ImagePrediction:
        """Ask every fold's models about a photo.

        Parameters
        ----------
        square : numpy.ndarray of shape (side, side, 3), uint8
            Of :meth:`decode`; the networks see it.
        jpeg : bytes
            What it was decoded from; the encoders see it.
        """
        parts, embeddings, heat, nearest = {}, (), None, ()
        if self.networks:
            parts["image"], embeddings, heat = self.networks.look(square)
        if self.heads:
            said = self.heads.answer(jpeg)
            parts["embedding"], nearest = said.probabilities, said.nearest
            embeddings = embeddings or (said.vector,)
        return ImagePrediction(parts, embeddings, heat, nearest)

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


class _Tabular:
    """One metadata stage: all its folds, and what they read."""

    def __init__(self, stage: Path, spec: DatasetSpec, folds: Sequence[int]) -> None:
        places = trained_folds(stage)
        if set(places) != set(folds):
            raise PipelineError(
                f"{stage} has folds {sorted(places)} and the model of photos {sorted(folds)}: "
                "train those that are missing"
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
