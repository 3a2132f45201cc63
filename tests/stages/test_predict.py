"""Tests of what is asked of a finished run: predictions for new photos, tables, pictures."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.ensembling.blend import Blend
from kaggle_pipeline.evaluation.calibration.calibration import Calibration, read_calibration
from kaggle_pipeline.evaluation.decision.decision import read_decision
from kaggle_pipeline.report.run_tables import compare_runs
from kaggle_pipeline.stages.known_photos import known_photos
from kaggle_pipeline.stages.predict import _Asked, _blended, _with_decision
from kaggle_pipeline.stages.trained import TrainedImageModels, calibration_of_photos
from kaggle_pipeline.synthetic import generate_like

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    word
    for change in (
        "folds={holdout: 0.3, test_share: 0.2}", "records.image_size_px=32", "records.workers=1",
        "image.image_size_px=32", "image.backbone=LeNet", "image.backbone_options={filters: 4}",
        "image.weights=null", "image.train_from=null", "image.batch_size=16", "image.epochs=1",
        "image.tta=flips", "leakage.fingerprints=false",
    )
    for word in ("--set", change)
]  # fmt: skip


@pytest.fixture(scope="module")
def ham(tmp_path_factory):
    """A trained run on made-up HAM10000: (data folder, run folder)."""
    pytest.importorskip("tensorflow")
    root = tmp_path_factory.mktemp("ham")
    generate_like("ham10000", root, images=200, image_size_px=48, seed=2, workers=1)
    config = ROOT / "configs" / "ham10000_mobilenet.yaml"
    places = ["--data-dir", str(root / "competition"), "--run-dir", str(root / "run")]
    assert main(["train-image", "--config", str(config), *places, *TINY]) == 0
    return root / "competition", root / "run"


@pytest.fixture
def photos(ham, tmp_path):
    """The run's own test photos, as a folder of new ones."""
    data_dir, run_dir = ham
    test = pd.read_csv(run_dir / "prepare" / "examples.csv").query("split == 'test'")
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in test["image_path"]:
        shutil.copy(data_dir / path, folder)
    return folder


def predict(run_dir, images, out):
    return ["predict", "--run-dir", str(run_dir), "--images", str(images), "--out", str(out)]


