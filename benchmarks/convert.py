"""How fast photos become TFRecords, beside what decoding, resizing and encoding alone cost.

In: a folder to work in. Out: images a second of the bare loop, of the conversion and of Apache
Beam, and their ratios, all of one run on the same made-up photos. Unix only: it counts processor
time by ``resource``.
"""

import io
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.convert_beam import convert_by_beam, import_beam
from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin, draw_lesion

PHOTO_PX = (6000, 4000)
"""The commonest size of the competition's photos."""
_GRAIN = 4.0
"""Standard deviation of the noise on top, as a camera has it; else the files would be tiny."""


def measure_conversion(
    work_dir: Path,
    json_path: Path | None = None,
    photos: int = 32,
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
        How many, of 6000 x 4000 px.
    size_px : int
        Of the records.
    say : callable

    Returns
    -------
    dict
        By name of what was timed: ``processes``, ``images_per_second`` and ``cpu_ms`` of all cores
        an image, once the processes are there, and their ratios to the bare loop of as many. Other
        jobs on the machine spoil the first far more than the second.
    """
    folder = work_dir / f"photos_{PHOTO_PX[0]}x{PHOTO_PX[1]}"
    table = draw_photos(folder, photos)
    cores = os.cpu_count() or 1
    say(f"{photos} JPEGs of {PHOTO_PX[0]} x {PHOTO_PX[1]} px to {size_px} px, {cores} cores")
    say(
        f"{'':>28}{'processes':>10}{'images/s':>10}{'of the loop':>13}{'cpu ms/image':>14}"
        f"{'of the loop':>13}"
    )
    found: dict[str, dict[str, Any]] = {}

    def tell(name: str, processes: int, work: Way) -> None:
        row = {"processes": processes, **_measure(work, table)}
        limit = found.get(f"bare loop {processes}", row)
        row["ratio"] = round(row["images_per_second"] / limit["images_per_second"], 3)
        row["cpu_ratio"] = round(limit["cpu_ms"] / row["cpu_ms"], 3)
        found[f"{name} {processes}"] = row
        say(
            f"{name:>28}{processes:>10}{row['images_per_second']:>10.1f}{row['ratio']:>13.2f}"
            f"{row['cpu_ms']:>14.0f}{row['cpu_ratio']:>13.2f}"
        )

    out = work_dir / "records"
    few = RecordsConfig(image_size_px=size_px, workers=1)
    _convert(table[:_FEW], folder, out, few)  # what is imported once is nobody's time
    for processes in sorted({1, cores}):
        config = RecordsConfig(
            image_size_px=size_px, workers=processes, records_per_shard=-(-photos // 4)
        )
        loop = partial(_loop, folder=folder, size_px=size_px, processes=processes)
        tell("bare loop", processes, partial(loop, smaller=True))
        tell("bare loop, decoding in full", processes, partial(loop, smaller=False))
        tell("convert", processes, partial(_convert, folder=folder, out=out, config=config))
    try:
        import_beam()
    except PipelineError as error:
        say(f"  {error}")
    else:
        tell("Apache Beam", cores, partial(_by_beam, folder=folder, out=out, config=config))
    result = {"photos": photos, "size_px": size_px, "found": found, "versions": versions()}
    if json_path:
        write_json(json_path, result)
    return result


def draw_photos(folder: Path, count: int) -> pd.DataFrame:
    """Write grainy JPEGs of made-up lesions, those that are not there; return their examples."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"ISIC_{number:07d}" for number in range(count)]
    for number, image_id in enumerate(ids):
        path = folder / f"{image_id}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        lesion, skin = Morphology(*rng.uniform(0.2, 0.8, 7)), Skin(*rng.uniform(0, 0.8, 4))
        pixels, _ = draw_lesion(lesion, skin, 512, rng)
        photo = Image.fromarray(pixels).resize(PHOTO_PX, Image.Resampling.BICUBIC)
        grain = _GRAIN * rng.standard_normal((*PHOTO_PX[::-1], 1), np.float32)
        pixels = np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    table = pd.DataFrame({"image_path": [f"{one}.jpg" for one in ids]}, index=ids)
    table.index.name = "image_id"
    return table.assign(split="train", group_id=ids, target=0.0)


Way = Callable[[pd.DataFrame], float]
"""Does the work on these examples; returns the seconds it took once the processes were there."""
_FEW = 16
"""Enough for every process to be started."""


def _measure(work: Way, table: pd.DataFrame) -> dict[str, float]:
    """Rate, and processor time an image: that of all images less that of a few, which is start."""
    used = [_cpu_seconds()]
    for rows in (table[:_FEW], table):
        seconds = work(rows)
        used.append(_cpu_seconds())
    few, whole = np.diff(used)
    return {
        "images_per_second": round(len(table) / seconds, 2),
        "cpu_ms": round(1000 * (whole - few) / (len(table) - _FEW), 1),
    }


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _convert(table: pd.DataFrame, folder: Path, out: Path, config: RecordsConfig) -> float:
    shutil.rmtree(out, ignore_errors=True)
    stamps = []
    convert(table, SPEC, folder, out, config, lambda done: stamps.append(time.perf_counter()))
    # The first image's stamp comes when the processes are there and it is done.
    return (stamps[-1] - stamps[0]) * len(table) / (len(table) - 1)


def _by_beam(table: pd.DataFrame, folder: Path, out: Path, config: RecordsConfig) -> float:
    """Beam's start is in its time: it tells nobody when its workers are there."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    convert_by_beam(table, SPEC, folder, out, config)
    return time.perf_counter() - started


def _loop(
    table: pd.DataFrame, *, folder: Path, size_px: int, processes: int, smaller: bool
) -> float:
    """Let processes do nothing else but shrink photos."""
    paths = [folder / name for name in table["image_path"]]
    context = multiprocessing.get_context("spawn")
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
    seconds = time.perf_counter() - started
    for child, _ in children:
        child.join()
    return seconds


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
