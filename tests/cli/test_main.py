"""The command line from outside: exit codes, one-line errors, and a run of every stage."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words
from PIL import Image

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.ensembling.blend import Blend
from kaggle_pipeline.stages.explore_data import draw_data
from kaggle_pipeline.stages.run import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(competition, tmp_path):
    """A copy of the competition that a test may spoil."""
    return Path(shutil.copytree(competition / "competition", tmp_path / "data"))


def call(command, data_dir, run_dir, *more):
    return main([command, *demo_words(data_dir, run_dir), *more])


def error_line(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0], lines
    return errors[0]


def edit_csv(path, change):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


# ---------------------------------------------------------------------------- the whole way


def test_the_whole_way_leaves_every_file(demo_run):
    names = {str(p.relative_to(demo_run)) for p in demo_run.rglob("*") if p.is_file()}
    stage = {"config.yaml", "versions.json", "metrics.json", "oof.csv", "test.csv"}
    stage |= {"evaluation.json", "confusion.png", "reliability.png", "class_roc.png"}
    stage |= {"subgroups.png", "calibration.json", "calibration.png"}
    for model in ("image", "tabular"):
        assert {f"{model}/{name}" for name in stage | {"learning_curves.png"}} <= names
        assert {f"{model}/fold{k}/model.weights.h5" for k in (0, 1)} <= names
    assert {f"blend/{name}" for name in stage | {"blend.json", "roc.png"}} <= names
    assert {"prepare/leakage.json", "prepare/overlap.png", "submission.csv", "report.html"} <= names
    assert not [name for name in names if Path(name).name.startswith(".")], (
        "a temporary file stayed"
    )


def test_metrics_hold_what_is_promised(demo_run):
    labelled = pd.read_csv(demo_run / "prepare" / "folds.csv")
    for stage in ("image", "tabular", "blend"):
        metrics = json.loads((demo_run / stage / "metrics.json").read_text())
        assert metrics["oof_auc_low"] <= metrics["oof_auc"] <= metrics["oof_auc_high"]
        assert metrics["n"] == len(labelled) and 0 < metrics["n_positive"] < metrics["n"]
        assert metrics["seconds"] > 0


def test_submission_has_the_samples_rows_in_its_order(demo_run, competition):
    sample = pd.read_csv(competition / "competition" / "sample_submission.csv")
    submission = pd.read_csv(demo_run / "submission.csv")
    assert list(submission["image_name"]) == list(sample["image_name"])
    assert submission["target"].between(0, 1).all() and submission["target"].nunique() > 2


def test_one_fold_of_few_patients_submits_the_blend_that_is_judged(competition, tmp_path, capsys):
    """Fitted on the fold, the weights would be others: what is judged would not be submitted."""
    run, names = tmp_path / "run", ("logistic", "forest")
    listed = f"[{','.join(names)}]"
    one_fold = ["--config", str(ROOT / "configs" / "demo.yaml"), "--data-dir",
                str(competition / "competition"), "--run-dir", str(run)]  # fmt: skip
    for change in ("folds={holdout: 0.2}", f"blend.models={listed}", f"tabular.learners={listed}"):
        one_fold += ["--set", change]
    assert main(["run-pipeline", *one_fold]) == 0
    said = capsys.readouterr().out
    stored = json.loads((run / "blend" / "blend.json").read_text())
    metrics = json.loads((run / "blend" / "metrics.json").read_text())
    assert metrics["weights"] == stored["weights"] == dict.fromkeys(names, 0.5)
    assert metrics["weights_method"] == stored["method"] == "equal"
    assert "patients have a positive photo of target, 5 are needed" in stored["why"]
    assert f"{stored['why']})" in said.split("blend weights: ")[1].splitlines()[0]
    assert stored["why"] in (run / "report.html").read_text()
    for part in ("oof", "test"):
        read = {name: read_part(run / name / f"{part}.csv") for name in names}
        blended = Blend(**stored).apply(read)
        pd.testing.assert_frame_equal(read_part(run / "blend" / f"{part}.csv"), blended)


def read_part(path):
    return pd.read_csv(path, index_col="image_id")[["target"]]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_submission_byte_for_byte(demo_run, competition, tmp_path):
    assert call("run-pipeline", competition / "competition", tmp_path / "again") == 0
    ours, theirs = demo_run / "submission.csv", tmp_path / "again" / "submission.csv"
    assert ours.read_bytes() == theirs.read_bytes()


def test_score_submission_reads_the_kept_apart_truth(demo_run, competition, tmp_path, capsys):
    run = shutil.copytree(demo_run, tmp_path / "run")
    code = main(
        ["score-submission", "--submission", str(run / "submission.csv"),
         "--truth", str(competition / "truth.csv")]
    )  # fmt: skip
    assert code == 0
    assert "test AUC 0." in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert " test photos: AUC 0." in page and "learned from made-up lesions" in page


def test_the_report_shows_the_data_the_photos_and_each_models_share(demo_run):
    page = (demo_run / "report.html").read_text()
    assert "Random training photos of each class" in page
    assert "Missed: melanoma photos with the lowest scores" in page
    shares = read_json(demo_run / "blend" / "metrics.json")["effective_shares"]
    assert sum(shares.values()) == pytest.approx(1)
    for share in shares.values():
        assert f"{share:.0%}" in page


def test_a_damaged_photo_ends_no_run_for_a_picture(demo_run, data, tmp_path):
    run_dir = Path(shutil.copytree(demo_run / "prepare", tmp_path / "run" / "prepare")).parent
    for photo in (data / "jpeg" / "train").iterdir():
        photo.write_bytes(b"no photo")
    config = load_experiment(run_dir / "prepare" / "config.yaml")
    told = []
    draw_data(Run(config, data, run_dir, say=told.append))
    assert len(told) == 1 and "not all pictures" in told[0] and "cannot read" in told[0]
    drawn = {path.name for path in (run_dir / "explore").iterdir()}
    assert "classes.png" in drawn and "summary.json" not in drawn  # so it is drawn anew


def test_the_score_of_a_submission_goes_with_it(demo_run, competition, data, tmp_path, capsys):
    run = shutil.copytree(demo_run, tmp_path / "run")
    scoring = ["score-submission", "--submission", str(run / "submission.csv"),
               "--truth", str(competition / "truth.csv")]  # fmt: skip
    assert main(scoring) == 0
    assert " test photos: AUC 0." in (run / "report.html").read_text()
    capsys.readouterr()
    more = ("--set", "blend.weights=equal")
    (data.parent / "truth.csv").write_text("image_name,target\nISIC_0000000,1\n")  # of others
    assert call("make-submission", data, run, *more) == 0  # the submission is whole all the same
    said = capsys.readouterr().out
    assert "note: not scored with" in said and "is in only one of" in said
    assert "test AUC" not in said and (run / "submission.csv").exists()
    assert " test photos: AUC 0." not in (run / "report.html").read_text()


def test_a_made_up_competition_scores_every_submission(demo_run, competition, tmp_path, capsys):
    """Its truth lies beside the data; a changed run says its score as the first one does."""
    run = shutil.copytree(demo_run, tmp_path / "run")
    (run / "test_score.json").unlink(missing_ok=True)
    capsys.readouterr()
    more = ("--set", "blend.weights=equal")
    assert call("make-submission", competition / "competition", run, *more) == 0
    assert "\ntest AUC 0." in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert " test photos: AUC 0." in page
    # The title says which run of the config it is, and of which day.
    title = re.search("<title>(.*?)</title>", page)[1]
    assert "“run” (config “demo”)" in title and f"{datetime.now(UTC):%Y}" in title


def test_a_finished_stage_is_refused_then_resumed_then_overwritten(
    demo_run, competition, tmp_path, capsys, monkeypatch
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    data_dir = competition / "competition"
    assert call("train-tabular", data_dir, run) == 2
    assert "--resume" in error_line(capsys)
    before = (run / "tabular" / "oof.csv").read_bytes()
    measured = read_json(run / "tabular" / "metrics.json")["peak_memory_mb"]
    for user in ("run", "train_folds"):  # what does no work needs no memory
        monkeypatch.setattr(f"kaggle_pipeline.stages.{user}.peak_memory_mb", lambda: 1.0)
    assert call("train-tabular", data_dir, run, "--resume") == 0
    assert "done already" in capsys.readouterr().out
    assert read_json(run / "tabular" / "metrics.json")["peak_memory_mb"] == measured > 1
    capsys.readouterr()
    assert call("train-tabular", data_dir, run, "--overwrite") == 0
    assert (
        "deleted too, as made of what is made anew: blend, submission.csv"
        in capsys.readouterr().out
    )
    assert not (run / "blend").exists() and not (run / "submission.csv").exists()
    assert (run / "tabular" / "oof.csv").read_bytes() == before


def test_models_of_the_data_before_a_correction_are_not_used(
    demo_run, competition, tmp_path, capsys
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    data_dir = Path(shutil.copytree(competition / "competition", tmp_path / "data"))
    for name in ("train.csv", "test.csv"):
        table = pd.read_csv(data_dir / name)
        swapped = table["sex"].map({"male": "female", "female": "male"})
        table.assign(sex=swapped).to_csv(data_dir / name, index=False)
    assert call("make-submission", data_dir, run) == 2
    assert "train.csv changed since" in error_line(capsys)
    assert call("prepare-data", data_dir, run, "--overwrite") == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "learned before" in line]
    assert [Path(line.split()[1]).parent.name for line in notes] == ["image", "tabular"]
    for words in (("train-tabular", data_dir, run, "--resume"), ("make-submission", data_dir, run)):
        assert call(*words) == 2
        line = error_line(capsys)
        assert "fold0 learned before the metadata in prepare/ changed" in line, words
        assert "--overwrite" in line and not (run / "submission.csv").exists()
    assert call("train-tabular", data_dir, run, "--overwrite") == 0


def test_test_predictions_made_anew_take_the_submission_with_them(
    demo_run, competition, tmp_path, capsys
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    data_dir = competition / "competition"
    of_all = ("--resume", "--set", "train_all=true")
    assert call("train-tabular", data_dir, run, *of_all) == 0
    assert (
        "deleted too, as made of what is made anew: blend, submission.csv"
        in capsys.readouterr().out
    )
    assert not (run / "submission.csv").exists() and not (run / "blend").exists()
    for fold in (run / "tabular").glob("fold*"):
        shutil.rmtree(fold)
    capsys.readouterr()  # the model of all rows still has the settings that it was trained with
    assert call("train-tabular", data_dir, run, *of_all, "--set", "tabular.epochs=4") == 2
    assert "tabular.epochs" in error_line(capsys)


def test_resuming_with_another_setting_is_refused(demo_run, competition, capsys):
    more = ("--resume", "--set", "tabular.epochs=4")
    assert call("train-tabular", competition / "competition", demo_run, *more) == 2
    assert "tabular.epochs" in error_line(capsys)


def test_another_preparation_is_refused(demo_run, competition, capsys):
    code = call("prepare-data", competition / "competition", demo_run, "--set", "seed=1")
    assert code == 2
    assert "seed" in error_line(capsys)


@pytest.mark.ci
def test_when_the_time_is_up_it_stops_and_goes_on_with_resume(competition, tmp_path, capsys):
    chosen = ("--fold", "0", "--set", "image.epochs=1")
    assert (
        call("train-image", competition / "competition", tmp_path, *chosen, "--max-hours", "1e-9")
        == 75
    )
    error = capsys.readouterr().err
    assert re.search(r"stopped in time: the 1e-09 h are up before .*--resume to go on", error)
    assert not list(tmp_path.glob("prepare/folds.csv"))
    assert (
        call(
            "train-image",
            competition / "competition",
            tmp_path,
            *chosen,
            "--resume",
            "--max-hours",
            "9",
        )
        == 0
    )
    assert (tmp_path / "image" / "fold0" / "oof.csv").exists()


@pytest.mark.parametrize("hours", ["-1", "0", "nan", "many"])
def test_hours_are_a_number_above_zero(competition, tmp_path, hours, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("train-image", competition / "competition", tmp_path, "--max-hours", hours)
    assert f"argument --max-hours: {hours} is no number of hours" in capsys.readouterr().err


@pytest.mark.slow
def test_one_model_alone_gives_a_submission(competition, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert call("train-tabular", competition / "competition", run_dir) == 0
    assert call("make-submission", competition / "competition", run_dir) == 2
    assert "blend.models=[tabular]" in error_line(capsys)
    more = ("--set", "blend.models=[tabular]")
    assert call("make-submission", competition / "competition", run_dir, *more) == 0
    assert (run_dir / "submission.csv").exists()


@pytest.mark.slow
def test_folds_can_be_trained_one_by_one(competition, tmp_path, capsys):
    data_dir, run_dir = competition / "competition", tmp_path / "run"
    assert call("train-tabular", data_dir, run_dir, "--fold", "1") == 0
    assert "folds [0] are still to be trained" in capsys.readouterr().out
    assert not (run_dir / "tabular" / "metrics.json").exists()
    assert call("train-tabular", data_dir, run_dir, "--fold", "0") == 0
    assert (run_dir / "tabular" / "metrics.json").exists()
    assert call("train-tabular", data_dir, run_dir, "--fold", "7") == 2
    assert "--fold 7" in error_line(capsys)


def test_tfrecords_alone_are_enough(demo_run, competition, tmp_path):
    data_dir = tmp_path / "data"
    shutil.copytree(demo_run / "records", data_dir / "tfrecords")
    for csv in (competition / "competition").glob("*.csv"):
        shutil.copy(csv, data_dir)
    assert call("prepare-data", data_dir, tmp_path / "run") == 0
    records = pd.read_csv(tmp_path / "run" / "prepare" / "records.csv")
    assert records["folder"].eq(str((data_dir / "tfrecords").resolve())).all()
    assert not (tmp_path / "run" / "records").exists()


# ---------------------------------------------------------------------------- mistakes


def test_a_patient_in_train_and_test_stops(data, tmp_path, capsys):
    train = pd.read_csv(data / "train.csv")
    patient = train["patient_id"].iloc[0]
    edit_csv(data / "test.csv", lambda t: t.assign(patient_id=[patient, *t["patient_id"][1:]]))
    assert call("prepare-data", data, tmp_path / "run") == 2
    assert patient in error_line(capsys)
    report = json.loads((tmp_path / "run" / "prepare" / "leakage.json").read_text())
    assert report["findings"][0]["status"] == "leak"
    assert report["shared_groups"]["train"]["test"] == 1
    assert (tmp_path / "run" / "prepare" / "overlap.png").exists()


def test_an_image_listed_twice_stops(data, tmp_path, capsys):
    image = pd.read_csv(data / "train.csv")["image_name"].iloc[3]
    edit_csv(data / "train.csv", lambda t: pd.concat([t, t[t["image_name"] == image]]))
    assert call("prepare-data", data, tmp_path / "run") == 2
    assert image in error_line(capsys)


def test_the_same_photo_of_two_patients_stops(data, tmp_path, capsys):
    train = pd.read_csv(data / "train.csv")
    one = train.iloc[0]
    other = train[train["patient_id"] != one["patient_id"]].iloc[0]
    folder = data / "jpeg" / "train"
    shutil.copy(folder / f"{one['image_name']}.jpg", folder / f"{other['image_name']}.jpg")
    more = ("--set", "leakage.duplicates=stop")
    assert call("prepare-data", data, tmp_path / "run", *more) == 2
    line = error_line(capsys)
    assert one["image_name"] in line and other["image_name"] in line


def test_a_feature_that_gives_the_target_away_stops(data, tmp_path, capsys):
    more = ("--set", "tabular.features=[age_years, target]")
    assert call("train-tabular", data, tmp_path / "run", *more) == 2
    assert "target" in error_line(capsys)


def test_a_feature_that_leaks_stops_even_when_prepared_without_it(data, tmp_path, capsys):
    assert call("prepare-data", data, tmp_path / "run") == 0
    more = ("--set", "tabular.features=[age_years, target]")
    assert call("train-tabular", data, tmp_path / "run", *more) == 2
    assert "target" in error_line(capsys)


def test_a_truncated_photo_stops(data, tmp_path, capsys):
    path = sorted((data / "jpeg" / "train").glob("*.jpg"))[5]
    path.write_bytes(path.read_bytes()[:700])
    assert call("prepare-data", data, tmp_path / "run") == 2
    assert path.name in error_line(capsys)


def test_a_truncated_photo_stops_the_conversion_too(data, tmp_path, capsys):
    path = sorted((data / "jpeg" / "train").glob("*.jpg"))[5]
    path.write_bytes(path.read_bytes()[:700])
    more = ("--set", "leakage.fingerprints=false")
    assert call("prepare-data", data, tmp_path / "run", *more) == 2
    assert path.name in error_line(capsys)
    assert not list((tmp_path / "run").rglob(".*")), "something half-written stayed"


def test_a_test_row_without_a_photo_stops(data, tmp_path, capsys):
    path = sorted((data / "jpeg" / "test").glob("*.jpg"))[0]
    path.unlink()
    assert call("prepare-data", data, tmp_path / "run") == 2
    line = error_line(capsys)
    assert path.stem in line and "test" in line


def test_a_shard_that_lies_about_its_count_stops(demo_run, competition, tmp_path, capsys):
    data_dir = tmp_path / "data"
    shutil.copytree(demo_run / "records", data_dir / "tfrecords")
    for csv in (competition / "competition").glob("*.csv"):
        shutil.copy(csv, data_dir)
    shard = sorted((data_dir / "tfrecords").glob("train*.tfrec"))[0]
    lie = shard.rename(shard.with_name("train00-99999.tfrec"))
    assert call("prepare-data", data_dir, tmp_path / "run") == 2
    assert lie.name in error_line(capsys)


def test_an_unknown_key_is_named_with_the_nearest(tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text("name: mine\ndataset: synthetic\nimage: {epoch: 3}\n")
    assert main(["train-image", "--config", str(config)]) == 2
    line = error_line(capsys)
    assert "image.epoch'" in line and "'image.epochs'" in line


def test_missing_data_says_where_to_get_it(tmp_path, capsys):
    assert (
        main(["run-pipeline", "--data-dir", str(tmp_path / "no"), "--run-dir", str(tmp_path / "r")])
        == 2
    )
    assert "python scripts/download_data.py" in error_line(capsys)


def test_no_photos_at_all_is_said(data, tmp_path, capsys):
    shutil.rmtree(data / "jpeg")
    assert call("train-image", data, tmp_path / "run") == 2
    assert "jpeg/" in error_line(capsys)


def test_a_png_in_place_of_a_jpeg_is_read(data, tmp_path):
    path = sorted((data / "jpeg" / "train").glob("*.jpg"))[0]
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path.with_suffix(".png"))
    path.unlink()
    assert call("prepare-data", data, tmp_path / "run") == 0


def test_the_package_itself_is_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kaggle_pipeline", "compare-runs", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("kaggle_pipeline", run_name="__main__")
    assert "nowhere" in error_line(capsys)


def test_an_error_of_a_script_has_no_traceback(tmp_path):
    script = ROOT / "scripts" / "train_tabular.py"
    command = [sys.executable, str(script), "--data-dir", str(tmp_path), "--run-dir", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert "train.csv" in answer.stderr
