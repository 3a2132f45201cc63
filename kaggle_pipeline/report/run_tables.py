"""Tables that put the scores of several runs beside each other, as text and as Markdown.

Every number is read from a run's folder; one that is not there is a dash.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import SCORED_STAGES
from kaggle_pipeline.config.random_weights import random_weights_of
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, replace_between
from kaggle_pipeline.evaluation.calibration.calibration import FILE
from kaggle_pipeline.evaluation.plots import describe_score
from kaggle_pipeline.report.results import OPTIMISTIC

_FIRST, _LAST = ("run", "model", "scored on", "photos"), ("seconds", "peak MiB", "optimistic")
_WIDEST = 100
"""Signs in a line that most terminals show."""
_PARTS = {"evaluation.json": "out of fold", "test_evaluation.json": "test part"}


@dataclass(frozen=True)
class Part:
    """One judged part of a stage: its name, ``evaluation.json`` and ``metrics.json``."""

    name: str
    evaluation: Mapping
    metrics: Mapping


def compare_runs(run_dirs: Sequence[Path]) -> str:
    """Return the scores of several runs as one table, a line a model and judged part.

    Below it stands which networks had random weights.

    Raises
    ------
    PipelineError
        If a folder holds no evaluated model.
    """
    rows, notes = [], []
    for run_dir in map(Path, run_dirs):
        stages = [stage for stage in SCORED_STAGES if stage != "blend" or blends_several(run_dir)]
        found = [
            _row(run_dir.name, stage, part)
            for stage in stages
            for part in scored_parts(run_dir / stage)
        ]
        if not found:
            raise PipelineError(f"{run_dir} holds no evaluated model: train one first")
        rows += found
        doubts = [random_weights_of(run_dir / stage) for stage in stages]
        notes += [f"note: {run_dir.name}: {doubt}" for doubt in doubts if doubt]
    table = pd.DataFrame(rows).fillna("")
    # Groups and scores differ between tasks; what all rows have frames them.
    between = [name for name in table.columns if name not in (*_FIRST, *_LAST)]
    shown = [name for name in (*_FIRST, *between, *_LAST) if table[name].ne("").any()]
    return "\n".join([_within(table[shown], _WIDEST), *notes])


def _within(table: pd.DataFrame, width: int) -> str:
    """The table as text; where that is too wide, all but the scores stands below them.

    Scores of many classes may still be too many for a line: they go on below then.
    """
    text = table.to_string(index=False)
    if max(map(len, text.splitlines())) <= width:
        return text
    keys = [name for name in _FIRST[:3] if name in table.columns]
    counts = [name for name in table.columns if table[name].str.fullmatch("[0-9]*").all()]
    below = [name for name in table.columns if name in (*counts, *_LAST) and name not in keys]
    blocks = (table.drop(columns=below), table[[*keys, *below]])
    return "\n\n".join(block.to_string(index=False, line_width=width) for block in blocks)


def blends_several(run_dir: Path) -> bool:
    """Return whether the blend is more than one model, whose scores would stand there twice."""
    path = run_dir / "blend" / "metrics.json"
    return path.exists() and len(read_json(path).get("weights") or "two") > 1


def scored_parts(folder: Path) -> list[Part]:
    """Return what a stage was scored on: out-of-fold rows, a test part; none if it has no scores.

    ``metrics.json`` is written last: without it the judging was stopped, and there are none yet.

    Raises
    ------
    PipelineError
        If a file is damaged.
    """
    if not (folder / "metrics.json").exists():
        return []
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
        shared = part.metrics.get("groups_shared_with_test")
        marks += [f"shares {shared} {part.evaluation['group']}s with training"] if shared else []
    return marks


def _row(run: str, stage: str, part: Part) -> dict[str, str]:
    evaluation, metrics = part.evaluation, part.metrics
    row = {"run": run, "model": stage, "scored on": part.name}
    row |= {"photos": str(evaluation["n"]), f"{evaluation['group']}s": str(evaluation["groups"])}
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


BEGIN = "<!-- results_table: begin (written by scripts/results_table.py) -->"
END = "<!-- results_table: end -->"
_HEADER = (
    "run", "data", "model", "scored on", "photos (positive)", "AUC", "balanced accuracy",
    "ECE before → after", "s", "peak MiB",
)  # fmt: skip


def results_table(run_dirs: Sequence[Path]) -> str:
    """Return the scores of finished runs as a Markdown table, a line a model and judged part.

    Parameters
    ----------
    run_dirs : sequence of pathlib.Path

    Raises
    ------
    PipelineError
        If a folder holds no evaluated model, or a stage that is not finished.
    """
    rows = [row for run_dir in run_dirs for row in _rows(Path(run_dir))]
    lines = [_HEADER, ["---"] * len(_HEADER), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def update_table(
    run_dirs: Sequence[Path], path: Path | None, say: Callable[[str], None] = print
) -> None:
    """Write :func:`results_table` between the marks in a file; without a file say it.

    Parameters
    ----------
    run_dirs : sequence of pathlib.Path
    path : pathlib.Path or None
        Text that holds :data:`BEGIN` and :data:`END` once each, on lines of their own; what is
        between them is replaced, all else stays.
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        As :func:`results_table`; or if the file or a mark is missing, or there twice.
    """
    table = results_table(run_dirs)
    if path is None:
        say(table)
        return
    replace_between(path, BEGIN, END, f"\n{table}\n")
    say(f"{path}: results of {', '.join(Path(one).name for one in run_dirs)}")


def _rows(run_dir: Path) -> list[list[str]]:
    rows = []
    for stage in SCORED_STAGES:
        folder = run_dir / stage
        if not folder.is_dir():
            continue
        parts = scored_parts(folder)
        if not parts:
            raise PipelineError(f"{folder} is not finished, there are no scores yet: finish it")
        config = load_experiment(folder / "config.yaml")
        rows += [_markdown_row(run_dir.name, stage, folder, config, part) for part in parts]
    if not rows:
        raise PipelineError(f"{run_dir} holds no evaluated model: train one first")
    return rows


def _markdown_row(run: str, stage: str, folder: Path, config: Experiment, part: Part) -> list[str]:
    evaluation, metrics = part.evaluation, part.metrics
    scores, counts = evaluation["scores"], list(evaluation["counts"].values())
    images = f"{evaluation['n']:,}"
    if len(counts) == 1:
        images += f" ({counts[0]['positive']:,})"
    several = len(counts) > 1
    marks = marks_of(part)
    seconds = metrics.get("seconds")
    return [
        run,
        " + ".join(
            [config.table.train if config.table else config.dataset, *_further(stage, config)]
        ),
        _model(stage, folder, config) + (", random weights" if random_weights_of(folder) else ""),
        _how(stage, config, part) + (f"; optimistic: {', '.join(marks)}" if marks else ""),
        images,
        describe_score(scores["auc"]) + (" (mean)" if several else ""),
        describe_score(scores["balanced_accuracy"]) if several else "–",
        _calibration_errors(folder, part),
        "–" if seconds is None else f"{seconds:,.0f}",
        describe_memory(metrics),
    ]


def _further(stage: str, config: Experiment) -> list[str]:
    """Further collections that the stage's predictions go back to."""
    learns = stage == "image" or (stage == "blend" and "image" in config.blend.models)
    return [one.dataset for one in config.external] if learns else []


