"""Tests of the run folder: whole files or none, refused overwrites, versions."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest

import kaggle_pipeline
from kaggle_pipeline.core import environment, files
from kaggle_pipeline.core.environment import peak_memory_mb, versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, replace_folder, write_json
from kaggle_pipeline.stages.run_folder import open_stage


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_path_makes_the_folder_and_leaves_one_file(tmp_path):
    path = tmp_path / "new" / "deep" / "file.csv"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_leaves_nothing_half_written(tmp_path, error):
    path = tmp_path / "file.csv"
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == []


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.csv"]


def test_atomic_path_replaces_the_old_file(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("old and long")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_json_round_trip_keeps_key_order(tmp_path):
    content = {"z": 0.1, "a": [1, None, True], "text": "Größe"}
    write_json(tmp_path / "x.json", content)
    back = read_json(tmp_path / "x.json")
    assert back == content
    assert list(back) == list(content)


def test_write_json_of_something_else_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert names(tmp_path) == []


def test_read_json_names_a_missing_file(tmp_path):
    with pytest.raises(PipelineError, match=r"none\.json is missing"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00binary"])
def test_read_json_names_a_broken_file(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"broken\.json is not valid JSON"):
        read_json(path)


def test_open_stage_makes_a_new_folder(tmp_path):
    folder = open_stage(tmp_path / "run", "image", resume=False, overwrite=False)
    assert folder == tmp_path / "run" / "image"
    assert folder.is_dir()
    # An empty folder holds no results: a stage that failed at once can be started again.
    assert open_stage(tmp_path / "run", "image", resume=False, overwrite=False) == folder


def test_open_stage_refuses_results_and_says_what_to_do(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "oof.csv").write_text("precious")
    with pytest.raises(PipelineError) as caught:
        open_stage(tmp_path, "image", resume=False, overwrite=False)
    for part in (str(tmp_path / "image"), "--resume", "--overwrite", "--run-dir"):
        assert part in str(caught.value)
    assert (tmp_path / "image" / "oof.csv").read_text() == "precious"


def test_open_stage_resume_keeps_and_overwrite_deletes_this_stage_alone(tmp_path):
    for stage in ("image", "tabular"):
        (tmp_path / stage / "fold0").mkdir(parents=True)
        (tmp_path / stage / "fold0" / "oof.csv").write_text("x")
        (tmp_path / stage / "config.yaml").write_text("name: x")
    open_stage(tmp_path, "image", resume=True, overwrite=False)
    assert names(tmp_path / "image") == ["config.yaml", "fold0"]
    open_stage(tmp_path, "image", resume=False, overwrite=True)
    assert names(tmp_path / "image") == []
    assert names(tmp_path / "tabular") == ["config.yaml", "fold0"]


def test_a_folder_that_is_not_ours_is_never_deleted(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.txt").write_text("precious")
    with pytest.raises(PipelineError, match=r"records.*not deleted"):
        open_stage(tmp_path, "records", resume=False, overwrite=True)
    assert (tmp_path / "records" / "mine.txt").read_text() == "precious"


def test_versions_name_what_computes():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["kaggle_pipeline"] == kaggle_pipeline.__version__
    assert found["numpy"] == np.__version__
    assert {"pandas", "scikit-learn"} <= set(found)
    json.dumps(found)


def test_versions_take_no_commit_from_a_folder_around_us(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "core" / "any.py"))
    assert "commit" not in versions()


def test_peak_memory_is_plausible():
    assert 10 < peak_memory_mb() < 1_000_000


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    place = tmp_path / "place"
    for number in ("first", "second"):
        new = tmp_path / "beside" / "new"
        new.mkdir(parents=True)
        (new / number).touch()
        replace_folder(new, place)
        assert names(place) == [number]
        shutil.rmtree(tmp_path / "beside")
    with pytest.raises(OSError, match="beside"):
        replace_folder(tmp_path / "beside" / "new", place)
    assert names(place) == ["second"] and names(tmp_path) == ["place"]


LOOK = """
import shutil, sys, threading
from pathlib import Path
from kaggle_pipeline.core.files import replace_folder
place, missing, over = Path(sys.argv[1]) / "place", 0, threading.Event()
place.mkdir()

def look():
    global missing
    while not over.is_set():
        missing += not place.exists()

one = threading.Thread(target=look)
one.start()
for number in range(2000):
    new = place.with_name(f"new{number}")
    new.mkdir()
    replace_folder(new, place)
over.set()
one.join()
print(missing)
"""


def exchanges_names(folder):
    """Whether the system can do it at all, asked without the code under test."""
    for name in ("one", "other"):
        (folder / name).mkdir()
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    at, paths = ctypes.c_int(-100), [os.fsencode(folder / name) for name in ("one", "other")]
    return rename is not None and rename(at, paths[0], at, paths[1], ctypes.c_uint(2)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="two renames elsewhere")
def test_on_linux_a_folder_that_is_replaced_is_never_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if not exchanges_names(tmp_path):
        pytest.skip("this file system cannot exchange names")
    assert done.stdout == "0\n", done.stderr
