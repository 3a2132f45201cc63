"""Tests of the service behind the page: its numbers, its doubts, and what it says of them."""

import errno
import importlib.util
import io
import shutil
import socket
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("pydicom")

from helpers_hostile import dicom, encode
from helpers_webapp import make_run
from PIL import Image

from benchmarks.page import require_reading
from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.commit import begin, renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.record import read_record
from kaggle_pipeline.data.examples import read_examples
from kaggle_pipeline.datasets.synthetic import SPEC as SYNTHETIC
from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel
from kaggle_pipeline.report import html
from kaggle_pipeline.report.results import describe_guessing
from kaggle_pipeline.stages.predict import predict_images
from kaggle_pipeline.webapp.html_blocks import (
    NO_NUMBER,
    disclaimer,
    reading_block,
    report_name,
    report_page,
)
from kaggle_pipeline.webapp.labels import percent
from kaggle_pipeline.webapp.model_card import card_sections
from kaggle_pipeline.webapp.models import RunModels
from kaggle_pipeline.webapp.ood import UNLIKE, OodReference, doubts, sharpness
from kaggle_pipeline.webapp.ood_reference import find_reference
from kaggle_pipeline.webapp.patient_blocks import patient_block
from kaggle_pipeline.webapp.patient_table import patient_csv
from kaggle_pipeline.webapp.service import Service, _usual_side_px, compare
from kaggle_pipeline.webapp.training_distribution import TrainingDistribution

NOW = datetime(2026, 3, 5, 14, 30)
KNOWN = {"sex": "male", "age_years": 55, "site": "torso"}


@pytest.fixture(scope="module")
def service(run_dir):
    one = Service(run_dir, "cpu")
    yield one
    one.close()


@pytest.fixture(scope="module")
def photos(competition):
    """Name → bytes of six test photos."""
    paths = sorted((competition / "competition" / "jpeg" / "test").glob("*.jpg"))[:6]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def looks(service, photos):
    return [service.look(name, content) for name, content in photos.items()]


def test_probabilities_are_those_of_the_predict_script(service, run_dir, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    first, second, third = list(photos.values())[:3]
    pixels = np.asarray(Image.open(io.BytesIO(third)).convert("RGB").resize((90, 60)))
    files = {
        "a.jpg": first,
        "b.png": encode(Image.open(io.BytesIO(second)).resize((50, 70)), "PNG"),
        "c.dcm": dicom(pixels),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    predict_images(run_dir, folder, tmp_path / "out.csv", device="cpu", say=lambda line: None)
    known = pd.read_csv(tmp_path / "out.csv").set_index("image_id")["melanoma"]
    found = {
        name[0]: service.look(name, content).answer.scores.mean() for name, content in files.items()
    }
    assert set(found) == set(known.index) and known.std() > 1e-4
    for name, value in found.items():
        assert abs(value - known[name]) < 1e-6


def test_a_reading_blends_calibrates_and_tells_the_folds_apart(service, looks):
    reading = service.read(looks[:1], [KNOWN])[0]
    images = looks[0].answer.scores[:, 0]
    rows = pd.DataFrame([{**KNOWN, "age_years": 55.0}])
    metadata = service.models.ask([looks[0].answer], rows)["logistic"][:, 0, 0]
    assert reading.parts["image"]["target"] == pytest.approx(images.mean())
    assert reading.parts["logistic"]["target"] == pytest.approx(metadata.mean())

    def blended(image, other):
        odds = np.log(image / (1 - image)) / 2 + np.log(other / (1 - other)) / 2
        return 1 / (1 + np.exp(-odds))

    def calibrated(value):
        return service.calibration.apply(pd.DataFrame({"target": [value]}))["target"][0]

    expected = calibrated(blended(images.mean(), metadata.mean()))
    assert reading.probability["target"] == pytest.approx(expected, abs=1e-9)
    single = [calibrated(blended(*pair)) for pair in zip(images, metadata, strict=True)]
    assert (reading.low["target"], reading.high["target"]) == pytest.approx(
        (min(single), max(single))
    )
    assert reading.unknown == ()
    final = reading.probability.to_frame().T
    assert reading.decision == service.decision.decide(final).iloc[0]
    words = reading_block(service, reading, "target", 0.9)
    assert f"Decision: {'not ' if reading.decision == 'none' else ''}melanoma" in words
    require_reading("a.jpg", ["<p>else</p>", f"<h2>a.jpg</h2>{words}"])
    for pieces in ([f"<h2>b.jpg</h2>{words}"], ["<h2>a.jpg</h2>"], []):
        with pytest.raises(RuntimeError, match=r"no reading of a\.jpg: nothing is said"):
            require_reading("a.jpg", pieces)
    with pytest.raises(RuntimeError, match=r"a\.jpg is no photo"):
        require_reading("a.jpg", ['<div role="alert"><p>a.jpg is no photo</p></div>'])


def test_metadata_counts_and_what_is_missing_is_told(service, looks):
    old = service.read(looks[:1], [{**KNOWN, "age_years": 90}])[0]
    young = service.read(looks[:1], [{**KNOWN, "age_years": 20}])[0]
    assert old.probability["target"] != young.probability["target"]
    assert old.parts["image"]["target"] == young.parts["image"]["target"]
    nothing = service.read(looks[:1], [{}])[0]
    assert set(nothing.unknown) == {"age_years", "sex", "site"}
    words = reading_block(service, nothing, "target", 0.9)
    assert "Not given: age in years, sex, site" in words


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"sex": "no"}, "sex is 'no', expected one of female, male"),
        ({"age_years": 200}, "age_years is 200"),
        ({"age_years": "old"}, "age_years is 'old'"),
        ({"income": 3}, "no feature 'income'"),
    ],
)
def test_impossible_metadata_is_refused(service, looks, metadata, words):
    with pytest.raises(PipelineError, match=words):
        service.read(looks[:1], [metadata])


