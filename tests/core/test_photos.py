"""Tests of reading photos that anybody may have written: an upright RGB image or an error."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kaggle_pipeline.core import photos
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_kinds import jpeg_end
from kaggle_pipeline.core.photos import decode_image, image_size_px, read_image


def photo(width=48, height=32):
    """A colour gradient: red grows to the right, green downwards; blue is constant."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 80)], axis=-1).astype(np.uint8))


def refusal(path, **options):
    with pytest.raises(PipelineError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_png_is_read_pixel_for_pixel(tmp_path):
    photo().save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(photo()))


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "A.JPG"])
def test_jpeg_is_read_nearly(tmp_path, name):
    photo().save(tmp_path / name, "JPEG", quality=95)
    image = read_image(tmp_path / name)
    assert image.size == (48, 32)
    difference = np.asarray(image).astype(int) - np.asarray(photo()).astype(int)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = photo()
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    sensor = upright if stored is None else upright.transpose(stored)
    sensor.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(upright))


def test_what_a_file_says_beside_its_pixels_is_dropped():
    buffer = io.BytesIO()
    photo().save(buffer, "JPEG", comment=b"Jane Doe")
    again = io.BytesIO()
    decode_image(buffer.getvalue(), "a.jpg").save(again, "JPEG")
    assert b"Jane" in buffer.getvalue() and b"Jane" not in again.getvalue()


def test_damaged_exif_is_refused_by_name_or_ignored(tmp_path):
    # Orientation 6, then a resolution that is text: Pillow cannot write that block again.
    exif = b"Exif\0\0II*\0" + struct.pack(
        "<LHHHLHHHHL4s", 8, 2, 0x112, 3, 1, 6, 0, 0x11A, 2, 4, b"abc"
    )
    photo().save(tmp_path / "a.jpg", exif=exif + b"\0\0\0\0")
    try:
        assert read_image(tmp_path / "a.jpg").size == (32, 48)
    except PipelineError as error:
        assert "a.jpg" in str(error)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    photo().convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.mode, image.size) == ("RGB", (48, 32))


