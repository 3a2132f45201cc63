"""A run's fine-tuned networks, all folds, ready for one photo after the other.

In: an opened image stage. Out: :class:`PhotoNetworks`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.composite import OneModelPerClass, SeedEnsemble
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.webapp.photo_readers import PhotoLook

if TYPE_CHECKING:
    from kaggle_pipeline.models.image.inference.gradcam import Explainer


class PhotoNetworks:
    """The networks of every fold with their Grad-CAM: a ``PhotoReader``.

    Parameters
    ----------
    trained : TrainedImageModels
    device : {"auto", "cpu", "gpu", "tpu"}

    Attributes
    ----------
    of_fold : dict of int to list of list of Explainer
        The seeds of a fold's one model, or of one a class.

    Raises
    ------
    PipelineError
        If a network sees more than a photo alone, or photos of several sizes.
    """

    features: tuple[str, ...] = ()
    uses_context = False

    def __init__(self, trained: TrainedImageModels, device: str) -> None:
        _require_one_look(trained.config, trained.stage)
        self.of_fold = {fold: _load(trained, fold, device) for fold in trained.folds}
        image = trained.config.image
        self.side_px = image.image_size_px
        self.described = (
            f"{image.backbone}, {self.side_px} × {self.side_px} pixels, test-time augmentation: "
            f"{image.tta}"
        )
        self.embedding_folds = tuple(trained.folds)
        self.external = tuple(one.dataset for one in trained.config.external)

    def decode(self, jpeg: bytes) -> np.ndarray:
        """Return what the networks see of a record's JPEG."""
        from kaggle_pipeline.models.image.input.pipeline import decode_photo

        return decode_photo(jpeg, self.side_px)

    def predict(self, looks: Sequence[PhotoLook], rows: pd.DataFrame) -> np.ndarray:
        """Return what they said of the photos, (folds, n, classes)."""
        return np.stack([one.scores for one in looks], axis=1)

    def look(self, square: np.ndarray, jpeg: bytes) -> PhotoLook:
        """Return what every fold's networks say of a photo, and where they look."""
        scores, embeddings, heats = [], [], []
        for fold in self.of_fold.values():
            answers = [[one.answer(square[None]) for one in networks] for networks in fold]
            scores.append(
                np.concatenate(
                    [np.mean([one.probabilities[0] for one in seeds], axis=0) for seeds in answers]
                )
            )
            embeddings.append(
                np.concatenate([one.embeddings[0] for seeds in answers for one in seeds])
            )
            heat = [np.mean([_scaled(one.heat[0]) for one in seeds], axis=0) for seeds in answers]
            heats.append(_scaled(np.concatenate(heat)))
        return PhotoLook(tuple(embeddings), np.stack(scores), np.mean(heats, axis=0))

    def embed(self, fold: int, squares: np.ndarray) -> np.ndarray:
        """Return one fold's embeddings (n, channels) of squares (n, side, side, 3)."""
        networks: Sequence[Explainer] = [one for seeds in self.of_fold[fold] for one in seeds]
        return np.hstack([network.embed(squares) for network in networks])


def _load(trained: TrainedImageModels, fold: int, device: str) -> "list[list[Explainer]]":
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
