"""Tests of the packed script: it runs alone, is repeatable, and too much is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_pipeline import kernel
from kaggle_pipeline.cli import main
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.kernel import pack_kernel

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted(path.parent for path in ROOT.glob("kernels/*/kernel-metadata.json"))
KNOWN = {
    "id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu",
    "enable_internet", "machine_shape", "dataset_sources", "competition_sources", "kernel_sources",
    "model_sources",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "kernels" / "tried"
    place.mkdir(parents=True)
    metadata = {"title": "tried out", "code_file": "tried.py"}
    (place / "kernel-metadata.json").write_text(json.dumps(metadata))
    (place / "entry.py").write_text(
        "from pathlib import Path\n"
        "import kaggle_pipeline\n"
        "from kaggle_pipeline.cli import main\n"
        "configs = Path(kaggle_pipeline.__file__).parent.parent / 'configs'\n"
        "print(sorted(path.name for path in configs.glob('demo*')))\n"
        "main(['--version'])\n"
    )
    return place


def test_the_script_runs_where_nothing_else_is(folder, tmp_path):
    script = shutil.move(pack_kernel(folder, ROOT), tmp_path / "alone.py")
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['demo.yaml']", "0.1.0"]


def test_the_same_sources_give_the_same_bytes(folder):
    first = pack_kernel(folder, ROOT).read_bytes()
    assert pack_kernel(folder, ROOT).read_bytes() == first and len(first) < 400_000


def test_what_is_missing_or_too_large_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(kernel, "MAX_BYTES", 1000)
    with pytest.raises(PipelineError, match=r"tried\.py would have \d+ bytes; Kaggle takes 1000"):
        pack_kernel(folder, ROOT)
    assert not (folder / "tried.py").exists()
    (folder / "kernel-metadata.json").write_text('{"title": "tried out"}')
    with pytest.raises(PipelineError, match=r"kernel-metadata\.json.*code_file"):
        pack_kernel(folder, ROOT)
    (folder / "entry.py").unlink()
    with pytest.raises(PipelineError, match=r"entry\.py is missing"):
        (folder / "kernel-metadata.json").write_text('{"title": "tried out", "code_file": "a.py"}')
        pack_kernel(folder, ROOT)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_every_kernels_metadata_is_what_kaggle_knows(path, capsys):
    metadata = json.loads((path / "kernel-metadata.json").read_text())
    assert set(metadata) == KNOWN  # unknown keys are silently ignored there
    assert len(metadata["title"]) >= 5
    assert metadata["id"].split("/")[1] == metadata["title"].replace(" ", "-")
    assert not (metadata["enable_gpu"] and metadata["enable_tpu"])
    assert main(["pack-kernel", str(path)]) == 0
    assert "kaggle kernels push -p" in capsys.readouterr().out
    compile((path / metadata["code_file"]).read_text(), metadata["code_file"], "exec")
