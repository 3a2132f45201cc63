"""The door for files that a stage wrote: what is read is what was written, or it is said.

In: a path. Out: its bytes, compared with the size and SHA-256 that ``written.json`` beside it (or
beside a folder around it) has of the file. A folder without a record is read as it is: an earlier
version wrote it, or nobody did.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError

RECORD = "written.json"
"""What a stage's folder holds last of all: name, size, SHA-256 and time of each file."""
_LEVELS = 3
"""Folders upwards in which a file's record is looked for: a fold, a class, a seed."""
_SMALL_BYTES = 16 * 2**20
"""Files up to this size are always hashed; larger ones when they are read, or by ``verify_run``."""
_ON_PURPOSE = "python scripts/verify_run.py --run-dir RUN --accept-changes"


@dataclass(frozen=True)
class Written:
    """One file as it was written: size, SHA-256 (hex) and time (UTC, ISO 8601)."""

    bytes: int
    sha256: str
    at: str


@dataclass(frozen=True)
class Record:
    """What a folder's ``written.json`` says.

    Attributes
    ----------
    done : bool
        Whether the stage has ended; false from its beginning on.
    files : mapping of str to Written
        By name relative to the folder.
    remedy : str
        How a file of the folder is made anew.
    """

    done: bool = False
    files: Mapping[str, Written] = field(default_factory=dict)
    remedy: str = ""


def read_record(folder: Path) -> Record | None:
    """Return a folder's record; None where it has none.

    Raises
    ------
    PipelineError
        If the record itself is damaged.
    """
    path = Path(folder) / RECORD
    try:
        content = json.loads(path.read_bytes())
        files = {str(name): Written(**entry) for name, entry in content["files"].items()}
        if not all(isinstance(one.bytes, int) for one in files.values()):
            raise TypeError("a size is no number")
        return Record(content["done"] is True, files, str(content.get("remedy", "")))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PipelineError(
            f"{path} is damaged, so what it tells of the files beside it cannot be compared: bring "
            f"it back from a copy, or record the files as they are now: {_on_purpose(path)}"
        ) from None


def read_checked(path: Path) -> bytes:
    """Return a file's bytes, which are those that were written.

    Raises
    ------
    PipelineError
        If the file has a record and differs from it.
    FileNotFoundError
        If it is not there.
    """
    path = Path(path)
    while True:
        found = _entry(path)
        content = path.read_bytes()
        if found is None or _is_same(content, found[2]):
            return content
        if _entry(path) == found:  # else it was written anew meanwhile, by a process beside this
            raise _differs(path, *found)


def require_written(path: Path, *, hashed: bool = True) -> None:
    """Stop where a file differs from its record; for what others than this door read.

    Parameters
    ----------
    path : pathlib.Path
        Weights, arrays, a shard.
    hashed : bool
        False: only the size is compared.

    Raises
    ------
    PipelineError
        If it differs or is missing.
    """
    found = _entry(Path(path))
    if found and not _agrees(Path(path), found[2], hashed):
        raise _differs(Path(path), *found)


def require_whole(folder: Path, apart: Collection[str] = ()) -> None:
    """Stop where a file of a folder's record is missing or differs: small ones by hash, else size.

    Parameters
    ----------
    folder : pathlib.Path
    apart : collection of str
        Files that are not looked at: who reads them makes them anew.

    Raises
    ------
    PipelineError
        That names the first such file.
    """
    record = read_record(folder)
    for name, entry in record.files.items() if record else ():
        hashed = entry.bytes <= _SMALL_BYTES
        if name not in apart and not _agrees(Path(folder) / name, entry, hashed):
            raise _differs(Path(folder) / name, Path(folder), record, entry)


def is_done(folder: Path, last: str, apart: Collection[str] = ()) -> bool:
    """Return whether a stage has ended in this folder and all that it wrote is still there.

    Parameters
    ----------
    folder : pathlib.Path
    last : str
        The file that earlier versions, which kept no record, wrote last; a stage without it is
        gone on with.
    apart : collection of str
        As for :func:`require_whole`.

    Raises
    ------
    PipelineError
        If it has ended and a file differs from what was written.
    """
    record = read_record(folder)
    if record is None or not (Path(folder) / last).exists():
        return (Path(folder) / last).exists()
    if record.done:
        require_whole(folder, apart)
    return record.done


def is_as_written(path: Path, *, hashed: bool = False) -> bool:
    """Return whether a file is in a record and agrees with it."""
    found = _entry(Path(path))
    return found is not None and _agrees(Path(path), found[2], hashed)


def was_written(path: Path, content: bytes) -> bool:
    """Return whether a file's record is that of ``content``, whatever the file holds now."""
    found = _entry(Path(path))
    return found is not None and _is_same(content, found[2])


def differences(folder: Path) -> dict[str, str]:
    """Return what became of each file of a folder's record that is not as it was: all are hashed.

    Returns
    -------
    dict of str to str
        By name: a line that names the file.
    """
    record = read_record(folder)
    return {
        name: str(_differs(Path(folder) / name, Path(folder), record, entry))
        for name, entry in (record.files.items() if record else ())
        if not _agrees(Path(folder) / name, entry, True)
    }


def describe(path: Path) -> Written:
    """Return size, SHA-256 and time of a file as it is now."""
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    at = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return Written(status.st_size, digest, at)


def _entry(path: Path) -> tuple[Path, Record, Written] | None:
    """The record that lists a file: its folder, itself and what it has of the file."""
    if path.name == RECORD:
        return None
    for folder in [path.parent, *path.parent.parents][:_LEVELS]:
        record = read_record(folder)
        name = path.relative_to(folder).as_posix()
        if record is not None and name in record.files:
            return folder, record, record.files[name]
    return None


def _is_same(content: bytes, entry: Written) -> bool:
    return len(content) == entry.bytes and hashlib.sha256(content).hexdigest() == entry.sha256


def _agrees(path: Path, entry: Written, hashed: bool) -> bool:
    try:
        if path.stat().st_size != entry.bytes:
            return False
        return not hashed or describe(path).sha256 == entry.sha256
    except FileNotFoundError:
        return False


def _differs(path: Path, folder: Path, record: Record | None, entry: Written) -> PipelineError:
    now = "is missing"
    if path.exists():
        size = path.stat().st_size
        now = f"has {size:,} bytes" if size != entry.bytes else "has other content"
    when = entry.at[:19].replace("T", " ")
    remedy = (record and record.remedy) or "run its stage anew with --overwrite"
    return PipelineError(
        f"{path} {now}, not the {entry.bytes:,} bytes that were written at {when} UTC: bring it "
        f"back from a copy, or {remedy.format(folder=folder, file=path)}; if you changed it on "
        f"purpose: {_on_purpose(folder)}"
    )


def _on_purpose(place: Path) -> str:
    """The command that takes changes as they are, for the run around a folder or file."""
    parents = [place, *place.parents]
    run = next((one.parent for one in parents if one.name == "prepare"), None)
    run = run or next((one for one in parents if (one / "prepare").is_dir()), None)
    return _ON_PURPOSE.replace("RUN", str(run or place.parent))
