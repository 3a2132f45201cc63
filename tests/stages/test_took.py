"""Tests of what stages write down of the time and memory that they took."""

import json
import shutil

import pytest
from helpers_demo import demo_words

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.names import TOOK
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.record import differences
from kaggle_pipeline.stages.took import Stopwatch, clocked


def test_every_stage_of_a_run_says_what_it_took(demo_run):
    stages = ("prepare", "records", "explore", "image", "tabular", "blend")
    took = {stage: read_json(demo_run / stage / TOOK) for stage in stages}
    assert all(set(one) == {"seconds", "cpu_seconds", "peak_memory_mb"} for one in took.values())
    peaks = [took[stage]["peak_memory_mb"] for stage in stages]
    assert peaks == sorted(peaks), "a process's peak never falls"
    folds = [read_json(path)["seconds"] for path in demo_run.glob("image/fold*/metrics.json")]
    assert took["image"]["seconds"] > sum(folds), "its scores take time too"
    assert not any(differences(demo_run / stage) for stage in stages), "it is written down"


def test_folds_that_were_trained_before_count():
    before = [
        {"seconds": 100.0, "cpu_seconds": 150.0, "peak_memory_mb": 1e6},
        {"seconds": 20.0},  # of an earlier version
    ]
    took = Stopwatch().read(before)
    assert 120 <= took["seconds"] < 240 and 150 <= took["cpu_seconds"] < 240
    assert took["peak_memory_mb"] == 1e6


def test_a_stage_that_fails_leaves_no_time(tmp_path):
    try:
        with clocked(tmp_path):
            raise KeyError
    except KeyError:
        assert not (tmp_path / TOOK).exists()
    write_json(tmp_path / "other.json", {})
    with clocked(tmp_path):
        pass
    assert read_json(tmp_path / TOOK)["seconds"] >= 0


@pytest.mark.ci
def test_folds_that_others_train_count_and_a_damaged_one_is_trained_anew(
    demo_run, competition, tmp_path, capsys
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    words = ["train-tabular", *demo_words(competition / "competition", run)]
    took, fold = run / "tabular" / TOOK, run / "tabular" / "fold0" / "metrics.json"
    fold.write_text(fold.read_text() + " ")
    assert main([*words, "--fold", "1", "--overwrite"]) == 2, "fold 0 is kept"
    assert f"{fold} has" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    trained = json.loads(fold.read_text())
    write_json(fold, trained | {"seconds": 1000.0})
    renew(fold.parent, fold.name)  # as if a process beside this one had taken so long
    assert main([*words, "--fold", "1", "--overwrite"]) == 0
    known = took.read_bytes()
    assert 1000 < read_json(took)["seconds"] < 2000
    assert main([*words, "--resume"]) == 0 and took.read_bytes() == known, "nothing was trained"
