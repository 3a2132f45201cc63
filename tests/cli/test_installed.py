"""The installed command: what ``pip install`` leaves runs without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kaggle_pipeline.cli.command import as_installed
from kaggle_pipeline.cli.main import COMMANDS, GROUPS, main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("kaggle_pipeline", "configs", "kernels", "setup.py", "setup.cfg", "pyproject.toml",
         "MANIFEST.in", "README.md", "LICENSE")  # fmt: skip


def test_its_help_names_itself_and_no_script(monkeypatch, capsys):
    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["kaggle-pipeline", command.name, "--help"])
        with pytest.raises(SystemExit, match="0"):
            main()
        said = capsys.readouterr().out
        assert f"kaggle-pipeline {command.name}" in said and "scripts/" not in said


def test_alone_it_lists_every_command_once(capsys):
    assert main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(
        command.name for command in COMMANDS
    )
    assert lines[lines.index("start here:") + 1].split()[0] == "make-synthetic"
    for command in COMMANDS:
        assert sum(line.startswith(f"  {command.name} ") for line in lines) == 1, command.name
    assert max(map(len, lines)) <= 100 and not any("{" in line for line in lines)
    with pytest.raises(SystemExit, match="2"):
        main(["predct", "--images", "x"])
    assert "unknown command 'predct'; did you mean 'predict'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--foo", "1"], ["--set"]])
def test_a_mistake_names_the_help_of_its_own_command(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["prepare-data", *words])
    said = capsys.readouterr().err
    assert said.endswith("(see python scripts/prepare_data.py --help)\n"), said


def test_an_error_names_the_command_that_mends_it(monkeypatch, tmp_path, capsys):
    words = ["prepare-data", "--data-dir", str(tmp_path / "none"), "--run-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["kaggle-pipeline", *words])
    assert main() == 2
    assert "kaggle-pipeline download-data" in capsys.readouterr().err
    assert main(words) == 2
    assert "python scripts/download_data.py" in capsys.readouterr().err
    assert as_installed("error: /data/scripts/x.py") == "error: /data/scripts/x.py"


def test_a_config_that_comes_with_it_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_experiment(Path("demo")).name == "demo"
    (tmp_path / "demo").write_text("name: mine\ndataset: synthetic\n")
    assert load_experiment(Path("demo")).name == "mine", "a file of one's own goes first"
    with pytest.raises(PipelineError, match="no config dem"):
        load_experiment(Path("dem"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The content of the wheel, unpacked as an installer does."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source")
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w"]
    subprocess.run([*build, str(source / "dist"), str(source)], check=True, timeout=300)
    (wheel,) = (source / "dist").glob("*.whl")
    place = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(place)
    return place


@pytest.mark.ci
def test_the_wheel_holds_configs_and_builds_kernels(installed, tmp_path):
    def run(*words):
        command = [sys.executable, "-c", "import sys; from kaggle_pipeline.cli.main import main; "
                   "sys.argv[0] = 'kaggle-pipeline'; sys.exit(main())", *words]  # fmt: skip
        return subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(installed), "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "kaggle-pipeline = kaggle_pipeline.cli.main:main" in entry.read_text()
    drawn = run("make-synthetic", "--out", "data", "--patients", "24", "--image-size-px", "24")
    assert drawn.returncode == 0, drawn.stderr
    words = ("--config", "demo", "--data-dir", "data/competition", "--set", "folds.k=2")
    trained = run("train-tabular", *words, "--set", "leakage.fingerprints=false")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "demo" / "tabular" / "oof.csv").exists()
    built = run("build-kernels", "--owner", "me")
    assert built.returncode == 0, built.stderr
    assert "push them: kaggle-pipeline push-kernels build" in built.stdout
    assert "scripts/" not in built.stdout + trained.stdout + drawn.stdout
    from_checkout = tmp_path / "checkout"
    assert main(["build-kernels", "--owner", "me", "--out", str(from_checkout)]) == 0
    for kernel in ("image", "tabular", "blend"):
        (one,) = (tmp_path / "build" / "kernels" / kernel).glob("*.py")
        assert one.read_bytes() == (from_checkout / kernel / one.name).read_bytes()
