"""Whether this host's cores can feed the device: the input pipeline measured on made-up photos.

In: the image model's settings, the records' size. Out: photos a second that this machine decodes
(and augments, where the device does not), and how many such cores a device would keep busy.
"""

import io
import math
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.child_process import run_in_child
from kaggle_pipeline.core.machine import count_cores
from kaggle_pipeline.data.spec import DatasetSpec

_NOISE = 2.8
"""Grey levels of noise that make a JPEG of 1024 px as large as those of the competition, 180 kB."""


def measure_host(
    image: ImageConfig, records_px: int, spec: DatasetSpec, kind: str, photos: int = 48
) -> dict[str, Any]:
    """Time the training stream of made-up photos, in a process of its own.

    Parameters
    ----------
    image : ImageConfig
    records_px : int
        Side of the records.
    spec : DatasetSpec
    kind : {"cpu", "gpu", "tpu"}
        Of the device: a GPU augments by itself.
    photos : int

    Returns
    -------
    dict
        ``photos_per_second``, ``cores`` of this host, ``augments`` (whether its cores do).
    """
    endless = replace(image.largest(), epochs=10_000, cache_mb=0)
    found = run_in_child(_child, endless, records_px, spec, kind, photos)
    return {**found, "cores": count_cores()}


def describe_host(host: dict[str, Any], wanted: float) -> str:
    """Return a line: do the cores or the devices, which take ``wanted`` photos/s, bound a run?"""
    rate, cores = host["photos_per_second"], host["cores"]
    needed = math.ceil(wanted * cores / rate)
    work = "decoded and augmented" if host["augments"] else "decoded"
    bound = "the step bounds the run" if rate >= wanted else "the input would bound the run"
    return (
        f"input: {wanted:.0f} photos/s keep the devices busy; {cores} cores here give {rate:.0f}, "
        f"{work}: here {bound}; cores like these that are needed: {needed}"
    )


def _child(
    image: ImageConfig, records_px: int, spec: DatasetSpec, kind: str, photos: int,
    pipe: Connection,
) -> None:  # fmt: skip
    from kaggle_pipeline.models.image.fit.training import augments_on_device
    from kaggle_pipeline.models.image.input.pipeline import Source, TrainingRows, training_batches
    from kaggle_pipeline.records.convert import convert
    from kaggle_pipeline.records.tfrecords import list_shards

    with tempfile.TemporaryDirectory() as place:
        folder, records = Path(place) / "photos", Path(place) / "records"
        folder.mkdir()
        names = [f"made_up_{number}" for number in range(photos)]
        for number, name in enumerate(names):
            (folder / f"{name}.jpg").write_bytes(made_up_photo(number, records_px))
        index = pd.Index(names, name="image_id")
        table = {"group_id": names, "split": "train", "image_path": [f"{n}.jpg" for n in names]}
        made = RecordsConfig(image_size_px=records_px, workers=1)
        convert(pd.DataFrame(table, index), spec, folder, records, made)
        rows = TrainingRows(
            np.asarray(names), np.zeros((photos, 1), np.float32), np.ones(photos, np.float32),
            np.full(photos, 1),
        )  # fmt: skip
        batch, on_device = 8, augments_on_device(image, SimpleNamespace(kind=kind))
        shards = [shard.path for shard in list_shards(records)]
        stream = iter(
            training_batches(
                Source(spec, shards, image.image_size_px), rows, image, batch_size=batch,
                steps_per_epoch=photos // batch, first_epoch=0, seed=0, on_device=on_device,
            )
        )  # fmt: skip
        for _ in range(3):  # compiles the augmentation, fills what is read ahead
            next(stream)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 2 or count < 4:
            next(stream)
            count += 1
        rate = batch * count / (time.perf_counter() - started)
        pipe.send({"photos_per_second": round(rate, 1), "augments": not on_device})


def made_up_photo(seed: int, side: int) -> bytes:
    """Return a JPEG of smooth colours with noise, about as hard to decode as a real photo."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 220, (12, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    pixels = smooth + _NOISE * rng.standard_normal((side, side, 1), np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
