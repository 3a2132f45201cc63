"""Mistakes in options, config, run or data folder: said at once, the most fundamental first."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_pipeline.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SLOW_TO_LOAD = {
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "sklearn",
    "matplotlib",
    "scipy",
    "streamlit",
}
REFUSED = (
    "predict runs/demp --images photos",
    "export-model runs/demp",
    "serve runs/demp",
    "bundle runs/demp --out bundle --licence mit",
    "audit-labels runs/demp",
    "verify-run runs/demp",
    "compare-runs runs/demp",
    "results-table runs/demp",
    "make-submission --config demo --run-dir runs/demp",
    "submit --run-dir runs/demp",
    "predict runs/demo --images no_photos",
    "export-model runs/demo",
    "score-submission --submission no.csv --truth no.csv",
    "run-pipeline --config dem",
    "run-pipeline --config demo --set image.epoch=3",
    "run-pipeline --config demo",
    "prepare-data --config demo",
    "train-image --config demo",
    "train-tabular --config demo",
    "train-embedding --config demo --set embedding.encoders=[keras:MobileNetV2]",
    "blend-scores --config demo --run-dir runs/new",
    "explore-data --config demo",
    "plan --dataset ham10000 --data-dir no",
    "smoke --config dem",
    "preflight --config dem",
    "download-data --config dem",
    "build-kernels --config dem --owner me",
    "push-kernels no",
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A working folder with two runs that hold next to nothing."""
    for name in ("demo", "mine"):
        (tmp_path / "runs" / name / "prepare").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_line(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_a_mistake_is_said_before_anything_slow_is_loaded(runs):
    code = (
        "import json, sys\nfrom kaggle_pipeline.cli.main import main\n"
        f"loaded = {{}}\nfor words in {REFUSED}:\n"
        "    assert main(words.split()) == 2, words\n"
        f"    loaded[words] = sorted({SLOW_TO_LOAD} & set(sys.modules))\n"
        "print(json.dumps(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False,
        cwd=runs, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == len(REFUSED), done.stderr  # a line each
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not {words: names for words, names in loaded.items() if names}
    assert sorted(path.name for path in (runs / "runs").iterdir()) == ["demo", "mine"]


@pytest.mark.parametrize(
    "words",
    [
        "predict RUN --images no --out taken.csv",
        "export-model RUN --images no --out taken.csv",
        "bundle RUN --out taken.csv --licence mit",
        "audit-labels RUN",
        "verify-run RUN",
        "compare-runs runs/demo RUN",
        "serve --run-dir RUN",
        "make-submission --config demo --run-dir RUN",
    ],
)
def test_a_mistyped_run_is_what_is_said_first(runs, words, capsys):
    (runs / "taken.csv").write_text("mine\n")
    assert main(words.replace("RUN", "runs/demp").split()) == 2
    assert "runs/demp: no such folder; did you mean 'runs/demo'?" in error_line(capsys)
    assert main(words.replace("RUN", "runs/second").split()) == 2
    assert "no such folder; runs beside it are runs/demo, runs/mine" in error_line(capsys)
    assert main(words.replace("RUN", "runs/mine/prepare").split()) == 2
    assert "a part of a run: say runs/mine" in error_line(capsys)
    assert main(words.replace("RUN", "runs").split()) == 2
    assert "runs holds no run; there are runs/demo, runs/mine" in error_line(capsys)
    assert (runs / "taken.csv").read_text() == "mine\n"


def test_a_run_may_be_named_with_or_without_its_option(runs, capsys):
    for words in ("verify-run runs/demo", "verify-run --run-dir runs/demo"):
        assert main(words.split()) == 2
        assert "runs/demo holds no finished stage" in error_line(capsys)
    for words in ("compare-runs runs/demo", "compare-runs --run-dir runs/demo"):
        assert main(words.split()) == 2
        assert "runs/demo holds no evaluated model" in error_line(capsys)
    for words in ("verify-run", "verify-run runs/demo --run-dir runs/mine", "compare-runs"):
        with pytest.raises(SystemExit) as stop:
            main(words.split())
        assert stop.value.code == 2
        assert "name " in error_line(capsys)


def test_a_photo_folder_comes_before_the_file_to_write(runs, capsys):
    """What is said first is what the user has to mend first."""
    (runs / "taken.csv").write_text("mine\n")
    saved = runs / "runs" / "demo" / "image" / "fold0" / "model.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("{}")
    (runs / "runs" / "demo" / "image" / "config.yaml").write_text(
        "name: demo\ndataset: synthetic\n"
    )
    (runs / "photos").mkdir()
    assert main(["predict", "runs/demo", "--images", "photo", "--out", "taken.csv"]) == 2
    assert "--images photo: no such folder; did you mean 'photos'?" in error_line(capsys)
    (runs / "data" / "demo" / "competition").mkdir(parents=True)
    assert main(["predict", "runs/demo", "--images", "data/demo/jpeg/test"]) == 2
    assert "no such folder; in data/demo there is competition" in error_line(capsys)
    assert main(["predict", "runs/demo", "--images", "photos", "--out", "taken.csv"]) == 2
    assert "taken.csv exists: say --overwrite" in error_line(capsys)


@pytest.mark.parametrize(
    "words", ["--dataset ham10000 --patients 9", "--dataset isic_2017 --mean-images 3",
              "--images 90 --patients 9"],
)  # fmt: skip
def test_a_size_that_would_not_count_is_refused(words, tmp_path, capsys):
    out = tmp_path / "made"
    with pytest.raises(SystemExit, match="2"):
        main(["make-synthetic", "--out", str(out), *words.split()])
    assert "--patients and --mean-images draw siim_isic_2020" in error_line(capsys)
    assert not out.exists()


def test_the_demos_config_names_the_folder_and_how_to_make_it(runs, capsys):
    words = "run-pipeline --config demo --run-dir runs/new"
    assert main(words.split()) == 2
    line = error_line(capsys)
    assert "make_synthetic.py --out data/demo" in line
    assert "--data-dir data/demo/competition" in line
    drawn = runs / "data" / "first" / "competition"
    drawn.mkdir(parents=True)
    for name in ("made_up.txt", "train.csv"):
        (drawn / name).touch()
    assert main(words.split()) == 2
    assert error_line(capsys).endswith("say --data-dir data/first/competition")
    assert main([*words.split(), "--data-dir", "data/frist/competition"]) == 2
    assert "did you mean 'data/first/competition'?" in error_line(capsys)
    assert main(["explore-data", "--config", "my_photos", "--data-dir", "data/frist"]) == 2
    assert "did you mean 'data/first'?" in error_line(capsys)
    (drawn / "lesions.csv").touch()
    assert main(["explore-data", "--config", "my_photos"]) == 2
    assert error_line(capsys).endswith("say --data-dir data/first/competition")


def test_going_on_with_a_run_that_is_not_there_is_said(runs, capsys):
    words = "train-tabular --config demo --data-dir no --run-dir runs/demp --resume"
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert "no data folder no" in said.err
    assert "no runs/demp to go on with, so it begins; did you mean 'runs/demo'?" in said.out
    assert main(words.replace("demp", "demo").split()) == 2
    assert "to go on with" not in capsys.readouterr().out
