"""A run's linear heads on frozen encoders, ready for one photo after the other.

In: a run's folder with ``embedding/``. Out: :class:`PhotoHeads`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.stages.embed import encode_photos
from kaggle_pipeline.stages.trained_embedding import TrainedHeads


class PhotoHeads:
    """Encoders that are loaded once, and the folds' heads on their vectors.

    Parameters
    ----------
    run_dir : pathlib.Path
    folds : sequence of int
        Of the image model, which the heads are blended with.
    device : {"auto", "cpu", "gpu", "tpu"}

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

        self._encoders = self._trained.open_encoders(choose_accelerator(device), batch_size=1)

    def answer(self, jpeg: bytes) -> np.ndarray:
        """Return probabilities (folds, classes) of a photo as a record has it.

        It stands alone, as in ``predict``: metadata and the patient's other photos are not seen.
        """
        trained, ids = self._trained, pd.Index(["photo"], name="image_id")
        photo = decode_image(jpeg, "the photo")
        _, arrays = encode_photos(iter([(ids[0], photo)]), self._encoders, 1)
        examples = blank_metadata(pd.DataFrame({"group_id": ids}, index=ids), trained.spec)
        table = trained.table(examples, arrays)
        found = [trained.head(fold, table).predict(examples) for fold in self._folds]
        return np.concatenate([one.to_numpy(float) for one in found])
