"""The training loop beside the step of the very same network, in one fit.

In: an experiment's image model, and made-up photos that are written as records. Out: photos a
second of ``ImageModel.fit`` where records are read, decoded and augmented, and of the same epochs
fed with two batches that lie in memory, by turns; and of the input alone. What the loop loses
against the step is the host's fault.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.input import make_photos
from benchmarks.turns import Turns
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.machine import describe_machine


@dataclass(frozen=True)
class LoopLoad:
    """What is measured.

    Attributes
    ----------
    image : ImageConfig
        Trained from random weights.
    device : {"cpu", "gpu"}
    steps : int
        An epoch; its first quarter is not counted, for it fills or empties what is read ahead.
    rounds : int
        Epochs of records, and as many from memory; before them one that compiles.
    photos, records_px : int
        Made-up photos and the side of their records.
    turns : str or None
        A file for :class:`~benchmarks.turns.Turns`.
    """

    image: ImageConfig
    device: str = "cpu"
    steps: int = 12
    rounds: int = 3
    photos: int = 128
    records_px: int = 1024
    turns: str | None = None


def measure_loop(
    work_dir: Path,
    load: LoopLoad,
    json_path: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time the loop, the step and the input.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets the photos, their records and the fits' files.
    load : LoopLoad
    json_path : pathlib.Path, optional
        Gets the figures.
    say : callable

    Returns
    -------
    dict
        Photos a second: ``loop`` and ``step`` (lists, a number an epoch) and ``input``; ``ratio``
        of the medians of loop and step; ``first_seconds`` (building and compiling included).
    """
    turns = Turns(Path(load.turns) if load.turns else None)
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(load.device)
    image = replace(
        load.image, weights=None, cache_mb=0, epochs=1 + 2 * load.rounds, tta="none",
        steps_per_epoch=load.steps, checkpoint="last", oversample=1,
    )  # fmt: skip
    note = device.describe(mixed_precision=image.mixed_precision)
    say(
        f"{image.backbone} at {image.image_size_px} px from records of {load.records_px} px, "
        f"batches of {image.batch_size}; {note}"
    )
    found: dict[str, Any] = {
        "what": "loop", "note": note, "versions": versions(), "machine": describe_machine(),
        "load": {**vars(load), "image": to_mapping(image)},
    }  # fmt: skip

    def keep(text: str, **figures: Any) -> None:
        found.update(figures)
        say(text)
        if json_path:
            write_json(json_path, found)

    from benchmarks.alternating import fit_alternating

    paths, shards = make_photos(work_dir, load.photos, load.records_px)
    examples = made_up_examples([path.stem for path in paths])
    folder = work_dir / f"fit{time.time_ns()}"
    clock, stream = fit_alternating(image, device, examples, shards, folder, turns, keep)
    batch = image.batch_size * device.replicas
    rates = {kind: [round(batch / one, 2) for one in clock.seconds(kind)] for kind in clock.KINDS}
    for kind, numbers in rates.items():
        keep(f"{kind}: {', '.join(map(str, numbers))} photos/s", **{kind: numbers})
    ratio = round(median(rates["loop"]) / median(rates["step"]), 3)
    keep(f"loop to step: {ratio}", ratio=ratio)
    with turns.alone():
        alone = _input_rate(stream, load.steps, batch)
    keep(f"input alone: {alone:.0f} photos/s", input=round(alone, 1))
    return found


def made_up_examples(ids: list[str]) -> pd.DataFrame:
    """Return a training table of these images, every fourth malignant."""
    index = pd.Index(ids, name="image_id")
    target = (np.arange(len(ids)) % 4 == 0).astype(float)
    return pd.DataFrame({"group_id": ids, "split": "train", "target": target}, index)


def _input_rate(stream: Any, steps: int, batch: int) -> float:
    """Return photos a second of a stream that nobody else waits for."""
    batches = iter(stream)
    for _ in range(2):  # what it reads ahead
        next(batches)
    started = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return batch * steps / (time.perf_counter() - started)
