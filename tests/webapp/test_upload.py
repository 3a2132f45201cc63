"""Tests of uploads: what is refused, in which words, and what never gets past the door."""

import io
import subprocess

import numpy as np
import pytest
from helpers_hostile import dicom, encode, hostile_files, photo
from PIL import Image

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.webapp import dicom_worker
from kaggle_pipeline.webapp.dicom_worker import DicomWorker
from kaggle_pipeline.webapp.upload import MAX_PIXELS, open_upload, plain_name

pydicom = pytest.importorskip("pydicom")
HOSTILE = hostile_files()


@pytest.fixture(scope="module")
def worker():
    one = DicomWorker(MAX_PIXELS)
    yield one
    one.close()


def test_there_are_at_least_forty_of_them():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_one_clear_sentence(name, worker):
    content, words = HOSTILE[name]
    with pytest.raises(PipelineError) as caught:
        open_upload(name, content, worker)
    sentence = str(caught.value)
    assert any(one in sentence for one in words.split("|")), sentence
    assert "\n" not in sentence and len(sentence) < 450 and "Traceback" not in sentence
    assert plain_name(name) in sentence and "/tmp" not in sentence
    assert "Secretive" not in sentence and "4711" not in sentence


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "DICOM", "BMP", "TIFF", "WEBP"])
def test_a_good_file_is_read_whatever_came_before(kind, worker):
    content = dicom() if kind == "DICOM" else encode(photo(), kind)
    found = open_upload(f"a.{kind.lower()}", content, worker)
    assert found.image.size == (64, 64) and found.image.mode == "RGB"
    apart = np.asarray(found.image).astype(int) - np.asarray(photo()).astype(int)
    assert np.abs(apart).mean() < (9 if kind in ("JPEG", "WEBP") else 0.01)
    assert (found.original is not None) == (kind == "JPEG")


def test_a_photo_of_a_phone_is_read_where_the_extra_is(worker):
    heif = pytest.importorskip("pillow_heif")
    stored = io.BytesIO()
    heif.from_pillow(photo()).save(stored, quality=95)
    found = open_upload("IMG_1.HEIC", stored.getvalue(), worker)
    assert found.image.size == (64, 64) and found.original is None
    apart = np.asarray(found.image).astype(int) - np.asarray(photo()).astype(int)
    assert np.abs(apart).mean() < 9


def test_a_photo_is_known_by_its_bytes_not_by_its_name(worker):
    assert open_upload("a.dcm", encode(photo(), "PNG"), worker).image.size == (64, 64)


def test_orientation_is_heeded_and_the_place_is_dropped(worker):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.25)  # GPS latitude
    wide = photo().resize((80, 40))
    found = open_upload("a.jpg", encode(wide, exif=exif), worker)
    assert found.image.size == (40, 80)
    again = Image.open(io.BytesIO(encode(found.image)))
    assert not again.getexif() and not found.image.getexif() and not found.image.info


def test_a_patients_name_does_not_leave_the_decoder(worker):
    found = open_upload("a.dcm", dicom(), worker)
    kept = repr(found) + repr(vars(found)) + repr(found.image.info)
    assert "Sally" not in kept and "4711" not in kept and "Hidden" not in kept


def test_a_decoder_that_dies_costs_one_file(monkeypatch):
    worker, start = DicomWorker(MAX_PIXELS), subprocess.Popen

    def doomed(command, **options):
        return start([command[0], "-c", "import os; os.abort()"], **options)

    monkeypatch.setattr(dicom_worker.subprocess, "Popen", doomed)
    with pytest.raises(PipelineError, match=r"a\.dcm.*broke down"):
        open_upload("a.dcm", dicom(), worker)
    monkeypatch.setattr(dicom_worker.subprocess, "Popen", start)
    assert open_upload("a.dcm", dicom(), worker).image.size == (64, 64)
    worker.close()


def test_a_decoder_that_hangs_is_given_up(monkeypatch):
    worker, start = DicomWorker(MAX_PIXELS), subprocess.Popen
    monkeypatch.setattr(dicom_worker, "_SECONDS", 0.3)
    monkeypatch.setattr(
        dicom_worker.subprocess,
        "Popen",
        lambda command, **options: start(["sleep", "60"], **options),
    )
    with pytest.raises(PipelineError, match="too long"):
        open_upload("a.dcm", dicom(), worker)
    worker.close()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("a\nb\0.jpg", "ab.jpg"),
        ("", "unnamed file"),
        ("///", "unnamed file"),
    ],
)
def test_names_are_made_plain(name, plain):
    assert plain_name(name) == plain


def test_long_names_keep_their_end():
    assert plain_name("a" * 500 + ".jpg").endswith(".jpg") and len(plain_name("a" * 500)) == 80
