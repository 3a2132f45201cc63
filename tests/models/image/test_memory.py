"""Tests of the memory that a fit takes, as estimated from the network's layers."""

from dataclasses import replace

import pytest
from helpers_image import tiny_config

pytest.importorskip("tensorflow")

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import DEFAULT_CONFIG
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image.memory import (
    Needed,
    largest_batch,
    memory_needed,
    network_size,
)
from kaggle_pipeline.stages.run import Run

SPEC = get_spec("siim_isic_2020")
CPU = Accelerator("cpu", "tensorflow", 1, "float32", False, "a CPU")
GPU = Accelerator("gpu", "jax", 1, "mixed_bfloat16", "auto", "a GPU")


def test_a_network_is_counted_layer_by_layer():
    """A LeNet of 32 px."""
    whole = network_size(tiny_config(), SPEC)
    frozen = network_size(tiny_config(frozen=True), SPEC)
    assert frozen.kept < 10 < whole.kept and frozen.largest == whole.largest
    assert whole.weights - 56 == whole.trained == 1621, "28 channels are normalised"
    assert frozen.trained < 100
    twice = network_size(tiny_config(image_size_px=2 * tiny_config().image_size_px), SPEC)
    assert twice.kept == pytest.approx(4 * whole.kept, rel=0.3)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("backbone", "side", "batch", "measured"),
    [
        ("InceptionResNetV2", 1024, 16, 22_162),
        ("EfficientNetB4", 512, 32, 6_765),
    ],
)
def test_an_h200_took_what_is_estimated(backbone, side, batch, measured):
    config = ImageConfig(
        backbone=backbone, weights=None, image_size_px=side, batch_size=batch, mixed_precision=True
    )
    needed = memory_needed(config, network_size(config, SPEC), GPU)
    assert needed.device == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("more", "measured"),
    [
        ({"image_size_px": 224, "batch_size": 16}, 1254),
        ({"image_size_px": 160, "batch_size": 32, "train_from": "block_6_expand"}, 519),
    ],
)
def test_a_cpu_took_what_is_estimated(more, measured):
    config = ImageConfig(backbone="MobileNetV2", weights=None, tta="none", cache_mb=0, **more)
    needed = memory_needed(config, network_size(config, SPEC), CPU)
    assert needed.device == 0 and needed.host == pytest.approx(measured, rel=0.2)


def test_the_largest_batch_fits_and_one_more_does_not():
    config = tiny_config(batch_size=64)
    size = network_size(config, SPEC)
    free = Needed(0.0, memory_needed(replace(config, batch_size=40), size, CPU).host)
    found = largest_batch(config, size, CPU, free)
    assert 36 <= found <= 40
    assert largest_batch(config, size, CPU, Needed(0.0, 0.0)) == 0
    assert largest_batch(config, size, CPU, Needed(0.0, 1e9)) == 64


@pytest.mark.ci
def test_what_cannot_fit_is_refused_before_anything_is_prepared(tmp_path, monkeypatch, capsys):
    from kaggle_pipeline.cli.main import main
    from kaggle_pipeline.stages import train_image
    from kaggle_pipeline.synthetic import generate_like

    generate_like("siim_isic_2020", tmp_path, images=8, image_size_px=32, seed=0, workers=1)
    words = ["--data-dir", str(tmp_path / "competition"), "--run-dir", str(tmp_path / "run")]
    words += ["--set", "dataset=siim_isic_2020", "--set", "image.backbone=LeNet"]
    words += ["--set", "image.weights=null", "--set", "image.train_from=null"]
    words += ["--set", "image.image_size_px=512", "--set", "device=cpu"]
    monkeypatch.setattr(train_image, "free_memory_mb", lambda: 700.0)
    assert main(["run-pipeline", *words, "--set", "image.batch_size=512"]) == 2
    said = capsys.readouterr().err
    assert "512 photos of 512 px" in said and "700.0 MiB are free" in said
    batch = int(said.partition("image.batch_size=")[2].split(";")[0])
    assert 0 < batch < 512 and not (tmp_path / "run").exists()
    monkeypatch.setattr(train_image, "free_memory_mb", lambda: 1.0)
    assert main(["run-pipeline", *words]) == 2
    said = capsys.readouterr().err
    assert "not even one photo fits" in said and "--set memory_check=false" in said
    # Who knows better than the estimate is told, and goes on.
    told, config = [], load_experiment(DEFAULT_CONFIG, [*words[5::2], "memory_check=false"])
    train_image.check_memory(Run(config, tmp_path, tmp_path / "run", say=told.append), CPU)
    assert len(told) == 1 and "may not fit" in told[0] and "so it tries" in told[0]
