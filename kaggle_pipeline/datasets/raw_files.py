"""What the readers of raw folders share: photos, spellings of "unknown".

In: a data folder. Out: paths of photos by image id; columns in which missing is missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import meant_instead
from kaggle_pipeline.core.photo_folder import PhotoFolder, list_photos, printable
from kaggle_pipeline.core.photo_kinds import PHOTO_KINDS

UNKNOWN = ("unknown", "-1", "-1.0", "nan", "NaN", "")
"""Spellings of "missing" in the published tables and their re-split versions."""


def blank_unknown(column: pd.Series) -> pd.Series:
    """Return the column with every spelling of "unknown" as NaN."""
    values = column.astype("object").where(column.notna(), np.nan)
    return values.map(lambda value: np.nan if str(value) in UNKNOWN else value)


def require_listed(wanted: pd.Series, listed: pd.Series, path: Path) -> None:
    """Stop on a table that lacks images: joined, it would leave them without a word.

    Parameters
    ----------
    wanted, listed : pandas.Series
        Ids of the images, and of the rows of the table in ``path``.

    Raises
    ------
    PipelineError
        That names the file, how many images it lacks, one of them and an id that it has.
    """
    missing = wanted[~wanted.isin(listed)]
    if len(missing):
        has = f"; its first row is of {listed.iloc[0]}" if len(listed) else ""
        raise PipelineError(
            f"{path} has no row for {len(missing)} of {len(wanted)} images, such as "
            f"{missing.iloc[0]}{has}"
        )


def require_data_folder(data_dir: Path, source: str, holds: Sequence[str] = ()) -> None:
    """Stop where the data folder is not there.

    Parameters
    ----------
    data_dir : pathlib.Path
    source : str
        How to get the data.
    holds : sequence of str
        Files by which such a folder is known: below ``data/`` it is looked for.

    Raises
    ------
    PipelineError
        That names the folder that was meant, else one below ``data/`` that holds such data, else
        how to get it.
    """
    if data_dir.is_dir():
        return
    if hint := meant_instead(data_dir):
        raise PipelineError(f"no data folder {data_dir}{hint}")
    places = [*Path("data").glob("*"), *Path("data").glob("*/competition")] if holds else []
    for place in sorted(places):
        if all((place / name).is_file() for name in holds):
            raise PipelineError(f"no data folder {data_dir}: say --data-dir {place}")
    raise PipelineError(f"no data folder {data_dir}: {source}")


@dataclass(frozen=True)
class RawPhotos:
    """The photos of one part of a data set.

    Attributes
    ----------
    data_dir : pathlib.Path
    folders : sequence of PhotoFolder
        In order of preference where several hold the same photo.
    kinds : sequence of str
        Those that count.
    """

    data_dir: Path
    folders: Sequence[PhotoFolder]
    kinds: Sequence[str] = PHOTO_KINDS

    @property
    def ids(self) -> list[str]:
        """Every photo's id, sorted, each once."""
        return sorted({identity for one in self.folders for identity, _ in self._of(one)})

    def match(self, ids: pd.Series, table: Path) -> pd.Series:
        """Return each row's photo as a path relative to ``data_dir``, NaN where there is none.

        Parameters
        ----------
        ids : pandas.Series
            As the table writes them: with or without an ending.
        table : pathlib.Path
            Where they come from, for messages.

        Raises
        ------
        PipelineError
            If there are photos and none is of any row, or two rows are of one photo.
        """
        found = ids.map(lambda one: self._find(str(one)) if pd.notna(one) else np.nan)
        there = found.dropna()
        if (total := len(self.ids)) and there.empty and len(ids):
            where = ", ".join(printable(str(one.folder)) for one in self.folders if one.photos)
            raise PipelineError(
                f"{where}: {total} photos, none named as in {table}, such as "
                f"{self.ids[0]}; the table has {ids.iloc[0]}"
            )
        if there.duplicated().any():
            same = ids[found == there[there.duplicated()].iloc[0]]
            raise PipelineError(
                f"{table}: the rows {same.iloc[0]} and {same.iloc[1]} are of one photo, "
                f"{there[same.index[0]]}"
            )
        return found.astype(object)

    def describe(self, matched: pd.Series, table: Path) -> Iterator[str]:
        """Yield lines for the user: photos that no row of the table is of, files that are none.

        Parameters
        ----------
        matched : pandas.Series
            What :meth:`match` returned.
        table : pathlib.Path
        """
        used = set(matched.dropna())
        for one in self.folders:
            paths = {path: self._relative(one, path) for _, path in self._of(one)}
            left = [path for path, whole in paths.items() if whole not in used]
            # Not what lies elsewhere too, and is taken from there.
            left = [path for path in left if self._find(path) == paths[path]]
            if left:
                yield (
                    f"{printable(str(one.folder))}: {len(left)} photos of no row of {table.name}, "
                    f"such as {printable(left[0])}"
                )
            if one.skipped:
                yield f"{printable(str(one.folder))}: {one.describe_skipped()}"

    def _of(self, one: PhotoFolder) -> Iterator[tuple[str, str]]:
        return (item for item in one.photos.items() if one.kinds[item[0]] in self.kinds)

    def _find(self, name: str) -> str | float:
        for one in self.folders:
            path = one.find(name, self.kinds)
            if path is not None:
                return self._relative(one, path)
        return np.nan

    def _relative(self, one: PhotoFolder, path: str) -> str:
        return (one.folder / path).relative_to(self.data_dir).as_posix()


def find_photos(
    data_dir: Path, folders: Sequence[str], kinds: Sequence[str] = PHOTO_KINDS
) -> RawPhotos:
    """List the photos in those of ``folders`` that are there.

    Parameters
    ----------
    data_dir : pathlib.Path
    folders : sequence of str
        Relative to ``data_dir``, in order of preference, in capitals or not. One that holds no
        photo itself is looked through with all folders below.
    kinds : sequence of str
        Those that count.
    """
    found = []
    for name in folders:
        for place in _folders_called(Path(data_dir), name):
            one = list_photos(place, subfolders=False)
            found.append(one if one.photos else list_photos(place))
    return RawPhotos(Path(data_dir), found, kinds)


def _folders_called(data_dir: Path, name: str) -> list[Path]:
    """Folders of a relative path, first the one that is written so to the letter."""
    places = [data_dir]
    for part in name.split("/"):
        below = [
            path for place in places if place.is_dir() for path in sorted(place.iterdir())
            if path.name.lower() == part.lower() and path.is_dir()
        ]  # fmt: skip
        places = sorted(below, key=lambda path: path.name != part)
    return places