def test_grey_becomes_three_equal_channels(tmp_path):
    photo().convert("L").save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png"))
    assert (pixels == pixels[:, :, :1]).all()
    np.testing.assert_array_equal(pixels[:, :, 0], np.asarray(photo().convert("L")))


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    photo().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels = np.asarray(read_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(pixels - np.asarray(photo()).astype(int)).mean() < 5


def test_grey_of_16_bits_is_refused_and_not_clipped_to_white(tmp_path):
    Image.fromarray(np.full((8, 8), 30000, np.uint16)).save(tmp_path / "a.png")
    assert "8-bit" in refusal(tmp_path / "a.png")


def test_jpeg_may_be_decoded_smaller_but_not_too_small(tmp_path):
    photo(400, 300).save(tmp_path / "a.jpg")
    small = read_image(tmp_path / "a.jpg", smallest_side_px=64)
    assert 64 <= min(small.size) < 300
    assert small.size[0] / small.size[1] == pytest.approx(4 / 3, abs=0.03)
    assert read_image(tmp_path / "a.jpg", smallest_side_px=300).size == (400, 300)


def test_png_ignores_the_smallest_side(tmp_path):
    photo().save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", smallest_side_px=8).size == (48, 32)


@pytest.mark.parametrize(("name", "share"), [("a.jpg", 0.5), ("a.jpg", 0.9), ("a.png", 0.5)])
def test_truncated_file_is_named(tmp_path, name, share):
    path = tmp_path / name
    photo().save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "truncated" in refusal(path)
    refusal(path, smallest_side_px=8)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    refusal(path)
    with pytest.raises(PipelineError, match=r"a\.jpg"):
        image_size_px(path)


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_suffix(tmp_path, kind):
    photo().save(tmp_path / "a.jpg", kind)
    refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", ["a.jpg", "IM0001"])
def test_formats_that_pillow_knows_are_read_whatever_their_name(tmp_path, kind, name):
    try:
        photo(64, 48).save(tmp_path / name, kind, quality=95)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    pixels = np.asarray(read_image(tmp_path / name)).astype(int)
    assert np.abs(pixels - np.asarray(photo(64, 48)).astype(int)).mean() < 6


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_films_and_pages_are_no_single_photo(tmp_path, kind):
    photo().save(tmp_path / "a", kind, save_all=True, append_images=[photo().rotate(90)])
    assert "2 pictures" in refusal(tmp_path / "a")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_further_formats_have_the_same_limits(tmp_path, kind, monkeypatch):
    photo().save(tmp_path / "a", kind)
    monkeypatch.setattr(photos, "MAX_PIXELS", 48 * 32 - 1)
    assert "48 x 32" in refusal(tmp_path / "a")


@pytest.mark.parametrize("deep", [np.uint16, np.float32, np.int32])
def test_tiff_of_deep_grey_is_refused_and_not_clipped(tmp_path, deep):
    Image.fromarray(np.full((8, 8), 900, deep)).save(tmp_path / "a.tif")
    assert "8-bit" in refusal(tmp_path / "a.tif")


def test_a_heic_photo_is_named_with_what_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / "IMG_1.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    said = refusal(tmp_path / "IMG_1.jpg")
    assert "HEIC" in said and "'heic' extra" in said


def test_a_heic_photo_is_read_where_the_extra_is_there(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(photo(64, 48)).save(tmp_path / "IMG_1", quality=95)
    pixels = np.asarray(read_image(tmp_path / "IMG_1")).astype(int)
    assert np.abs(pixels - np.asarray(photo(64, 48)).astype(int)).mean() < 6


@pytest.mark.parametrize("more", [b"\0" * 5000, b"\xff" * 5000, bytes(range(256)) * 20])
def test_a_jpeg_with_bytes_after_its_end_is_a_good_one(tmp_path, more):
    photo().save(tmp_path / "a.jpg")
    whole = np.asarray(read_image(tmp_path / "a.jpg"))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content + more)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.jpg")), whole)
    assert jpeg_end(content + more) == jpeg_end(content) == len(content)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_a_jpegs_end_is_its_own_and_not_its_thumbnails(options):
    buffer = io.BytesIO()
    photo().save(buffer, "JPEG")
    exif = b"Exif\0\0" + buffer.getvalue()
    buffer = io.BytesIO()
    photo(300, 200).save(buffer, "JPEG", exif=exif, comment=b"\xff\xd9", **options)
    content = buffer.getvalue()
    assert content.count(b"\xff\xd9") == 3 and jpeg_end(content) == len(content)
    assert all(jpeg_end(content[: int(len(content) * share)]) is None for share in (0.3, 0.7, 0.99))


def test_missing_file_and_folder_are_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.jpg")
    assert "does not exist" in refusal(tmp_path / "none.dcm")
    refusal(tmp_path)


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    photo().save(tmp_path / "a.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", 48 * 32 - 1)
    assert "48 x 32" in refusal(tmp_path / "a.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", 48 * 32)
    read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_bomb_is_refused_by_its_header_alone(tmp_path, side):
    header = b"IHDR" + struct.pack(">LLBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    blocks = [
        struct.pack(">L", len(b) - 4) + b + struct.pack(">L", zlib.crc32(b)) for b in (header, data)
    ]
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))
    assert "pixels" in refusal(path)
    if side > 20_000:  # beyond Pillow's own limit even the header is refused
        with pytest.raises(PipelineError, match=r"bomb\.png"):
            image_size_px(path)


def test_image_size_is_read_from_the_header(tmp_path):
    photo(50, 20).save(tmp_path / "a.jpg")
    assert image_size_px(tmp_path / "a.jpg") == (50, 20)


