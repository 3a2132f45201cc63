"""The photos whose vectors are nearest: what a head on frozen encoders can show in place of a map.

In: vectors of labelled photos. Out: ids and cosine similarities, the nearest first.
"""

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
    group, label : pandas.Series
        By image id: patient or lesion, of which only the nearest photo is given; what it shows.
    """

    def __init__(self, table: VectorTable, group: pd.Series, label: pd.Series) -> None:
        self._ids, self._unit = table.ids, table.unit()
        self._group, self._label = (one.loc[table.ids].to_numpy() for one in (group, label))

    def find(
        self, table: VectorTable, count: int = COUNT, other_than: pd.Series | None = None
    ) -> dict[str, list[Near]]:
        """Return the nearest photos of each photo of a table, by its id.

        Parameters
        ----------
        table : VectorTable
            Of the same encoders.
        count : int
        other_than : pandas.Series, optional
            By image id the group whose photos are left out.
        """
        found = {}
        for name, row in zip(table.ids, table.unit(), strict=True):
            alike = self._unit @ row
            if other_than is not None:
                alike = np.where(self._group == other_than[name], -np.inf, alike)
            near, seen = [], set()
            for i in np.argsort(-alike, kind="stable"):
                if len(near) == count or alike[i] == -np.inf:
                    break
                if self._group[i] not in seen:
                    seen.add(self._group[i])
                    near.append(Near(self._ids[i], self._label[i], float(alike[i])))
            found[name] = near
        return found
