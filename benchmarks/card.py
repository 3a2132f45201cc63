"""What is asked of a new card, in minutes: steps, loops, first steps cold and warm.

In: a device. Out: ``card.json`` and a table, written as the figures come. All networks compile side
by side, which is work for processors; what is timed has the card for itself (``benchmarks/turns``).
On a CPU the same is done in small, so that the whole can be tried before a card is lent.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.machine import describe_machine


@dataclass(frozen=True)
class Network:
    """A network at a size, and the experiment whose loop is measured there."""

    backbone: str
    image_size_px: int
    batch_size: int
    loop_config: str | None = None
    compiled: bool = True


GPU = (
    # At half the batch: several processes share the card's memory.
    Network("InceptionResNetV2", 1024, 16, "configs/siim_isic_2020.yaml", compiled=False),
    Network("InceptionResNetV2", 512, 32, "configs/siim_isic_2020.yaml"),
    Network("EfficientNetB4", 512, 32),
)
SMALL = (Network("MobileNetV2", 64, 8, "configs/demo.yaml"), Network("LeNet", 64, 8))


@dataclass(frozen=True)
class Job:
    """One process: ``python scripts/benchmark.py`` with these words."""

    name: str
    words: tuple[str, ...]


def plan_jobs(
    networks: Sequence[Network], device: str, steps: int, seconds: float, turns: Path, photos: int
) -> tuple[list[Job], list[Job]]:
    """Return the jobs that compile, and those that come after them.

    The second start of each network on JAX, which XLA's cache should make short, comes after them,
    and PyTorch as it is, which needs nobody's cores.
    """
    first, then = [], []
    for network in networks:
        size = f"{network.backbone} {network.image_size_px}"
        same = (
            "--backbone", network.backbone, "--image-size-px", str(network.image_size_px),
            "--batch-size", str(network.batch_size), "--device", device, "--turns", str(turns),
            "--train-only", "--steps",
        )  # fmt: skip
        # Whoever is compiled first waits for the slowest, which torch.compile may be.
        step = ("step", "--seconds", str(2 * seconds), *same, str(steps), "--engines")
        first.append(Job(f"{size} jax", (*step, "jax")))
        then.append(Job(f"{size} jax again", ("step", *same, "0", "--engines", "jax")))
        then.append(Job(f"{size} pytorch", (*step, "pytorch")))
        if network.compiled:
            limited = ("step", "--seconds", str(seconds), *same, str(steps), "--engines")
            first.append(Job(f"{size} compiled", (*limited, "compiled")))
        if network.loop_config:
            records = max(network.image_size_px, 1024 if device == "gpu" else 0)
            loop = ("loop", *same, str(steps), "--config", network.loop_config, "--rounds", "2")
            more = ("--photos", str(photos), "--records-px", str(records))
            first.append(Job(f"{size} loop", (*loop, *more)))
    return first, then


def measure_card(
    work_dir: Path,
    device: str,
    json_path: Path | None = None,
    *,
    steps: int = 30,
    seconds: float = 200.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run all jobs, print a line for each as soon as it is done, return all figures.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets records, logs and each job's JSON.
    device : {"cpu", "gpu"}
    json_path : pathlib.Path, optional
        Gets all figures; written anew after each job.
    steps : int
        Timed ones.
    seconds : float
        ``torch.compile`` is ended after so many, any other job after twice as many, with what it
        had reached.
    say : callable

    Returns
    -------
    dict
        ``jobs`` by name, each as ``step`` or ``loop`` returns it; ``seconds`` of the whole.
    """
    from benchmarks.input import make_photos

    work_dir = work_dir.resolve()
    networks, photos = (GPU, 192) if device == "gpu" else (SMALL, 48)
    for network in networks:  # once, for all that read them
        if network.loop_config:
            size = max(network.image_size_px, 1024 if device == "gpu" else 0)
            make_photos(work_dir / "loop", photos, size)
    first, then = plan_jobs(networks, device, steps, seconds, work_dir / "turns", photos)
    found: dict[str, Any] = {
        "what": "card", "jobs": {}, "versions": versions(), "machine": describe_machine(),
    }  # fmt: skip
    started = time.monotonic()
    for jobs in (first, then):
        for name, figures, last in _side_by_side(jobs, work_dir, seconds):
            found["jobs"][name] = figures
            found["seconds"] = round(time.monotonic() - started, 1)
            say(f"{found['seconds']:>6.0f} s  {name:<34} {last}")
            if json_path:
                write_json(json_path, found)
    return found


def _side_by_side(jobs: Sequence[Job], work_dir: Path, seconds: float) -> Any:
    """Start all jobs; yield name, figures and last line of each when it is done."""
    running = {}
    script = str(CHECKOUT / "scripts" / "benchmark.py")
    # TensorFlow reads the records only, and a card is shared: nobody takes all of its memory.
    environment = {
        **os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    for job in jobs:
        stem = work_dir / job.name.replace(" ", "-")
        words = [*job.words, "--work-dir", str(work_dir), "--json", f"{stem}.json"]
        if job.words[0] == "loop":
            environment = {**environment, "KERAS_BACKEND": "jax"}
        log = Path(f"{stem}.log").open("w")  # noqa: SIM115
        running[job.name] = stem, subprocess.Popen(
            [sys.executable, script, *words], stdout=log, stderr=subprocess.STDOUT, cwd=CHECKOUT,
            env=environment,
        )  # fmt: skip
    until = time.monotonic() + 2 * seconds + 30  # an engine's own limit comes first
    while running:
        for name, (stem, process) in list(running.items()):
            if process.poll() is None and time.monotonic() < until:
                continue
            process.kill()
            process.wait()
            del running[name]
            result = Path(f"{stem}.json")
            lines = Path(f"{stem}.log").read_text(errors="replace").strip().splitlines()
            yield name, json.loads(result.read_text()) if result.exists() else {}, _last(lines)
        time.sleep(0.2)


def _last(lines: list[str]) -> str:
    """Return what a job said last; of a loop, what it lost too."""
    told = [line for line in lines if line.startswith(("loop", "step", "first training step"))]
    return "; ".join(told) or (lines[-1].strip() if lines else "it said nothing")