def _model(stage: str, folder: Path, config: Experiment) -> str:
    if stage == "image":
        sizes = config.image.fold_sizes_px or (config.image.image_size_px,)
        return f"image: {config.image.backbone}, {', '.join(map(str, sizes))} px"
    if stage == "embedding":
        return f"embedding: {', '.join(one.source for one in config.embedding.encoders)}"
    if stage == "blend":
        return f"blend: {', '.join(config.blend.models)}"
    if stage == "ensemble":
        return f"ensemble: {read_json(folder / 'study.json')['chosen']}"
    return stage


def _how(stage: str, config: Experiment, part: Part) -> str:
    """How the judged rows were kept apart."""
    folds = config.folds
    group = part.evaluation["group"]
    if stage == "ensemble" and part.name == "out of fold":
        return f"nested, {config.ensemble.folds} folds by {group}"
    unit = "image" if folds.by == "image" else group
    if part.name != "out of fold":
        return f"test part set aside by {unit}"
    if folds.judge is not None:
        return f"rows marked `{folds.judge}`"
    if folds.holdout is not None:
        return f"held-out {folds.holdout:.0%} by {unit}"
    given = f" of `{folds.column}`" if folds.column else ""
    return f"out of fold, {folds.k} folds{given} by {unit}"


def _calibration_errors(folder: Path, part: Part) -> str:
    """ECE as the model says and calibrated: nested, or on the test part."""
    path = folder / FILE
    if not path.exists():
        return "–"
    found = read_json(path)
    scores = found["study"]["scores"]
    pair: Mapping[str, Any] = {"before": scores["none"], "after": scores[found["method"]]}
    if part.name != "out of fold":
        if "test" not in found:
            return "–"
        pair = found["test"]["scores"]
    before, after = (describe_score(pair[when]["ece"], 4) for when in ("before", "after"))
    return f"{before} (kept)" if found["method"] == "none" else f"{before} → {after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
