"""Tests that a new photo is made square as the photos were that a run learned from."""

import io
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_image import make_examples, to_jpeg
from PIL import Image, ImageDraw

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets import get_spec, siim_isic_2020
from kaggle_pipeline.records.convert import convert_image, write_shard
from kaggle_pipeline.records.geometry import given_fit, read_fit

pytest.importorskip("tensorflow")

ROOT = Path(__file__).resolve().parents[2]
SIDE = 48
OWN_PX = siim_isic_2020.SPEC.given_size_px
SPEC = replace(siim_isic_2020.SPEC, given_size_px=SIDE)
"""As if the competition's own TFRecords were small."""


@pytest.fixture(scope="module", autouse=True)
def small_records_are_the_competitions_own():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(siim_isic_2020, "SPEC", SPEC)
        yield


def test_the_competitions_own_records_have_1024_px():
    assert OWN_PX == 1024


CHANGES = (
    "dataset=siim_isic_2020", f"records.image_size_px={SIDE}", "records.workers=1",
    "image.image_size_px=32", "image.backbone=LeNet", "image.backbone_options={filters: 4}",
    "image.weights=null", "image.train_from=null", "image.batch_size=16", "image.epochs=2",
    "folds={holdout: 0.3}", "leakage.fingerprints=false", "blend.models=[image]",
)  # fmt: skip
CONFIG = [
    "--config", str(ROOT / "configs" / "demo.yaml"),
    *(word for change in CHANGES for word in ("--set", change)),
]  # fmt: skip


def stretched(photo, side, quality=95):
    """A photo as somebody else makes a record of it: all of it, as a square JPEG."""
    buffer = io.BytesIO()
    photo.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_found(folder, jpegs, name="train00"):
    """Records as somebody else writes them, without a manifest."""
    rows = make_examples(len(jpegs))
    write_shard(folder / f"{name}-{len(jpegs)}.tfrec", rows, jpegs, SPEC)
    return folder


# ---------------------------------------------------------------------------- what is known


@pytest.mark.parametrize(
    ("dataset", "side", "settings", "fit", "known"),
    [
        ("siim_isic_2020", SIDE, {}, "stretch", True),  # the competition's own
        ("siim_isic_2020", 40, {}, "stretch", False),  # somebody else's
        ("siim_isic_2020", 40, {"given_fit": "crop"}, "crop", True),
        ("ham10000", 40, {"given_fit": "stretch"}, "stretch", True),
        ("ham10000", 40, {}, "crop", False),
        ("synthetic", 40, {"fit": "stretch"}, "stretch", False),
    ],
)
def test_what_is_not_seen_is_said_or_known_or_assumed_aloud(
    tmp_path, dataset, side, settings, fit, known
):
    place = write_found(tmp_path, [to_jpeg(np.full((side, side, 3), 9, np.uint8))] * 3)
    found = given_fit(place, RecordsConfig(**settings), get_spec(dataset))
    assert (found.fit, found.known, found.image_size_px) == (fit, known, side)
    assert ("records.given_fit" in found.describe()) and found.describe().count("\n") == 0
    assert found.describe().startswith("note: ") == (not known)


def test_a_manifest_beside_the_records_tells(tmp_path):
    place = write_found(tmp_path, [to_jpeg(np.full((24, 24, 3), 9, np.uint8))] * 3)
    manifest = {"dataset": "siim_isic_2020", "image_size_px": 40, "fit": "crop", "quality": 95}
    (place / "manifest.json").write_text(json.dumps(manifest))
    found = given_fit(place, RecordsConfig(), SPEC)
    assert (found.fit, found.known, found.image_size_px) == ("crop", True, 40)
    with pytest.raises(PipelineError, match=r"records\.given_fit is 'stretch'.*manifest\.json"):
        given_fit(place, RecordsConfig(given_fit="stretch"), SPEC)


def test_of_photos_that_are_not_square_the_network_sees_the_middle(tmp_path):
    jpegs = [to_jpeg(np.full((40, side, 3), 9, np.uint8)) for side in (40, 60, 40)]
    place = write_found(tmp_path, jpegs)
    found = given_fit(place, RecordsConfig(image_size_px=32), SPEC)
    assert (found.fit, found.known, found.image_size_px) == ("crop", True, 32)
    with pytest.raises(PipelineError, match=r"given_fit is 'stretch'.* 60 x 40 pixels"):
        given_fit(place, RecordsConfig(given_fit="stretch"), SPEC)


