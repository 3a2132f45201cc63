"""New figures beside kept ones: what became slower or larger is named.

In: the JSON that ``benchmark`` wrote, kept in ``benchmarks/results/`` and new. Out: a line for each
figure, and those that are worse by more than :data:`LIMITS`. Machines differ,
so a step is compared by its ratio to a peer of the same run: PyTorch or NumPy beside Keras, the
step beside the loop and beside the first step.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json

LIMITS = {"step": 0.10, "first step": 0.30, "memory": 0.05}
"""By how much a figure may be worse, as a share of the kept one: noise is below it."""
PEERS = ("pytorch", "compiled", "numpy")
RESULTS = Path(__file__).parent / "results"


def compare_results(
    new_path: Path, kept_path: Path | None = None, say: Callable[[str], None] = print
) -> list[str]:
    """Print a line for each figure that both have; return those that are worse.

    Parameters
    ----------
    new_path : pathlib.Path
        What ``benchmark step``, ``loop``, ``train`` or ``card`` wrote.
    kept_path : pathlib.Path, optional
        The same of before; by default the file of that name in ``benchmarks/results``.
    say : callable

    Returns
    -------
    list of str
        A line for each figure that is worse than before by more than its limit.

    Raises
    ------
    PipelineError
        If nothing can be compared, or a file is missing or holds no measurement.
    """
    kept_path = kept_path or RESULTS / Path(new_path).name
    kept, new = (_figures(Path(path)) for path in (kept_path, new_path))
    for path in (kept_path, new_path):
        if is_busy(read_json(path).get("machine", {})):
            say(f"note: {path} was measured beside other work; differences may be due to that")
    for text in _other_settings(read_json(kept_path), read_json(new_path)):
        say(f"note: measured with other settings: {text}")
    worse, common = [], [name for name in kept if name in new]
    if not common:
        raise PipelineError(f"{new_path} and {kept_path} have no figure in common")
    for name in common:
        kind, before, now = *kept[name], new[name][1]
        change = now / before - 1
        text = f"{name}: {before:.4g} → {now:.4g} ({change:+.0%})"
        if change > LIMITS[kind]:
            worse.append(f"{text}, allowed {LIMITS[kind]:+.0%}")
        say(text)
    for name in kept:
        if name not in new:
            say(f"{name}: {kept[name][1]:.4g} → not measured")
    return worse


def is_busy(machine: Mapping[str, Any]) -> bool:
    """Return whether other work took cores when a measurement began."""
    return machine.get("load", 0) > machine.get("cores", math.inf)


def _other_settings(kept: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a text for each setting of one measurement that differs, nested ones by their path."""

    def flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in values.items():
            name = f"{prefix}.{key}" if prefix else key
            found |= flat(name, value) if isinstance(value, Mapping) else {name: value}
        return found

    before, now = (flat("", content.get("load", {})) for content in (kept, new))
    return [
        f"{key} {before[key]} → {now[key]}"
        for key in before
        if key in now and before[key] != now[key]
    ]


def _figures(path: Path) -> dict[str, tuple[str, float]]:
    """Return kind and number of every figure of a file, all such that less is better."""
    if not path.exists():
        raise PipelineError(f"{path} does not exist: keep figures there with --json")
    content = read_json(path)
    found = dict(_parts("", content)) if isinstance(content, Mapping) else {}
    if not found:
        raise PipelineError(f"{path} holds no figures of benchmark step, loop, train or card")
    return found


def _parts(prefix: str, content: Mapping[str, Any]) -> Any:
    """Yield the figures of one measurement, or of those that it is made of."""
    what = content.get("what")
    if what == "step":
        yield from _of_step(prefix or _load_name(content["load"]), content["engines"])
    elif what == "loop":
        name = prefix or "loop"
        if content.get("loop") and content.get("step"):
            slower = median(content["step"]) / median(content["loop"])
            yield f"{name}: time of the loop to the step's", ("step", slower)
        if content.get("first_seconds") and content.get("step"):
            steps = content["first_seconds"] * median(content["step"])
            yield f"{name}: first step, in photos of later ones", ("first step", steps)
    elif what is None or what == "card":
        for name, part in content.get("jobs", content).items():
            if isinstance(part, Mapping):
                yield from _parts(name, part)


def _of_step(name: str, engines: Mapping[str, Mapping[str, Any]]) -> Any:
    """Yield what can be compared between machines: ratios to a peer; memory as it is."""
    for engine, answer in engines.items():
        if engine in PEERS:
            continue
        for peer in PEERS:
            for key in ("train", "predict"):
                theirs = engines.get(peer, {})
                theirs = theirs.get("train") if peer == "numpy" else theirs.get(key)
                if theirs and answer.get(key):
                    time_to = f"{name}, {engine}: time to {key}, to {peer}'s"
                    yield time_to, ("step", theirs / answer[key])
        if answer.get("train") and answer.get("first_seconds"):
            steps = answer["first_seconds"] * answer["train"]
            yield f"{name}, {engine}: first step, in photos of later ones", ("first step", steps)
        memory = answer.get("peak_mb")
        if memory and not math.isnan(memory):
            yield f"{name}, {engine}: peak memory, MiB", ("memory", memory)


def _load_name(load: Mapping[str, Any]) -> str:
    return f"{load['backbone']} at {load['image_size_px']} px"