def error_line(capsys):
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.ci
def test_a_saved_model_predicts_the_same_in_another_process(ham, photos, tmp_path):
    _, run_dir = ham
    out = tmp_path / "new.csv"
    command = [
        sys.executable,
        str(ROOT / "scripts" / "predict.py"),
        *predict(run_dir, photos, out)[1:],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no diagnosis" in done.stdout
    found = pd.read_csv(out).set_index("image_id")
    known = pd.read_csv(run_dir / "image" / "test.csv").set_index("image_id")
    classes = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    added = [f"{name}_calibrated" for name in classes]
    assert list(found.columns) == [*classes, *added, "most_probable", "decision"]
    assert "scores, uncalibrated" in done.stdout
    assert set(found.index) == set(known.index) and len(found) > 20
    np.testing.assert_allclose(found[classes], known.loc[found.index, classes], atol=1e-6)
    for columns in (classes, added):
        np.testing.assert_allclose(found[columns].sum(axis=1), 1, atol=1e-5)
    calibration = Calibration.from_mapping(read_json(run_dir / "image" / "calibration.json"))
    expected = calibration.apply(known.loc[found.index, classes])
    np.testing.assert_allclose(found[added], expected, atol=1e-5)
    decision = read_decision(run_dir / "image")
    words = {name: get_spec("ham10000").class_label(name) for name in classes}
    near = 0.95  # ties at 1e-5
    assert (found["decision"] == decision.decide(expected, words)).mean() > near
    highest = found[added].idxmax(axis=1).str.removesuffix("_calibrated").map(words)
    assert (found["most_probable"] == highest).all()


def test_the_highest_number_of_a_submission_is_the_decision(ham, tmp_path, capsys):
    """The challenge takes the class with the highest number; AUCs are of the blend's own ones."""
    data_dir, trained = ham
    run_dir = Path(shutil.copytree(trained, tmp_path / "run"))
    config = ROOT / "configs" / "ham10000_mobilenet.yaml"
    places = ["--data-dir", str(data_dir), "--run-dir", str(run_dir)]
    assert main(["make-submission", "--config", str(config), *places, *TINY]) == 0
    assert "rescaled by" in capsys.readouterr().out
    blended = pd.read_csv(run_dir / "blend" / "test.csv").set_index("image_id")
    submitted = pd.read_csv(run_dir / "submission.csv").set_index("image")
    classes = [name.lower() for name in submitted.columns]
    calibrated = read_calibration(run_dir / "blend").apply(blended[classes])
    decision = read_decision(run_dir / "blend")
    expected = decision.decide(calibrated).str.upper().loc[submitted.index]
    assert (submitted.idxmax(axis=1) == expected).all()
    np.testing.assert_allclose(submitted.sum(axis=1), 1)


def test_a_model_of_all_rows_is_added_to_a_run_and_used_for_new_photos(
    ham, photos, tmp_path, capsys
):
    data_dir, trained = ham
    run_dir = Path(shutil.copytree(trained, tmp_path / "run"))
    before = pd.read_csv(run_dir / "image" / "test.csv").set_index("image_id")["mel"]
    oof = (run_dir / "image" / "oof.csv").read_bytes()
    seconds = read_json(run_dir / "image" / "metrics.json")["seconds"]
    config = ROOT / "configs" / "ham10000_mobilenet.yaml"
    places = ["--data-dir", str(data_dir), "--run-dir", str(run_dir), "--resume"]
    further = ["--set", "train_all=true"]
    assert main(["train-image", "--config", str(config), *places, *TINY, *further]) == 0
    assert "which is not judged itself" in " ".join(capsys.readouterr().out.split())
    now = pd.read_csv(run_dir / "image" / "test.csv").set_index("image_id")["mel"]
    assert not np.allclose(now, before) and (run_dir / "image" / "oof.csv").read_bytes() == oof
    more = read_json(run_dir / "image" / "all" / "metrics.json")["seconds"]
    both = read_json(run_dir / "image" / "metrics.json")["seconds"]
    assert both == pytest.approx(seconds + more, abs=0.2)  # the reports count it
    assert "trained on all labelled rows" in (run_dir / "report.html").read_text()
    out = tmp_path / "new.csv"
    assert main(predict(run_dir, photos, out)) == 0
    assert "the model of all rows: it is not scored itself" in capsys.readouterr().out
    found = pd.read_csv(out).set_index("image_id")["mel"]
    np.testing.assert_allclose(found, now.loc[found.index], atol=1e-6)
    anew = ["--run-dir", str(run_dir), "--data-dir", str(data_dir), "--overwrite", "--fold", "0"]
    assert main(["train-image", "--config", str(config), *anew, *TINY]) == 0
    assert not (run_dir / "image" / "all").exists()  # it may have learned from other rows


def asked(stage, measured=(None, None, "")):
    return _Asked(
        Blend("mean", {"image": 1.0}, {}), [SimpleNamespace(stage=stage, lacking="")], {}, stage,
        *measured,
    )  # fmt: skip


def test_a_run_without_a_calibration_says_that_its_numbers_have_none(tmp_path):
    said, spec = [], get_spec("ham10000")
    mean = pd.DataFrame(np.eye(7)[[0, 3]] * 0.3 + 0.1, ["a", "b"], list(spec.classes))
    table = _with_decision(mean, spec, asked(tmp_path), said.append)
    assert list(table.columns) == [*spec.classes, "most_probable"]
    expected = ["melanoma", "actinic keratosis or Bowen’s disease"]
    assert table["most_probable"].tolist() == expected
    assert "uncalibrated" in said[0] and "calibration.json" in said[0]
    mean, spec = pd.DataFrame({"target": [0.5]}, ["a"]), get_spec("siim_isic_2020")
    table = _with_decision(mean, spec, asked(tmp_path), said.append)
    assert list(table.columns) == ["melanoma"] and table["melanoma"].tolist() == [0.5]


def test_what_was_measured_with_more_than_a_photo_is_not_said_of_a_photo(ham):
    stage, said, spec = ham[1] / "image", [], get_spec("ham10000")
    mean = pd.DataFrame(np.eye(7)[[0, 3]] * 0.3 + 0.1, ["a", "b"], list(spec.classes))
    trained = SimpleNamespace(stage=stage, lacking="")
    table = _with_decision(mean, spec, asked(stage, calibration_of_photos(trained)), said.append)
    assert {"mel_calibrated", "decision"} <= set(table)
    trained.lacking = "metadata"
    table = _with_decision(mean, spec, asked(stage, calibration_of_photos(trained)), said.append)
    assert list(table.columns) == [*spec.classes, "most_probable"]
    assert "uncalibrated: calibration and decision were measured with metadata" in said[-1]


def test_photos_of_any_kind_are_taken_and_a_broken_one_is_left_out(ham, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = {
        "a.png": "PNG", "b.JPEG": "JPEG", "c.jpg": "JPEG", "IMG 001.jfif": "JPEG",
        "photo (1).webp": "WEBP", "Müller+1.BMP": "BMP", "x/scan.tif": "TIFF", "y/scan.jpe": "JPEG",
        "IM000001": "PNG", "told.dcm": "JPEG",
    }  # fmt: skip
    for number, (name, kind) in enumerate(names.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        shape = (40 + number, 64, 3)
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / name, kind)
    with (folder / "b.JPEG").open("ab") as file:
        file.write(bytes(5000))  # as some cameras do
    (folder / os.fsdecode(b"M\xfcller.jpg")).write_bytes((folder / "c.jpg").read_bytes())
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("no photo")
    (folder / "film.gif").write_bytes(b"GIF89a")
    (folder / "broken.jpg").write_bytes((folder / "c.jpg").read_bytes()[:200])
    run = Path(shutil.copytree(ham[1], tmp_path / "run"))
    with (run / "prepare" / "folds.csv").open("a") as file:
        file.write("ISIC_9,HAM_9,1\n")  # a fold that was never trained
    (run / "prepare" / "written.json").unlink()
    out = tmp_path / "out.csv"
    out.write_text("of yesterday\n")
    assert main([*predict(run, folder, out), "--overwrite"]) == 0
    expected = ["IM000001", "IMG 001", "M%FCller", "Müller+1", "a", "b", "c", "photo (1)", "told"]
    assert sorted(pd.read_csv(out)["image_id"]) == sorted([*expected, "x/scan.tif", "y/scan.jpe"])
    said = capsys.readouterr().out
    assert "12 photos (" in said and "skipped 1 .txt (notes.txt), 1 GIF (film.gif), 1 hid" in said
    assert f"left out: cannot read image {folder / 'broken.jpg'}" in said
    assert "1 of 12 photos cannot be read" in said
    assert "folds [1] of this run are not trained" in said


def test_mistakes_are_named_and_nothing_is_written(ham, photos, tmp_path, capsys):
    out, first = tmp_path / "out.csv", sorted(photos.iterdir())[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(predict(ham[1], empty, out)) == 2 and "holds no photo" in error_line(capsys)
    assert main(predict(ham[1], tmp_path / "no", out)) == 2 and "no such folder" in error_line(
        capsys
    )
    assert main(predict(empty, photos, out)) == 2 and "holds no run" in error_line(capsys)
    (empty / "prepare").mkdir()
    assert main(predict(empty, photos, out)) == 2 and "train_image first" in error_line(capsys)
    assert main(predict(ham[1], first, out)) == 2 and "is a file: name the" in error_line(capsys)
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:300])
    assert main(predict(ham[1], photos, out)) == 2 and "none of" in error_line(capsys)
    assert not out.exists()
    out.write_text("mine\n")
    assert main(predict(ham[1], photos, out)) == 2 and "say --overwrite" in error_line(capsys)
    assert out.read_text() == "mine\n"


def test_runs_are_compared_in_one_table(ham, capsys):
    capsys.readouterr()
    assert main(["compare-runs", str(ham[1]), str(ham[1])]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    table = "\n".join(lines[: lines.index(f"{ham[1]} beside {ham[1]}:")])
    assert all(word in table for word in ("balanced accuracy", "peak MiB", "lesions"))
    assert table.count("out of fold") == table.count("test part") == 4  # scores, then costs
    assert max(len(line) for line in lines if str(ham[1]) not in line) <= 100
    assert "  the same settings" in lines
    assert sum("difference +0.000 [+0.000, +0.000]" in line for line in lines) == 2


def written(run, model, scores, task="binary", **metrics):
    """An evaluated stage of a run's folder."""
    folder = run / model
    folder.mkdir(parents=True)
    score = {"value": 0.75, "low": 0.5, "high": 1.0}
    evaluation = {"n": 9, "groups": 3, "group": "patient", "classes": list(scores), "task": task}
    evaluation["per_class"] = {name: {"auc": score} for name in scores}
    evaluation["scores"] = dict.fromkeys(("auc", "accuracy", "balanced_accuracy"), score)
    metrics = {"seconds": 1.0, "peak_memory_mb": None, **metrics}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def test_columns_keep_their_order_whatever_is_compared(tmp_path):
    written(tmp_path / "a", "image", ["target"])
    written(tmp_path / "b", "image", ["mel", "nv"], task="multiclass")
    written(tmp_path / "c", "image", ["mel", "sk"], task="multilabel", groups_ignored=True)
    text = compare_runs([tmp_path / name for name in "abc"])
    words = text.split()
    assert words[:4] == ["run", "model", "scored", "on"]
    assert {"auc", "accuracy", "mel", "sk", "photos", "patients", "seconds", "peak"} <= set(words)
    assert max(map(len, text.splitlines())) <= 100


def test_a_blend_of_one_model_is_not_shown_twice(tmp_path):
    run = tmp_path / "r"
    written(run, "image", ["target"])
    written(run, "blend", ["target"], weights={"image": 1.0})
    assert len(compare_runs([run]).splitlines()) == 2
    written(run, "tabular", ["target"])
    shutil.rmtree(run / "blend")
    written(run, "blend", ["target"], weights={"image": 0.5, "tabular": 0.5})
    assert len(compare_runs([run]).splitlines()) == 4


def test_a_folder_without_a_model_is_not_compared(tmp_path, capsys):
    assert main(["compare-runs", str(tmp_path)]) == 2
    assert str(tmp_path) in error_line(capsys)


def test_the_test_part_was_never_learned_from(ham):
    _, run_dir = ham
    examples = pd.read_csv(run_dir / "prepare" / "examples.csv").set_index("image_id")
    truth = pd.read_csv(run_dir / "prepare" / "test_truth.csv").set_index("image_id")
    folds = pd.read_csv(run_dir / "prepare" / "folds.csv").set_index("image_id")
    test = examples[examples["split"] == "test"]
    assert set(truth.index) == set(test.index) and not set(truth.index) & set(folds.index)
    assert test[truth.columns].isna().all().all()
    lesions = examples["group_id"]
    assert not set(lesions[test.index]) & set(lesions[folds.index])


@pytest.mark.slow
def test_explore_draws_the_raw_folder(ham, tmp_path, capsys):
    config = ROOT / "configs" / "ham10000_mobilenet.yaml"
    arguments = ["--config", str(config), "--data-dir", str(ham[0]), "--out", str(tmp_path / "p")]
    assert main(["explore-data", *arguments]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert len([path for path in paths if path.suffix == ".png"]) >= 5
    for path in paths:
        assert path.exists() and path.stat().st_size > 100


def test_backbones_are_listed(capsys):
    pytest.importorskip("tensorflow")
    code = main(["list-backbones", "LeNet", "resnet18", "--image-size-px", "64"])
    out = capsys.readouterr().out
    assert code == 0 and "LeNet" in out and "resnet18" in out and "(2, 2, 512)" in out


def train_arguments(ham, *more):
    config = ROOT / "configs" / "ham10000_mobilenet.yaml"
    return ["--config", str(config), "--data-dir", str(ham[0]), *TINY, *more]


def test_a_run_is_never_blended_under_another_experiment(ham, capsys):
    data_dir, run_dir = ham
    places = ["--data-dir", str(data_dir), "--run-dir", str(run_dir)]
    assert main(["make-submission", *places, "--config", "siim_mini"]) == 2
    assert "dataset" in error_line(capsys)
    by_image = train_arguments(ham, "--run-dir", str(run_dir), "--set", "folds.by=image")
    assert main(["make-submission", *by_image]) == 2
    assert "folds.by" in error_line(capsys)


@pytest.mark.parametrize(
    "change", ["examples.missing=drop", "folds.by=image", "folds.test_share=0.3", "seed=5"]
)
def test_another_division_of_the_rows_is_refused(ham, capsys, change):
    more = train_arguments(ham, "--run-dir", str(ham[1]), "--resume", "--set", change)
    assert main(["train-image", *more]) == 2
    assert change.partition("=")[0] in error_line(capsys)


@pytest.mark.slow
def test_a_blend_of_old_predictions_does_not_outlive_them(ham, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(ham[1], run_dir)
    more = train_arguments(ham, "--run-dir", str(run_dir))
    assert main(["make-submission", *more]) == 0
    assert (run_dir / "submission.csv").exists() and (run_dir / "blend").exists()
    assert main(["train-image", *more, "--overwrite"]) == 0
    assert not (run_dir / "submission.csv").exists() and not (run_dir / "blend").exists()


def test_dropping_incomplete_rows_leaves_the_test_part_whole(ham, tmp_path, capsys):
    run_dir = tmp_path / "run"
    more = train_arguments(ham, "--run-dir", str(run_dir), "--set", "examples.missing=drop")
    assert main(["prepare-data", *more]) == 0
    examples = pd.read_csv(run_dir / "prepare" / "examples.csv", index_col="image_id")
    folds = pd.read_csv(run_dir / "prepare" / "folds.csv", index_col="image_id")
    lacking = examples[["age_years", "sex", "site"]].isna().any(axis=1)
    train = examples["split"] == "train"
    assert lacking[train].any() and lacking[examples["split"] == "test"].any()
    assert set(folds.index) == set(examples.index[train & ~lacking])
    told = capsys.readouterr().out
    assert f"{lacking[train].sum()} training rows with a missing feature are in no fold" in told
    assert f"{len(folds)} training photos (" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("image.backbone=LeNett", "did you mean 'LeNet'"),
        ("image.networks=one_per_class", "asks one question"),
        ("image.train_from=stage9", "train_from 'stage9'"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_converted(
    ham, tmp_path, capsys, change, words
):
    pytest.importorskip("tensorflow")
    run_dir = tmp_path / "run"
    more = train_arguments(ham, "--run-dir", str(run_dir), "--set", change)
    assert main(["run-pipeline", *more]) == 2
    assert words in error_line(capsys) and not run_dir.exists()


def test_photos_that_the_run_learned_from_are_counted_and_left_out_of_the_score(
    ham, tmp_path, capsys
):
    """By name and by content; the test part's labels, which ``prepare/`` keeps, give an AUC."""
    data_dir, run_dir = ham
    examples = pd.read_csv(run_dir / "prepare" / "examples.csv", index_col="image_id")
    folds = pd.read_csv(run_dir / "prepare" / "folds.csv", index_col="image_id")["fold"]
    learned, scored = folds.index[folds == -1][:2], folds.index[folds == 0][:1]
    run = shutil.copytree(run_dir, tmp_path / "run")
    digest = hashlib.sha256((data_dir / examples.loc[learned[1], "image_path"]).read_bytes())
    (run / "prepare" / "fingerprints.csv").write_text(
        f"image_id,sha256\n{learned[1]},{digest.hexdigest()}\n"
    )
    folder, out = tmp_path / "mixed", tmp_path / "out.csv"
    folder.mkdir()
    for name in (learned[0], *scored):
        shutil.copy(data_dir / examples.loc[name, "image_path"], folder)
    shutil.copy(data_dir / examples.loc[learned[1], "image_path"], folder / "other.jpg")
    assert main(predict(run, folder, out)) == 0
    said = capsys.readouterr().out
    assert "learned from 2 of these 3 photos, 1 of them under another name" in said
    marks = pd.read_csv(out, index_col="image_id")["learned_from"]
    assert marks.to_dict() == {learned[0]: "yes", "other": "yes", scored[0]: "no"}
    assert "AUC on the 1 photos that the run did not learn from: none, all are of one" in said
    for name in examples.index[examples["split"] == "test"]:
        shutil.copy(data_dir / examples.loc[name, "image_path"], folder)
    assert main([*predict(run, folder, out), "--overwrite"]) == 0
    said = capsys.readouterr().out
    count = int((examples["split"] == "test").sum()) + 1
    assert re.search(
        rf"AUC on the {count} photos that the run did not learn from: .*0\.\d+ \[", said
    )
    (folder / f"{scored[0]}.jpg").unlink()
    for name in examples.index[examples["split"] == "test"]:
        (folder / f"{name}.jpg").unlink()
    assert main([*predict(run, folder, out), "--overwrite"]) == 0
    assert "did not learn from: it learned from all of these" in capsys.readouterr().out


@pytest.fixture
def fingerprinted(ham, tmp_path):
    """Own copy of the run, with digests; ``(run, trained, path of an id, learned, test ids)``."""
    data_dir, trained = ham
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    examples = pd.read_csv(run / "prepare" / "examples.csv", index_col="image_id")
    folds = pd.read_csv(run / "prepare" / "folds.csv", index_col="image_id")["fold"]
    learned = list(folds.index[folds == -1][:3])
    test = list(examples.index[examples["split"] == "test"][:2])

    def path_of(name):
        return data_dir / examples.loc[name, "image_path"]

    def write(rows):
        table = pd.DataFrame(rows, columns=["image_id", "of"])
        table["sha256"] = [hashlib.sha256(path_of(x).read_bytes()).hexdigest() for x in table["of"]]
        table[["image_id", "sha256"]].to_csv(run / "prepare" / "fingerprints.csv", index=False)

    return run, TrainedImageModels.open(run), path_of, learned, test, write


def test_a_twin_that_was_learned_from_decides_whatever_the_others_are(fingerprinted):
    """A copy that was dropped is in no fold, but its bytes were learned from."""
    run, trained, path_of, learned, test, write = fingerprinted
    one, other, _ = learned
    write([(one, one), ("dropped", one), (other, other), (test[0], other)])
    photos = {"renamed": one, "dropped": one, "again": other, test[0]: other, test[1]: test[1]}
    found = known_photos(run, trained, {name: path_of(of) for name, of in photos.items()})
    expected = {"renamed": True, "dropped": True, "again": True, test[0]: True, test[1]: False}
    assert found.learned.to_dict() == expected and found.by_content == 4


def test_an_archives_photo_is_known_at_whatever_size(fingerprinted):
    """ISIC 2019 writes "_downsampled" behind the archive's id; a copy from there has none."""
    run, trained, path_of, learned, test, _ = fingerprinted
    photos = {f"{learned[0]}_downsampled": path_of(learned[1]), test[0]: path_of(test[1])}
    for name in ("examples.csv", "folds.csv"):
        table = pd.read_csv(run / "prepare" / name, index_col="image_id")
        table.rename(index={learned[1]: f"{learned[1]}_downsampled"}).to_csv(run / "prepare" / name)
        renew(run / "prepare", name)
    photos |= {learned[1]: path_of(learned[1])}
    found = known_photos(run, trained, photos)
    assert found.learned.tolist() == [True, False, True] and found.by_content == 0
    assert {*photos} - {test[0]} <= set(found.truth.index)


def test_a_name_of_an_own_table_is_no_photo_of_other_bytes(fingerprinted):
    run, trained, path_of, learned, test, write = fingerprinted
    write([(learned[0], learned[0]), (learned[1], learned[1]), (test[0], test[0])])
    photos = {
        learned[0]: path_of(learned[0]),  # the very photo
        learned[1]: path_of(test[1]),  # another photo of this name
        learned[2]: path_of(learned[2]),  # never hashed: the name is all there is
        test[0]: path_of(test[1]),  # another one, so that label is not its own
    }
    own = SimpleNamespace(
        config=SimpleNamespace(table="mine"), spec=trained.spec, stage=trained.stage,
        folds=trained.folds, of_all=trained.of_all,
    )  # fmt: skip
    found = known_photos(run, own, photos)
    assert found.learned.tolist() == [True, False, True, False]
    assert not {learned[1], test[0]} & set(found.truth.index)
    archive = known_photos(run, trained, photos)  # its ids are of one photo, smaller ones too
    assert archive.learned.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("model", "weights", "says"),
    [
        ("image", {"image": 1.0, "tabular": 0.0}, None),
        ("embedding", {"embedding": 1.0}, None),
        ("image", {"image": 0.0, "embedding": 1.0}, "note: this is the image model alone; "),
        (
            "image",
            {"tabular": 1.0},
            "note: photos come without metadata (--metadata), so this is the",
        ),
        ("image", {"image": 0.5, "embedding": 0.5}, "(image 0.50, embedding 0.50), so their"),
    ],
)
def test_a_blend_of_other_models_is_told_with_its_own_reason(tmp_path, model, weights, says):
    (tmp_path / "blend").mkdir()
    (tmp_path / "blend" / "blend.json").write_text(
        json.dumps({"space": "mean", "weights": weights, "knots": {}})
    )
    said = _blended(tmp_path, model)
    assert said is None if says is None else says in said
    assert "tabular" in weights or "metadata" not in (said or "")
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble" / "metrics.json").write_text("{}")
    if says is not None:  # what was submitted last
        assert "the submission is of the ensemble" in _blended(tmp_path, model)
