"""What a file is, by its first bytes: names lie, and hospitals give none.

In: the beginning of a file. Out: the name of its kind, such as ``JPEG`` or ``PDF``.
"""

import re
from pathlib import Path

HEAD_BYTES = 4096
"""So much of a file's beginning settles its kind."""
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
    ".webp": "WebP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".heic": "HEIC",
    ".heif": "HEIC", ".avif": "AVIF", ".dcm": "DICOM", ".dicom": "DICOM",
}  # fmt: skip
"""Endings of photos' names, in lower case, and what they promise; the content decides."""
PHOTO_KINDS = tuple(dict.fromkeys(SUFFIXES.values()))
"""Kinds that are read. DICOM comes last: beside JPEGs it holds the same photos, which decode
faster."""
MAGIC = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"II+\0": "TIFF", b"MM\0+": "TIFF", b"BM": "BMP", b"GIF8": "GIF", b"%PDF-": "PDF",
    b"PK\3\4": "ZIP", b"MZ": "Windows program", b"\x7fELF": "program", b"<svg": "SVG",
    b"<?xml": "XML", b"<!DOCTYPE": "HTML", b"<html": "HTML", b"Rar!": "RAR", b"7z\xbc\xaf": "7z",
    b"\x1f\x8b": "gzip", b"\0\0\1\0": "icon", b"8BPS": "Photoshop", b"#!": "script",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL", b"version https://git-lfs": "Git LFS pointer",
    b"\xd0\xcf\x11\xe0": "old Office file",
}  # fmt: skip
"""How files begin, and what such a file is."""
_FTYP = {
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "AVIF": (b"avif", b"avis"),
}
"""Brands of ISO media files that are photos; others are films."""
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""Of a JPEG, without the restarts that stand among its pixels."""
_STANDALONE, _END = (0x01, 0xD8), 0xD9


def kind_of(content: bytes) -> str | None:
    """Return the kind of a file that begins with ``content``; None if it is not known.

    Parameters
    ----------
    content : bytes
        The file, or :data:`HEAD_BYTES` of it.
    """
    if content[4:8] == b"ftyp":
        brands = (content[8:12], *(content[i : i + 4] for i in range(16, 48, 4)))
        kinds = [kind for one in brands for kind, known in _FTYP.items() if one in known]
        # ``mif1`` is what both have in common.
        return ("AVIF" if "AVIF" in kinds else kinds[0]) if kinds else "film"
    if content[:4] == b"RIFF":
        return "WebP" if content[8:12] == b"WEBP" else "film or sound"
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    if kind == "BMP" and content[6:10] != bytes(4):  # words may begin so too
        kind = None
    if content[128:132] == b"DICM" and kind not in ("JPEG", "PNG"):
        return "DICOM"
    return kind


def kind_of_file(path: Path) -> str | None:
    """Return the kind of a file; None if it is not known.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    with Path(path).open("rb") as file:
        return kind_of(file.read(HEAD_BYTES))


def jpeg_end(content: bytes) -> int | None:
    """Return where a JPEG's data ends, None if it is cut off; cameras write more behind it.

    The segments are followed (ITU-T T.81, annex B), so that a thumbnail's end is not taken for the
    photo's.
    """
    position = 2
    while found := _MARKER.search(content, position):
        marker, position = found[1][0], found.end()
        if marker == _END:
            return position
        if marker not in _STANDALONE:
            position += int.from_bytes(content[position : position + 2])
    return None
