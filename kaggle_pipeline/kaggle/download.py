"""Competition data from Kaggle: what is needed, resumed, checked and unpacked without surprises.

In: a competition's name. Out: its files in a data folder.
"""

import csv
import itertools
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.progress import Progress
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.kaggle.client import competition_of, kaggle, patiently

Part = Literal["tables", "tfrecords", "all"]
_TABLES = ("*.csv",)
_RECORDS = ("tfrecords/*.tfrec",)
_SPARE = 1.05
"""Free space asked for, as a multiple of what will be written."""
_HOURS = 24 * 3600.0
_PAUSES = (5.0, 30.0, 120.0)
"""Seconds before a page of the list is asked for again."""


class _Damaged(PipelineError):
    """An archive that cannot be unpacked."""


class _Incomplete(Exception):
    """A file that did not arrive as it was announced."""


def download_data(
    spec: DatasetSpec,
    out: Path,
    part: Part = "tfrecords",
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Fetch a competition's data; what is there with the right size is not fetched again.

    Parameters
    ----------
    spec : DatasetSpec
    out : pathlib.Path
    part : {"tables", "tfrecords", "all"}
        The CSV files; those and the TFRecords, file by file; or the one archive of everything.
    say : callable

    Raises
    ------
    PipelineError
        If the disk is too small, Kaggle refuses (its rules must be accepted once, on its page), or
        what arrived is not what was announced.
    """
    slug = competition_of(spec, otherwise=spec.source)
    out = Path(out)
    listed = list_files(slug, say)
    if part == "all":
        _download_all(slug, out, listed, say)
        return
    patterns = _TABLES if part == "tables" else (*_TABLES, *_RECORDS)
    wanted = {
        name: size
        for name, size in listed.items()
        if any(PurePosixPath(name).match(pattern) for pattern in patterns)
    }
    if not wanted:
        raise PipelineError(f"{slug} lists no file of the kind {' or '.join(patterns)}")
    missing = {
        name: size for name, size in wanted.items() if not _is_whole(safe_path(out, name), size)
    }
    _require_space(out, sum(missing.values()))
    say(f"{len(wanted)} files, {len(wanted) - len(missing)} of them here already")
    with Progress(sum(missing.values()), "download", "B") as progress:
        for name, size in missing.items():
            _download_file(slug, out, name, size)
            progress(size)
    say(f"{out}: complete")


def list_files(slug: str, say: Callable[[str], None] = print) -> dict[str, int]:
    """Return the sizes in bytes of a competition's files by their names.

    Raises
    ------
    PipelineError
        If Kaggle refuses a page of the list several times.
    """
    found: dict[str, int] = {}
    token = ""
    for page in itertools.count(1):
        text = _list_page(slug, token)
        following = re.search(r"^Next Page Token = (.+)$", text, re.MULTILINE)
        lines = text.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("name,"))
        for row in csv.DictReader(lines[head:]):
            found[row["name"]] = int(row.get("totalBytes") or row.get("size") or 0)
        if not following or following[1].strip() == token:
            return found
        token = following[1].strip()
        if page % 20 == 0:
            say(f"{len(found)} files listed so far")
    return found


def _list_page(slug: str, token: str) -> str:
    """One page of the list; the competition has hundreds, and one may fail."""
    further = ("--page-token", token) if token else ()
    return patiently(
        lambda: kaggle(
            "competitions", "files", slug, "--csv", "--page-size", "200", *further,
            accepted=lambda text: "name," in text,
        ),
        _PAUSES if token else (),  # the first page's refusal is about the whole
    )  # fmt: skip


def safe_path(out: Path, name: str) -> Path:
    """Return where a file of that name goes below ``out``.

    Raises
    ------
    PipelineError
        If the name leads anywhere else.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or ":" in parts.parts[0]:
        raise PipelineError(f"{name!r} would be written outside {out}: refused")
    return out / parts


def unpack(archive: Path, out: Path, only: str | None = None) -> None:
    """Unpack a zip file below ``out``; files that are there with the right size stay.

    Parameters
    ----------
    archive, out : pathlib.Path
    only : str, optional
        This member alone.

    Raises
    ------
    PipelineError
        If it is damaged, a member would land elsewhere or is a link, or the disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if not one.is_dir()]
            members = [one for one in members if only in (None, PurePosixPath(one.filename).name)]
            targets = [(one, safe_path(out, one.filename)) for one in members]
            for one, _ in targets:
                if stat.S_ISLNK(one.external_attr >> 16):
                    raise PipelineError(f"{archive}: {one.filename} is a link: refused")
            left = [(one, to) for one, to in targets if not _is_whole(to, one.file_size)]
            _require_space(out, sum(one.file_size for one, _ in left))
            for one, target in left:
                _extract(opened, one, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _Damaged(f"{archive} is damaged ({error}): delete it and try again") from None


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member; its checksum is compared at its end, and only then it gets its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    try:
        with opened.open(member) as source, temporary.open("wb") as sink:
            written = 0
            while chunk := source.read(1 << 20):
                written += len(chunk)
                if written > member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} is larger than announced")
                sink.write(chunk)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _download_all(slug: str, out: Path, listed: dict[str, int], say: Callable[[str], None]) -> None:
    if listed and all(_is_whole(safe_path(out, name), size) for name, size in listed.items()):
        say(f"{out}: complete already")
        return
    archive = out / f"{slug}.zip"
    if not archive.exists():
        _require_space(out, 2 * sum(listed.values()))  # the archive and what is in it
    out.mkdir(parents=True, exist_ok=True)
    kaggle(
        "competitions", "download", slug, "-p", str(out), "-q",
        accepted=lambda text: archive.exists(), seconds=_HOURS,
    )  # fmt: skip
    say(f"unpacking {archive}")
    unpack(archive, out)
    for name, size in listed.items():
        if not _is_whole(safe_path(out, name), size):
            raise PipelineError(f"{archive} lacks {name}, or has another size of it than announced")
    archive.unlink()
    say(f"{out}: complete")


def _download_file(slug: str, out: Path, name: str, size: int) -> None:
    """Fetch one file; Kaggle's command line goes on with a part of it that is there."""
    target = safe_path(out, name)
    waiting = out / ".download"
    place = waiting / quote(name, safe="")  # two folders may hold files of one name
    place.mkdir(parents=True, exist_ok=True)
    kaggle(
        "competitions", "download", slug, "-f", name, "-p", str(place), "-q",
        accepted=lambda text: any(place.iterdir()), seconds=_HOURS,
    )  # fmt: skip
    try:
        arrived = _arrived(place, target.name, size)
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)
    except _Incomplete as error:
        raise PipelineError(f"{name} {error}: try again") from None
    finally:
        shutil.rmtree(place)
    if not any(waiting.iterdir()):
        waiting.rmdir()


def _arrived(place: Path, name: str, size: int) -> Path:
    """Return the file of that name and size below ``place``, out of its zip if it came as one.

    ``kaggle`` stores it in ``place`` itself up to version 2.2.4, in its folders since 2.2.5.

    Raises
    ------
    _Incomplete
        If it is not there, or not whole.
    """
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    named = [path for path in files if path.name in (name, f"{name}.zip")]
    for path in named:
        if path.name == name and _is_whole(path, size):
            return path
    found = max((path.stat().st_size for path in named), default=0)
    for path in filter(zipfile.is_zipfile, named):  # Kaggle packs some files on the way
        unpacked = place / "unpacked"
        try:
            unpack(path, unpacked, only=name)
        except _Damaged:
            raise _Incomplete("arrived as a damaged zip") from None
        for member in (one for one in sorted(unpacked.rglob("*")) if one.is_file()):
            if _is_whole(member, size):
                return member
            found = member.stat().st_size
    raise _Incomplete(f"arrived with {found} bytes of {size}")


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _require_space(out: Path, needed: int) -> None:
    existing = next(place for place in (out, *out.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < _SPARE * needed:
        raise PipelineError(
            f"{out}: {_SPARE * needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free"
        )
