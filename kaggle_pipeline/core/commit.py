"""A stage ends by writing down all that it wrote; until then its folder says that it has begun.

In: a stage's folder. Out: its ``written.json`` (see :mod:`kaggle_pipeline.core.record`).
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.record import RECORD, Record, describe, differences, read_record

_NOT_KEPT = ("tensorboard", "features")
"""Folders in a stage's that nothing is read from, or that check themselves."""


def begin(folder: Path, remedy: str) -> None:
    """Say that a stage has begun: nothing in its folder counts as done any more.

    Parameters
    ----------
    folder : pathlib.Path
    remedy : str
        How a damaged file of it is made anew, after "bring it back from a copy, or"; ``{folder}``
        and ``{file}`` stand for themselves.
    """
    _write(folder, Record(False, {}, remedy))


def commit(folder: Path, without: Collection[str] = ()) -> None:
    """Say that a stage is done, with size, hash and time of each file in its folder.

    Files that were written down since it began stay as they were written down then. Folders in it
    that have a record of their own (a fold's) are left to that.

    Parameters
    ----------
    folder : pathlib.Path
    without : collection of str
        Files that go on changing.
    """
    record = read_record(folder) or Record()
    names = sorted(set(_names(Path(folder))) - set(without))
    files = {name: record.files.get(name) or describe(Path(folder) / name) for name in names}
    _write(folder, replace(record, done=True, files=files))


def adopt(folder: Path, remedy: str) -> str:
    """Write down the files of a stage that an earlier version finished, as they are now.

    Returns
    -------
    str
        What to add to the line that says so; empty where the folder has a record already.
    """
    if read_record(folder) is not None:
        return ""
    begin(folder, remedy)
    commit(folder)
    return f" (by an earlier version; its files are written down in {RECORD} as they are now)"


def renew(folder: Path, *names: str) -> None:
    """Write down files of a folder that were written, or deleted, after or before its stage ended.

    A folder without a record stays without one.
    """
    record = read_record(folder)
    if record is None:
        return
    files = {name: entry for name, entry in record.files.items() if name not in names}
    here = [name for name in names if (Path(folder) / name).exists()]
    _write(folder, replace(record, files=files | {n: describe(Path(folder) / n) for n in here}))


def narrow(folder: Path, record: Record) -> None:
    """Give a folder, into which a part of another one was copied, that part of its record."""
    files = {name: one for name, one in record.files.items() if (Path(folder) / name).exists()}
    _write(folder, replace(record, files=files))


def recorded_folders(run_dir: Path) -> list[Path]:
    """Return the folders of a run that have a record, itself among them."""
    return sorted(path.parent for path in Path(run_dir).rglob(RECORD))


def accept(folder: Path, say: Callable[[str], None]) -> None:
    """Take the files of a folder's record as they are now; one line each that was another."""
    record = read_record(folder)
    for name in differences(folder):
        path = Path(folder) / name
        say(f"{path}: accepted as it is" if path.exists() else f"{path}: accepted as gone")
    if record is not None:
        renew(folder, *record.files)


def _names(folder: Path) -> Iterator[str]:
    """Files of a folder and of those in it that have no record of their own."""
    for place, inner, names in os.walk(folder):
        inner[:] = [
            one for one in inner
            if one not in _NOT_KEPT and not one.startswith(".")
            and not (Path(place) / one / RECORD).exists()
        ]  # fmt: skip
        for name in names:
            if name != RECORD and not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _write(folder: Path, record: Record) -> None:
    content: Mapping = {
        "done": record.done,
        "remedy": record.remedy,
        "files": {name: asdict(entry) for name, entry in record.files.items()},
    }
    write_json(Path(folder) / RECORD, content)
