"""Files that somebody might send to hurt the page or by mistake: name → (bytes, expected words)."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, PngImagePlugin


def photo(side_px=64, seed=0):
    """A photo of smooth noise, so that it compresses like one."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
    return small.resize((side_px, side_px), Image.Resampling.BICUBIC)


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(name, text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


def png(width, height, data, *, depth=8, colour=2, before=b""):
    """A PNG of raw pixel ``data``, whatever its header claims."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + end


def text_bomb():
    """A PNG with a compressed text of 64 MiB."""
    body = b"zTXtcomment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png(64, 64, zlib.compress(b"\0" * (64 * 193)), before=chunk)


def resized_jpeg(width, height):
    """A JPEG whose header claims another size."""
    content = bytearray(encode(photo()))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def many_scans():
    """A progressive JPEG whose last scan comes again and again."""
    content = encode(photo(), progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 200 + content[-2:]


def dicom(pixels=None, *, syntax="1.2.840.10008.1.2.1", preamble=bytes(128), **changes):
    """A colour DICOM file; ``changes`` are attributes, None deletes one."""
    import pydicom
    from pydicom.dataset import FileDataset

    pixels = np.asarray(photo()) if pixels is None else pixels
    found = FileDataset("", {}, file_meta=dicom_meta(syntax), preamble=preamble)
    found.SOPClassUID, found.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    found.PatientName, found.PatientID = "Secretive^Sally", "MRN-4711"
    found.PatientBirthDate, found.PatientComments = "19610203", "lives in Hidden Street 9"
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, "RGB"
    found.PlanarConfiguration, found.PixelRepresentation = 0, 0
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit = 7
    found.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, found, enforce_file_format=True)
    return buffer.getvalue()


def dicom_meta(syntax):
    """The first part of a DICOM file, which names the transfer syntax."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.7", "1.2.3",
    )  # fmt: skip
    meta.TransferSyntaxUID = syntax
    return meta


def unknown_dicom(syntax, content=b"\xff\xd8\xff" + bytes(range(200))):
    """A DICOM file whose pixels are packed, it says, by ``syntax``; they are not."""
    from pydicom.encaps import encapsulate

    return dicom(syntax=syntax, PixelData=encapsulate([content]))