def test_a_round_lesion_is_as_wide_as_it_was_learned(tmp_path):
    from kaggle_pipeline.models.image.input.pipeline import decode_photo

    photo = Image.new("RGB", (1500, 1000), (220, 180, 160))
    ImageDraw.Draw(photo).ellipse((550, 300, 950, 700), fill=(70, 40, 30))
    photo.save(tmp_path / "new.jpg", quality=95)
    place = write_found(tmp_path / "tfrecords", [stretched(photo, 1024)])
    recipe = given_fit(place, RecordsConfig(), SPEC).recipe(RecordsConfig())

    def extent(jpeg):
        dark = decode_photo(jpeg, 1024)[..., 0] < 145
        return np.count_nonzero(dark.any(axis=0)), np.count_nonzero(dark.any(axis=1))

    learned, seen = (
        extent(stretched(photo, 1024)),
        extent(convert_image(tmp_path / "new.jpg", recipe)),
    )
    np.testing.assert_allclose(learned, (273, 410), atol=2)
    np.testing.assert_allclose(seen, learned, atol=1)


# ---------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def oblong(competition, tmp_path_factory):
    """The drawn competition with photos of 3:2, what is at their sides unlike what is between."""
    root = tmp_path_factory.mktemp("oblong")
    data = Path(shutil.copytree(competition / "competition", root / "data"))
    rng = np.random.default_rng(0)
    for path in sorted(data.glob("jpeg/*/*.jpg")):
        photo = Image.open(path).convert("RGB").resize((144, 96))
        draw = ImageDraw.Draw(photo)
        for left in (0, 120):
            colour = tuple(int(one) for one in rng.integers(0, 256, 3))
            draw.rectangle((left, 0, left + 24, 96), fill=colour)
        photo.save(path, quality=97)
    return data


@pytest.fixture(scope="module")
def found(oblong, tmp_path_factory):
    """The same competition as its tables and stretched records alone."""
    data = tmp_path_factory.mktemp("found")
    examples = SPEC.read_raw(oblong).examples.set_index("image_id")
    for csv in oblong.glob("*.csv"):
        shutil.copy(csv, data)
    for split, rows in examples.groupby("split"):
        jpegs = [stretched(Image.open(oblong / path), SIDE) for path in rows["image_path"]]
        write_shard(data / "tfrecords" / f"{split}00-{len(rows)}.tfrec", rows, jpegs, SPEC)
    return data


CONVERTED = [pytest.param(fit, marks=pytest.mark.slow) for fit in ("crop", "stretch")]


