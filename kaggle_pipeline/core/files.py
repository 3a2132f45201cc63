"""Files that are whole or not there at all."""

import ctypes
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaggle_pipeline.core.errors import PipelineError, closest
from kaggle_pipeline.core.record import read_checked
from kaggle_pipeline.core.room import not_written, system_error

SAVED = "model.json"
"""File whose presence says that a model is trained and saved: settings, written last of all."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only if the block succeeds.

    Parameters
    ----------
    path : pathlib.Path
        Final place; its folder is made when missing.

    Yields
    ------
    pathlib.Path
        Where to write. A block that raises leaves ``path`` as it was and no temporary file.

    Raises
    ------
    PipelineError
        If the disk is full, read-only or broken, whatever writes; it names ``path`` and the room.
    """
    path = Path(path)
    # The suffix stays last: matplotlib, Keras and pandas choose a format by it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    _unfinished.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except Exception as error:
        number = system_error(error)
        of_another = getattr(error, "filename", None) not in (
            None, str(temporary), str(path.parent)
        )  # fmt: skip
        if number is None or of_another or isinstance(error, PipelineError):
            raise
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)  # first: what is free is told
        raise not_written(path, number, written) from None
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def replace_folder(new: Path, place: Path) -> None:
    """Put a folder in the place of another one, if there is one; on Linux that is never missing.

    On Linux both change places at once, so that ``new`` is then the former folder; elsewhere, and
    where a file system cannot do that, the former one is renamed first, and comes back if the new
    one cannot follow. ``new`` lies in a folder that its caller deletes.

    Parameters
    ----------
    new : pathlib.Path
        On the same file system.
    place : pathlib.Path
    """
    if not place.exists():
        new.replace(place)
        return
    if _exchange(new, place):
        return
    former = new.with_name(f"{new.name}.former")
    place.replace(former)
    try:
        new.replace(place)
    except BaseException:
        former.replace(place)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step (``renameat2``); return whether that was done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    here = ctypes.c_int(_HERE)
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    return rename(here, paths[0], here, paths[1], ctypes.c_uint(_EXCHANGE)) == 0


_HERE, _EXCHANGE = -100, 2
"""``AT_FDCWD`` and ``RENAME_EXCHANGE`` of Linux."""


def require_free_file(path: Path, option: str, overwrite: bool) -> None:
    """Stop before any work on a place where a file cannot, or may not, be written.

    Parameters
    ----------
    path : pathlib.Path
    option : str
        That names it, such as ``--out``.
    overwrite : bool
        Whether a file may be there already.

    Raises
    ------
    PipelineError
        If a file is there and may not be, if it is a folder, or its folder cannot be written to.
    """
    if path.is_dir():
        raise PipelineError(f"{option} {path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise PipelineError(f"{path} exists: say --overwrite, or another {option}")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PipelineError(f"{option} {path}: {folder} is no folder that can be written to")


def require_folder(folder: Path, option: str) -> None:
    """Stop on a folder that a command is to read and that is not there.

    Parameters
    ----------
    folder : pathlib.Path
    option : str
        That names it, such as ``--images``.

    Raises
    ------
    PipelineError
        That names the folder that was meant, where one is called nearly so.
    """
    if folder.is_file():
        raise PipelineError(f"{option} {folder} is a file: name the folder that it lies in")
    if not folder.is_dir():
        hint = meant_instead(folder) or there_instead(folder)
        raise PipelineError(f"{option} {folder}: no such folder{hint}")


_CLOSE = 0.6
"""Likeness from which a folder is taken for the one that was meant: they are many, and alike."""
_FEW = 5
"""Folders that are all named where one is looked for in vain."""


def meant_instead(folder: Path) -> str:
    """Return a hint such as ``"; did you mean 'data/demo'?"`` for a mistyped path, or nothing."""
    place = Path()
    for part in folder.parts:
        if not (place / part).is_dir():
            if (found := closest(part, _folders(place), _CLOSE)) is None:
                return ""
            part = found
        place /= part
    return f"; did you mean '{place}'?"


def there_instead(folder: Path) -> str:
    """Return a hint that names the few folders which are there in place of a path's wrong part."""
    place = next(one for one in folder.absolute().parents if one.is_dir())
    known = Path(*folder.parts[: len(place.parts) - len(folder.absolute().parts)])
    found = sorted(_folders(place))
    if known == Path() or not 0 < len(found) <= _FEW:
        return ""
    return f"; in {known} there is {', '.join(found)}"


def _folders(place: Path) -> list[str]:
    if not os.access(place, os.R_OK):
        return []
    return [one.name for one in place.iterdir() if one.is_dir()]


_unfinished: set[Path] = set()
"""What this process is writing right now: the one thing that an end by force must know."""


def remove_unfinished() -> None:
    """Remove all that :func:`atomic_path` has not finished; for a process that ends here."""
    for path in list(_unfinished):
        path.unlink(missing_ok=True)


def sweep_unfinished(folder: Path) -> None:
    """Remove what killed processes left of :func:`atomic_path` in a folder that nobody works in."""
    for path in Path(folder).rglob(".[0-9]*.*"):
        if re.fullmatch(r"\.\d+\..+", path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, sort_keys=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises
    ------
    PipelineError
        If the file is missing, is not JSON or not what was written.
    """
    try:
        return json.loads(read_checked(path))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: run the stage that writes it first") from None
    except ValueError as error:  # not JSON, or not even text
        raise PipelineError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None


def replace_between(path: Path, begin: str, end: str, content: str) -> None:
    """Put ``content`` between two marks of a text file, atomically; all else stays to the byte.

    Raises
    ------
    PipelineError
        If the file cannot be read, or a mark is not there once, or they stand the wrong way round.
    """
    try:
        text = Path(path).read_bytes().decode()  # as bytes: line ends elsewhere stay as they are
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}") from None
    if begin not in text or end not in text:
        raise PipelineError(f"{path} lacks the lines {begin!r} and {end!r}")
    for mark in (begin, end):
        if text.count(mark) > 1:
            raise PipelineError(
                f"{path} holds the line {mark!r} {text.count(mark)} times, not once"
            )
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise PipelineError(f"{path}: {end!r} stands before {begin!r}")
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(f"{before}{begin}{content}{end}{after}".encode())
