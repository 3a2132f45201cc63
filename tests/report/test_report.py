"""Tests of the report: what is on disk is on the page, escaped; nothing else is, no patient is."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers_evaluation import PNG, SPECS, make_examples, make_probabilities
from PIL import Image

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.experiment import CalibrationConfig, DecisionConfig, Experiment
from kaggle_pipeline.config.run_folders import final_stage
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.examples import write_examples
from kaggle_pipeline.data.explore import explore
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.rules import SoftmaxRule, cost_matrix
from kaggle_pipeline.evaluation.evaluate import evaluate
from kaggle_pipeline.evaluation.gallery import SHOWN, write_gallery
from kaggle_pipeline.evaluation.plots import describe_score, write_evaluation
from kaggle_pipeline.leakage.overlap_figure import plot_overlap
from kaggle_pipeline.models import learning_curves
from kaggle_pipeline.report import html as html_module
from kaggle_pipeline.report.decision import describe_rule
from kaggle_pipeline.report.report import write_report
from kaggle_pipeline.report.results import STAGE_TITLES
from kaggle_pipeline.stages import calibrate

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page, and whether its tags are closed in order."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.words, self._open = [], [], [], []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


_DRAWN = {}


def place_evaluation(folder, evaluation, prefix=""):
    """``write_evaluation``, which draws the same but once: its pictures have tests of their own."""
    key = json.dumps(evaluation)
    if key not in _DRAWN:
        with TemporaryDirectory() as place:
            paths = write_evaluation(Path(place), evaluation)
            _DRAWN[key] = {path.name: path.read_bytes() for path in paths}
    for name, content in _DRAWN[key].items():
        (folder / f"{prefix}{name}").write_bytes(content)


def write_stage(folder, spec, examples, evaluation=None, **metrics):
    """What a model's stage leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"oof_auc": 0.7123, "oof_auc_low": 0.6, "oof_auc_high": 0.8, "n": 555,
               "n_positive": 5, "seconds": 12.3, "epoch_chosen_on_judged_rows": False,
               **metrics}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"name": "my run", "dataset": spec.id, "seed": 77, folder.name: {"lr": 0.5}})
    )
    (folder / "versions.json").write_text(json.dumps({"python": "3.11.7", "numpy": "9.9.9"}))
    Image.effect_noise((20, 10), 50).save(folder / "learning_curves.png")
    if evaluation:
        place_evaluation(folder, evaluation)


def write_prepared(run, spec, examples, findings=()):
    """What the prepare stage leaves."""
    prepared = run / "prepare"
    prepared.mkdir(parents=True)
    write_examples(examples, prepared / "examples.csv")
    folds = examples.loc[examples["split"] == "train", ["group_id"]].assign(fold=0)
    folds.to_csv(prepared / "folds.csv", index_label="image_id")
    report = {
        "findings": [
            {"check": "patient in train and test", "status": "ok", "detail": "none shared",
             "rows": []},
            *findings,
        ],
        "shared_groups": {"fold 0": {"fold 0": 3}},
        "single_features": [{"feature": "width × height", "oof_auc": 0.79, "acquisition": True}],
    }  # fmt: skip
    (prepared / "leakage.json").write_text(json.dumps(report))
    plot_overlap(report["shared_groups"], "patient", prepared / "overlap.png")


@pytest.fixture(scope="module")
def evaluations():
    """By task: spec, examples, evaluation."""
    made = {}
    for task, spec in SPECS.items():
        examples = make_examples(spec)
        chances = make_probabilities(examples, spec)
        made[task] = spec, examples, evaluate(examples, chances, spec, seed=0, n_replicates=20)
    return made


