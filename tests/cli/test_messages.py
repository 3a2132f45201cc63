"""What a user reads after a slip: one line, exit code 2, the file or setting and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import index_by, read_table
from kaggle_pipeline.data.folds import require_folds

ROOT = Path(__file__).resolve().parents[2]
DEMO = ("--config", str(ROOT / "configs" / "demo.yaml"), "--set", "folds.k=2")


def error_line(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines and lines[-1].startswith("error: ")
    return lines[-1]


@pytest.fixture
def tables(competition, tmp_path):
    """The competition's tables without its photos, which a test may spoil."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (competition / "competition").glob("*.csv"):
        shutil.copy(path, folder)
    return folder


def train(data_dir, run_dir, *more):
    places = ("--data-dir", str(data_dir), "--run-dir", str(run_dir))
    return main(["train-tabular", *DEMO, *places, *more])


# ---------------------------------------------------------------------------- environment


def test_a_script_outside_the_environment_names_the_way_in(tmp_path):
    """A Python of which every package is hidden stands for the system's own."""
    hide = "import sys; sys.modules.update(dict.fromkeys(['yaml', 'pandas', 'numpy', 'keras']))"
    (tmp_path / "sitecustomize.py").write_text(hide)
    script = ROOT / "scripts" / "train_image.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert sys.executable in done.stderr and "source .venv/bin/activate" in done.stderr
    assert "make demo" in done.stderr and "pip install" in done.stderr


def test_options_that_exclude_each_other_are_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train-image", "--resume", "--overwrite"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: argument --overwrite: not allowed")
    assert "python scripts/train_image.py --help" in error


# ---------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing: ask for it"),
        ("", "cannot be read as CSV"),
        (b"\x80\x81", "cannot be read as CSV"),
        ("a,c\n1,2\n", "has no column 'b'"),
        ("a,b\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, content, words):
    path = tmp_path / "it.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PipelineError, match=words) as caught:
        read_table(path, ["a", "b"], hint="ask for it", rows_needed=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_ids_are_text_and_listed_once(tmp_path):
    path = tmp_path / "it.csv"
    path.write_text("id,x\n007,0.1\n8,0.30000000000000004\n")
    table = index_by(read_table(path, text=["id"]), "id", path)
    assert table["x"].to_dict() == {"007": 0.1, "8": 0.1 + 0.2}
    with pytest.raises(PipelineError, match=r"it\.csv lists 8 more than once"):
        index_by(pd.concat([table, table.tail(1)]), "id", path)


def test_a_training_table_of_a_head_alone_is_named(tables, tmp_path, capsys):
    path = tables / "train.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert train(tables, tmp_path / "run") == 2
    assert error_line(capsys) == f"error: {path} has no rows"


def test_another_data_folder_than_the_prepared_one_is_told_apart(tables, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["prepare-data", *DEMO, "--data-dir", str(tables), "--run-dir", str(run)]) == 0
    words = ("--data-dir", str(tmp_path / "no"), "--run-dir", str(run), "--overwrite")
    assert main(["prepare-data", *DEMO, *words]) == 2
    assert "no data folder" in error_line(capsys) and (run / "prepare" / "folds.csv").exists()
    (tmp_path / "other").mkdir()
    assert train(tmp_path / "other", run) == 2
    assert "other holds none of the tables that" in error_line(capsys)
    with (tables / "train.csv").open("a") as file:
        file.write("\n")
    assert train(tables, run) == 2
    assert "train.csv changed since" in error_line(capsys)


# ---------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("image.epoch=3", "--set image.epoch=3: unknown key 'image.epoch'; did you mean 'image.ep"),
        ("image.dropout=2", "--set image.dropout=2: image.dropout is 2"),
        ("folds.holdout=0.5", "--set folds.holdout=0.5: "),
        (
            "table.patient=who",
            "--set table.patient=who: unknown key 'table.patient'; did you mean table.group?",
        ),
    ],
)
def test_a_wrong_override_is_not_the_files_fault(tmp_path, override, words):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndataset: synthetic\nfolds: {column: tfrecord}\n")
    with pytest.raises(PipelineError) as caught:
        load_experiment(path, ["seed=3", override])
    assert str(caught.value).startswith(words) and str(path) not in str(caught.value)


