"""Room on disks: asked for before a stage begins, reserved before a large file, missed in one line.

In: a file or folder. Out: nothing, or an error that names it, what it needed and what is free.
"""

import errno
import os
import shutil
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError

_WHY = {
    errno.ENOSPC: "no space left on its disk: make room",
    errno.EDQUOT: "your quota on its disk is used up: make room",
    errno.EFBIG: "it would be larger than a file may be here (`ulimit -f`, or the file system)",
    errno.EROFS: "its disk is read-only: choose another folder",
    errno.EACCES: "you may not write there: choose another folder",
    errno.EPERM: "you may not write there: choose another folder",
    errno.EIO: "its disk reports an error: copy what is there to another one",
    errno.EMFILE: "too many files are open: raise the limit, such as `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: end other programs",
}
_TEXTS = {os.strerror(number): number for number in _WHY}
_GO_ON = "then run the same command with --resume"


def require_room(folder: Path, needed: int, what: str) -> None:
    """Stop where a disk has less room than what is about to be written surely takes.

    Parameters
    ----------
    folder : pathlib.Path
        Need not be there yet.
    needed : int
        Bytes, rather too few than too many.
    what : str
        What needs them, such as "the records of 400 photos".

    Raises
    ------
    PipelineError
    """
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise PipelineError(
            f"{folder}: {what} needs at least {mib(needed)}, but {mib(free)} are free there: make "
            "room, or choose another --run-dir"
        )


def _existing(folder: Path) -> Path:
    """The folder, or the first one around it that is there."""
    folder = Path(folder).absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def reserve(path: Path, needed: int) -> None:
    """Take the room of a file that another library is about to write; it is found out now.

    Some, h5py among them, do not end well where a disk is full half-way.

    Raises
    ------
    OSError
        If there is not so much room, or no right to it: what free space alone does not tell.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate") and needed:
            os.posix_fallocate(file.fileno(), 0, needed)


def system_error(error: BaseException) -> int | None:
    """Return the system's number of an error of a disk or handle, whoever raised it; else None.

    HDF5, TensorFlow and others put the system's words into errors of their own.
    """
    if isinstance(error, OSError) and error.errno in _WHY:
        return error.errno
    text = str(error)
    return next((number for words, number in _TEXTS.items() if words in text), None)


def not_written(path: Path, number: int, written: int) -> PipelineError:
    """Return the error of a file that could not be written.

    Parameters
    ----------
    path : pathlib.Path
    number : int
        As :func:`system_error` returns it.
    written : int
        Bytes that were, or could be reserved.
    """
    room = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(_existing(path.parent)).free
        room = f" ({mib(written)} were written, {mib(free)} are free)"
    return PipelineError(f"{path} cannot be written: {_WHY[number]}{room}, {_GO_ON}")


def describe_system_error(error: BaseException) -> str | None:
    """Return one line for an error of a disk or handle; None for any other error."""
    number = system_error(error)
    if number in (None, errno.EACCES, errno.EPERM):  # reading may be what is not allowed
        return None
    name = getattr(error, "filename", None)
    return f"{name or 'a file'} cannot be written or opened: {_WHY[number]}, {_GO_ON}"


def mib(count: int) -> str:
    """Return a number of bytes in MiB, or GiB."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 0.1 * 2**20 else f"{count:,} bytes"
