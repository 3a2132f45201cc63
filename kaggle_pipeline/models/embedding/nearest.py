"""The photos whose vectors are nearest: what a head on frozen encoders can show in place of a map.

In: vectors of labelled photos. Out: ids and cosine similarities, the nearest first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kaggle_pipeline.models.embedding.vector_table import VectorTable

COUNT = 4
"""Photos that are shown beside one."""


@dataclass(frozen=True)
class Near:
    """One of the nearest photos.

    Attributes
    ----------
    image_id : str
    label : str
        In words.
    similarity : float
        Cosine of the vectors, -1 to 1; of several encoders their mean.
    """

    image_id: str
    label: str
    similarity: float


class NearestPhotos:
    """Photos to find the nearest of.

    Parameters
    ----------
    table : VectorTable
        It is kept as it is; no second matrix is made of it.
    group, label : pandas.Series
        By image id: patient or lesion, of which only the nearest photo is given; what it shows.

    Attributes
    ----------
    table : VectorTable
    """

    def __init__(self, table: VectorTable, group: pd.Series, label: pd.Series) -> None:
        self.table = table
        self._encoders, self._lengths = table.of_encoders(), table.lengths()
        self._codes, self._groups = pd.factorize(group.loc[table.ids])
        self._label = label.loc[table.ids].to_numpy()

    def find(
        self, table: VectorTable, count: int = COUNT, other_than: pd.Series | None = None
    ) -> dict[str, list[Near]]:
        """Return the nearest photos of each photo of a table, by its id.

        Of photos that are equally near the first in the table is given.

        Parameters
        ----------
        table : VectorTable
            Of the same encoders.
        count : int
        other_than : pandas.Series, optional
            By image id the group whose photos are left out.
        """
        vectors, lengths = table.of_encoders(), table.lengths()
        found = {}
        for row, image_id in enumerate(table.ids):
            alike = self._cosines({name: one[row] / lengths[name][row]
                                   for name, one in vectors.items()})  # fmt: skip
            if other_than is not None:
                own = self._groups.get_indexer([other_than[image_id]])[0]
                alike[self._codes == own] = -np.inf
            found[image_id] = self._first(alike, count)
        return found

    def _cosines(self, unit: Mapping[str, np.ndarray]) -> np.ndarray:
        """Cosine (n,) with a photo's vectors of length 1, the mean over the encoders."""
        parts = [
            self._encoders[name] @ vector / self._lengths[name] for name, vector in unit.items()
        ]
        return np.mean(parts, axis=0)

    def _first(self, alike: np.ndarray, count: int) -> list[Near]:
        """The nearest of each of the ``count`` nearest groups; ``alike`` is used up."""
        near: list[Near] = []
        while len(near) < count and alike[best := int(alike.argmax())] > -np.inf:
            near.append(Near(self.table.ids[best], self._label[best], float(alike[best])))
            alike[self._codes == self._codes[best]] = -np.inf
        return near
