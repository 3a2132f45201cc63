"""Tests of the comparison of engines: it measures what is installed and says what is not."""

import json
import threading
from types import SimpleNamespace

import pytest
from helpers_engine import child

from benchmarks import step
from benchmarks.cli import main
from benchmarks.engines import PEERS, Load, forward_gflop, time_keras
from benchmarks.turns import Turns
from kaggle_pipeline.models.image.backbones.registry import get_backbone

pytest.importorskip("tensorflow")


def test_a_step_of_keras_is_timed():
    found = {}
    time_keras("tensorflow", Load("LeNet", 32, 4, steps=2), lambda **facts: found.update(facts))
    assert found["train"] > 0 and found["predict"] > 0 and found["first_seconds"] > 0
    assert found["note"].startswith("CPU, Keras on tensorflow") and found["peak_mb"] > 100


def _load(backbone, seconds=60.0):
    """A :class:`Load` whose process need not import where that is defined."""
    return SimpleNamespace(**vars(Load(backbone, 32, 4, peak_tflops=0.1, seconds=seconds)))


def test_every_row_and_the_file_are_there_as_soon_as_they_are_had(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_child", child)
    path, said, on_disk = tmp_path / "step.json", [], []

    def say(line):
        said.append(line)
        on_disk.append(sorted(json.loads(path.read_text())["engines"]) if path.exists() else [])

    # The JSON of an engine is on disk before the next one begins.
    found = step.measure_step(_load("quick"), path, say, engines=("jax", "pytorch"))
    assert on_disk == [[], [], [], ["jax"], ["jax", "pytorch"]]
    assert found["ratio"] == {"pytorch": {"train": 2.0}}
    # Arithmetic is counted once, so both rates are shares of the same.
    assert found["engines"]["jax"]["share"] == 0.6 and found["engines"]["pytorch"]["share"] == 0.3
    assert json.loads(path.read_text()) == found
    assert "60% of 0.1 TFLOP/s" in said[2] and "best of Keras to pytorch: 2.0" in said[4]


@pytest.mark.parametrize(
    ("kind", "words"), [("slow", "ended after 3 s while compiling"), ("dead", "(code 9) while")]
)
def test_an_engine_that_does_not_end_leaves_what_it_had_reached(monkeypatch, kind, words):
    monkeypatch.setattr(step, "_child", child)
    lines = []
    found = step.measure_step(_load(kind, 3.0), None, lines.append, engines=("jax",))
    answer = found["engines"]["jax"]
    assert words in answer["error"] and answer["first_seconds"] == 1.5
    assert words in lines[-1] and " 1.5 " in lines[-1]


def test_measurements_side_by_side_are_timed_alone(tmp_path):
    first, second = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    timed = []

    def time_it():
        with first.alone():
            timed.append("first")

    waiting = threading.Thread(target=time_it, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert not timed  # the second still prepares
    with second.alone():
        pass
    waiting.join(5)
    assert timed == ["first"]


def test_arithmetic_is_that_of_the_paper():
    """MobileNetV2 at 224 px: 300 million multiply-adds (Sandler et al. 2018, table 4)."""
    import keras

    network = keras.applications.MobileNetV2(weights=None)
    assert forward_gflop(network) == pytest.approx(0.600, rel=0.01)


@pytest.mark.slow
def test_every_engine_has_a_line(tmp_path, capsys):
    path = tmp_path / "step.json"
    words = ["--backbone", "resnet18", "--image-size-px", "64", "--batch-size", "2", "--steps", "1"]
    assert main(["benchmark", "step", *words, "--json", str(path)]) == 0
    lines = capsys.readouterr().out
    assert all(engine in lines for engine in ("tensorflow", "jax", "pytorch"))
    found = json.loads(path.read_text())
    assert found["engines"]["tensorflow"]["train"] > 0
    had_peer = "train" in found["engines"]["pytorch"]
    assert ("pytorch" in found["ratio"]) == had_peer


def test_every_peer_is_a_backbone():
    for name in PEERS:
        get_backbone(name)
