"""Files that are whole or not there at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaggle_pipeline.core.errors import PipelineError

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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: matplotlib, Keras and pandas choose a format by it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
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
