"""How fast photos become TFRecords, beside what decoding, resizing and encoding alone cost.

In: a folder to work in. Out: images a second of the bare loop, of the conversion and of Apache
Beam, and their ratios, all of one run on the same made-up photos.
"""

import io
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.beamconvert import convert_by_beam
from kaggle_pipeline.config import RecordsConfig
from kaggle_pipeline.convert import convert
from kaggle_pipeline.datasets.lesions import Morphology, Skin, draw_lesion
from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.rundir import versions, write_json

PHOTO_PX = (3000, 2000)
_GRAIN = 4.0
"""Standard deviation of the noise on top, as a camera has it; else the files would be tiny."""


def measure_conversion(
    work_dir: Path,
    json_path: Path | None = None,
    photos: int = 64,
    size_px: int = 1024,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time the conversion with one process, with one a core, and by Beam where it is installed.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets the photos, which are used again, and the records.
    json_path : pathlib.Path, optional
        Gets the figures with the versions.
    photos : int
        How many, of 3000 x 2000 px.
    size_px : int
        Of the records.
    say : callable

    Returns
    -------
    dict
        By name of what was timed: ``processes``, ``images_per_second`` once the processes are
        there, ``seconds`` with their start, and the ``ratio`` to the bare loop of as many.
    """
    table = draw_photos(work_dir / "photos", photos)
    cores = os.cpu_count() or 1
    say(f"{photos} JPEGs of {PHOTO_PX[0]} x {PHOTO_PX[1]} px to {size_px} px, {cores} cores")
    say(f"{'':>34}{'processes':>10}{'images/s':>10}{'of the loop':>13}{'all in all':>12}")
    paths = [work_dir / "photos" / name for name in table["image_path"]]
    found: dict[str, dict[str, Any]] = {}

    def tell(name: str, processes: int, rate: float | None, seconds: float) -> None:
        row = {"processes": processes, "images_per_second": rate, "seconds": round(seconds, 2)}
        limit = found.get(f"bare loop {processes}", {}).get("images_per_second")
        if rate is not None and limit:
            row["ratio"] = round(rate / limit, 3)
        found[f"{name} {processes}"] = row
        told = f"{rate:>10.1f}" if rate is not None else f"{'':>10}"
        ratio = f"{row['ratio']:>13.2f}" if "ratio" in row else f"{'':>13}"
        say(f"{name:>34}{processes:>10}{told}{ratio}{seconds:>10.1f} s")

    for processes in sorted({1, cores}):
        tell("bare loop", processes, *_loop(paths, size_px, processes, smaller=True))
        tell("bare loop, decoding in full", processes, *_loop(paths, size_px, processes, False))
        config = RecordsConfig(image_size_px=size_px, workers=processes, records_per_shard=16)
        tell("convert", processes, *_convert(table, work_dir, config))
    try:
        started = time.perf_counter()
        convert_by_beam(table, SPEC, work_dir / "photos", _fresh(work_dir), config)
        tell("Apache Beam, with its start", cores, None, time.perf_counter() - started)
    except PipelineError as error:
        say(f"  {error}")
    result = {"photos": photos, "size_px": size_px, "found": found, "versions": versions()}
    if json_path:
        write_json(json_path, result)
    return result


def draw_photos(folder: Path, count: int) -> pd.DataFrame:
    """Write grainy JPEGs of drawn lesions, those that are not there; return their examples."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"ISIC_{number:07d}" for number in range(count)]
    for number, image_id in enumerate(ids):
        path = folder / f"{image_id}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        lesion, skin = Morphology(*rng.uniform(0.2, 0.8, 7)), Skin(*rng.uniform(0, 0.8, 4))
        drawn, _ = draw_lesion(lesion, skin, 512, rng)
        photo = Image.fromarray(drawn).resize(PHOTO_PX, Image.Resampling.BICUBIC)
        grain = _GRAIN * rng.standard_normal((*PHOTO_PX[::-1], 1), np.float32)
        pixels = np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    table = pd.DataFrame({"image_path": [f"{one}.jpg" for one in ids]}, index=ids)
    table.index.name = "image_id"
    return table.assign(split="train", group_id=ids, target=0.0)


def _fresh(work_dir: Path) -> Path:
    folder = work_dir / "records"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _convert(table: pd.DataFrame, work_dir: Path, config: RecordsConfig) -> tuple[float, float]:
    """Images a second from the first to the last, and seconds of the whole call."""
    stamps = [time.perf_counter()]
    folder = work_dir / "photos"

    def stamp(done: int) -> None:
        stamps.append(time.perf_counter())

    convert(table, SPEC, folder, _fresh(work_dir), config, stamp)
    return (len(table) - 1) / (stamps[-1] - stamps[1]), time.perf_counter() - stamps[0]


def _loop(
    paths: Sequence[Path], size_px: int, processes: int, smaller: bool
) -> tuple[float, float]:
    """Images a second of processes that do nothing else, and seconds with their start."""
    context = multiprocessing.get_context("spawn")
    begun = time.perf_counter()
    children = []
    for number in range(processes):
        ours, theirs = context.Pipe()
        work = (paths[number::processes], size_px, smaller, theirs)
        child = context.Process(target=_work, args=work)
        child.start()
        children.append((child, ours))
    for _, pipe in children:
        pipe.recv()
    started = time.perf_counter()
    for _, pipe in children:
        pipe.send("go")
    for _, pipe in children:
        pipe.recv()
    ended = time.perf_counter()
    for child, _ in children:
        child.join()
    return len(paths) / (ended - started), ended - begun


def _work(paths: Sequence[Path], size_px: int, smaller: bool, pipe: Connection) -> None:
    pipe.send("ready")
    pipe.recv()
    for path in paths:
        shrink_photo(path, size_px, smaller)
    pipe.send("done")


def shrink_photo(path: Path, size_px: int, smaller: bool) -> bytes:
    """Decode, crop, resize and encode a photo, and nothing else: what a loop cannot do without."""
    with Image.open(path) as image:
        if smaller:  # as the conversion decodes
            image.draft("RGB", (round(1.5 * size_px),) * 2)
        image = image.convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    lanczos = Image.Resampling.LANCZOS
    image = image.resize((size_px, size_px), lanczos, box, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
