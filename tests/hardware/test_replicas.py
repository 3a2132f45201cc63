"""One replica or eight, one worker or two, TensorFlow or JAX: the same learning.

Each fit runs in a process of its own (``helpers_fit``): a process has one backend and one number of
devices.
"""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "helpers_fit.py"
SECONDS = 900  # eight replicas are traced one by one, on however busy a machine
# Five steps of one global batch of 16, without what each replica draws for itself.
FIVE_STEPS = {"epochs": 5, "steps_per_epoch": 1, "dropout": 0.0, "learning_rate": 0.01}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
FOREIGN = ("TF_CONFIG", "KERAS_DISTRIBUTION_NUM_PROCESSES")


def start(folder, backend, name, environment=None, **order):
    """Start a fit; ``finish`` waits for it."""
    if backend == "jax":
        pytest.importorskip("jax")
    clean = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps({"folder": str(folder), "name": name, **order})],
        env=clean | QUIET | {"KERAS_BACKEND": backend} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    """Wait for all; return the last line of each, and leave none behind."""
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        words = [process.communicate(timeout=SECONDS)[0] for process in processes]
    for process, said in zip(processes, words, strict=True):
        assert process.returncode == 0, said[-3000:]
    return [said.strip().splitlines()[-1] for said in words]


def history(folder, name):
    return pd.read_csv(folder / name / "history.csv")


def answers(folder, name):
    return pd.read_csv(folder / name / "found.csv", index_col="image_id")["target"]


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all fits of this file lie, with the records that they share."""
    place = tmp_path_factory.mktemp("replicas")
    sys.modules.pop("helpers_fit", None)
    from helpers_fit import write_photos

    write_photos(place, 20)
    return place


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def pair(request, folder):
    """The backend, after fits of the same global batch on one replica and on eight."""
    backend = request.param
    for replicas in (1, 8):
        order = {"replicas": replicas, "config": FIVE_STEPS | {"batch_size": 16 // replicas}}
        (said,) = finish(start(folder, backend, f"{backend}{replicas}", **order))
        assert f"on {backend}" in said and ("8 logical" in said) == (replicas == 8)
    return backend


def test_one_and_eight_replicas_learn_the_same(folder, pair):
    one, eight = (history(folder, f"{pair}{replicas}") for replicas in (1, 8))
    assert len(one) == 5 and one["loss"].iloc[-1] < one["loss"].iloc[0] / 2
    for column in ("loss", "auc", "val_loss", "val_auc"):
        np.testing.assert_allclose(eight[column], one[column], atol=1e-4, err_msg=column)


def test_eight_replicas_answer_for_every_image(folder, pair):
    one, eight = (answers(folder, f"{pair}{replicas}") for replicas in (1, 8))
    assert len(one) == 20 and one.std() > 0.01  # 20 images, batches of 16: the last is filled up
    pd.testing.assert_series_equal(eight, one, atol=1e-4, rtol=0)


@pytest.mark.parametrize("other", ["tensorflow", "jax"])
def test_a_model_of_the_other_backend_answers_the_same(folder, pair, other):
    if other == pair:
        pytest.skip("the same backend")
    name = f"{pair}_in_{other}"
    finish(start(folder, other, name, load=f"{pair}1", config=FIVE_STEPS))
    pd.testing.assert_series_equal(
        answers(folder, name), answers(folder, f"{pair}1"), atol=1e-5, rtol=0
    )


WHOLE_RECIPE = FIVE_STEPS | {
    "target": "diagnosis", "loss": "focal", "ema": 0.5, "mixup": 0.4, "cutmix": 1.0, "hairs": 2,
    "dropout_samples": 2, "metadata": True, "tta": "random", "tta_views": 3, "weight_decay": 1.0,
    "checkpoint": "best_fold",
}  # fmt: skip


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_recipes_do_the_same_on_replicas_and_in_the_other_backend(folder, backend):
    for replicas in (1, 2):
        config = WHOLE_RECIPE | {"batch_size": 16 // replicas}
        finish(start(folder, backend, f"all_{backend}{replicas}", replicas=replicas, config=config))
    one, two = (history(folder, f"all_{backend}{replicas}") for replicas in (1, 2))
    for column in ("loss", "auc", "val_loss", "val_auc"):
        np.testing.assert_allclose(two[column], one[column], atol=1e-4, err_msg=column)
    other = "jax" if backend == "tensorflow" else "tensorflow"
    name = f"all_{backend}_in_{other}"
    finish(start(folder, other, name, load=f"all_{backend}1", config=WHOLE_RECIPE))
    found = answers(folder, f"all_{backend}1")
    assert found.std() > 1e-4
    pd.testing.assert_series_equal(answers(folder, name), found, atol=1e-4, rtol=0)


def tensorflow_workers():
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
        for i in range(2)
    ]


def jax_workers():
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    return [
        {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(i),
        }
        for i in range(2)
    ]


@pytest.mark.parametrize("workers", [tensorflow_workers, jax_workers])
def test_two_workers_end_with_the_same_weights_as_one_replica(folder, pair, workers):
    backend = workers.__name__.split("_")[0]
    if backend != pair:
        pytest.skip("the other backend's turn")
    order = {"config": FIVE_STEPS | {"batch_size": 8}}
    said = finish(
        *(
            start(folder, backend, f"{backend}_worker{i}", environment, **order)
            for i, environment in enumerate(workers())
        )
    )
    assert all("one of 2 workers" in words for words in said)
    first, second = (folder / f"{backend}_worker{i}" / "model.weights.h5" for i in range(2))
    assert first.read_bytes() == second.read_bytes()
    alone, together = history(folder, f"{backend}1"), history(folder, f"{backend}_worker0")
    np.testing.assert_allclose(together["loss"], alone["loss"], atol=1e-4)


def test_a_fit_killed_at_random_moments_ends_with_the_same_bytes(folder):
    order = {"config": {"epochs": 8, "steps_per_epoch": 30, "dropout": 0.5}}
    finish(start(folder, "tensorflow", "whole", **order))
    rng = np.random.default_rng(7)
    for epochs in (1, 3):
        process = start(folder, "tensorflow", "killed", **order)
        path = folder / "killed" / f"state-{epochs}.weights.h5"
        while not path.exists():
            assert process.poll() is None, process.communicate()[0][-3000:]
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert epochs <= len(history(folder, "killed")) < 8
        assert not (folder / "killed" / "model.json").exists()
    finish(start(folder, "tensorflow", "killed", **order))
    whole, killed = (folder / name / "model.weights.h5" for name in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes()
    pd.testing.assert_frame_equal(history(folder, "killed"), history(folder, "whole"))
    assert not list((folder / "killed").glob(".*"))
