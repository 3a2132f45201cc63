"""A folder that somebody filled: which files are photos, what the others are, what to call each.

In: a folder. Out: a :class:`PhotoFolder`, by which every command lists a user's photos.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_kinds import PHOTO_KINDS, SUFFIXES, kind_of_file

_SYSTEM = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information",
}  # fmt: skip
"""What operating systems and servers leave, in lower case; hidden files begin with a dot."""
_NAMED = 3
"""Files of a kind that are named where many are skipped."""


@dataclass(frozen=True)
class PhotoFolder:
    """What was found in a folder.

    Attributes
    ----------
    folder : pathlib.Path
    photos : mapping of str to str
        The photo's id -> its path relative to ``folder``, with ``/``; sorted by path. An id is the
        file's name without its ending where that tells it from all other photos, else the whole
        relative path. Characters that no line can show (control characters, bytes that are not
        UTF-8) and ``%`` are written as in a URL (``%0A``), so an id leads back to its file.
    kinds : mapping of str to str
        The photo's id -> its kind: what its name promises, or else what its content is.
    skipped : mapping of str to sequence of str
        What is no photo (``hidden or system files``, ``.txt``, ``GIF``, …) -> relative paths.
    """

    folder: Path
    photos: Mapping[str, str]
    kinds: Mapping[str, str]
    skipped: Mapping[str, list[str]]

    def describe(self) -> str:
        """Return a line for the user: how many photos of which kinds, how many files of what else.

        Examples
        --------
        ``photos: 12 photos (10 JPEG, 2 PNG); skipped 2 hidden or system files, 1 .txt (notes.txt)``
        """
        counted = Counter(self.kinds.values())
        kinds = ", ".join(f"{n} {kind}" for kind, n in counted.most_common())
        line = f"{printable(str(self.folder))}: {len(self.photos)} photos"
        line += f" ({kinds})" if kinds else ""
        return f"{line}; {self.describe_skipped()}" if self.skipped else line

    def describe_skipped(self) -> str:
        """Return what was skipped, how many of each and which; empty text if nothing was."""
        parts = []
        for what, paths in sorted(self.skipped.items(), key=lambda item: (-len(item[1]), item[0])):
            names = ", ".join(printable(path) for path in paths[:_NAMED])
            names += ", …" if len(paths) > _NAMED else ""
            parts.append(f"{len(paths)} {what} ({names})")
        return "skipped " + ", ".join(parts) if parts else ""

    def require_photos(self, where: str) -> None:
        """Raise a PipelineError that begins with ``where`` if there is no photo."""
        if not self.photos:
            more = f"; {self.describe_skipped()}" if self.skipped else ", and no other file"
            raise PipelineError(
                f"{where} {printable(str(self.folder))} holds no photo "
                f"({', '.join(PHOTO_KINDS)}){more}"
            )

    def find(self, name: str, kinds: Collection[str] = PHOTO_KINDS) -> str | None:
        """Return the path of the photo that a table calls ``name``, None if there is none.

        A table may write an id, or a path of which this folder's is the end or the other way
        round, with ``/`` or ``\\``. The ending may lack or differ, so may capitals and the spelling
        of an umlaut, where no photo is called so to the letter. Of a photo that lies there in two
        formats the first of :data:`~kaggle_pipeline.core.photo_kinds.PHOTO_KINDS` is taken.

        Parameters
        ----------
        name : str
        kinds : collection of str
            Those that count.

        Raises
        ------
        PipelineError
            If several photos could be meant.
        """
        if self.kinds.get(name) in kinds:
            return self.photos[name]
        name = name.strip().replace("\\", "/").removeprefix("./")
        alike = [
            path for path, kind in self._by_stem.get(_fold(_stem(name)), ()) if kind in kinds
        ]  # fmt: skip
        for form in (str, without_ending, _fold, lambda path: _fold(without_ending(path))):
            found = [path for path in alike if _is_end(form(path), form(name))]
            if len({without_ending(path) for path in found}) > 1:
                raise PipelineError(
                    f"{printable(str(self.folder))}: {name!r} may be {found[0]} or {found[1]}: "
                    "write the whole path there"
                )
            if found:
                return found[0]
        return None

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[str, str]]]:
        """Paths and kinds by what their names have in common, preferred kinds first."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for identity, path in self.photos.items():
            found[_fold(_stem(path))].append((path, self.kinds[identity]))
        for alike in found.values():
            alike.sort(key=lambda one: (PHOTO_KINDS.index(one[1]), one[0]))
        return found


