"""Later stages of a run take its settings and its data from it; what differs is said."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.run_settings import (
    Difference,
    describe_differences,
    differences,
    load_experiment_here,
    load_run_experiment,
    settings_of_run,
    source_of_run,
)
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.stages.make_submission import _says_where

DEMO = str(Path(__file__).resolve().parents[2] / "configs" / "demo.yaml")
SET = ("seed=3", "folds.k=2", "tabular.learners=[logistic]", "blend.models=[logistic]")


def words(*settings):
    return [word for one in settings for word in ("--set", one)]


@pytest.fixture(scope="module")
def trained(competition, tmp_path_factory):
    """A run with settings of its own, without its blend, and the folder of its data."""
    folder = tmp_path_factory.mktemp("own")
    data = Path(shutil.copytree(competition, folder / "mine")) / "competition"
    places = ["--data-dir", str(data), "--run-dir", str(folder / "run")]
    assert main(["train-tabular", "--config", DEMO, *places, *words(*SET)]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of it, from a working folder that holds nothing else."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def recorded(run, stage="blend"):
    return yaml.safe_load((run / stage / "config.yaml").read_text())


@pytest.mark.ci
def test_the_runs_folder_alone_is_enough(run, capsys):
    assert main(["make-submission", "--run-dir", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"taken from {run}: settings, data folder " in said and "mine/competition (" in said
    assert recorded(run) == recorded(run, "logistic") and "note: logistic" not in said
    assert json.loads((run / "blend" / "gallery.json").read_text())["photos"]  # found its data
    assert (run / "submission.csv").exists()
    # Nothing is trained anew, and nothing else than what is said changes.
    assert main(["train-tabular", "--run-dir", str(run), "--resume"]) == 0
    more = words("blend.space=mean", "tabular.features=[sex]")
    assert main(["make-submission", "--run-dir", str(run), *more]) == 0
    said = capsys.readouterr().out
    assert "note: logistic was trained with tabular.features = None" in said and "['sex']" in said
    assert recorded(run)["blend"] == {**recorded(run, "logistic")["blend"], "space": "mean"}
    assert recorded(run)["seed"] == 3


def test_a_config_that_differs_in_what_matters_is_refused_with_its_keys(run, capsys):
    more = ["--config", DEMO, *words("blend.models=[logistic]")]
    assert main(["make-submission", "--run-dir", str(run), *more]) == 2
    line = capsys.readouterr().err.strip()
    assert "seed = 3" in line and "folds.k" in line and "\n" not in line
    assert f"--run-dir {run}" in line and "prepare_data --overwrite" in line
    assert not (run / "blend").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_an_interrupted_preparation_keeps_settings_and_data_folder(
    run, trained, tmp_path, capsys, monkeypatch, fresh
):
    place = tmp_path / "new" if fresh else run
    data = trained.parent / "mine" / "competition"
    first = ["--config", DEMO, *words(*SET), "--data-dir", str(data)] if fresh else ["--overwrite"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kaggle_pipeline.stages.prepare.divide_train", interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            assert main(["prepare-data", "--run-dir", str(place), *first]) != 0
    assert not (place / "prepare" / "folds.csv").exists()
    capsys.readouterr()
    assert main(["prepare-data", "--run-dir", str(place)]) == 0
    assert f"taken from {place}: settings, data folder {data}" in capsys.readouterr().out
    assert recorded(place, "prepare")["seed"] == 3


def test_a_failed_preparation_keeps_what_was_there_and_leaves_nothing_new(run, tmp_path, trained):
    table = tmp_path / "bad" / "train.csv"
    shutil.copytree(trained.parent / "mine" / "competition", table.parent)
    table.write_text("image_name\n")
    bad = ["--data-dir", str(table.parent)]
    assert main(["prepare-data", "--run-dir", str(run), *bad, "--overwrite"]) == 2
    assert source_of_run(run) == table.parent and recorded(run, "prepare")["seed"] == 3
    new = tmp_path / "new"
    assert main(["prepare-data", "--config", DEMO, "--run-dir", str(new), *bad]) == 2
    assert not new.exists()


def test_the_data_is_where_it_was_or_has_to_be_said(run, trained):
    data = trained.parent / "mine" / "competition"
    assert source_of_run(run) == data
    (run / "prepare" / "source.json").write_text(json.dumps({"data_dir": str(data / "gone")}))
    (run / "prepare" / "written.json").unlink()
    assert source_of_run(run) is None
    (run / "prepare" / "source.json").unlink()  # as in a run of before
    assert source_of_run(run) is None


def test_each_section_is_that_of_its_stage(tmp_path):
    def write(stage, **sections):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "config.yaml").write_text(
            yaml.safe_dump({"name": "x", "dataset": "ham10000", **sections})
        )

    assert settings_of_run(tmp_path) is None and load_run_experiment(tmp_path) is None
    write("prepare", image={"epochs": 1}, tabular={"epochs": 1}, train_all=False)
    write("image", image={"epochs": 2}, tabular={"epochs": 2}, train_all=True)
    write("forest", image={"epochs": 3}, tabular={"epochs": 3}, train_all=True)
    write("tabular", image={"epochs": 4}, tabular={"epochs": 4}, train_all=True)
    write("blend", image={"epochs": 5}, tabular={"epochs": 5}, blend={"space": "mean"})
    write("embedding", records={"image_size_px": 64}, seed=5)
    (tmp_path / "image" / "config.yaml").open("a").write("records: {image_size_px: 96}\n")
    found = load_run_experiment(tmp_path, ["image.batch_size=3"])
    assert found.records.image_size_px == 96  # the network's, not the head's
    assert (found.image.epochs, found.tabular.epochs, found.blend.space) == (2, 4, "mean")
    assert found.image.batch_size == 3


@pytest.mark.ci
def test_what_was_prepared_anew_is_what_counts(run, capsys):
    assert main(["prepare-data", "--run-dir", str(run), *words("seed=9"), "--overwrite"]) == 0
    assert main(["train-tabular", "--run-dir", str(run), "--overwrite"]) == 0
    assert recorded(run, "logistic")["seed"] == 9
    assert main(["make-submission", "--run-dir", str(run)]) == 0


def test_what_belongs_to_the_machine_is_not_taken(tmp_path):
    (tmp_path / "image").mkdir()
    path = tmp_path / "image" / "config.yaml"
    path.write_text("{name: x, dataset: ham10000, seed: 7, device: tpu, replicas: 8}")
    found = load_experiment_here(tmp_path)
    assert (found.seed, found.device, found.replicas) == (7, "auto", None)
    assert load_experiment_here(tmp_path, ["device=gpu"]).device == "gpu"
    assert load_run_experiment(tmp_path).device == "tpu"  # what was, for tables of runs
    assert load_experiment_here(tmp_path / "none") is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"data_dir": 3}', "null"])
def test_a_damaged_source_is_named(tmp_path, content):
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare" / "source.json").write_text(content)
    with pytest.raises(PipelineError, match=r"source\.json is damaged: delete it and say"):
        source_of_run(tmp_path)


def test_another_data_set_is_not_read_from_this_ones_folder(run, capsys):
    config = str(Path(DEMO).with_name("ham10000_lenet.yaml"))
    assert main(["prepare-data", "--run-dir", str(run), "--config", config, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "data/ham10000" in error and "mine" not in error
    assert (run / "logistic" / "oof.csv").exists()


def test_where_weights_and_records_lie_is_no_difference():
    def one(key, before, now):
        return _says_where(Difference(key, before, now))

    assert one("image.weights", "/kaggle/input/w/w.h5", "imagenet")
    assert one("records.source", "tfrecords", "auto")
    assert not one("image.weights", None, "imagenet")
    assert not one("image.epochs", 3, 4)


def test_differences_are_named_one_with_its_values():
    before = {"seed": 1, "image": {"epochs": 2, "loss": "focal"}, "name": "a"}
    now = {"seed": 2, "image": {"epochs": 3, "loss": "focal"}, "name": "b"}
    found = differences(before, now, ["seed", "image"])
    text = "seed = 1, this experiment says 2 (different too: image.epochs)"
    assert describe_differences(found) == text
