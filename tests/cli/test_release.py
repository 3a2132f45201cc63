"""The source and the wheel made of it, in an environment with nothing but what is locked."""

import subprocess
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_source_and_wheel_install_into_an_empty_environment(tmp_path):
    def run(*words, cwd=tmp_path):
        done = subprocess.run(
            [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=3000,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    checkout = tmp_path / "checkout"
    for name in filter(None, files.stdout.decode().split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    venv.create(tmp_path / "empty", with_pip=True)
    python, command = (tmp_path / "empty" / "bin" / one for one in ("python", "kaggle-pipeline"))
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    lock = ROOT / "locks" / "demo.txt"
    run(*pip, "install", "--no-compile", "--require-hashes", "--requirement", lock)
    build = "import setuptools.build_meta as b; b.build_sdist('dist')"
    run(python, "-c", build, cwd=checkout)
    (source,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(source) as packed:
        inside = packed.getnames()
    assert any(name.endswith("configs/demo.yaml") for name in inside)
    assert not any("/tests/" in name for name in inside)
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "install", "--no-deps", wheel)
    assert "usage: kaggle-pipeline" in run(command, "--help")
    assert str(checkout) not in run(python, "-c", "import kaggle_pipeline as k; print(k.__file__)")
    run(command, "make-synthetic", "--out", "data", "--patients", "24", "--image-size-px", "24")
    words = ("--config", "demo", "--data-dir", "data/competition", "--set", "folds.k=2")
    run(command, "train-tabular", *words, "--set", "tabular.epochs=2")
    assert (tmp_path / "runs" / "demo" / "tabular" / "oof.csv").exists()
