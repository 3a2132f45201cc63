"""Looking only: a data set in pictures, runs beside each other, the backbones there are.

In: a data folder, finished runs, names. Out: pictures, or a table as text; no run is changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.evaluation_plots import describe_score
from kaggle_pipeline.examples import validate_examples
from kaggle_pipeline.explore import explore
from kaggle_pipeline.report import OPTIMISTIC
from kaggle_pipeline.rundir import read_json
from kaggle_pipeline.stages.run import MODEL_STAGES

_FIRST, _LAST = ("run", "model", "judged on", "images"), ("seconds", "peak MiB", "optimistic")
_PARTS = {"evaluation.json": "out of fold", "test_evaluation.json": "test part"}
SHOWN = (*MODEL_STAGES, "blend", "ensemble")
"""Stages that have scores, in the order of a table."""


@dataclass(frozen=True)
class Part:
    """One judged part of a stage: its name, ``evaluation.json`` and ``metrics.json``."""

    name: str
    evaluation: Mapping
    metrics: Mapping


def explore_data(
    dataset: str, data_dir: Path, out: Path, say: Callable[[str], None] = print
) -> list[Path]:
    """Draw classes, ages, sites, images a group, gaps and sample photos of a raw data folder.

    Raises
    ------
    PipelineError
        If the data is missing or breaks a rule of the examples table.
    """
    spec = get_spec(dataset)
    if not Path(data_dir).is_dir():
        raise PipelineError(f"no data folder {data_dir}: {spec.source}")
    examples = validate_examples(spec.read_raw(data_dir).examples, spec)
    paths = explore(examples, spec, data_dir, out)
    for path in paths:
        say(str(path))
    return paths


def compare_runs(run_dirs: Sequence[Path]) -> str:
    """Return the scores of several runs as one table, a line a model and judged part.

    Raises
    ------
    PipelineError
        If a folder holds no evaluated model.
    """
    rows = []
    for run_dir in map(Path, run_dirs):
        stages = [stage for stage in SHOWN if stage != "blend" or _blends_several(run_dir)]
        found = [
            _row(run_dir.name, stage, part)
            for stage in stages
            for part in judged_parts(run_dir / stage)
        ]
        if not found:
            raise PipelineError(f"{run_dir} holds no evaluated model: train one first")
        rows += found
    table = pd.DataFrame(rows).fillna("")
    # Groups and scores differ between tasks; what all rows have frames them.
    between = [name for name in table.columns if name not in (*_FIRST, *_LAST)]
    return table[[*_FIRST, *between, *_LAST]].to_string(index=False)


def _blends_several(run_dir: Path) -> bool:
    """Whether the blend is more than one model, whose scores would stand there twice."""
    path = run_dir / "blend" / "metrics.json"
    return path.exists() and len(read_json(path).get("weights") or "two") > 1


def judged_parts(folder: Path) -> list[Part]:
    """Return what a stage was judged on: out-of-fold rows, a test part; none if it has no scores.

    Raises
    ------
    PipelineError
        If it was judged but its ``metrics.json`` is missing, or a file is damaged.
    """
    return [
        Part(name, read_json(folder / file), read_json(folder / "metrics.json"))
        for file, name in _PARTS.items()
        if (folder / file).exists()
    ]


def marks_of(part: Part) -> list[str]:
    """Return what makes the scores of a part better than they would be on new patients."""
    marks = [short for key, (short, _) in OPTIMISTIC.items() if part.metrics.get(key)]
    if part.name == "test part":  # no epoch was ever chosen by it
        marks = [short for short in marks if "epoch" not in short]
    return marks


def _row(run: str, stage: str, part: Part) -> dict[str, str]:
    evaluation, metrics = part.evaluation, part.metrics
    row = {"run": run, "model": stage, "judged on": part.name}
    row |= {"images": str(evaluation["n"]), f"{evaluation['group']}s": str(evaluation["groups"])}
    classes = evaluation["classes"]
    if evaluation["task"] == "multiclass":
        for name in ("accuracy", "balanced_accuracy", "auc"):
            row[name.replace("_", " ")] = describe_score(evaluation["scores"][name])
    else:
        for name in classes:
            title = "auc" if len(classes) == 1 else f"auc {name}"
            row[title] = describe_score(evaluation["per_class"][name]["auc"])
    row |= {"seconds": f"{metrics['seconds']:.0f}", "peak MiB": describe_memory(metrics)}
    return {**row, "optimistic": ", ".join(marks_of(part))}


def describe_memory(metrics: Mapping) -> str:
    """Return the peak memory in MiB, a dash where the system does not tell."""
    peak = metrics["peak_memory_mb"]
    return "–" if peak is None else f"{peak:.0f}"


def describe_backbones(names: Sequence[str], image_size_px: int) -> str:
    """Return parameters, input range and output shape of backbones as a table.

    Parameters
    ----------
    names : sequence of str
        Empty for all.
    image_size_px : int
        Side of the image that the output shape is of.
    """
    from kaggle_pipeline.accelerator import choose_accelerator

    choose_accelerator("cpu")  # a table needs no more
    from kaggle_pipeline.image.backbones import backbone_table

    return backbone_table(names or None, image_size_px).to_string()