@pytest.fixture(params=list(SPECS), scope="module")
def whole(request, evaluations, tmp_path_factory):
    """A run's folder with every stage, and spec and evaluation."""
    tmp_path = tmp_path_factory.mktemp("run")
    spec, examples, evaluation = evaluations[request.param]
    write_prepared(tmp_path, spec, examples)
    explore(examples, spec, tmp_path, tmp_path / "explore")
    for stage in ("image", "tabular", "blend"):
        write_stage(tmp_path / stage, spec, examples, evaluation)
    place_evaluation(tmp_path / "blend", evaluation, prefix="test_")
    Image.effect_noise((30, 30), 50).save(tmp_path / "blend" / "roc.png")
    return tmp_path, spec, evaluation


def test_every_part_of_a_run_is_on_the_page(whole):
    run, spec, evaluation = whole
    path = write_report(run, spec)
    assert path == run / "report.html"
    found = Page(path)
    assert DISCLAIMER in found.text
    headings = ["Results", "Data", "Leak audit", "Image model", "Tabular model: dense network",
                "Blend of the models", "Settings and versions"]  # fmt: skip
    for heading in headings:
        assert f"<h2>{heading}</h2>" in found.html
    assert "Held-out test part" in found.text
    assert f"made up: results of the run “{run.name}” (config “my run”)" in found.text
    assert "0.712 [0.600, 0.800]" in found.text
    for name in ("auc", "balanced_accuracy", "brier", "ece", "sensitivity_at_90_specificity"):
        assert describe_score(evaluation["scores"][name]) in found.text
    for name in spec.classes:
        assert describe_score(evaluation["per_class"][name]["auc"]) in found.text
    for text in ("width × height", "0.790", "seed 77", "9.9.9", "none shared", "not enough rows"):
        assert text in found.text
    assert "ptimistic" not in found.text


@pytest.mark.parametrize("external", [False, True])
def test_the_data_table_has_a_column_a_split(evaluations, tmp_path, external):
    spec, examples, _ = evaluations["binary"]
    if external:
        examples = examples.assign(
            split=examples["split"].mask(np.arange(len(examples)) < 9, "external")
        )
        examples.loc[examples["split"] == "external", "target"] = 1.0
        examples.loc[examples.index[:2], "target"] = np.nan  # that collection cannot tell
    write_prepared(tmp_path, spec, examples)
    counts = re.search(r"<table>.*?</table>", Page(write_report(tmp_path, spec)).html, re.DOTALL)[0]
    width = counts.count('scope="col"')
    assert width == 3 + external and ("external" in counts) == external
    assert (">7; unknown for 2</td>" in counts) == external
    for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", counts, re.DOTALL):
        assert row.count("<td") == width - 1, row


@pytest.mark.parametrize(
    ("costs", "told"),
    [({"nv": {"mel": 0}}, "least cost"), ({"nv": {"mel": 2}}, "least cost"), ({}, "highest")],
)
def test_costs_that_differ_are_said(costs, told):
    spec = get_spec("ham10000")
    config = DecisionConfig(metric="cost" if costs else "accuracy", costs=costs)
    rule = SoftmaxRule((1.0,) * 7, cost_matrix(config, spec.classes)).to_mapping()
    assert told in describe_rule({"rule": rule, "classes": spec.classes}, spec)


def test_a_column_for_the_test_part_only_where_there_is_one(whole, tmp_path):
    run, spec, _ = whole
    assert "AUC, test part</th>" in Page(write_report(run, spec)).html
    plain = Path(shutil.copytree(run, tmp_path / "run"))
    (plain / "blend" / "test_evaluation.json").unlink()
    page = Page(write_report(plain, spec))
    assert "test part</th>" not in page.html and "0.712 [0.600, 0.800] 555" in page.text


