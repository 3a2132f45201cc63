"""Tests of the results table: every number is a run's own, twice is as once, mistakes are named."""

import json
import shutil

import pytest
from helpers_evaluation import SPECS, make_examples, make_probabilities

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.config.loading import load_experiment, write_experiment
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.evaluation.evaluate import evaluate
from kaggle_pipeline.evaluation.plots import describe_score
from kaggle_pipeline.report.run_tables import BEGIN, END, compare_runs, results_table
from kaggle_pipeline.stages.calibrate import calibrate_stage

METRICS = {"seconds": 1234.5, "peak_memory_mb": 987.6, "groups_ignored": False,
           "epoch_chosen_on_judged_rows": False}  # fmt: skip


def write_stage(folder, task, folds=FoldsConfig(), **metrics):  # noqa: B008 (frozen)
    """A stage as ``Run.judge`` leaves it, the pictures left out."""
    spec = SPECS[task]
    examples = make_examples(spec)
    chances = make_probabilities(examples, spec)
    config = Experiment(name="x", dataset="made_up", folds=folds)
    folder.mkdir(parents=True)
    write_experiment(folder / "config.yaml", config)
    write_json(folder / "evaluation.json", evaluate(examples, chances, spec, seed=0,
                                                    n_replicates=20))  # fmt: skip
    write_json(folder / "metrics.json", METRICS | metrics)
    calibrate_stage(
        folder, Predictions.build(chances, 0, "oof"), None, examples, None, spec, config
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs: a binary one and one of seven classes on a holdout split by photo."""
    root = tmp_path_factory.mktemp("runs")
    write_stage(root / "binary" / "tabular", "binary")
    folds = FoldsConfig(holdout=0.2, by="image")
    write_stage(root / "seven" / "image", "multiclass", folds, groups_ignored=True)
    return root


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_number_is_read_from_the_run(runs):
    header, _, binary, seven = map(
        cells, results_table([runs / "binary", runs / "seven"]).split("\n")
    )
    binary, seven = (dict(zip(header, line, strict=True)) for line in (binary, seven))
    found = read_json(runs / "binary" / "tabular" / "evaluation.json")
    scores = read_json(runs / "binary" / "tabular" / "calibration.json")["study"]["scores"]
    assert binary["run"] == "binary" and binary["data"] == "made_up"
    assert binary["scored on"] == "out of fold, 5 folds by patient"
    assert binary["photos (positive)"] == f"{found['n']} ({found['counts']['target']['positive']})"
    assert binary["AUC"] == describe_score(found["scores"]["auc"])
    assert binary["balanced accuracy"] == "–"
    errors = [describe_score(scores[name]["ece"], 4) for name in ("none", "temperature")]
    assert binary["ECE before → after"] == " → ".join(errors)
    assert binary["s"] == "1,234" and binary["peak MiB"] == "988"
    assert seven["scored on"] == "held-out 20% by image; optimistic: split by photo"
    assert seven["model"] == "image: InceptionResNetV2, 1024 px"
    assert "(mean)" in seven["AUC"] and seven["balanced accuracy"][0] == "0"


def test_random_weights_are_pointed_out(runs, tmp_path):
    shutil.copytree(runs / "seven", tmp_path / "random")
    path = tmp_path / "random" / "image" / "config.yaml"
    write_experiment(path, load_experiment(path, ["image.weights=null"]))
    line = cells(results_table([tmp_path / "random"]).split("\n")[2])
    assert line[2] == "image: InceptionResNetV2, 1024 px, random weights"


def test_what_a_run_does_not_tell_is_a_dash(runs, tmp_path):
    shutil.copytree(runs / "binary", tmp_path / "old")
    (tmp_path / "old" / "tabular" / "calibration.json").unlink()
    (tmp_path / "old" / "tabular" / "metrics.json").write_text(
        json.dumps(METRICS | {"peak_memory_mb": None, "seconds": None})
    )
    line = cells(results_table([tmp_path / "old"]).split("\n")[2])
    assert line[-3:] == ["–", "–", "–"]


def test_the_table_takes_its_place_and_twice_is_as_once(runs, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Head\n\n{BEGIN}\noutdated\n{END}\n\ntail |\n", encoding="utf-8")
    command = ["results-table", str(runs / "binary"), "--update", str(readme)]
    assert main(command) == 0
    once = readme.read_bytes()
    assert main(command) == 0 and readme.read_bytes() == once
    text = readme.read_text(encoding="utf-8")
    assert "outdated" not in text and results_table([runs / "binary"]) in text
    assert text.startswith(f"# Head\n\n{BEGIN}\n| run ") and text.endswith(f"{END}\n\ntail |\n")
    assert "results of binary" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["no marks", f"{BEGIN}\n{BEGIN}\n{END}", f"{END}\n{BEGIN}", BEGIN])
def test_a_file_without_its_marks_stays_as_it_is(runs, tmp_path, capsys, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    assert main(["results-table", str(runs / "binary"), "--update", str(readme)]) == 2
    assert str(readme) in capsys.readouterr().err and readme.read_text(encoding="utf-8") == text


def test_an_unfinished_run_is_named(runs, tmp_path, capsys):
    shutil.copytree(runs / "binary", tmp_path / "run")
    (tmp_path / "run" / "image" / "fold0").mkdir(parents=True)
    assert main(["results-table", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "run" / "image") in error and error.count("\n") == 1
    assert main(["results-table", str(tmp_path / "none")]) == 2
    assert "none: no such folder; runs beside it are" in capsys.readouterr().err


def test_a_network_of_random_weights_is_named_below_the_scores(runs):
    place = runs / "seven" / "image" / "config.yaml"
    assert "note:" not in compare_runs([runs / "seven"])
    config = load_experiment(place, ["image.backbone=ResNet50", "image.weights=null"])
    before = place.read_bytes()
    write_experiment(place, config)
    lines = compare_runs([runs / "binary", runs / "seven"]).splitlines()
    place.write_bytes(before)
    assert lines[-1].startswith("note: seven: image model: ResNet50 is trained from random")
    assert "note" not in "".join(lines[:-1])
