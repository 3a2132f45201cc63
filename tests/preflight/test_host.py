"""Tests of whether the host's cores can feed the device."""

import pytest

from kaggle_pipeline.preflight.host import describe_host, made_up_photo, measure_host


def test_who_bounds_the_run_and_how_many_cores_are_enough():
    host = {"photos_per_second": 57.0, "cores": 2, "augments": True}
    line = describe_host(host, 333.0)
    assert "the input would bound the run" in line and line.endswith("needed: 12")
    assert "decoded and augmented" in line
    line = describe_host({**host, "augments": False}, 40.0)
    assert (
        "the step bounds the run" in line and line.endswith("needed: 2") and "augmented" not in line
    )


def test_a_made_up_photo_is_as_large_as_a_real_one():
    """The competition's records of 1024 px have 178 kB each."""
    assert len(made_up_photo(0, 1024)) == pytest.approx(178_000, rel=0.1)


@pytest.mark.slow
def test_a_device_that_augments_takes_work_from_the_cores():
    pytest.importorskip("tensorflow")
    from helpers_image import tiny_config

    from kaggle_pipeline.config.image import AugmentConfig
    from kaggle_pipeline.datasets import get_spec

    image = tiny_config(image_size_px=256, augment=AugmentConfig())
    cpu, gpu = (
        measure_host(image, 256, get_spec("siim_isic_2020"), kind, photos=16)
        for kind in ("tpu", "gpu")
    )
    assert cpu["augments"] and not gpu["augments"] and cpu["cores"] > 0
    assert gpu["photos_per_second"] > cpu["photos_per_second"] > 0