def deflate_bomb(gib=6):
    """A deflated DICOM file of a few MB that unpacks to ``gib`` GiB."""
    from pydicom.filewriter import write_file_meta_info

    buffer = io.BytesIO()
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, dicom_meta("1.2.840.10008.1.2.1.99"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(16 * 2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return buffer.getvalue() + block * (64 * gib) + packer.flush()


def hostile_files():
    """Return name → (bytes, words of the sentence that refuses it)."""
    jpeg, flat = encode(photo()), encode(photo(), "PNG")
    grey = np.full((64, 64), 300, np.uint16)
    frames = [photo(seed=seed) for seed in range(3)]
    described = PngImagePlugin.PngInfo()
    described.add_text("Comment", "<script>fetch('http://198.51.100.7/')</script>")
    twice = "two kinds of file at once"
    return {
        "empty.jpg": (b"", "is empty"),
        "words.jpg": (b"no photo at all", "no photo that is known"),
        "zeros.png": (bytes(5000), "no photo that is known"),
        "gif.jpg": (encode(photo(), "GIF"), "a GIF file"),
        "half.bmp": (encode(photo(), "BMP")[:900], "cannot be read as BMP"),
        "half.tiff": (encode(photo(), "TIFF")[:99], "cannot be read as TIFF"),
        "half.webp": (encode(photo(), "WEBP")[:99], "cannot be read as WebP"),
        "webp_and_zip.webp": (encode(photo(), "WEBP") + zipped("e.sh", "x"), "two kinds of file"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(500), "HEIC"),
        "paper.jpg": (b"%PDF-1.7\n" + bytes(500), "a PDF file"),
        "archive.jpg": (zipped("a.txt", "x"), "a ZIP file"),
        "setup.png": (b"MZ\x90\0" + bytes(500), "a Windows program file"),
        "binary.png": (b"\x7fELF\2\1\1" + bytes(500), "a program file"),
        "drawing.png": (b'<svg xmlns="x"><image href="http://198.51.100.7/"/></svg>', "SVG"),
        "page.jpg": (b"<html><script>alert(1)</script></html>", "a HTML file"),
        "run.jpg": (b"#!/bin/sh\nrm -rf /\n", "a script file"),
        "packed.dcm": (b"\x1f\x8b\x08\0" + bytes(500), "a gzip file"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "half.png": (flat[: len(flat) // 2], "truncated"),
        "start.jpg": (b"\xff\xd8\xff\xe0", "cannot read image"),
        "start.png": (b"\x89PNG\r\n\x1a\n", "cannot read image"),
        "jpeg_and_zip.jpg": (jpeg + zipped("evil.sh", "x" * 99), twice),
        "png_and_zip.png": (flat + zipped("evil.sh", "x" * 99), twice),
        "jpeg_and_page.jpg": (jpeg + b"<html><script>alert(1)</script>", twice),
        "jpeg_and_paper.jpg": (encode(photo(), comment=b"%PDF-1.4 1 0 obj"), twice),
        "jpeg_and_php.jpg": (encode(photo(), comment=b"<?php system($_GET['c']); ?>"), twice),
        "png_and_script.png": (encode(photo(), "PNG", pnginfo=described), twice),
        "png_and_program.png": (flat + b"\x7fELF\2\1\1" + bytes(99), twice),
        "dicom_and_jpeg.dcm": (dicom(preamble=jpeg[:128]), twice),
        "dicom_and_program.dcm": (dicom(preamble=b"MZ" + bytes(126)), twice),
        "claims_much.png": (png(30000, 30000, b"x"), "more than the 40,000,000 pixels"),
        "unpacks_to_much.png": (
            png(20000, 20000, zlib.compress(bytes(20000 * 2501), 9), depth=1, colour=0),
            "more than the 40,000,000 pixels",
        ),
        "long_text.png": (text_bomb(), "cannot read image"),
        "large_photo.png": (
            png(8000, 8000, zlib.compress(bytes(8000 * 1001), 9), depth=1, colour=0),
            "8000 × 8000 pixels",
        ),
        "claims_much.jpg": (resized_jpeg(65000, 65000), "more than the 40,000,000 pixels"),
        "many_passes.jpg": (many_scans(), "passes"),
        "film.png": (
            encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
            "an animation of 3 pictures",
        ),
        "deep_grey.png": (encode(Image.fromarray(grey), "PNG"), "8-bit"),
        "dot.png": (encode(photo(1), "PNG"), "1 × 1 pixels"),
        "line.png": (encode(Image.new("RGB", (40000, 1)), "PNG"), "40000 × 1 pixels"),
        "bad_sum.png": (flat[:60] + bytes([flat[60] ^ 255]) + flat[61:], "cannot read image"),
        "no_pixels.png": (png(64, 64, b"this is no zlib stream"), "cannot read image"),
        "half.dcm": (dicom()[:-6000], "cannot be read as DICOM"),
        "start.dcm": (bytes(128) + b"DICM", "cannot be read as DICOM"),
        "frames.dcm": (dicom(NumberOfFrames=3), "3 frames"),
        "claims_much.dcm": (dicom(Rows=60000, Columns=60000), "60000 x 60000 pixels"),
        "no_pixels.dcm": (dicom(PixelData=None), "cannot be read as DICOM"),
        "film.dcm": (unknown_dicom("1.2.840.10008.1.2.4.100"), "cannot be read as DICOM"),
        "no_jpeg.dcm": (unknown_dicom("1.2.840.10008.1.2.4.50"), "cannot be read as DICOM"),
        "no_jpeg2000.dcm": (unknown_dicom("1.2.840.10008.1.2.4.90"), "cannot be read as DICOM"),
        "odd_syntax.dcm": (unknown_dicom("1.2.3.4.5.6"), "cannot be read as DICOM"),
        "unpacks_to_much.dcm": (deflate_bomb(), "a deflated DICOM file"),
        "deep.dcm": (
            dicom(
                grey, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16,
                BitsStored=16, HighBit=15, PlanarConfiguration=None,
            ),
            "8-bit",
        ),
        "large.jpg": (b"\xff\xd8\xff" + bytes(65 * 2**20), "65 MiB"),
        "![x](http://198.51.100.7/x.png)<img src=x onerror=alert(1)>.jpg": (b"", "is empty"),
        "..\u202e/..\\gpj.dcm": (b"words", "no photo that is known"),
    }  # fmt: skip