@pytest.fixture(scope="module", params=["found", *CONVERTED])
def trained(request, oblong, found, tmp_path_factory):
    """(how its records were made, run folder): found stretched, or converted either way."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    data = found if request.param == "found" else oblong
    how = [] if request.param == "found" else ["--set", f"records.fit={request.param}"]
    places = ["--data-dir", str(data), "--run-dir", str(run_dir)]
    assert main(["train-image", *CONFIG, *how, *places]) == 0
    return request.param, run_dir


def predicted(run_dir, photos, out):
    words = ["--images", str(photos), "--out", str(out), "--overwrite"]
    assert main(["predict", "--run-dir", str(run_dir), *words]) == 0
    return pd.read_csv(out).set_index("image_id")["melanoma"].sort_index()


def test_a_photo_gets_the_probability_of_its_record(trained, oblong, tmp_path, capsys):
    how, run_dir = trained
    known = pd.read_csv(run_dir / "image" / "test.csv").set_index("image_id")["target"].sort_index()
    seen = predicted(run_dir, oblong / "jpeg" / "test", tmp_path / "out.csv")
    said = capsys.readouterr().out
    assert ("new photos are stretched to a square, as the TFRecords' were" in said) == (
        how == "found"
    )
    # What another program's JPEG differs by; our own records are the same bytes.
    tolerance = 0.05 * known.std() if how == "found" else 1e-6
    np.testing.assert_allclose(seen, known.loc[seen.index], rtol=0, atol=tolerance)
    # And it would be seen if they were made square in the other way.
    note = Path(shutil.copytree(run_dir, tmp_path / "turned")) / "image" / "records.json"
    (note.parent / "written.json").unlink()
    kept = note.read_text()
    other = {"crop": "stretch", "stretch": "crop"}[json.loads(kept)["fit"]]
    note.write_text(json.dumps({**json.loads(kept), "fit": other}))
    turned = predicted(note.parents[1], oblong / "jpeg" / "test", tmp_path / "out.csv")
    assert (turned - known).abs().median() > 10 * (seen - known).abs().median()
    assert (turned - known).abs().max() > 0.3 * known.std()


def test_the_page_sees_the_pixels_of_the_record(trained, oblong, found, tmp_path):
    pytest.importorskip("pydicom")
    from kaggle_pipeline.models.image.input.pipeline import decode_photo
    from kaggle_pipeline.records.tfrecords import list_shards, read_records
    from kaggle_pipeline.webapp.html_blocks import reading_block
    from kaggle_pipeline.webapp.html_figures import heat_picture
    from kaggle_pipeline.webapp.model_card import card_sections
    from kaggle_pipeline.webapp.service import Service
    from kaggle_pipeline.webapp.upload import open_upload

    how, run_dir = trained
    place = found / "tfrecords" if how == "found" else run_dir / "records"
    records = {
        record["image_name"]: record["image"]
        for shard in list_shards(place) if shard.path.name.startswith("test")
        for record in read_records(shard.path)
    }  # fmt: skip
    known = pd.read_csv(run_dir / "image" / "test.csv").set_index("image_id")["target"]
    service = Service(run_dir, "cpu")
    try:
        for path in sorted((oblong / "jpeg" / "test").glob("*.jpg"))[:5]:
            content = path.read_bytes()
            photo, look = open_upload(path.name, content, None), service.look(path.name, content)
            apart = service.models.square(photo).astype(int) - decode_photo(records[path.stem], 32)
            assert np.abs(apart).mean() < (2 if how == "found" else 1e-9)
            tolerance = 0.05 * known.std() if how == "found" else 1e-6
            assert abs(look.answer.scores.mean() - known[path.stem]) < tolerance
    finally:
        service.close()
    # A stretched photo is shown as it came, and the map lies over what it is about.
    shown = Image.open(io.BytesIO(look.shown))
    assert shown.size == ((96, 96) if how == "crop" else (144, 96))
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1  # top right
    over = np.asarray(Image.open(io.BytesIO(heat_picture(look.shown, heat)))).astype(int)
    changed = np.abs(over - np.asarray(shown)).max(axis=-1) > 40
    across, down = (np.flatnonzero(changed.any(axis=axis)) for axis in (0, 1))
    assert across.min() > 0.55 * shown.width and down.max() < 0.45 * shown.height
    words = reading_block(service, service.read([look], [{}])[0], "target", 0.9)
    assert ("the middle of the photo (96 × 96 of 144 × 96 pixels)" in words) == (how == "crop")
    assert ("stretched to a square" in words) == (how != "crop")
    card = card_sections(service)["Summary and limits"]
    assert "like the training photos" in card and "not known how the training" not in card


def test_a_run_of_before_the_note_is_read_by_its_config(trained, oblong, tmp_path, capsys):
    how, run_dir = trained
    old = Path(shutil.copytree(run_dir, tmp_path / "run"))
    (old / "image" / "records.json").unlink()
    config = load_experiment(old / "image" / "config.yaml")
    fit = "stretch" if how == "found" else how
    read = partial(read_fit, old / "image", config, SPEC)
    assert (read().fit, read().known) == (fit, True)
    found = predicted(old, oblong / "jpeg" / "test", tmp_path / "out.csv")
    assert ("the competition's own are so" in capsys.readouterr().out) == (how == "found")
    known = predicted(run_dir, oblong / "jpeg" / "test", tmp_path / "out.csv")
    np.testing.assert_allclose(found, known, atol=1e-7)
    shutil.rmtree(old / "records", ignore_errors=True)  # as a kernel leaves it
    assert (read().fit, read().known) == (fit, True)
    shutil.rmtree(old / "prepare")
    assert not read().known
    assert read().describe().startswith("note: ")


def test_a_run_remembers_and_does_not_mix(trained, oblong, found, tmp_path, capsys):
    how, run_dir = trained
    note = json.loads((run_dir / "image" / "records.json").read_text())
    made = "given" if how == "found" else "converted"
    assert (note["source"], note["image_size_px"], note["known"]) == (made, SIDE, True)
    if how != "found":
        return
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    places = ["--data-dir", str(found), "--run-dir", str(copy), "--resume"]
    said = ["--set", "records.given_fit=crop"]
    assert main(["train-image", *CONFIG, *said, *places]) == 2
    error = capsys.readouterr().err
    assert "is of photos stretched to a square" in error and "--overwrite" in error
    (copy / "image" / "records.json").write_text('{"fit": "diagonal"}')
    (copy / "image" / "written.json").unlink()
    photos = ["--images", str(oblong / "jpeg" / "test"), "--out", str(tmp_path / "out.csv")]
    assert main(["predict", "--run-dir", str(copy), *photos]) == 2
    assert "records.json is damaged" in capsys.readouterr().err
