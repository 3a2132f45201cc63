"""Tests of the timed step, on a tiny network."""

import json
import re

import pytest

from kaggle_pipeline.cli.main import main

pytest.importorskip("tensorflow")

import keras
from helpers_image import tiny_config

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.accelerator import choose_accelerator
from kaggle_pipeline.preflight.timing import time_steps

TINY = ("image.image_size_px=32", "image.batch_size=4", "device=cpu")


def smoke(*more):
    settings = [word for setting in TINY for word in ("--set", setting)]
    return main(["smoke", "--config", "configs/demo.yaml", "--steps", "3", *settings, *more])


def test_the_first_step_is_traced_once(monkeypatch):
    traced, loss_of = [], keras.Model.compute_loss

    def counted(self, *arguments, **options):
        traced.append(self)
        return loss_of(self, *arguments, **options)

    monkeypatch.setattr(keras.Model, "compute_loss", counted)
    config = Experiment("step", "synthetic", image=tiny_config())
    found = time_steps(config, get_spec("synthetic"), choose_accelerator("cpu"), steps=2)
    assert len(traced) == 1 and found["first_step_seconds"] > found["step_seconds"] > 0


@pytest.mark.slow
def test_a_step_is_timed_beside_its_prediction(tmp_path, capsys):
    path = tmp_path / "predicted.json"
    predicted = {
        "backbone": "LeNet", "image_size_px": 32, "batch_per_replica": 4, "fits": True,
        "topology": "v5e:2x4", "floor_step_seconds": 1e-6, "images_per_second_at_most": 4e6,
    }  # fmt: skip
    path.write_text(json.dumps(predicted))
    assert smoke("--beside", str(path)) == 0
    said = capsys.readouterr().out
    found = re.search(r"step: ([\d.]+) s, ([\d.]+) images/s at a global batch of 4", said)
    assert float(found[1]) > 0 and float(found[2]) == pytest.approx(4 / float(found[1]), rel=0.2)
    assert "predicted for v5e:2x4: at least 1e-06 s" in said
    path.write_text(json.dumps(predicted | {"batch_per_replica": 16}))
    assert smoke("--beside", str(path)) == 2
    assert "('LeNet', 32, 16), this experiment is ('LeNet', 32, 4)" in capsys.readouterr().err
