"""Features of a frozen backbone, computed once: head training then takes seconds.

In: a frozen body (image → pooled features), records, image ids. Out: float32 arrays
``(n, views, channels)``, kept as blocks on disk so that every fold and a resumed run reuse them.
"""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.models.image.backbones.weights import inner_layers

Extract = Callable[[pd.Index], np.ndarray]


class FeatureStore:
    """Blocks of features on disk, by image id.

    Parameters
    ----------
    folder : pathlib.Path
        Of one body: another backbone, layer, size or set of weights needs another folder.
    extract : callable
        From ids to float32 features (n, views, channels); called for ids not seen before.
    """

    def __init__(self, folder: Path, extract: Extract) -> None:
        self._folder = Path(folder)
        self._extract = extract

    def get(self, ids: pd.Index) -> np.ndarray:
        """Return float32 features (n, views, channels) in the order of ``ids``."""
        known_ids, known = self._read()
        missing = ids.difference(known_ids, sort=False)
        if len(missing):
            block = self._extract(missing)
            self._write(missing, block)
            known_ids, known = known_ids.append(missing), [*known, block]
        features = known[0] if len(known) == 1 else np.concatenate(known)
        first = ~known_ids.duplicated()
        return features[first][known_ids[first].get_indexer(ids)]

    def _read(self) -> tuple[pd.Index, list[np.ndarray]]:
        ids, blocks = pd.Index([], dtype=object), []
        for path in sorted(self._folder.glob("block-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as block:
                    ids = ids.append(pd.Index(block["ids"].astype(object)))
                    blocks.append(block["features"])
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise PipelineError(f"{path} is damaged ({error}): delete it") from None
        return ids, blocks

    def _write(self, ids: pd.Index, features: np.ndarray) -> None:
        # Named by content: folds that run side by side may write the same ids, never half a file.
        name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        with atomic_path(self._folder / f"block-{name}.npz") as temporary:
            np.savez(temporary, ids=ids.to_numpy(str), features=features)


def body_digest(body: keras.Model, *details: object) -> str:
    """Return a short digest of all weights and ``Rescaling`` layers of ``body`` and of ``details``.

    The same weights give the same digest wherever they were loaded; ``details`` name what weights
    do not show, such as the image size and which layer is taken.
    """
    digest = hashlib.sha256(repr(details).encode())
    for layer in inner_layers(body):
        if isinstance(layer, keras.layers.Rescaling):
            digest.update(repr((layer.scale, layer.offset)).encode())
    for weight in body.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]