@given(
    seed=st.integers(0, 2**32),
    suffix=st.sampled_from([".jpg", ".png", ".dcm", ".webp", ".bmp", ".tiff"]),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_give_an_image_or_a_pipeline_error(tmp_path, seed, suffix):
    rng = np.random.default_rng(seed)
    path = tmp_path / f"a{suffix}"
    if suffix == ".dcm":
        write_dicom(path, np.asarray(photo()))
    else:
        exif = Image.Exif()
        exif[0x0112], exif[0x011A] = 6, 72.0
        photo().save(path, exif=exif)
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, min(len(content), 400), rng.integers(1, 5)):
        content[place] = rng.integers(256)
    path.write_bytes(bytes(content))
    try:
        assert read_image(path).mode == "RGB"
    except PipelineError as error:
        assert str(path) in str(error)


# ---------------------------------------------------------------------------- DICOM


def write_dicom(path, pixels, **changes):
    """Write ``pixels`` (rows, columns[, 3]) as an uncompressed DICOM photo."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = VLPhotographicImageStorage
    data.SOPClassUID = VLPhotographicImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    colours = 3 if pixels.shape[-1] == 3 else 1
    data.Rows, data.Columns = pixels.shape[-3:-1] if colours == 3 else pixels.shape[-2:]
    data.SamplesPerPixel = colours
    data.PhotometricInterpretation = "RGB" if colours == 3 else "MONOCHROME2"
    if colours == 3:
        data.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    data.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def test_dicom_of_8_bit_colour_is_read_pixel_for_pixel(tmp_path):
    pixels = np.asarray(photo())
    write_dicom(tmp_path / "a.dcm", pixels)
    image = read_image(tmp_path / "a.dcm")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_dicom_of_8_bit_grey_is_read(tmp_path):
    pixels = np.asarray(photo().convert("L"))
    write_dicom(tmp_path / "a.DCM", pixels)
    image = np.asarray(read_image(tmp_path / "a.DCM"))
    np.testing.assert_array_equal(image, np.repeat(pixels[:, :, None], 3, axis=2))


def test_dicom_in_ybr_is_converted_to_rgb(tmp_path):
    ybr = np.asarray(photo().convert("YCbCr"))
    write_dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    pixels = np.asarray(read_image(tmp_path / "a.dcm")).astype(int)
    assert np.abs(pixels - np.asarray(photo()).astype(int)).max() <= 4


@pytest.mark.parametrize("colours", ["MONOCHROME1", "PALETTE COLOR"])
def test_dicom_whose_pixels_are_no_colours_is_refused(tmp_path, colours):
    grey = np.asarray(photo().convert("L"))
    write_dicom(tmp_path / "a.dcm", grey, PhotometricInterpretation=colours)
    assert f"{colours} pixels, expected one of RGB" in refusal(tmp_path / "a.dcm")


def test_dicom_of_several_frames_is_refused(tmp_path):
    frames = np.stack([np.asarray(photo())] * 2)
    write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=2)
    assert "2 frames" in refusal(tmp_path / "a.dcm")


def test_dicom_of_16_bits_is_refused(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.full((8, 8), 900, np.uint16))
    message = refusal(tmp_path / "a.dcm")
    assert "uint16" in message
    assert "8-bit" in message


def test_dicom_with_too_many_pixels_is_refused_before_decoding(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.asarray(photo()), Rows=20_000, Columns=20_000)
    assert "20000 x 20000" in refusal(tmp_path / "a.dcm")


def test_dicom_whose_pixels_are_cut_off_is_refused(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.asarray(photo()), PixelData=b"\0" * 100)
    refusal(tmp_path / "a.dcm")


def test_dicom_without_pixels_is_refused(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.asarray(photo()))
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    del data.PixelData
    data.save_as(tmp_path / "a.dcm")
    refusal(tmp_path / "a.dcm")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_garbage_named_dicom_is_refused(tmp_path, content):
    pytest.importorskip("pydicom")
    (tmp_path / "a.dcm").write_bytes(content)
    assert "DICOM" in refusal(tmp_path / "a.dcm")


def test_a_name_does_not_decide(tmp_path):
    pytest.importorskip("pydicom")
    photo().save(tmp_path / "a.dcm", "JPEG")
    assert read_image(tmp_path / "a.dcm").size == (48, 32)
    write_dicom(tmp_path / "IM000001", np.asarray(photo()))
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "IM000001")), np.asarray(photo())
    )
