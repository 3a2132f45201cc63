"""Training and inference of one network, Keras on its backends beside PyTorch, in one run.

In: a backbone, a size, a batch. Out: images a second of each engine, every one in a process of its
own, a row and the JSON as soon as it is had. PyTorch's twin is timm's network of the same name in
the paper.
"""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.engines import Load, time_keras, time_products, time_torch
from kaggle_pipeline.core.child_process import EndedSilently, TookTooLong, answers_of_child
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.machine import describe_machine

ENGINES = {
    "numpy": time_products,
    "tensorflow": partial(time_keras, "tensorflow"),
    "jax": partial(time_keras, "jax"),
    "pytorch": partial(time_torch, compiled=False),
    "compiled": partial(time_torch, compiled=True),
}
"""``compiled`` is ``torch.compile``; ``numpy`` says how fast the processor is."""
KERAS = ("tensorflow", "jax")


def measure_step(
    load: Load,
    json_path: Path | None = None,
    say: Callable[[str], None] = print,
    engines: Sequence[str] = tuple(ENGINES),
) -> dict[str, Any]:
    """Time a training step and an inference step of every engine that is installed.

    Parameters
    ----------
    load : Load
    json_path : pathlib.Path, optional
        Gets the figures with the versions; written anew after each engine.
    say : callable
    engines : sequence of str
        Of :data:`ENGINES`.

    Returns
    -------
    dict
        ``engines``, by name: ``train`` and ``predict`` in images a second, ``first_seconds``
        (compilation included), ``peak_mb``, ``gflop`` of one image's forward pass, ``share`` of the
        peak; ``error`` where it could not, or not in time, beside what it had reached. ``ratio`` of
        the best Keras backend to each way of PyTorch.
    """
    say(
        f"{load.backbone} at {load.image_size_px} px, batches of {load.batch_size}, {load.device}, "
        f"{load.steps} steps after the first"
    )
    say(
        f"{'engine':>12}{'train img/s':>13}{'predict img/s':>15}{'first step s':>14}"
        f"{'peak MiB':>10}  note"
    )
    result: dict[str, Any] = {
        "what": "step", "load": vars(load), "engines": {}, "ratio": {}, "versions": versions(),
        "machine": describe_machine(),
    }  # fmt: skip
    found = result["engines"]
    for engine in engines:
        found[engine] = _apart(engine, load)
        _add_shares(found, load)
        result["ratio"] = _ratios(found)
        say(_row(engine, found[engine], load))
        if json_path:
            write_json(json_path, result)
    for peer, ratio in result["ratio"].items():
        words = ", ".join(f"{value} in {what}" for what, value in ratio.items())
        say(f"best of Keras to {peer}: {words}")
    return result


def _add_shares(found: dict[str, dict], load: Load) -> None:
    """Give every engine the network's arithmetic, counted once, and its share of the peak."""
    counted = [answer["gflop"] for answer in found.values() if "gflop" in answer]
    for answer in found.values():
        if counted:
            answer["gflop"] = counted[0]
        if counted and load.peak_tflops and "train" in answer:
            # Backward costs twice what forward does.
            share = 3 * counted[0] * answer["train"] / 1000 / load.peak_tflops
            answer["share"] = round(share, 3)


def _ratios(found: dict[str, dict]) -> dict[str, dict[str, float]]:
    ratios: dict[str, dict[str, float]] = {}
    for peer in ("pytorch", "compiled"):
        for what in ("train", "predict"):
            best = max((found.get(one, {}).get(what, 0.0) for one in KERAS), default=0.0)
            theirs = found.get(peer, {}).get(what)
            if best and theirs:
                ratios.setdefault(peer, {})[what] = round(best / theirs, 3)
    return ratios


def _row(engine: str, answer: dict[str, Any], load: Load) -> str:
    """Return a line of the table; a dash for what was not reached."""
    row = f"{engine:>12}"
    for key, width in (("train", 13), ("predict", 15), ("first_seconds", 14)):
        row += f"{answer[key]:>{width}.1f}" if key in answer else f"{'-':>{width}}"
    row += f"{answer['peak_mb']:>10.0f}" if "peak_mb" in answer else f"{'-':>10}"
    notes = [answer[key] for key in ("error", "note", "compile_log") if key in answer]
    if "share" in answer:
        notes.append(f"{answer['share']:.0%} of {load.peak_tflops:g} TFLOP/s")
    return f"{row}  {', '.join(notes)}"


def _apart(engine: str, load: Load) -> dict[str, Any]:
    """Measure one engine in a process that loads no other; return what it had reached."""
    reached: dict[str, Any] = {}
    try:
        for facts in answers_of_child(_child, engine, load, patience=load.seconds):
            reached |= facts
    except EndedSilently as end:
        reached["error"] = f"{end} while {reached.get('doing', 'starting')}"
    except TookTooLong:
        doing = reached.get("doing", "starting")
        reached["error"] = f"ended after {load.seconds:.0f} s while {doing}"
    reached.pop("doing", None)
    return reached


def _child(engine: str, load: Load, pipe: Connection) -> None:
    try:
        ENGINES[engine](load, lambda **facts: pipe.send(facts))
    except ImportError as error:
        pipe.send({"error": f"{error.name} is not installed"})
    except PipelineError as error:
        pipe.send({"error": str(error)})
    except Exception as error:  # such as a full memory, which every engine calls otherwise
        traceback.print_exc()
        words = (str(error).strip() or "no message").splitlines()[0]
        pipe.send({"error": f"{type(error).__name__}: {words}"})
