"""Read a photo from a file that anybody may have written, of whatever kind its content is.

In: a path, or a file's bytes. Out: an upright RGB ``PIL.Image`` or one sentence that says why not.
"""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_kinds import HEAD_BYTES, PHOTO_KINDS, kind_of

MAX_PIXELS = 100_000_000
"""Larger than any dermoscope's photo (SIIM-ISIC's largest has 36 million); stops bombs."""
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on broken files; the middle ones come from odd EXIF blocks."""


_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "MONOCHROME2")
"""DICOM's names of what pydicom turns into RGB or grey; palettes and inverted grey are not."""
_PILLOW = {
    "JPEG": "JPEG", "PNG": "PNG", "WebP": "WEBP", "BMP": "BMP", "TIFF": "TIFF", "HEIC": "HEIF",
    "AVIF": "AVIF",
}  # fmt: skip
"""Kind of a photo -> Pillow's name of the only decoder that is tried on it."""
_SINGLE = ("WebP", "TIFF", "AVIF")
"""Kinds that may hold films or pages; what a JPEG or HEIC holds beside its photo are small copies
and depth maps."""


def read_image(path: Path, *, smallest_side_px: int | None = None) -> Image.Image:
    """Return the photo in ``path`` as an upright 8-bit RGB image.

    Parameters
    ----------
    path : pathlib.Path
        A file of one of :data:`~kaggle_pipeline.core.photo_kinds.PHOTO_KINDS`, whatever its name.
    smallest_side_px : int, optional
        A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets smaller than
        this: enough for a hash or a thumbnail, and several times faster.

    Raises
    ------
    PipelineError
        If the file is missing, truncated, too large, of another type or cannot be decoded.
    """
    path = Path(path)

    def read() -> Image.Image:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        if kind is None and path.suffix.lower() in (".dcm", ".dicom"):
            kind = "DICOM"  # pydicom says what it lacks
        return _read(path, kind, str(path), smallest_side_px, MAX_PIXELS)

    return _guarded(str(path), read)


def decode_image(
    content: bytes,
    name: str,
    *,
    smallest_side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return the photo in a file's ``content``, as :func:`read_image` does of a file.

    Parameters
    ----------
    content : bytes
        Of a photo of any kind that is read.
    name : str
        What messages call it.
    smallest_side_px : int, optional
        As in :func:`read_image`.
    max_pixels : int
        More are refused before anything is decoded.

    Raises
    ------
    PipelineError
        If it is truncated, too large, of another type or cannot be decoded.
    """
    source, kind = io.BytesIO(content), kind_of(content)
    return _guarded(name, lambda: _read(source, kind, name, smallest_side_px, max_pixels))


def _guarded(name: str, read: Callable[[], Image.Image]) -> Image.Image:
    """What ``read`` returns; whatever it raises becomes one line about ``name``."""
    try:
        return read()
    except FileNotFoundError:
        raise PipelineError(f"{name} does not exist") from None
    except _BROKEN as error:
        raise PipelineError(f"cannot read image {name}: {_one_line(error)}") from None


def fault_of(path: Path) -> str | None:
    """Return why a photo cannot be read, None if it can."""
    try:
        read_image(path)
    except PipelineError as error:
        return str(error)
    return None


def image_size_px(path: Path) -> tuple[int, int]:
    """Return ``(width, height)`` in px of a photo as it is stored, reading its header only.

    DICOM files are left to :func:`read_image`.

    Raises
    ------
    PipelineError
        As :func:`read_image`.
    """
    path = Path(path)

    def read() -> tuple[int, int]:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        with _open(path, kind) as image:
            return image.size

    return _guarded(str(path), read)


def _read(
    source: Path | BinaryIO,
    kind: str | None,
    name: str,
    smallest_side_px: int | None,
    max_pixels: int,
) -> Image.Image:
    if kind == "DICOM":
        return _read_dicom(source, name, max_pixels)
    with _open(source, kind) as image:
        _check_size(*image.size, max_pixels)
        if kind in _SINGLE and (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"it holds {frames} pictures, expected one photo")
        if image.mode[0] in "IF":  # Pillow would clip 16-bit grey to white
            raise ValueError(f"{image.mode} pixels, expected 8-bit colour")
        if smallest_side_px is not None:
            image.draft("RGB", (smallest_side_px, smallest_side_px))
        image.load()
        upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.info = {}  # Pillow writes a file's comment, a name maybe, into each JPEG of it
        return upright


def _open(source: Path | BinaryIO, kind: str | None) -> Image.Image:
    """Open a photo by the decoder of its kind; nothing is decoded yet."""
    if kind not in _PILLOW:
        what = f"it is a {kind} file" if kind else "it is no photo, or its beginning is damaged"
        raise ValueError(f"{what}; {', '.join(PHOTO_KINDS)} are read")
    if kind == "HEIC":
        _register_heic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd headers; our own limit of pixels follows
        try:
            return Image.open(source, formats=(_PILLOW[kind],))
        except KeyError:  # AVIF came with Pillow 11.3
            raise ValueError(f"this Pillow reads no {kind}: pip install --upgrade pillow") from None


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ValueError(
            "it is a HEIC photo, as iPhones take them: install the 'heic' extra to read it "
            "(pip install pillow-heif), or save it as JPEG"
        ) from None
    register_heif_opener(thumbnails=False)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than {max_pixels:,}")


def _read_dicom(source: Path | BinaryIO, name: str, max_pixels: int) -> Image.Image:
    try:
        import pydicom
        from pydicom.pixels import pixel_array
    except ImportError:
        raise PipelineError(
            f"{name} is a DICOM file: install the 'dicom' extra to read it"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd headers of old files; the pixels are checked
            dataset = pydicom.dcmread(source)
            frames = int(dataset.get("NumberOfFrames") or 1)
            if frames != 1:
                raise ValueError(f"{frames} frames, expected one photo")
            size = int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)
            _check_size(*size, max_pixels)
            colours = str(dataset.get("PhotometricInterpretation") or "RGB")
            if colours not in _COLOURS:
                raise ValueError(f"{colours} pixels, expected one of {', '.join(_COLOURS)}")
            pixels = pixel_array(dataset)  # YBR is converted to RGB
    except FileNotFoundError:
        raise
    # pydicom and its decoders raise nearly anything on a hostile file.
    except Exception as error:
        raise PipelineError(f"cannot read DICOM {name}: {_one_line(error)}") from None
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        kind = f"{pixels.dtype} pixels of shape {pixels.shape}"
        raise PipelineError(f"cannot read DICOM {name}: {kind}, expected 8-bit colour")
    return Image.fromarray(pixels).convert("RGB")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
