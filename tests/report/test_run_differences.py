"""What tells two runs apart: settings, photos, and the paired difference of the scores."""

import json

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import write_experiment
from kaggle_pipeline.data.examples import write_examples
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.report.run_differences import describe_difference


@pytest.fixture
def make_run(tmp_path, small_examples):
    """Write a run whose image model has an error of so much; return its folder and scores."""

    def make(name, error, *, epochs=8, rows=slice(None), relabel=0):
        examples = small_examples(patients=24)
        examples.iloc[:relabel, examples.columns.get_loc("target")] = (
            1 - examples["target"].iloc[:relabel]
        )
        train = examples[examples["split"] == "train"].iloc[rows]
        noise = np.random.default_rng(0).normal(size=len(examples))[: len(train)]
        found = 1 / (1 + np.exp(-(train["target"] - 0.5 + error * noise)))
        folder = tmp_path / name
        (folder / "image").mkdir(parents=True)
        (folder / "prepare").mkdir()
        config = Experiment(
            name=name, dataset="siim_isic_2020", image=ImageConfig(epochs=epochs)
        )  # fmt: skip
        write_experiment(folder / "image" / "config.yaml", config)
        write_examples(examples, folder / "prepare" / "examples.csv")
        Predictions.build(pd.DataFrame({"target": found}), 0, "oof").write(
            folder / "image" / "oof.csv"
        )
        (folder / "image" / "metrics.json").write_text(json.dumps({"seconds": 1}))
        return folder, roc_auc(train["target"].to_numpy(), found.to_numpy())

    return make


def test_settings_and_a_paired_difference_are_said(make_run):
    (good, high), (poor, low) = make_run("good", 0.3), make_run("poor", 3.0, epochs=3)
    said = describe_difference(poor, good)
    assert "  image.epochs: 3 -> 8" in said and len(said) == 4
    assert "the same 108 photos" in said[2]
    value, bounds = said[3].split("difference ")[1].split(" ", 1)
    assert f"AUC {low:.3f} -> {high:.3f}" in said[3]
    assert float(value) == pytest.approx(high - low, abs=1e-3)
    below, above = map(float, bounds.split("]")[0].strip("[").split(", "))
    assert 0 < below < high - low < above and "noise" not in said[3]


def test_a_run_beside_itself_differs_in_nothing(make_run):
    run, _ = make_run("one", 1.0)
    said = describe_difference(run, run)
    assert "  the same settings" in said
    assert "difference +0.000 [+0.000, +0.000]; within the noise" in said[-1]


def test_photos_that_are_not_in_both_are_counted(make_run):
    (first, _), (second, _) = make_run("all", 1.0), make_run("few", 1.0, rows=slice(100))
    assert "100 photos in both, of 108 and 100" in describe_difference(first, second)[2]


def test_other_labels_are_counted_and_nothing_is_compared(make_run):
    (first, _), (second, _) = make_run("a", 1.0), make_run("b", 1.0, relabel=3)
    said = describe_difference(first, second)
    assert "3 of them have other labels" in said[-1] and "AUC" not in said[-1]


def test_photos_that_are_other_files_are_counted(make_run):
    (first, _), (second, _) = make_run("a", 1.0), make_run("b", 1.0)
    ids = pd.read_csv(first / "image" / "oof.csv")["image_id"]
    for run, changed in ((first, 0), (second, 5)):
        found = [f"{number}{'x' if number < changed else ''}" for number in range(len(ids))]
        table = pd.DataFrame({"image_id": ids, "sha256": found, "phash": "0"})
        table.to_csv(run / "prepare" / "fingerprints.csv", index=False)
    assert "the same 108 photos, 5 of them other files" in describe_difference(first, second)[2]


def test_runs_without_their_tables_show_settings_alone(make_run):
    (first, _), (second, _) = make_run("a", 1.0), make_run("b", 1.0, epochs=5)
    (second / "prepare" / "examples.csv").unlink()
    said = describe_difference(first, second)
    assert "  image.epochs: 8 -> 5" in said and "examples.csv" in said[-1]