def test_a_wrong_file_is_blamed_whatever_is_set_and_can_be_mended_by_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndataset: synthetic\nimage: {epochs: 0}\n")
    with pytest.raises(PipelineError, match=r"mine\.yaml: image\.epochs is 0"):
        load_experiment(path, ["seed=3"])
    assert load_experiment(path, ["image.epochs=2"]).image.epochs == 2


def test_a_config_that_is_not_there_gives_the_nearest(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(PipelineError, match=r"no config .*mime\.yaml; did you mean '.*/mine\.yaml"):
        load_experiment(tmp_path / "mime.yaml")
    with pytest.raises(PipelineError, match=r"did you mean '.*configs/isic_2017\.yaml"):
        load_experiment(tmp_path / "isic2017.yaml")
    with pytest.raises(PipelineError, match=r"zebra\.yaml; choose from .*mine\.yaml$"):
        load_experiment(tmp_path / "zebra.yaml")  # alike in its ending alone
    with pytest.raises(PipelineError, match=r"no config .*; choose from .*configs/demo\.yaml"):
        load_experiment(tmp_path / "nowhere" / "qqqq")


def test_a_config_that_lies_in_the_folder_itself_is_the_one_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("name: mine\n")
    for wrong in ("configs/mine.yaml", str(tmp_path / "elsewhere" / "mine.yaml")):
        with pytest.raises(PipelineError, match=r"no config .*; did you mean 'mine\.yaml'\?"):
            load_experiment(Path(wrong))


# ---------------------------------------------------------------------------- folds


@pytest.mark.parametrize(
    ("config", "fine", "wrong"),
    [
        ({"k": 5}, (0, 4), 5),
        ({"k": 3, "column": "tfrecord"}, (2,), 3),
        ({"holdout": 0.2}, (0,), 1),
        ({"judge": "official_validation"}, (0,), 1),
    ],
)
def test_folds_that_cannot_be_are_known_beforehand(config, fine, wrong):
    require_folds(FoldsConfig(**config), fine)
    with pytest.raises(PipelineError, match=f"--fold {wrong}: this experiment has no such fold"):
        require_folds(FoldsConfig(**config), [*fine, wrong])


@pytest.mark.parametrize("command", ["train-image", "train-tabular"])
def test_a_fold_that_is_not_there_is_told_before_anything_is_made(
    command, competition, tmp_path, capsys
):
    run = tmp_path / "run"
    places = ("--data-dir", str(competition / "competition"), "--run-dir", str(run))
    assert main([command, *DEMO, *places, "--fold", "7"]) == 2
    assert "--fold 7" in error_line(capsys) and not run.exists()


LOGISTIC = ("--set", "tabular.learners=[logistic]")  # the quickest


@pytest.fixture(scope="module")
def half_done(competition, tmp_path_factory):
    """A prepared run of which the logistic regression has one of two folds."""
    run = tmp_path_factory.mktemp("half") / "run"
    assert train(competition / "competition", run, *LOGISTIC, "--fold", "0") == 0
    return run


@pytest.fixture
def half(half_done, competition, tmp_path):
    """Its data and a copy of it that a test may spoil."""
    return competition / "competition", Path(shutil.copytree(half_done, tmp_path / "run"))


def test_a_submission_names_the_folds_that_it_lacks(half, capsys):
    places = ("--data-dir", str(half[0]), "--run-dir", str(half[1]))
    assert main(["make-submission", *DEMO, *places, "--set", "blend.models=[logistic]"]) == 2
    line = error_line(capsys)
    assert "folds [1] of the model 'logistic' are not trained yet" in line
    assert line.endswith(f"scripts/train_tabular.py --run-dir {half[1]} --fold 1")


OTHER = ("--set", "tabular.features=[age_years]")


def test_other_settings_are_refused_before_a_fold_is_deleted(half, capsys):
    path = half[1] / "logistic" / "fold0" / "oof.csv"
    before = path.read_bytes()
    assert train(*half, *LOGISTIC, *OTHER, "--fold", "0", "--overwrite") == 2
    assert "tabular.features" in error_line(capsys)
    assert path.read_bytes() == before


def test_a_stage_without_results_binds_nobody(half):
    stage = half[1] / "logistic"
    shutil.rmtree(stage / "fold0")
    assert train(*half, *LOGISTIC, *OTHER, "--fold", "1") == 0
    recorded = yaml.safe_load((stage / "config.yaml").read_text())
    assert recorded["tabular"]["features"] == ["age_years"] and (stage / "fold1/oof.csv").exists()