def list_photos(folder: Path, *, subfolders: bool = True) -> PhotoFolder:
    """List a folder that somebody filled.

    A file whose name ends as a photo's does is taken for one: what it really is shows when it is
    read. Any other is opened, and its first bytes decide. Hidden files, what operating systems
    leave behind (``._a.jpg``, ``Thumbs.db``, ``__MACOSX/``) and what is no photo is skipped and
    counted.

    Parameters
    ----------
    folder : pathlib.Path
        Symbolic links in it are followed, each folder once.
    subfolders : bool
        Whether photos in folders below count.

    Raises
    ------
    PipelineError
        If the folder is missing or cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PipelineError(f"{printable(str(folder))} is no folder")
    kinds: dict[str, str] = {}
    skipped: dict[str, list[str]] = defaultdict(list)
    for path, kind in _walk(folder, subfolders):
        if kind in PHOTO_KINDS:
            kinds[path] = kind
        else:
            skipped[kind].append(path)
    identities = _identify(sorted(kinds))
    photos = {identity: path for path, identity in identities.items()}
    by_identity = {identity: kinds[path] for path, identity in identities.items()}
    return PhotoFolder(folder, photos, by_identity, {k: sorted(v) for k, v in skipped.items()})


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is an operating system's, not a person's."""
    return name.startswith(".") or name.lower() in _SYSTEM


def printable(text: str) -> str:
    """Return text that one line can show: control characters and the like as in a URL."""
    return "".join(_escape(one) for one in text)


def without_ending(name: str) -> str:
    """Return a file's name without an ending that photos have; other dots stay."""
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending}".lower() in SUFFIXES else name


def _stem(path: str) -> str:
    return without_ending(path.rpartition("/")[2])


def _is_end(one: str, other: str) -> bool:
    """Whether one path is the other, or the end of it."""
    return one == other or one.endswith("/" + other) or other.endswith("/" + one)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _escape(one: str) -> str:
    if unicodedata.category(one)[0] != "C" and one not in "\u2028\u2029":
        return one
    return "".join(f"%{byte:02X}" for byte in one.encode("utf-8", "surrogateescape"))


def _walk(folder: Path, subfolders: bool) -> Iterator[tuple[str, str]]:
    """Yield every file's relative path and what it is taken for; of a hidden folder only that."""
    waiting, seen = [""], set()
    while waiting:
        below = waiting.pop()
        try:
            real = os.path.realpath(folder / below)  # a link may lead back to where it lies
            entries = [] if real in seen else list(os.scandir(real))
        except OSError as error:
            if not below:
                raise PipelineError(f"{folder} cannot be listed: {error.strerror}") from None
            yield below, "folders that cannot be opened"
            continue
        seen.add(real)
        for entry in entries:
            path, is_folder = below + entry.name, _is_folder(entry)
            if is_hidden(entry.name):
                yield path + "/" * is_folder, "hidden or system files"
            elif not is_folder:
                yield path, _take_for(entry)
            elif subfolders:
                waiting.append(path + "/")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or behind a folder that may not be entered
        return False


def _take_for(entry: os.DirEntry) -> str:
    """What a file is taken for: by its name where that is a photo's, else by its content."""
    try:
        is_file = entry.is_file()
    except OSError:  # as in _is_folder
        is_file = False
    if not is_file:
        return "broken links" if entry.is_symlink() else "devices"
    promised = SUFFIXES.get(PurePath(entry.name).suffix.lower())
    if promised is not None:
        return promised
    try:
        kind = kind_of_file(Path(entry.path))
    except OSError:
        return "files that cannot be opened"
    return kind or printable(PurePath(entry.name).suffix.lower()) or "files of no known kind"


def _identify(paths: Iterable[str]) -> dict[str, str]:
    """Return each path's id; no two are the same."""
    whole = {path: printable(path.replace("%", "%25")) for path in paths}
    stems = {path: _stem(text) for path, text in whole.items()}
    counts, taken = Counter(stems.values()), set(whole.values())
    return {
        path: stem if counts[stem] == 1 and (stem not in taken or stem == whole[path]) else text
        for (path, stem), text in zip(stems.items(), whole.values(), strict=True)
    }
