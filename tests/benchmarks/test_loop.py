"""Tests of the loop beside the step of the same network: a slow input shows in the ratio."""

import json
import time

import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from benchmarks.cli import main
from benchmarks.loop import LoopLoad, measure_loop
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.models.image import model as image_model

LOAD = LoopLoad(
    ImageConfig(backbone="LeNet", image_size_px=32, batch_size=4),
    steps=8, rounds=1, photos=24, records_px=48,
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "size", "batch"),
    [
        ("", 64, 32),
        ("--image-size-px 32 --batch-size 4", 32, 4),
        ("--set image.batch_size=8", 64, 8),
    ],
)
def test_a_configs_size_and_batch_count_unless_others_are_said(
    words, size, batch, tmp_path, monkeypatch
):
    found = []
    monkeypatch.setattr(
        "benchmarks.loop.measure_loop", lambda place, load, path: found.append(load)
    )
    command = f"benchmark loop --config configs/demo.yaml --work-dir {tmp_path} {words}"
    assert main(command.split()) == 0
    assert (found[0].image.image_size_px, found[0].image.batch_size) == (size, batch)
    assert found[0].records_px == size


@pytest.mark.slow
def test_a_slow_input_is_the_loops_loss_and_not_the_steps(tmp_path, monkeypatch):
    lines, path = [], tmp_path / "loop.json"
    found = measure_loop(tmp_path, LOAD, path, lines.append)
    assert found["first_seconds"] > 0 and found["input"] > 0
    assert json.loads(path.read_text())["ratio"] == found["ratio"]
    assert any(line.startswith("loop to step: ") for line in lines)

    def slow_batches(*arguments, **options):
        stream = batches_of(*arguments, **options)

        def wait(*batch):
            with tf.control_dependencies([tf.py_function(_sleep, [], [])]):
                return tf.nest.map_structure(tf.identity, batch)

        return stream.map(wait)

    batches_of = image_model.training_batches
    monkeypatch.setattr(image_model, "training_batches", slow_batches)
    slowed = measure_loop(tmp_path, LOAD, None, lines.append)
    assert slowed["loop"][0] < 25 < slowed["step"][0] and slowed["ratio"] < 0.6


def _sleep():
    time.sleep(0.2)
