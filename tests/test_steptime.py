"""Tests of the timed step, on a tiny network."""

import json
import re

import pytest

from kaggle_pipeline.cli import main

pytest.importorskip("tensorflow")
TINY = ("image.image_size_px=32", "image.batch_size=4", "device=cpu")


def smoke(*more):
    settings = [word for setting in TINY for word in ("--set", setting)]
    return main(["smoke", "--config", "configs/demo.yaml", "--steps", "3", *settings, *more])


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