def test_visitors_at_once_get_their_own_answers(service, photos, looks):
    found = {}

    def visit(name):
        found[name] = service.look(name, photos[name])

    threads = [threading.Thread(target=visit, args=(name,)) for name in photos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone in looks:
        both = found[alone.name].answer, alone.answer
        np.testing.assert_allclose(both[0].scores, both[1].scores, atol=1e-7)


def test_the_odd_lesion_stands_out_from_its_patients_others(service, photos):
    rng = np.random.default_rng(0)
    base = Image.open(io.BytesIO(next(iter(photos.values())))).convert("RGB")
    alike = []
    for number in range(7):
        noisy = np.asarray(base).astype(int) + rng.integers(-6, 7, (*base.size[::-1], 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        alike.append(service.look(f"{number}.png", encode(image, "PNG")))
    odd = Image.fromarray(255 - np.asarray(base))
    looks = [*alike, service.look("odd.png", encode(odd, "PNG"))]
    table = compare(service, service.read(looks, [KNOWN] * 8), "target")
    assert sorted(table["place"]) == list(table["place"])
    unlike = table.set_index("file")["outlier_factor"]
    assert unlike.idxmax() == "odd.png" and unlike["odd.png"] > 1.5
    assert (table["probability"] - table["probability"].median()).to_numpy() == pytest.approx(
        table["above_median"].to_numpy()
    )


def test_one_photo_alone_is_compared_with_nothing(service, looks):
    table = compare(service, service.read(looks[:1], [KNOWN]), "target")
    assert table[["above_median", "z", "outlier_factor"]].to_numpy().tolist() == [[0, 0, 1]]


def test_two_lesions_that_are_nearly_alike_do_not_stand_out(service, looks):
    """The spread of two scores alone would give them the same z, however near they are."""
    readings = service.read(looks[:2], [KNOWN] * 2)
    spread = service.distribution.spread("target")
    assert spread == pytest.approx(service.distribution._sorted["target"].std()) and spread > 0
    for gap, z in ((1e-4 * spread, 5e-4), (10 * spread, 5 / 5.1)):
        pair = [replace(one, probability=pd.Series({"target": 0.2 + gap * number}))
                for number, one in enumerate(readings)]  # fmt: skip
        found = compare(service, pair, "target")["z"].sort_index()
        np.testing.assert_allclose(found, [-z, z], rtol=0.01)


def test_every_piece_says_what_it_is_not_and_escapes_names(service, looks):
    name = "<img src=x onerror=alert(1)>&.jpg"
    looks = [replace(looks[0], name=name), *looks[1:]]
    readings = service.read(looks, [KNOWN] * len(looks))
    table = compare(service, readings, "target")
    pieces = [
        reading_block(service, readings[0], "target", 0.9),
        patient_block(service, readings, table, "target", 0.9),
    ]
    for piece in pieces:
        assert "no diagnosis" in piece and "dermatologist" in piece
        page = report_page(service, "Report", NOW, piece)
        assert "<img src=x" not in page and "<script" not in page
        assert "http:" not in page and "https:" not in page
    assert "&lt;img src=x" in pieces[1]
    assert pieces[1].count("<section") == len(looks)
    assert pieces[1].count('class="thumb"') == len(looks)
    table_alone = pieces[1].split('class="gallery"')[0]
    assert len(table_alone) < 9000 * len(looks)  # no whole photo a row


def test_a_photo_unlike_the_training_photos_has_a_doubt_in_the_place_of_its_number(service, looks):
    usual, *others = service.read(looks, [KNOWN] * len(looks))
    usual = replace(usual, look=replace(usual.look, unlikeness=0.5, doubts=()))
    odd = replace(usual, look=replace(usual.look, unlikeness=UNLIKE, doubts=("It is noise.",)))
    number = percent(usual.probability["target"])
    plain = reading_block(service, usual, "target", 0.9)
    assert f'class="big">{number}<' in plain and NO_NUMBER not in plain
    words = reading_block(service, odd, "target", 0.9)
    assert f'class="big">{NO_NUMBER}<' in words
    seen, _, folded = words.partition("<details>")
    assert seen.index("It is noise.") < words.index("<details>")
    assert number not in seen and "flagged" not in seen  # nothing that follows from the number
    assert number in folded.partition("</details>")[0]
    pair = [odd, *others]
    table = patient_block(service, pair, compare(service, pair, "target"), "target", 0.9)
    assert table.count(NO_NUMBER) == 1 and "unlike the training photos" in table


def test_other_doubts_stand_before_the_number(service, looks):
    reading = service.read(looks[:1], [KNOWN])[0]
    look = replace(looks[0], doubts=("The photo is small.",), unlikeness=0.1)
    words = reading_block(service, replace(reading, look=look), "target", 0.9)
    assert words.index("The photo is small.") < words.index('class="big"')
    assert NO_NUMBER not in words


def test_cards_and_table_say_what_is_above_the_threshold(service, looks):
    looks = [replace(one, doubts=(), unlikeness=0.1) for one in looks]
    readings = service.read(looks, [KNOWN] * len(looks))
    limit = service.distribution.threshold("target", 0.9).value
    values = [limit + 0.01, *([limit / 2] * (len(looks) - 1))]
    readings = [replace(one, probability=pd.Series({"target": value}))
                for one, value in zip(readings, values, strict=True)]  # fmt: skip
    piece = patient_block(service, readings, compare(service, readings, "target"), "target", 0.9)
    table, cards = piece.split('class="gallery"')
    assert table.count("above the threshold") == 1
    assert cards.count("above the threshold") == 1
    assert cards.index("above the threshold") < cards.index("</section>")  # on the first card


def test_a_printed_report_names_its_day_its_run_and_its_models(service):
    page = report_page(service, "Reading of a.jpg", NOW, html.Html("<p>piece</p>"))
    for one in ("5 March 2026 at 14:30", "demo", "Image model", "LeNet, 32 × 32 pixels", "2 folds"):
        assert one in page, one
    name = report_name(service, "reading_my mole/7 (1)", NOW)
    assert name == "reading_my-mole-7-1-_demo_2026-03-05.html"


def test_a_page_of_drawings_says_so(service, looks):
    reading = service.read(looks[:1], [KNOWN])[0]
    assert "learned from made-up lesions" in reading_block(service, reading, "target", 0.9)
    real = replace(service.spec, made_up=False)
    assert "learned from made-up lesions" not in disclaimer(real)


def test_the_threshold_is_said_in_numbers_that_can_be_checked(service, looks):
    """Threshold, sensitivity, specificity and its complement are those of the run."""
    reading = service.read(looks[:1], [KNOWN])[0]
    found = service.distribution.threshold("target", 0.9)
    spared, low, high = found.specificity
    words = reading_block(service, reading, "target", 0.9)
    flagged = reading.probability["target"] >= found.value
    assert ("not flagged" in words) == (not flagged)
    for one in (f"threshold of {percent(found.value)}",
                "of 100 melanoma photos about 90 are flagged (sensitivity 90 %)",
                f"Of 100 other photos about {100 * (1 - spared):.0f} are flagged too, wrongly",
                f"specificity {percent(spared)}; false alarms {percent(1 - spared)}"):  # fmt: skip
        assert one in words, one
    if found.nested:
        assert f"{percent(1 - high)} to {percent(1 - low)}; measured on photos that" in words
    lower = round(100 * reading.rank["target"])
    if 0 < lower < 100:
        assert f"about {lower} get a lower probability and {100 - lower} a higher" in words


@pytest.mark.parametrize(
    ("rank", "words"),
    [(0.0, "all training photos get a higher"), (1.0, "all training photos get a lower"),
     (0.006, "about 1 get a lower probability and 99"), (0.5, "about 50 get a lower")],
)  # fmt: skip
def test_the_place_among_training_photos_is_counted_in_a_hundred(service, looks, rank, words):
    reading = replace(service.read(looks[:1], [KNOWN])[0], rank=pd.Series({"target": rank}))
    assert words in reading_block(service, reading, "target", 0.9)


def test_the_table_to_keep_runs_no_formula(service, looks):
    looks = [replace(looks[0], name='=HYPERLINK("http://198.51.100.7")'), looks[1]]
    readings = service.read(looks, [KNOWN] * 2)
    table = compare(service, readings, "target")
    rows = pd.read_csv(io.StringIO(patient_csv(readings, table, "target")))
    assert len(rows) == 2 and not rows["file"].str.startswith("=").any()
    assert rows["note"].str.contains("no diagnosis").all()
    for row in rows.itertuples():
        one = next(r for r in readings if r.look.name == row.file.lstrip("'"))
        assert row.probability_target == pytest.approx(one.probability["target"])


def test_the_card_tells_data_scores_and_limits(service):
    sections = card_sections(service)
    words = "".join(sections.values())
    assert next(iter(sections)) == "Summary and limits"
    for one in (
        "learned from made-up lesions",
        "AUC",
        "duplicate",
        "ROC curve",
        "keras",
        "skin colour",
    ):
        assert one in words, one
    assert {"Data", "Leak audit", "Image model", "Settings and versions"} <= set(sections)


@pytest.mark.parametrize("dataset", ["ham10000", pytest.param("isic_2017", marks=pytest.mark.slow)])
def test_other_tasks_are_read_too(dataset, photos, tmp_path):
    run_dir = make_run(dataset, tmp_path, records=False)
    service = Service(run_dir, "cpu")
    look = service.look(*next(iter(photos.items())))
    reading = service.read([look], [{}])[0]
    total = reading.probability.sum()
    assert list(reading.probability.index) == list(service.classes)
    assert total == pytest.approx(1) if dataset == "ham10000" else 0 < total < 2
    words = reading_block(service, reading, service.classes[-1], 0.9)
    assert words.count('<th scope="row">') == len(service.classes) + 1  # all classes, one model
    assert "was not checked" in words  # no TFRecords, no training images to compare with
    assert "not calibrated" in words
    assert "learned from made-up lesions" in words  # as the folder that it learned from says
    assert card_sections(service)


def test_several_networks_a_fold_are_read_as_their_mean(photos, tmp_path):
    run_dir = make_run("isic_2017", tmp_path, records=False, more=("image.seeds=2",))
    name, content = next(iter(photos.items()))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(content)
    out = tmp_path / "out.csv"
    predict_images(run_dir, tmp_path / "photos", out, device="cpu", say=lambda line: None)
    models = RunModels(run_dir, "cpu")
    photo = Service(run_dir, "cpu").look(name, content)
    known = pd.read_csv(out)[list(models.spec.classes)].to_numpy()
    np.testing.assert_allclose(photo.answer.scores.mean(axis=0), known[0], atol=1e-6)
    assert photo.answer.heat.shape[0] == 2 and photo.answer.heat.max() == pytest.approx(1)
    square = models.reader.decode(content)
    np.testing.assert_allclose(
        models.reader.embed(0, square[None])[0],
        models.look(square, content).embeddings[0],
        atol=1e-5,
    )
    single = [network.embed(square[None]).shape[1] for network in models.reader.of_fold[0][0]]
    assert len(single) == 2 and len(photo.answer.embeddings[0]) == sum(single)


def with_logistic(run_dir, root, features, weights):
    """A copy of the run whose metadata model reads ``features`` and whose blend has ``weights``."""
    found = root / "run"
    shutil.copytree(run_dir, found)
    spec, config = SYNTHETIC, load_experiment(found / "logistic" / "config.yaml").tabular
    examples = read_examples(found / "prepare" / "examples.csv", spec)
    examples = examples[examples["split"] == "train"].assign(patient_age=1.0, width_px=3.0)
    for place in (found / "logistic").glob("fold*"):
        LearnerModel("logistic", config, spec, features, seed=0).fit(examples, None).save(place)
    write_json(found / "blend" / "blend.json", {"space": "logit", "weights": weights, "knots": {}})
    return found


def test_only_what_a_weighted_model_reads_is_asked_for(run_dir, tmp_path):
    half = {"image": 0.5, "logistic": 0.5}
    models = RunModels(with_logistic(run_dir, tmp_path / "a", ["sex"], half), "cpu")
    assert models.features == ("sex",) and not models.with_context
    alone = {"image": 1.0, "logistic": 0.0}
    models = RunModels(with_logistic(run_dir, tmp_path / "b", ["sex"], alone), "cpu")
    assert models.features == () and models.blend.weights == {"image": 1.0}
    with pytest.raises(PipelineError, match="reads 'width_px', which is no feature of synthetic"):
        RunModels(with_logistic(run_dir, tmp_path / "c", ["sex", "width_px"], half), "cpu")
    shutil.rmtree(tmp_path / "a" / "run" / "logistic" / "fold1")
    with pytest.raises(PipelineError, match="folds"):
        RunModels(tmp_path / "a" / "run", "cpu")


def test_a_run_of_before_whose_one_fold_was_judged_with_other_weights_says_so(run_dir, tmp_path):
    run = with_logistic(run_dir, tmp_path, ["sex"], {"image": 0.3, "logistic": 0.7})
    assert RunModels(run, "cpu").judged_as_used  # two folds: nested
    folds = pd.read_csv(run / "prepare" / "folds.csv")
    folds.assign(fold=folds["fold"] - 1).to_csv(run / "prepare" / "folds.csv", index=False)
    (run / "prepare" / "written.json").unlink()
    for stage in ("image", "logistic"):
        shutil.rmtree(run / stage / "fold1")
    service = Service(run, "cpu")
    assert service.models.judged_as_used is False
    assert (
        "equal weights, not to the blend used here" in card_sections(service)["Summary and limits"]
    )


def test_where_the_image_model_has_no_weight_it_is_said(run_dir, looks, tmp_path):
    weights = {"image": 0.0, "logistic": 1.0}
    service = Service(with_logistic(run_dir, tmp_path, ["sex"], weights), "cpu")
    reading = service.read(looks[:1], [{}])[0]
    assert list(reading.parts) == ["logistic"] and reading.unknown == ("sex",)
    assert "image model has no weight" in reading_block(service, reading, "target", 0.9)


def test_the_same_photo_twice_counts_once_and_work_is_kept(service, photos, monkeypatch):
    pytest.importorskip("streamlit")
    from kaggle_pipeline.webapp import app

    bar = SimpleNamespace(progress=lambda *_: None, empty=lambda: None)
    shown = SimpleNamespace(session_state={}, progress=lambda *_: bar)
    monkeypatch.setattr(app, "st", shown)
    first, second = list(photos.values())[:2]
    files = [
        SimpleNamespace(name=name, getvalue=lambda content=content: content)
        for name, content in (("a.jpg", first), ("b.jpg", second), ("c.jpg", first))
    ]
    looks, refused = app._look_at(service, files)
    assert [one.name for one in looks] == ["a.jpg", "b.jpg"]
    assert refused == ["c.jpg is the same file as a.jpg: it counts once"]
    monkeypatch.setattr(files[1], "getvalue", lambda: 1 / 0)  # stopped in the middle
    shown.session_state.clear()
    with pytest.raises(ZeroDivisionError):
        app._look_at(service, files)
    assert list(shown.session_state["looks"]) == [looks[0].digest]


# ---------------------------------------------------------------------------- parts


def test_ranks_and_thresholds_are_those_of_the_population():
    scores = pd.DataFrame({"mel": np.arange(10) / 10})
    truth = pd.DataFrame({"mel": [0, 0, 0, 0, 0, 1, 0, 1, 1, 1]})
    known = TrainingDistribution(scores, truth)
    assert known.rank("mel", 0.45) == 0.5 and known.rank("mel", 0.5) == 0.55
    half = known.threshold("mel", 0.5)
    assert half.value == 0.8 and half.specificity[0] == 1.0
    every = known.threshold("mel", 0.99)
    assert every.value == 0.5 and every.specificity[0] == pytest.approx(5 / 6)
    assert TrainingDistribution(scores, 0 * truth).threshold("mel", 0.9) is None
    with pytest.raises(PipelineError, match="without truth"):
        TrainingDistribution(scores, truth.iloc[:5])


def test_a_calibrations_thresholds_come_first():
    told = {"mel": [{"sensitivity": 0.7, "threshold": 0.123, "nested": {"specificity": {
        "value": 0.6, "low": 0.5, "high": 0.7}}}]}  # fmt: skip
    scores = pd.DataFrame({"mel": [0.1, 0.9]})
    known = TrainingDistribution(scores, pd.DataFrame({"mel": [0, 1]}), told)
    found = known.threshold("mel", 0.7)
    assert (found.value, found.specificity, found.nested) == (0.123, (0.6, 0.5, 0.7), True)
    assert known.sensitivities("mel") == (0.7,)


def textured(seed, blur=1):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (64 // blur, 64 // blur, 3), np.uint8))
    return np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC))


def test_doubts_name_what_is_wrong_and_leave_a_good_photo_alone():
    rng = np.random.default_rng(1)
    clouds = [{0: rng.normal(3, 1, (200, 6)), 1: rng.normal(9, 3, (200, 6))} for _ in range(2)]
    sharp = np.sort([sharpness(textured(seed, blur=2)) for seed in range(200)])
    reference = OodReference(*clouds, sharp)
    inside, outside = reference.unlikeness({0: np.full(6, 3.0), 1: np.full(6, 9.0)}), None
    outside = reference.unlikeness({0: np.full(6, 30.0), 1: np.full(6, 90.0)})
    assert inside < 0.9 and outside == 1.0
    # As long as the others, in a direction that none of them has.
    turned = np.array([3, 3, 3, -3, -3, -3.0])
    assert reference.unlikeness({0: turned, 1: 3 * turned}) == 1.0
    fine = textured(500, blur=2)
    assert doubts((640, 480), 64, fine, inside, reference) == []
    assert "small" in doubts((640, 40), 64, fine, inside, reference)[0]
    assert "blurred" in doubts((640, 480), 64, textured(1, blur=16), inside, reference)[0]
    assert "blurred" in doubts((640, 480), 64, np.full((64, 64, 3), 90, np.uint8), 0, reference)[0]
    assert "unlike the training" in doubts((640, 480), 64, fine, outside, reference)[0]


@pytest.mark.parametrize(("records_px", "detail_px"), [(24, 24), (48, 32)])
def test_a_photo_as_large_as_the_records_is_not_small(run_dir, records_px, detail_px):
    """A network may see its training photos enlarged: then theirs is the detail it knows."""
    models = RunModels.__new__(RunModels)
    models.reader = SimpleNamespace(side_px=32)
    change = f"records.image_size_px={records_px}"
    models.config = load_experiment(run_dir / "image" / "config.yaml", [change])
    assert models.detail_px == detail_px


def test_few_of_those_that_are_like_them_are_called_unlike():
    rng = np.random.default_rng(2)
    # Channels of a network are many and mostly silent: an outlier must not judge itself.
    draw = lambda count: rng.gamma(0.1, size=(count, 400))  # noqa: E731
    reference = OodReference({0: draw(150)}, {0: draw(150)}, np.arange(300.0))
    found = np.mean([reference.unlikeness({0: point}) >= UNLIKE for point in draw(400)])
    assert 0.01 < found < 0.12


def test_of_few_training_images_nothing_is_called_unlike():
    rng = np.random.default_rng(3)
    known, few, odd = rng.normal(size=(60, 4)), rng.normal(size=(39, 4)), {0: np.full(4, 50.0)}
    for labelled in (few, few[:0], np.vstack([few, np.full((5, 4), np.nan)])):
        reference = OodReference({0: known}, {0: labelled}, np.arange(99.0))
        assert not reference.can_tell and reference.unlikeness(odd) is None
        assert (
            reference.few.startswith(f"only {len(labelled)} training photos")
            and "40" in reference.few
        )
    unknown = OodReference({0: known}, {0: few}, np.zeros(0))  # no photo was here to look at
    assert unknown.size == 99 and unknown.blur(0.0) == 1.0
    enough = OodReference({0: known}, {0: np.vstack([few, few[:1]])}, np.arange(99.0))
    assert enough.unlikeness(odd) == enough.unlikeness({0: np.full(4, np.nan)}) == 1.0


def test_a_reference_of_other_folds_is_made_anew(run_dir, service, tmp_path):
    found = tmp_path / "run"
    shutil.copytree(run_dir, found)
    kept = service.reference
    path = found / "webapp" / "reference.npz"
    OodReference({0: kept.known[0]}, {0: kept.held_out[0]}, kept.sharpness).write(path)
    renew(path.parent, path.name)
    assert set(find_reference(found, service.models).known) == {0, 1}
    assert set(OodReference.read(path).known) == {0, 1}


def test_a_run_that_may_only_be_read_is_served_too(run_dir, service, tmp_path, monkeypatch):
    found, lines = tmp_path / "run", []
    shutil.copytree(run_dir, found)
    (found / "webapp" / "reference.npz").unlink()

    def refuse(path, target):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    assert set(find_reference(found, service.models, lines.append).known) == {0, 1}
    assert any("cannot be kept" in line and "webapp" in line for line in lines)


def test_pieces_say_what_context_counts_and_which_class_is_not_calibrated(
    service, looks, monkeypatch
):
    readings = service.read(looks[:3], [KNOWN] * 3)
    assert "not calibrated" not in reading_block(service, readings[0], "target", 0.9)
    monkeypatch.setattr(service, "calibration", replace(service.calibration, maps={},
                        lacking={"target": "too few"}))  # fmt: skip
    monkeypatch.setattr(RunModels, "with_context", ("logistic", "forest"))
    monkeypatch.setattr(service.models, "missing", [4])
    words = reading_block(service, readings[0], "target", 0.9)
    assert "not calibrated for this class" in words and "photos: 3." in words
    assert "Folds [4] are not trained" in words
    piece = patient_block(service, readings, compare(service, readings, "target"), "target", 0.9)
    assert "photos: 3." in piece


def test_a_reading_says_what_was_given_and_which_part_of_the_photo_is_read(
    service, looks, monkeypatch
):
    (reading,) = service.read(looks[:1], [{"age_years": 70, "sex": "female"}])
    shown = reading_block(service, reading, "target", 0.9)
    assert "Given: age in years: 70, sex: female." in shown and "Not given: site." in shown
    assert "reads the middle alone" not in shown
    image = replace(service.models.config.image, pool_share=0.5)
    monkeypatch.setattr(service.models, "config", replace(service.models.config, image=image))
    shown = reading_block(service, reading, "target", 0.9)
    assert "The model reads the middle alone, 50" in shown and "of each side" in shown


def test_photos_as_small_as_the_training_photos_have_their_detail(run_dir, service):
    examples = pd.DataFrame(
        {"split": ["train"] * 3 + ["test"], "width_px": [200, 200, 90, 9], "height_px": 150}
    )
    assert _usual_side_px(examples) == 150
    assert _usual_side_px(examples[["split"]]) > 10_000
    assert service.detail_px <= service.models.detail_px


def test_a_reference_is_kept_and_read_again(run_dir, service, tmp_path):
    path = run_dir / "webapp" / "reference.npz"
    again = OodReference.read(path)
    assert again.size == service.reference.size > 20
    assert set(again.known) == set(again.held_out) == {0, 1}
    content = path.read_bytes()
    for broken in (b"", b"nothing", content[: len(content) // 2], content[:-4000] + bytes(4000)):
        (tmp_path / "broken.npz").write_bytes(broken)
        with pytest.raises(PipelineError, match="delete it"):
            OodReference.read(tmp_path / "broken.npz")


def test_a_reference_that_is_not_what_was_written_is_named(run_dir, service, tmp_path):
    found = tmp_path / "run"
    shutil.copytree(run_dir, found)
    path = found / "webapp" / "reference.npz"
    content = bytearray(path.read_bytes())
    content[8] ^= 1  # a bit of the packing's own flags, which no checksum covers
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"reference\.npz has other content.* delete "):
        find_reference(found, service.models)
    path.unlink()
    begin(path.parent, "")  # the process that made it was killed before it had written that down
    kept = service.reference
    OodReference({0: kept.known[0]}, {0: kept.held_out[0]}, kept.sharpness).write(path)
    assert find_reference(found, service.models).size == kept.size
    assert read_record(path.parent).done


# ---------------------------------------------------------------------------- the command


def error_of(arguments, capsys):
    assert main(arguments) == 2
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_mistakes_of_who_serves_are_told_in_a_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("streamlit")
    monkeypatch.chdir(tmp_path)
    assert "make demo" in error_of(["serve"], capsys)
    assert "no such folder" in error_of(["serve", "--run-dir", "nowhere"], capsys)
    (tmp_path / "empty").mkdir()
    assert "empty holds no run" in error_of(["serve", "--run-dir", "empty"], capsys)


def test_without_streamlit_the_extra_is_named(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "streamlit" else found(name)
    )
    assert "pip install '.[app]'" in error_of(["serve"], capsys)


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(run_dir, monkeypatch):
    from kaggle_pipeline.webapp import serve

    monkeypatch.setattr(serve, "keep_uploads_in_memory", lambda size: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = []
        with pytest.raises(PipelineError, match=f"127.0.0.1:{port}: .* in use; say another --port"):
            serve.serve(run_dir, host="127.0.0.1", port=port, say=said.append)
        assert not said
    serve.require_free_port("127.0.0.1", port)


def test_a_run_that_may_be_guessing_says_so_above_its_number(service, looks, monkeypatch):
    reading = service.read(looks[:1], [{}])[0]
    monkeypatch.setattr(service.models, "guessing", "")
    assert "than guessing" not in reading_block(service, reading, service.classes[0], 0.9)
    found = describe_guessing({"oof_auc_low": 0.2, "oof_auc_high": 0.4})
    monkeypatch.setattr(service.models, "guessing", found)
    words = reading_block(service, reading, service.classes[0], 0.9)
    place = words.index("the AUC lies below 0.5, so this is worse than guessing")
    assert place < words.index('class="big"')


def test_uploads_stay_in_memory_and_nothing_is_told_to_anybody(tmp_path, monkeypatch):
    from kaggle_pipeline.webapp import serve
    from kaggle_pipeline.webapp.upload import MAX_FILE_MIB

    settings = serve.server_settings("127.0.0.1", 1)
    assert settings["browser_gatherUsageStats"] is False
    assert settings["server_maxUploadSize"] == MAX_FILE_MIB
    in_memory = []
    monkeypatch.setattr(serve, "keep_uploads_in_memory", in_memory.append)
    with pytest.raises(PipelineError):  # which is done before a run is looked at
        serve.serve(tmp_path / "none", host="127.0.0.1", port=1)
    assert in_memory[0] > MAX_FILE_MIB * 2**20
