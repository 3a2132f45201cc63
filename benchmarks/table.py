"""The kept figures as a table of Markdown, in ``docs/results.md`` between two marks.

In: ``benchmarks/results/*.json``. Out: a row for each engine of a step, and one for each loop.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.compare import RESULTS, is_busy
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, replace_between

BEGIN = "<!-- benchmarks: begin (written by scripts/benchmark.py table) -->"
END = "<!-- benchmarks: end -->"
_HEAD = (
    "| what | engine | training photos/s | predicting | first step s | peak MiB | machine |\n"
    "|---|---|---|---|---|---|---|"
)


def write_table(
    path: Path | None, results: Path = RESULTS, say: Callable[[str], None] = print
) -> None:
    """Write the table between its marks in a file; without a file say it.

    Raises
    ------
    PipelineError
        If there are no figures, or the file or a mark is missing.
    """
    paths = sorted(results.glob("*.json"))
    rows = [row for one in paths for row in _rows(read_json(one))]
    if not rows:
        raise PipelineError(f"{results} holds no figures: keep some with benchmark step --json")
    table = "\n".join([_HEAD, *rows])
    if path is None:
        say(table)
        return
    replace_between(path, BEGIN, END, f"\n{table}\n")
    say(f"wrote {path}")


def _rows(content: Mapping[str, Any]) -> Iterator[str]:
    if content.get("what") == "step":
        load = content["load"]
        what = f"{load['backbone']}, {load['image_size_px']} px, batches of {load['batch_size']}"
        for engine, answer in content["engines"].items():
            if engine == "numpy":  # the machine's speed, in products of matrices: no photos
                continue
            cells = [_cell(answer, key) for key in ("train", "predict", "first_seconds", "peak_mb")]
            name = engine
            if "error" in answer:
                name += f": {answer['error']}"
            elif "train" not in answer:  # as the card asks for it
                name += ", a second start"
            yield f"| {what} | {name} | {' | '.join(cells)} | {_machine(content)} |"
    elif content.get("what") == "loop":
        image = content["load"]["image"]
        what = f"{image['backbone']}, {image['image_size_px']} px, batches of {image['batch_size']}"
        for kind in ("step", "loop"):
            cells = [f"{median(content[kind]):.1f}", "–", _cell(content, "first_seconds"), "–"]
            ratio = f", {content['ratio']} of the step" if kind == "loop" else ""
            name = f"the {kind} of one fit{ratio}"
            yield f"| {what} | {name} | {' | '.join(cells)} | {_machine(content)} |"
    else:
        for part in content.get("jobs", content).values():
            if isinstance(part, Mapping) and "what" in part:
                yield from _rows(part)


def _cell(answer: Mapping[str, Any], key: str) -> str:
    number = answer.get(key)
    return "–" if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def _machine(content: Mapping[str, Any]) -> str:
    machine = content["machine"]
    busy = f", shared with other work (load {machine['load']})" if is_busy(machine) else ""
    return machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores{busy}"
