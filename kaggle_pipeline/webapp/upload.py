"""Files from anybody: what may be decoded at all, and the decoding.

In: a name and bytes. Out: a :class:`Photo`, all in memory, or one sentence that says why not. Size,
kind and pixel count are looked at before anything is decoded; all but JPEG and PNG, whose decoders
are native code of many hands, is decoded in a process of its own. EXIF orientation is heeded; no
other metadata, such as a place or a patient's name, leaves this module with the image.
"""

import hashlib
import io
import re
import unicodedata
import zipfile
from dataclasses import dataclass, field

from PIL import Image

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_kinds import PHOTO_KINDS, kind_of
from kaggle_pipeline.core.photos import decode_image
from kaggle_pipeline.webapp.dicom_worker import DicomWorker

MAX_FILE_MIB = 64
MAX_FILES = 60
"""At once; SIIM-ISIC 2020's patients have up to 115 photos, half of them 12 or fewer."""
MAX_PIXELS = 40_000_000
"""SIIM-ISIC 2020's largest photo has 36 million."""
MIN_SIDE_PX = 32
_MAX_SCANS = 100
"""Of a progressive JPEG, which has about ten; each costs a pass over all pixels."""
_DEFLATED, _DICOM_META_BYTES = b"1.2.840.10008.1.2.1.99", 4096
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_WANTED = f"give a {', '.join(PHOTO_KINDS[:-1])} or {PHOTO_KINDS[-1]} file"
_OTHERS = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF-": "PDF",
    b"PK\3\4": "ZIP", b"MZ": "Windows program", b"\x7fELF": "program", b"<svg": "SVG",
    b"<?xml": "XML", b"<!DOCTYPE": "HTML", b"<html": "HTML", b"Rar!": "RAR", b"7z\xbc\xaf": "7z",
    b"\x1f\x8b": "gzip", b"\0\0\1\0": "icon", b"8BPS": "Photoshop", b"#!": "script",
}  # fmt: skip
_PAGES = re.compile(rb"<(script|html|svg|\?php)", re.IGNORECASE)


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes
    ----------
    name : str
        The file's, without folders and odd characters; for the person who sent it alone.
    image : PIL.Image.Image
        Upright RGB.
    original : bytes or None
        The file itself where it is a JPEG.
    digest : str
        SHA-256 of the file.
    """

    name: str
    image: Image.Image
    original: bytes | None = field(repr=False)
    digest: str


def open_upload(name: str, content: bytes, worker: DicomWorker) -> Photo:
    """Return the photo in an uploaded file; ``worker`` decodes DICOM.

    Raises
    ------
    PipelineError
        If it is empty, too large, of another kind or of two kinds, truncated, has several frames
        or too few or too many pixels, or cannot be decoded. The message names the file.
    """
    name = plain_name(name)
    kind = _kind(name, content)
    if kind not in ("JPEG", "PNG"):
        try:
            image = worker.decode(content)
        except PipelineError as error:
            raise PipelineError(f"{name} cannot be read as {kind}: {error}") from None
    else:
        _check_header(name, content)
        image = decode_image(content, name, max_pixels=MAX_PIXELS)
    if min(image.size) < MIN_SIDE_PX:
        raise _too_small(name, *image.size)
    # Pillow carries EXIF along, the place among it: pixels alone go on.
    image = Image.frombytes("RGB", image.size, image.tobytes())
    digest = hashlib.sha256(content).hexdigest()
    return Photo(name, image, content if kind == "JPEG" else None, digest)


def plain_name(name: str) -> str:
    """Return a file's name without folders, control characters and what turns text around."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(one for one in last if unicodedata.category(one)[0] != "C").strip()
    return (plain if len(plain) <= 80 else plain[:50] + "…" + plain[-29:]) or "unnamed file"


def _kind(name: str, content: bytes) -> str:
    """One of the kinds that are read, by the bytes, whatever the name says."""
    if not content:
        raise PipelineError(f"{name} is empty")
    if len(content) > MAX_FILE_MIB * 2**20:
        size = len(content) / 2**20
        raise PipelineError(f"{name} has {size:.0f} MiB; the limit is {MAX_FILE_MIB} MiB")
    other = next((kind for magic, kind in _OTHERS.items() if content.startswith(magic)), None)
    if content[128:132] == b"DICM":
        if other or content.startswith((_JPEG, _PNG)):
            raise PipelineError(f"{name} is two kinds of file at once, DICOM and another: refused")
        if _DEFLATED in content[:_DICOM_META_BYTES]:  # unpacked without a limit when it is opened
            raise PipelineError(
                f"{name} is a deflated DICOM file: save it without deflate compression"
            )
        return "DICOM"
    if content.startswith(_JPEG):
        _check_single(name, content, end=content.rfind(b"\xff\xd9") + 2)
        return "JPEG"
    if content.startswith(_PNG):
        _check_single(name, content, end=content.rfind(b"IEND") + 8)
        return "PNG"
    kind = kind_of(content)
    if kind in PHOTO_KINDS:
        _check_single(name, content, end=len(content))
        return kind
    other = other or kind
    what = f"a {other} file" if other else "no photo that is known"
    raise PipelineError(f"{name} is {what}: {_WANTED}")


def _check_single(name: str, content: bytes, end: int) -> None:
    """Refuse a photo that is a program, page or archive too; a camera's padding is fine."""
    head, tail = content[:1024], content[end:]
    if (
        zipfile.is_zipfile(io.BytesIO(content))
        or b"%PDF-" in head
        or b"%PDF-" in tail
        or _PAGES.search(head)
        or _PAGES.search(tail)
        or any(len(magic) > 2 and tail.startswith(magic) for magic in _OTHERS)
    ):
        raise PipelineError(f"{name} is two kinds of file at once, a photo and another: refused")


def _check_header(name: str, content: bytes) -> None:
    """What a JPEG's or PNG's header tells; :func:`decode_image` says what is wrong with others."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as header:
            size, kind, frames = header.size, header.format, getattr(header, "n_frames", 1)
    except Image.DecompressionBombError:
        text = f"{name} has far more than the {MAX_PIXELS:,} pixels allowed"
        raise PipelineError(text) from None
    # Anything else that Pillow cannot open is told apart, in words, when it is decoded.
    except Exception:
        return
    if size[0] * size[1] > MAX_PIXELS:
        text = f"{name} has {size[0]} × {size[1]} pixels; the limit is {MAX_PIXELS:,}"
        raise PipelineError(text)
    if min(size) < MIN_SIDE_PX:
        raise _too_small(name, *size)
    if kind == "PNG" and frames > 1:
        raise PipelineError(f"{name} is an animation of {frames} pictures; give a single photo")
    if kind != "PNG" and content.count(b"\xff\xda") > _MAX_SCANS:
        raise PipelineError(
            f"{name} is packed in more than {_MAX_SCANS} passes: save it again as a plain JPEG"
        )


def _too_small(name: str, width: int, height: int) -> PipelineError:
    wish = f"at least {MIN_SIDE_PX} × {MIN_SIDE_PX} are needed"
    return PipelineError(f"{name} has {width} × {height} pixels; {wish}")
