"""Tests of what is shown of TensorFlow's words on loading."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_pipeline.core.engine import _kept_back_errors

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("error", "shown"), [(ImportError, True), (KeyboardInterrupt, False)])
def test_words_are_shown_where_loading_fails_not_where_a_signal_ends_it(capfd, error, shown):
    with pytest.raises(error), _kept_back_errors():
        os.write(2, b"of C++\n")
        raise error
    assert ("of C++" in capfd.readouterr().err) is shown
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


LOAD = "from kaggle_pipeline.core.engine import import_tensorflow as load; load()"


@pytest.mark.parametrize("triton", [None, "print('triton')", "raise OSError('broken')"])
def test_triton_is_loaded_before_tensorflow_where_it_is_there(tmp_path, triton):
    (tmp_path / "tensorflow.py").write_text("print('tensorflow')")
    if triton:
        (tmp_path / "triton.py").write_text(triton)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOAD], env=env, capture_output=True, text=True, check=True
    )
    words = done.stdout.split()
    assert words == (["triton"] if triton and "print" in triton else []) + ["tensorflow"]


@pytest.mark.ci
def test_both_are_loaded_into_one_process():
    pytest.importorskip("triton")
    pytest.importorskip("tensorflow")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"{LOAD}; import triton"], env=env, check=True)
