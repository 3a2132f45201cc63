"""A run's linear heads on frozen encoders, ready for one photo after the other.

In: a run's folder with ``embedding/``. Out: :class:`PhotoHeads`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.stages.embed import encode_photos
from kaggle_pipeline.stages.trained_embedding import NotAtHand, TrainedHeads
from kaggle_pipeline.webapp.photo_readers import PhotoLook


class PhotoHeads:
    """Encoders that are loaded once, and the folds' heads on their vectors: a ``PhotoReader``.

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

    embedding_folds = (0,)
    external: tuple[str, ...] = ()

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
        config = self._trained.config.embedding
        self.features = self._trained.spec.features if config.metadata else ()
        self.uses_context = config.context
        self.side_px = max(one.about["image_size_px"] for one in self._encoders.values())
        encoders = ", ".join(one.source for one in config.encoders)
        self.described = f"linear head on frozen encoders: {encoders}"

    def decode(self, jpeg: bytes) -> np.ndarray:
        """Return the middle square of a record's photo, as large as the largest encoder's input."""
        return self.shrink(decode_image(jpeg, "the photo"))

    def shrink(self, photo: Image.Image) -> np.ndarray:
        """The same of a photo that is decoded already."""
        return np.asarray(ImageOps.fit(photo, (self.side_px, self.side_px)))

    def look(self, square: np.ndarray, jpeg: bytes) -> PhotoLook:
        """Return a photo's vectors, and the training photos that are nearest by them."""
        photo = iter([("photo", decode_image(jpeg, "the photo"))])
        ids, arrays = encode_photos(photo, self._encoders, 1)
        table = self._trained.table(pd.DataFrame({"group_id": ids}, index=ids), arrays)
        near = self.training.find(table)["photo"] if self.training else ()
        vector = np.concatenate([one[0] for one in table.of_encoders().values()])
        vectors = {name: array[0] for name, array in arrays.items()}
        return PhotoLook((vector,), vectors=vectors, nearest=tuple(near))

    def predict(self, looks: Sequence[PhotoLook], rows: pd.DataFrame) -> np.ndarray:
        """Return what the heads say of one patient's photos, (folds, n, classes).

        They see what they learned with: metadata and the patient's other photos, where they did.
        """
        rows = rows.set_axis(pd.Index([f"photo {n}" for n in range(len(looks))], name="image_id"))
        names = looks[0].vectors
        arrays = {name: np.stack([one.vectors[name] for one in looks]) for name in names}
        table = self._trained.table(rows, arrays)
        found = [self._trained.head(fold, table).predict(rows) for fold in self._folds]
        return np.stack([one.to_numpy(float) for one in found])
