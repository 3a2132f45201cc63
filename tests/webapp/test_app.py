"""The page in a real browser: uploads of every kind, readings, a patient, the run, and bad files.

Skipped where Streamlit, Playwright or Debian's Chromium is missing.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

for needed in ("tensorflow", "streamlit", "pydicom"):
    pytest.importorskip(needed)
sync_api = pytest.importorskip("playwright.sync_api")

from helpers_hostile import dicom, encode, hostile_files, photo
from helpers_webapp import ROOT
from PIL import Image

from benchmarks.page import Visitor
from kaggle_pipeline.core import figures

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
WAIT_MS = 120_000
NARROW = {"width": 390, "height": 800}


class Server:
    """``scripts/serve.py`` in a process of its own, and what it printed."""

    def __init__(self, run_dir, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--run-dir", str(run_dir)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(log.parent)}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=out, stderr=out, env=environment,
                cwd=log.parent,
            )  # fmt: skip

    def wait(self, seconds=600):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "/_stcore/health", timeout=2)
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="module")
def server(run_dir, tmp_path_factory):
    one = Server(run_dir, tmp_path_factory.mktemp("server") / "log.txt")
    try:
        one.wait()
        yield one
    finally:
        one.process.terminate()
        one.process.wait(120)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def visit(server, browser):
    """``visit(path, **options)`` opens a page; no error and no request elsewhere is forgiven."""
    faults, contexts = [], []

    def open_page(path="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.extend(_against_policy(line.text)))
        page.on("request", lambda request: faults.extend(_elsewhere(request.url, server.url)))
        page.goto(f"{server.url}/{path}")
        page.get_by_text("no diagnosis").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
    assert server.process.poll() is None


def _against_policy(text):
    return [text] if "Content Security Policy" in text else []


def _elsewhere(url, home):
    allowed = (home, home.replace("http", "ws", 1), "data:", "blob:")
    return [] if url.startswith(allowed) else [f"request to {url}"]


@pytest.fixture(scope="module")
def lesions(competition):
    """Paths of twelve test photos."""
    return sorted((competition / "competition" / "jpeg" / "test").glob("*.jpg"))[:12]


def upload(page, files):
    page.locator("input[type=file]").first.set_input_files(files)


def payload(name, content):
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def fits(page):
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "DICOM"])
def test_a_photo_becomes_a_reading_with_a_heat_map(visit, lesions, kind):
    page = visit()
    image = Image.open(lesions[0]).convert("RGB")
    content = dicom(np.asarray(image)) if kind == "DICOM" else encode(image, kind)
    upload(page, [payload(f"lesion.{'dcm' if kind == 'DICOM' else kind.lower()}", content)])
    page.locator(".kp .big").wait_for()
    assert "%" in page.locator(".kp .big").inner_text()
    heat = page.get_by_alt_text("Heat map over the photo for melanoma.")
    assert heat.evaluate("image => image.naturalWidth") > 20
    assert page.get_by_role("img", name="Probability").count() == 1
    assert "Secretive" not in page.content() and "4711" not in page.content()
    words = page.locator(".kp").all_inner_texts()
    assert any("Not given: age in years, sex, site" in one for one in words)
    page.get_by_label("Sex").click()
    page.get_by_role("option", name="female").click()
    page.get_by_text("Not given: age in years, site").wait_for()


def test_a_patients_photos_are_ranked_and_taken_home(visit, lesions, tmp_path):
    page = visit("a-patient")
    bad = [payload("half.jpg", lesions[0].read_bytes()[:400]), payload("words.png", b"words")]
    exif = Image.Exif()
    exif[0x010F] = "Spycam of Nosy Norbert"
    spied = encode(photo(seed=3), exif=exif)
    good = [payload(path.name, path.read_bytes()) for path in lesions[:11]]
    upload(page, [*good, *bad, payload("spied.jpg", spied)])
    page.locator(".kp .gallery .card").nth(11).wait_for()
    assert page.locator(".kp .gallery .card").count() == 12
    thumbs = page.locator(".kp table img.thumb")
    widths = thumbs.evaluate_all("all => all.map(one => one.naturalWidth * (one.width < 90))")
    assert len(widths) == 12 and min(widths) > 20
    told = page.get_by_role("alert").filter(has_text="half.jpg").inner_text()
    assert "half.jpg" in told and "words.png" in told and "cannot read image" in told
    with page.expect_download() as report:
        page.get_by_role("button", name="Report to print (HTML)").click()
    report.value.save_as(tmp_path / "report.html")
    assert report.value.suggested_filename.startswith("patient_12_lesions_demo_")
    with page.expect_download() as table:
        page.get_by_role("button", name="Table (CSV)").click()
    table.value.save_as(tmp_path / "table.csv")
    words = (tmp_path / "report.html").read_text()
    assert words.count('class="card"') == 12 and "no diagnosis" in words
    assert "http://" not in words and "Norbert" not in words
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 13 and "outlier_factor" in lines[0]


@pytest.mark.slow  # tests/fuzz asks the readers in seconds
def test_hostile_files_end_in_sentences_and_the_page_goes_on(visit, lesions):
    page = visit("a-patient")
    files = {name: content for name, (content, _) in hostile_files().items()
             if len(content) < 20e6}  # fmt: skip
    upload(page, [payload(name, content) for name, content in files.items()])
    alert = page.get_by_role("alert").filter(has_text="empty.jpg")
    alert.wait_for()
    assert alert.locator("p").count() == len(files) >= 40
    assert "Traceback" not in page.content()
    page = visit()
    upload(page, [payload("fine.jpg", lesions[0].read_bytes())])
    page.locator(".kp .big").wait_for()


def test_the_run_shows_its_card(visit):
    page = visit("this-run")
    page.get_by_text("low probability does not mean").wait_for()
    curve = page.get_by_alt_text("Blend of the models: ROC curves").first
    for _ in range(60):  # a page that is still being drawn folds its parts again
        page.get_by_text("Blend of the models", exact=True).last.click()
        with contextlib.suppress(sync_api.TimeoutError):
            curve.wait_for(timeout=5000)
            break
    assert curve.evaluate("image => image.naturalWidth") > 100
    for picture in page.locator(".kp.full img").all():  # in its own size, which is sharp
        shape = picture.evaluate("i => [i.width, i.height, i.naturalWidth, i.naturalHeight]")
        if shape[0]:
            width, height, full_width, full_height = shape
            assert width <= full_width / figures.DPI * 96 + 1
            assert width / height == pytest.approx(full_width / full_height, rel=0.03)


def test_the_menu_of_a_phone_is_in_words_and_covers_nothing(visit):
    page = visit(viewport=NARROW)
    titles = ["One lesion", "A patient", "This run"]
    links = [page.get_by_role("link", name=title) for title in titles]
    for link in links:
        link.wait_for()
        assert link.bounding_box()["y"] < 60
    links[1].click()
    heading = page.get_by_role("heading", name="A patient")
    heading.wait_for()
    assert heading.bounding_box()["y"] < 200
    page.get_by_test_id("stFileUploader").wait_for()
    box = page.get_by_test_id("stFileUploader").bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + 10]
    on_top = page.evaluate("""([x, y]) => document.elementFromPoint(x, y)
        .closest('[data-testid="stFileUploader"]') !== null""", middle)  # fmt: skip
    assert on_top


def test_a_patients_table_fits_a_phone(visit, lesions):
    page = visit("a-patient", viewport=NARROW)
    upload(page, [payload(path.name, path.read_bytes()) for path in lesions[:3]])
    page.locator(".kp .gallery .card").nth(2).wait_for()
    assert fits(page)
    for box in page.locator(".kp .wide").all():
        assert box.evaluate("one => one.scrollWidth <= one.clientWidth + 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_light_and_dark_screens(visit, lesions, scheme):
    page = visit(viewport=NARROW, color_scheme=scheme)
    upload(page, [payload("a.jpg", lesions[1].read_bytes())])
    page.locator(".kp .big").wait_for()
    assert fits(page)
    ground = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    level = sum(int(part) for part in ground.strip("rgba()").split(",")[:3])
    assert level > 600 if scheme == "light" else level < 150


def top(locator):
    return locator.bounding_box()["y"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_form_stands_before_the_result_or_beside_it(visit, lesions, width):
    page = visit(viewport={"width": width, "height": 844})
    upload(page, [payload("a.jpg", lesions[1].read_bytes())])
    result = page.locator(".kp .big")
    result.wait_for()
    form = page.get_by_label("Sex")
    if width == 390:
        assert top(page.get_by_test_id("stFileUploader")) < top(form) < top(result)
        assert top(form) < 844  # on the first screen
    else:
        assert top(result) < 844
        assert form.bounding_box()["x"] < result.bounding_box()["x"] > width / 4
        assert top(form) < 844


def test_the_keyboard_reaches_every_field(visit):
    page = visit()
    page.get_by_label("Sex").wait_for()
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("""() => {
            const one = document.activeElement;
            return [one.tagName, one.type || '', one.getAttribute('aria-label') || ''].join(' ');
        }"""))  # fmt: skip
    words = " | ".join(seen)
    for field in ("Age in years", "Sex", "Site", "checkbox", "radio"):
        assert field in words, words


def test_a_visitor_of_the_load_test_wants_the_reading_of_its_own_photo(server, lesions):
    with Visitor(f"127.0.0.1:{server.port}") as visitor:
        for path in lesions[:2]:
            visitor.read(path.name, path.read_bytes())
        with pytest.raises(RuntimeError, match=r"no reading of none\.jpg: .*none\.jpg"):
            visitor.read("none.jpg", b"no photo")


def test_the_log_names_no_file_and_no_patient(server, visit):
    page = visit()
    upload(page, [payload("Mustermann_Erika.dcm", dicom())])
    page.locator(".kp .big").wait_for()
    log = server.log.read_text()
    assert "Mustermann" not in log and "Secretive" not in log and "Traceback" not in log
    for path in filter(Path.is_file, server.log.parent.rglob("*")):  # libraries' caches, no photo
        assert path == server.log or path.suffix == ".json", path
        assert b"Secretive" not in path.read_bytes()
