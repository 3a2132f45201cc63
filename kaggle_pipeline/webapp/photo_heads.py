"""A run's linear heads on frozen encoders, ready for one photo after the other.

In: a run's folder with ``embedding/``. Out: :class:`PhotoHeads`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.models.embedding.nearest import Near
from kaggle_pipeline.stages.embed import encode_photos
from kaggle_pipeline.stages.trained_embedding import NotAtHand, TrainedHeads


@dataclass(frozen=True)
class HeadsAnswer:
    """What the heads say of one photo.

    Attributes
    ----------
    probabilities : numpy.ndarray of shape (folds, classes), float64
    vector : numpy.ndarray, float32
        Of all encoders, side by side.
    nearest : tuple of Near
        The nearest training photos; empty where their vectors are not here.
    """

    probabilities: np.ndarray
    vector: np.ndarray
    nearest: tuple[Near, ...]


class PhotoHeads:
    """Encoders that are loaded once, and the folds' heads on their vectors.

    Parameters
    ----------
    run_dir : pathlib.Path
    folds : sequence of int
        Of the model that the heads are blended with, or their own.
    device : {"auto", "cpu", "gpu", "tpu"}

    Attributes
    ----------
    training : NearestPhotos or None
        The training photos' vectors; None where they are not here.

    Raises
    ------
    PipelineError
        If the heads have other folds, or an encoder is not at hand.
    """

    def __init__(self, run_dir: Path, folds: Sequence[int], device: str) -> None:
        self._trained = TrainedHeads.open(run_dir)
        if set(self._trained.folds) != set(folds):
            raise PipelineError(
                f"{self._trained.stage} has folds {sorted(self._trained.folds)} and the image "
                f"model {sorted(folds)}: train those that are missing"
            )
        self._folds = tuple(folds)
        from kaggle_pipeline.hardware.accelerator import choose_accelerator

        try:
            self._encoders = self._trained.open_encoders(choose_accelerator(device), batch_size=1)
        except NotAtHand as error:
            raise PipelineError(
                f"{run_dir} reads photos with an encoder that is not at hand here: {error}"
            ) from None
        self.training = self._trained.nearest()

    @property
    def alone(self) -> str:
        """What the heads learned with and do not see of a single photo; empty if nothing."""
        config = self._trained.config.embedding
        missing = [*(["metadata"] if config.metadata else []),
                   *(["the patient’s other photos"] if config.context else [])]  # fmt: skip
        return " and ".join(missing)

    @property
    def side_px(self) -> int:
        """Side of the photos that the encoders see, of the largest."""
        return max(one.about["image_size_px"] for one in self._encoders.values())

    def answer(self, jpeg: bytes) -> HeadsAnswer:
        """Return what they say of a photo as a record has it.

        It stands alone, as in ``predict``: metadata and the patient's other photos are not seen.
        """
        trained, ids = self._trained, pd.Index(["photo"], name="image_id")
        photo = decode_image(jpeg, "the photo")
        _, arrays = encode_photos(iter([(ids[0], photo)]), self._encoders, 1)
        examples = blank_metadata(pd.DataFrame({"group_id": ids}, index=ids), trained.spec)
        table = trained.table(examples, arrays)
        found = [trained.head(fold, table).predict(examples) for fold in self._folds]
        near = self.training.find(table)[ids[0]] if self.training else ()
        return HeadsAnswer(
            np.concatenate([one.to_numpy(float) for one in found]),
            np.concatenate([one[0] for one in table.of_encoders().values()]),
            tuple(near),
        )

    def training_vectors(self, ids: pd.Index) -> np.ndarray | None:
        """Return training photos' vectors (n, columns), like an answer's; None without them."""
        found = self._trained.training_table()
        return None if found is None else found[0].of(ids)
