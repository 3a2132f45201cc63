"""A run's trained models, in memory and ready: image, metadata, blend.

In: a run's folder. Out: :class:`RunModels`, which answers for square photos and for metadata.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.run_folders import require_run
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.ensembling.blend import FILE as BLEND_FILE
from kaggle_pipeline.ensembling.blend import read_blend
from kaggle_pipeline.records.convert import decoded_side_px, square_jpeg
from kaggle_pipeline.report.results import describe_guessing
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.stages.trained_embedding import open_trained
from kaggle_pipeline.stages.trained_tabular import TrainedTabular
from kaggle_pipeline.webapp.photo_heads import PhotoHeads
from kaggle_pipeline.webapp.photo_networks import PhotoNetworks
from kaggle_pipeline.webapp.photo_readers import BlendPart, PhotoLook, PhotoReader
from kaggle_pipeline.webapp.upload import Photo


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
    reader : PhotoReader
        What sees photos: the networks, or the heads' encoders where the run has none.
    heads : PhotoHeads or None
        None where networks see the photos and the blend weighs no head.
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
        blend, self.scored_stage = read_blend(trained.stage)
        metrics = self.scored_stage / "metrics.json"
        found = read_json(metrics) if metrics.exists() else {}
        self.effective_shares: dict[str, float] = found.get("effective_shares", {})
        self.guessing = describe_guessing(found)
        self.judged_as_used = blend.judged_as_used(len(self.folds) + len(self.missing))
        self.blend = blend.without_idle()
        networks = None
        if isinstance(trained, TrainedImageModels):
            networks = PhotoNetworks(trained, device)
        elif "image" in self.blend.weights:
            raise PipelineError(
                f"{self.scored_stage / BLEND_FILE} weighs the image model, which {run_dir} "
                "does not hold"
            )
        needed = networks is None or "embedding" in self.blend.weights
        self.heads = PhotoHeads(run_dir, self.folds, device) if needed else None
        self.reader: PhotoReader = networks or self.heads
        of_photos = {"image": networks, "embedding": self.heads}
        self._parts: dict[str, BlendPart] = {
            name: of_photos.get(name)
            or _Metadata(TrainedTabular(run_dir / name, self.spec, self.folds))
            for name in self.blend.weights
        }

    @property
    def image_size_px(self) -> int:
        """Side of the square that the reader sees."""
        return self.reader.side_px

    @property
    def detail_px(self) -> int:
        """Side of the photos that it learned from; enlarging adds no detail."""
        return min(self.image_size_px, self.config.records.image_size_px)

    @property
    def features(self) -> tuple[str, ...]:
        """Metadata that some model of the blend reads, in the data set's order."""
        read = {name for one in self._parts.values() for name in one.features}
        return tuple(name for name in self.spec.features if name in read)

    @property
    def with_context(self) -> tuple[str, ...]:
        """Models of the blend that compare a photo, or its metadata, with the patient's others."""
        return tuple(name for name, one in self._parts.items() if one.uses_context)

    def jpeg(self, photo: Photo) -> bytes:
        """Return the photo as a record has it."""
        records, image = self.fit.recipe(self.config.records), photo.image
        if photo.original is not None:  # decoded as conversion would: at a part of its size
            side = decoded_side_px(records)
            image = decode_image(photo.original, photo.name, smallest_side_px=side)
        return square_jpeg(image, records, photo.original)

    def square(self, photo: Photo) -> np.ndarray:
        """Return the photo as the reader sees it: by a record's way, uint8 (side, side, 3)."""
        return self.reader.decode(self.jpeg(photo))

    def look(self, square: np.ndarray, jpeg: bytes) -> PhotoLook:
        """Return what is seen in a photo, the costly part: nothing is known of the patient yet.

        Parameters
        ----------
        square : numpy.ndarray of shape (side, side, 3), uint8
            Of the reader's ``decode``.
        jpeg : bytes
            What it was decoded from.
        """
        seen = self.reader.look(square, jpeg)
        if self.heads in (None, self.reader):
            return seen
        beside = self.heads.look(square, jpeg)
        return replace(seen, vectors=beside.vectors, nearest=beside.nearest)

    def ask(self, looks: Sequence[PhotoLook], metadata: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return what each model of the blend says of one patient's photos.

        Parameters
        ----------
        looks : sequence of PhotoLook
        metadata : pandas.DataFrame
            A row a photo, all features of the data set, NaN where unknown.

        Returns
        -------
        dict of str to numpy.ndarray of shape (folds, n, classes), float64
        """
        rows = metadata.assign(group_id="patient")
        return {name: one.predict(looks, rows) for name, one in self._parts.items()}


class _Metadata:
    """One metadata stage, all its folds: a ``BlendPart``, which needs no look at the photos."""

    def __init__(self, trained: TrainedTabular) -> None:
        self.features, self.uses_context = trained.features, trained.uses_context
        self._trained = trained

    def predict(self, looks: Sequence[PhotoLook], rows: pd.DataFrame) -> np.ndarray:
        return self._trained.predict(rows)