def test_no_column_says_nothing(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    for stage in ("image", "tabular", "blend"):
        write_stage(tmp_path / stage, spec, examples, evaluation)
    table = re.search(r"<table>.*?</table>", Page(write_report(tmp_path, spec)).html, re.DOTALL)[0]
    assert "mark</th>" not in table and "share of the blend" not in table
    shares = {"image": 0.789, "tabular": 0.211}
    write_stage(tmp_path / "blend", spec, examples, evaluation, effective_shares=shares)
    page = Page(write_report(tmp_path, spec))
    assert "share of the blend</th>" in page.html and "79%" in page.text
    assert "Effective shares: image 79%, tabular 21%" in page.text


def test_the_headline_is_of_what_was_submitted_last(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    assert final_stage(tmp_path) is None
    write_stage(tmp_path / "image", spec, examples, evaluation)
    assert final_stage(tmp_path) == "image"
    for hour, last in ((3, "blend"), (4, "ensemble"), (5, "blend")):
        date = f"2026-03-05T{hour:02}:00:00+00:00"
        write_stage(tmp_path / last, spec, examples, evaluation, finished=date)
        assert final_stage(tmp_path) == last
        page = Page(write_report(tmp_path, spec))
        assert f"{STAGE_TITLES[last]}: AUC" in page.text and f"at {hour:02}:00 UTC" in page.text


def test_an_ensemble_without_test_scores_submitted_nothing(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    for hour, stage in ((3, "blend"), (4, "ensemble")):
        date = f"2026-03-05T{hour:02}:00:00+00:00"
        write_stage(tmp_path / stage, spec, examples, evaluation, finished=date)
    (tmp_path / "blend" / "test.csv").touch()
    assert final_stage(tmp_path) == "blend"
    (tmp_path / "ensemble" / "test.csv").touch()
    assert final_stage(tmp_path) == "ensemble"


def test_a_run_says_when_it_was_finished_and_what_its_classes_are_called(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    spec = replace(spec, title="A made-up set", class_titles={"target": "melanoma"}, made_up=True)
    chances = make_probabilities(examples, spec)
    evaluation = evaluate(examples, chances, spec, seed=0, n_replicates=9)
    write_stage(tmp_path / "image", spec, examples)
    (tmp_path / "image" / "evaluation.json").write_text(json.dumps(evaluation))
    assert "Finished" not in Page(write_report(tmp_path, spec)).text
    date = "2026-03-05T17:08:09+00:00"
    write_stage(tmp_path / "image", spec, examples, finished=date)
    page = Page(write_report(tmp_path, spec))
    title = f"results of the run “{tmp_path.name}” (config “my run”), 5 March 2026"
    assert f"A made-up set: {title}" in page.text
    assert "Finished on 5 March 2026 at 17:08 UTC" in page.text
    assert "learned from made-up lesions" in page.text
    assert " melanoma) of " in page.text and "target" not in page.text


def scored_run(run, spec, examples, evaluation):
    write_stage(run / "image", spec, examples, evaluation)
    (run / "submission.csv").write_text("image,target\na,0.5\n")
    digest = hashlib.sha256((run / "submission.csv").read_bytes()).hexdigest()
    score = {"value": 0.7973, "low": 0.7206, "high": 0.8624, "positive": 53}
    content = {"submission_sha256": digest, "truth": "truth.csv", "n": 402,
               "scores": {"target": score}}  # fmt: skip
    (run / "test_score.json").write_text(json.dumps(content))


def test_a_submission_that_was_scored_is_told_until_it_is_another(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    scored_run(tmp_path, spec, examples, evaluation)
    text = Page(write_report(tmp_path, spec)).text
    assert "On 402 test photos: AUC 0.797 [0.721, 0.862] (53 photos of target)." in text
    (tmp_path / "submission.csv").write_text("image,target\na,0.6\n")
    assert "402 test photos" not in Page(write_report(tmp_path, spec)).text


def test_photos_stand_by_what_the_model_made_of_them(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    data = tmp_path / "data"
    data.mkdir()
    chances = make_probabilities(examples, spec)
    chosen = chances.index[:300]
    for number, one in enumerate(chosen):
        Image.new("RGB", (60, 40), (number % 256, 90, 90)).save(data / f"{one}.jpg")
    examples = examples.assign(image_path=[f"{one}.jpg" for one in examples.index])
    best = chances.loc[examples.loc[chances.index, "target"] == 1, "target"].idxmax()
    (data / f"{best}.jpg").write_bytes(b"no photo")
    write_stage(tmp_path / "image", spec, examples, evaluation)
    oof = Predictions.build(chances, 0, "oof")
    found = read_json(write_gallery(tmp_path / "image", examples, oof, spec, data))
    kinds = pd.DataFrame(found["photos"]).set_index("image_id")
    assert best not in kinds.index and found["passed_over"] >= 1
    truth = examples.loc[kinds.index, "target"].astype(int)
    assert (truth == (kinds["kind"] != "false_alarm")).all()
    for _, row in kinds.groupby("kind"):
        groups = examples.loc[row.index, "group_id"]
        assert groups.is_unique and len(row) == SHOWN
        assert row["score"].is_monotonic_decreasing or row["score"].is_monotonic_increasing
    assert (kinds["score"] == chances.loc[kinds.index, "target"]).all()
    page = Page(write_report(tmp_path, spec))
    assert page.values("class").count("photo") == 3 * SHOWN
    assert "False alarms: other photos with the highest scores" in page.text
    assert not [one for one in examples["group_id"].unique() if one in page.text]
    assert not [one for one in kinds.index if one in page.text]


def test_without_photos_the_page_says_so(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples, evaluation)
    oof = Predictions.build(make_probabilities(examples, spec), 0, "oof")
    write_gallery(tmp_path / "image", examples, oof, spec, tmp_path / "nowhere")
    assert "There are no photo files beside the data" in Page(write_report(tmp_path, spec)).text


def test_a_dark_screen_turns_drawings_and_no_photos(whole):
    run, spec, _ = whole
    page = Page(write_report(run, spec))
    dark = page.html.split("screen and (prefers-color-scheme: dark)")
    assert len(dark) == 3 and "img.plot { filter: invert" in dark[2]
    sizes = [int(value) for tag, name, value in page.attributes if (tag, name) == ("img", "width")]
    assert sizes and max(sizes) < 1100  # in their own size, which their dots an inch say
    assert page.values("class").count("plot") == page.tags.count("img")


def test_a_class_of_which_nothing_was_scored_is_named(evaluations, tmp_path):
    spec, examples, _ = evaluations["multiclass"]
    spec = replace(spec, class_titles={"g": "vascular lesion"})
    chances = make_probabilities(examples, spec)
    some = chances[examples.loc[chances.index, "g"] == 0]
    evaluation = evaluate(examples, some, spec, seed=0, n_replicates=9)
    write_stage(tmp_path / "image", spec, examples, evaluation)
    text = Page(write_report(tmp_path, spec)).text
    assert "No photo, or every photo, scored here is of vascular lesion." in text
    assert "0 vascular lesion" in text


def test_the_result_is_a_picture_before_any_table(whole):
    run, spec, _ = whole
    html = Page(write_report(run, spec)).html
    body = html.split("<body>")[1]
    assert body.index("0.712 [0.600, 0.800]") < body.index("<img") < body.index("<table")
    assert body.index("Blend of the models: ") < body.index("<img")


@pytest.mark.parametrize(
    ("stages", "title"),
    [(("image",), "Image model"), (("image", "tabular"), "Image model"),
     (("image", "blend"), "Blend of the models"), (("ensemble",), "Ensemble of finished scores")],
)  # fmt: skip
def test_the_result_is_that_of_the_last_stage_there_is(evaluations, tmp_path, stages, title):
    spec, examples, evaluation = evaluations["binary"]
    for stage in stages:
        write_stage(tmp_path / stage, spec, examples, evaluation, groups_ignored=True)
    found = Page(write_report(tmp_path, spec))
    result = found.html.split('id="results"')[1].split("<table")[0]
    assert f"<strong>{title}: AUC 0.712 [0.600, 0.800]</strong>" in result
    assert "Too optimistic: " in result and "<img" in result


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_counted_in_whole_numbers(epochs, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(learning_curves, "save_figure", lambda figure, path: drawn.append(figure))
    history = pd.DataFrame({"epoch": range(epochs), "loss": 0.5, "auc": 0.7, "val_auc": 0.6})
    learning_curves.plot_histories({"fold 0": history}, tmp_path / "curves.png")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)


def test_the_page_needs_nothing_but_itself(whole):
    run, spec, _ = whole
    found = Page(write_report(run, spec))
    sources, links = found.values("src"), found.values("href")
    pictures = [*run.glob("*/*.png")]
    assert len(pictures) > 15
    for source in sources:
        head, data = source.split(",")
        assert head == "data:image/png;base64"
        content = base64.b64decode(data, validate=True)
        assert content.startswith(PNG)
        Image.open(BytesIO(content)).verify()
    # Of several classes the blend's own curves are the result; of one, all models' in one picture.
    first = base64.b64decode(sources[0].split(",")[1])
    curves = run / "blend" / ("roc.png" if len(spec.classes) == 1 else "class_roc.png")
    assert first == curves.read_bytes()
    assert {base64.b64decode(one.split(",")[1]) for one in sources} == {
        path.read_bytes() for path in pictures if path.name != "roc.png" or len(spec.classes) == 1
    }
    assert links and all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} == set(found.values("id"))
    assert "http" not in found.html.replace("http-equiv", "")
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "url(" not in found.html and "@import" not in found.html
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]


def test_every_picture_has_a_text_and_the_page_fits_a_phone(whole):
    run, spec, _ = whole
    found = Page(write_report(run, spec))
    assert len(found.values("alt")) == found.tags.count("img")
    assert all(len(text) > 10 for text in found.values("alt"))
    assert ("meta", "content", "width=device-width, initial-scale=1") in found.attributes
    assert "max-width: 100%" in found.html
    assert ("html", "lang", "en") in found.attributes


def test_no_patient_is_named(whole):
    run, spec, _ = whole
    found = Page(write_report(run, spec))
    groups = pd.read_csv(run / "prepare" / "folds.csv")["group_id"]
    assert not [one for one in groups.unique() if one in found.text]


def test_the_same_files_give_the_same_page(whole):
    run, spec, _ = whole
    first = write_report(run, spec).read_bytes()
    assert write_report(run, spec).read_bytes() == first


def test_ids_in_findings_are_withheld(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    named, other = examples["group_id"].unique()[:2]
    leak = {"check": "patient in train and test", "status": "leak", "rows": [named, "Mr. X"],
            "detail": f"patient {named} is in train and in test (12 such), like Mr. X"}  # fmt: skip
    photo = {"check": "near-equal photos in two groups", "status": "note", "rows": ["img_1"],
             "detail": f"img_1 of {other}, and img_12"}  # fmt: skip
    write_prepared(tmp_path, spec, examples, [leak, photo])
    text = Page(write_report(tmp_path, spec)).text
    assert "patient (id withheld) is in train and in test (12 such), like (id withheld)" in text
    assert "img_1 of (id withheld), and img_12" in text
    assert named not in text and other not in text
    assert "A leak was found" in text


def test_what_comes_from_files_is_escaped(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    spec = replace(spec, id=EVIL, classes=(EVIL,), group=EVIL)
    examples = examples.rename(columns={"target": EVIL})
    text = json.dumps(evaluation).replace("target", EVIL).replace("male", EVIL + "&amp;")
    finding = {"check": EVIL, "status": EVIL, "detail": EVIL, "rows": []}
    write_prepared(tmp_path, spec, examples, [finding])
    write_stage(tmp_path / "image", spec, examples, json.loads(text), weights={EVIL: 0.5})
    config = {"name": EVIL, "seed": EVIL, "image": {EVIL: EVIL, "quote": '" onload="x'}}
    (tmp_path / "image" / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "image" / "versions.json").write_text(json.dumps({EVIL: EVIL}))
    found = Page(write_report(tmp_path, spec))
    assert "script" not in found.tags
    assert "<script" not in found.html
    assert not found.values("onload")
    # Nothing was dropped either: the text itself is there, and "&amp;" is not taken for "&".
    assert found.text.count(EVIL) > 15
    assert f"{EVIL}&amp;" in found.text
    assert '" onload="x' in found.text


def test_optimistic_scores_are_marked(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples, evaluation, epoch_chosen_on_judged_rows=True)
    write_stage(tmp_path / "tabular", spec, examples, evaluation, groups_ignored=True)
    write_stage(tmp_path / "blend", spec, examples, evaluation)
    found = Page(write_report(tmp_path, spec))
    assert found.text.count("too optimistic, see below") == 2
    assert found.values("class").count("note warning") == 2
    assert "epoch was chosen on the same photos that the score is measured on" in found.text
    assert "photos of one patient may be in both training and validation" in found.text
    assert "but perhaps with other photos of the same patient" in found.text
    assert found.text.count("without any photo of the same patient") == 2


def test_a_network_of_random_weights_is_on_the_first_screen(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples)
    content = {"name": "x", "image": {"backbone": "ResNet50", "weights": None, "frozen": True}}
    (tmp_path / "image" / "config.yaml").write_text(yaml.safe_dump(content))
    text = Page(write_report(tmp_path, spec)).text
    said = text.index("Image model: ResNet50 is frozen with random weights")
    assert said < text.index("Out of fold: each photo")


def test_without_groups_the_page_says_what_is_unknown(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["multilabel"]
    write_stage(tmp_path / "image", spec, examples, evaluation)
    text = Page(write_report(tmp_path, spec)).text
    assert "The data names no patients" in text
    assert "without any image of the same" not in text


def test_missing_parts_are_left_out(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    write_stage(tmp_path / "tabular", spec, examples)
    found = Page(write_report(tmp_path, spec))
    assert "Tabular model: dense network" in found.text
    assert "AUC 0.712 [0.600, 0.800] on 555 photos" in found.text
    for absent in ("Image model", "Blend", "Leak audit", "Held-out", "Data "):
        assert absent not in found.text


def test_an_unfinished_stage_has_no_scores(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    write_stage(tmp_path / "tabular", spec, examples)
    (tmp_path / "image").mkdir()
    text = Page(write_report(tmp_path, spec)).text
    assert "Not finished: there are no scores yet." in text


def test_the_test_parts_score_is_in_the_overview(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples, evaluation)
    before = Page(write_report(tmp_path, spec)).text
    test = json.loads(json.dumps(evaluation))
    test["scores"]["auc"] = {"value": 0.1234, "low": 0.1, "high": 0.2}
    place_evaluation(tmp_path / "image", test, prefix="test_")
    after = Page(write_report(tmp_path, spec)).text
    assert "0.123 [0.100, 0.200]" not in before
    assert after.count("0.123 [0.100, 0.200]") == 3  # in short, in the overview, in the section


def test_scores_that_do_not_exist_say_why(evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    chances = make_probabilities(examples, spec)
    negative = chances[examples.loc[chances.index, "target"] == 0]
    evaluation = evaluate(examples, negative, spec, seed=0, n_replicates=9)
    write_stage(tmp_path / "image", spec, examples, evaluation)
    text = Page(write_report(tmp_path, spec)).text
    assert "– (no positive row of target)" in text
    assert "nan" not in text.lower().split()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="holds no stage of a run"):
        write_report(tmp_path, SPECS["binary"])
    with pytest.raises(PipelineError, match="holds no stage of a run"):
        write_report(tmp_path / "nowhere", SPECS["binary"])


@pytest.mark.parametrize("task", SPECS)
def test_calibration_and_decision_are_told_with_their_test_part(
    task, evaluations, tmp_path, monkeypatch
):
    spec, examples, evaluation = evaluations[task]
    monkeypatch.setattr(calibrate, "REPLICATES", 10)
    stage = tmp_path / "image"
    write_stage(stage, spec, examples, evaluation)
    assert "Threshold" not in Page(write_report(tmp_path, spec)).text
    chances = make_probabilities(examples, spec)
    oof, test = (Predictions.build(chances, 0, split) for split in ("oof", "test"))
    truth = examples.loc[chances.index, list(spec.classes)]
    config = Experiment(name="x", dataset="made_up")
    found, decision = calibrate.calibrate_stage(stage, oof, test, examples, truth, spec, config)
    told = Page(write_report(tmp_path, spec)).text
    assert f"{found.method} (used)" in told and found.why in told
    after = read_json(stage / "calibration.json")["test"]["scores"]["after"]
    scores = [*found.study["scores"].values(), after]
    for score in (one[key] for one in scores for key in ("ece", "log_loss", "brier", "auc")):
        assert describe_score(score, 4) in told
    for one in decision.thresholds[spec.classes[0]]:
        assert f"{one['threshold']:.3g}" in told
        assert describe_score(one["nested"]["specificity"]) in told
        assert describe_score(one["nested"]["photos_per_find"]) in told
    judged = read_json(stage / "decision.json")["test"]
    for study in (decision.study, judged):
        for key in ("accuracy", "balanced_accuracy"):
            assert describe_score(study["scores"]["learned"][key]) in told
            assert describe_score(study["change"][key]) in told


def test_thresholds_of_a_run_made_before_are_still_told(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples, evaluation)
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    nested = dict.fromkeys(("sensitivity", "specificity", "precision"), score)
    entry = {"sensitivity": 0.9, "threshold": 0.123, "nested": nested}
    chances = make_probabilities(examples, spec)
    data = (examples.loc[chances.index, list(spec.classes)], examples["group_id"], spec)
    found = Calibration.fit(chances, *data, CalibrationConfig(), seed=0, n_replicates=10)
    content = found.to_mapping() | {"thresholds": {spec.classes[0]: [entry]}}
    (tmp_path / "image" / "calibration.json").write_text(json.dumps(content))
    told = Page(write_report(tmp_path, spec)).text
    assert "0.123" in told and "0.500 [0.400, 0.600]" in told


@pytest.mark.parametrize("content", ["a: [", "just text", "\x00"])
def test_a_damaged_config_is_named(content, evaluations, tmp_path):
    spec, examples, _ = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples)
    (tmp_path / "image" / "config.yaml").write_text(content)
    with pytest.raises(PipelineError, match=r"config\.yaml is damaged"):
        write_report(tmp_path, spec)


def test_a_damaged_evaluation_is_named_and_the_old_page_stays(evaluations, tmp_path):
    spec, examples, evaluation = evaluations["binary"]
    write_stage(tmp_path / "image", spec, examples, evaluation)
    before = write_report(tmp_path, spec).read_bytes()
    (tmp_path / "image" / "evaluation.json").write_text("{")
    with pytest.raises(PipelineError, match=r"evaluation\.json is not valid JSON"):
        write_report(tmp_path, spec)
    assert (tmp_path / "report.html").read_bytes() == before


def test_pieces_escape_text_but_not_html():
    assert html_module.element("p", "<b>", html_module.Html("<i></i>"), title='"') == (
        '<p title="&quot;">&lt;b&gt;\n<i></i></p>'
    )
    assert "&lt;b&gt;" in html_module.table(["<b>", ""], [["<b>", np.float64(0.5)]])
    assert html_module.picture("nowhere.png", "x") == ""
