"""Tests of full, read-only and broken disks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.core import room
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.figures import new_figure, save_figure
from kaggle_pipeline.core.files import atomic_path, write_json
from kaggle_pipeline.core.room import describe_system_error, require_room, system_error

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_disks_error_names_the_file_and_what_to_do(tmp_path, number):
    path = tmp_path / "oof.csv"
    path.write_text("before")
    with pytest.raises(PipelineError) as caught, atomic_path(path) as temporary:
        temporary.write_bytes(b"x" * 300_000)
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be written: ") and "--resume" in message
    assert ("0.3 MiB were written" in message) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["oof.csv"]


def test_other_libraries_words_are_understood_and_other_errors_kept(tmp_path):
    class OfTensorFlow(Exception):
        pass

    full = OfTensorFlow("/a/b.tfrec; No space left on device [Op:WriteFile]")
    match = r"b\.tfrec cannot be written: no space left"
    with pytest.raises(PipelineError, match=match), atomic_path(tmp_path / "b.tfrec"):
        raise full
    assert "no space left" in describe_system_error(full)
    for error in (ValueError("no"), FileNotFoundError(errno.ENOENT, "no", "photo.jpg")):
        assert system_error(error) is None
        with pytest.raises(type(error)), atomic_path(tmp_path / "c"):
            raise error
    of_photo = OSError(errno.EIO, "broken", "photo.jpg")  # read, not written
    with pytest.raises(OSError, match="photo"), atomic_path(tmp_path / "c"):
        raise of_photo


def test_room_is_asked_for_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: type("U", (), {"free": 3 * 2**20})())
    require_room(tmp_path / "not" / "there", 2**20, "this")
    with pytest.raises(PipelineError, match=r"records: 9 photos needs at least 2\.0 GiB, but 3\.0"):
        require_room(tmp_path / "records", 2**31, "9 photos")


LIMIT = """
import resource, sys
import numpy as np, pandas as pd
from pathlib import Path
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
path = Path(sys.argv[1]) / sys.argv[2]
values = np.random.default_rng(0).random((20_000, 3))
try:
    if path.suffix == ".csv":
        with atomic_path(path) as temporary:
            pd.DataFrame(values).to_csv(temporary)
    elif path.suffix == ".npz":
        with atomic_path(path) as temporary:
            np.savez(temporary, values=values)
    elif path.suffix == ".png":
        from kaggle_pipeline.core.figures import new_figure, save_figure
        figure = new_figure(9, 9)
        figure.subplots().imshow(values[:10_000].reshape(100, 100, 3))
        save_figure(figure, path)
    elif path.suffix == ".tfrec":
        import tensorflow as tf
        with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for _ in range(9):
                writer.write(values.tobytes())
    else:
        import keras
        from kaggle_pipeline.models.weights_file import save_weights
        save_weights(keras.Sequential([keras.Input((100,)), keras.layers.Dense(500)]), path)
except PipelineError as error:
    print(error)
"""


@pytest.mark.ci
@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.png", "a.tfrec", "a.weights.h5"])
def test_every_writer_ends_in_one_line_and_leaves_nothing(tmp_path, name):
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(tmp_path), name], cwd=ROOT, capture_output=True,
        text=True, timeout=120, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.stdout.startswith(f"{tmp_path / name} cannot be written: it would be larger than")
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_room_goes_where_it_is_needed(tmp_path):
    write_json(tmp_path / "a.json", list(np.arange(3.0)))
    save_figure(new_figure(1, 1), tmp_path / "a.png")
    with atomic_path(tmp_path / "a.csv") as temporary:
        pd.DataFrame({"a": [1]}).to_csv(temporary)
    assert len(list(tmp_path.iterdir())) == 3
