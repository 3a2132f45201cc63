"""The input pipeline beside the decoder's limit and its peers, in one run.

In: a folder to work in. Out: images a second of each, and their ratio to decoding alone.
"""

import io
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.peers import BATCH, Apart, data_loader, decoding_alone, notebook, reading_alone
from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import peak_memory_mb, versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.tfrecords import list_shards

_SIDE_PX, _PHOTO_BYTES = 1024, 188_000
SIZES = (1024, 512)


@dataclass(frozen=True)
class Way:
    """Something that goes ``passes`` times over all photos when it is run once."""

    run: Callable[[], object]
    passes: int = 1


def measure_input(
    work_dir: Path,
    json_path: Path | None = None,
    *,
    photos: int = 256,
    rounds: int = 5,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time passes over made-up photos of 1024 px; print a table.

    Every round goes once through all ways, so what else the machine does falls on all of them. A
    way's figure is its fastest round, as ``timeit`` advises, for everything else only adds time;
    the median tells how far that is from what one gets here.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets the photos and their TFRecords; what is there is used again.
    json_path : pathlib.Path, optional
    photos, rounds : int
    say : callable

    Returns
    -------
    dict
        ``rates`` (images a second), ``ratios`` and ``median_ratios`` (to the limit) by way,
        ``peak_mb``, ``versions``.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    choose_accelerator("cpu")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    paths, shards = make_photos(work_dir, photos)
    jpegs = [path.read_bytes() for path in paths]
    limit, decode = decoding_alone(jpegs, threads or 1)
    spec = get_spec("siim_isic_2020")
    ways = {limit: Way(decode)} | _own_ways(shards, [path.stem for path in paths])
    ways["tf.data: read, decode, batch, no more, 1024 px"] = Way(reading_alone(shards, spec))
    for side in SIZES:
        ways[f"the usual notebook, {side} px"] = Way(Apart(notebook, shards, spec, side))
    for side in SIZES:
        try:
            loader = data_loader(paths, side, threads or 1)
            ways[f"PyTorch DataLoader, Pillow, flips, {side} px"] = Way(loader)
        except ImportError:
            say("PyTorch is not installed: no DataLoader")
            break
    seconds = _interleaved(ways, rounds)
    best = {way: min(times) for way, times in seconds.items()}
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    rates = {way: photos / taken for way, taken in best.items()}
    ratios = {way: best[limit] / taken for way, taken in best.items()}
    medians = {way: middle[limit] / taken for way, taken in middle.items()}
    size = sum(map(len, jpegs)) / photos / 1000
    say(f"{photos} JPEGs of {_SIDE_PX} px, {size:.0f} kB each, fastest of {rounds} rounds")
    say(f"{'':<52}{'images/s':>9}{'ratio':>7}{'of medians':>12}")
    for way in ways:
        say(f"{way:<52}{rates[way]:>9.1f}{ratios[way]:>7.2f}{medians[way]:>12.2f}")
    peak = peak_memory_mb()
    say(f"peak memory of this process, all ways: {peak or float('nan'):.0f} MiB")
    found = {"rates": rates, "ratios": ratios, "median_ratios": medians, "peak_mb": peak}
    found["versions"] = versions()
    if json_path:
        write_json(json_path, found)
    return found


def _own_ways(shards: Sequence[Path], ids: Sequence[str]) -> dict[str, Way]:
    """Return whole epochs of this package's training stream, default augmentation on.

    Where the start of a stream would count, an epoch shows every photo four times, and reads it as
    often.
    """
    from kaggle_pipeline.models.image.input.pipeline import Source, TrainingRows, training_batches

    count = len(ids)
    ways = {}
    for on_device, name, passes in (
        (True, "augmentation left to the device", 4),
        (False, "augmented on these cores too", 1),
    ):
        rows = TrainingRows(
            np.asarray(ids), np.zeros((count, 1), np.float32), np.ones(count, np.float32),
            np.full(count, passes),
        )  # fmt: skip
        for side in SIZES:
            config = ImageConfig(image_size_px=side, epochs=1, cache_mb=0)
            stream = training_batches(
                Source(get_spec("siim_isic_2020"), shards, side), rows, config, batch_size=BATCH,
                steps_per_epoch=rows.shown // BATCH, first_epoch=0, seed=1, on_device=on_device,
            )  # fmt: skip
            ways[f"ours, {name}, {side} px"] = Way(partial(deque, stream, maxlen=0), passes)
    return ways


def _interleaved(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Return the seconds a pass of each way in each round, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way.run()
            if number:
                seconds[name].append((time.perf_counter() - started) / way.passes)
    return seconds


def make_photos(
    work_dir: Path, count: int, side_px: int = _SIDE_PX
) -> tuple[list[Path], list[Path]]:
    """Return JPEG files, those of 1024 px of about 188 kB, and TFRecords of the same bytes."""
    name = f"{count}" if side_px == _SIDE_PX else f"{count}x{side_px}"
    folder, records = work_dir / f"photos{name}", work_dir / f"records{name}"
    if not records.exists():
        folder.mkdir(parents=True, exist_ok=True)
        noise = noise_for(_PHOTO_BYTES, _SIDE_PX)  # of that size they are as hard to decode
        for number in range(count):
            path = folder / f"ISIC_{number:07d}.jpg"
            path.write_bytes(make_photo(number, side_px, noise))
    paths = sorted(folder.glob("*.jpg"))
    index = pd.Index([path.stem for path in paths], name="image_id")
    examples = pd.DataFrame(
        {"group_id": index, "split": "train", "image_path": [path.name for path in paths]}, index
    )
    convert(examples, get_spec("siim_isic_2020"), folder, records, RecordsConfig(workers=1))
    return paths, [shard.path for shard in list_shards(records)]


def make_photo(seed: int, side: int, noise: float) -> bytes:
    """Return a made-up JPEG: smooth colours, and grey noise of this deviation over them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 220, (12, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    pixels = smooth + noise * rng.standard_normal((side, side, 1), np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def noise_for(size: int, side: int) -> float:
    """Return the noise that makes photos of about ``size`` bytes."""
    low, high = 0.0, 60.0
    for _ in range(7):
        middle = (low + high) / 2
        larger = len(make_photo(0, side, middle)) > size
        low, high = (low, middle) if larger else (middle, high)
    return low
