"""Tests of the comparison of engines: it measures what is installed and says what is not."""

import json

import pytest

from benchmarks.step import PEERS, Load, _time_keras
from kaggle_pipeline.cli.main import main
from kaggle_pipeline.models.image.backbones.registry import get_backbone

pytest.importorskip("tensorflow")


def test_a_step_of_keras_is_timed():
    found = _time_keras("tensorflow", Load("LeNet", 32, 4, steps=2))
    assert found["train"] > 0 and found["predict"] > 0 and found["first_seconds"] > 0
    assert found["note"].startswith("CPU, Keras on tensorflow")


@pytest.mark.slow
def test_every_engine_has_a_line(tmp_path, capsys):
    path = tmp_path / "step.json"
    words = ["--backbone", "resnet18", "--image-size-px", "64", "--batch-size", "2", "--steps", "1"]
    assert main(["benchmark", "step", *words, "--json", str(path)]) == 0
    lines = capsys.readouterr().out
    assert all(engine in lines for engine in ("tensorflow", "jax", "pytorch"))
    found = json.loads(path.read_text())
    assert found["engines"]["tensorflow"]["train"] > 0
    assert ("train" in found["ratio"]) == ("pytorch" in found["engines"])


def test_every_peer_is_a_backbone():
    for name in PEERS:
        get_backbone(name)
