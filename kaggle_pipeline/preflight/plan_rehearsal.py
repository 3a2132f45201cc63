"""What every stage takes but the photos' own work: the stages themselves, run once for real.

In: an experiment and its data. Out: what tables, audit, pictures, scores, calibration, tabular
models and blend take here. The image model's scores are made up: their worth changes no time.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import METADATA_STAGES, SCORED_STAGES, TOOK
from kaggle_pipeline.core.child_process import EndedSilently, run_in_child
from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.environment import cpu_seconds, peak_memory_mb
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.leakage.fingerprints import near_pairs
from kaggle_pipeline.models.cross_validation import LAST, REMEDY
from kaggle_pipeline.preflight.plan_timing import Cost
from kaggle_pipeline.report.planned import folder_mb
from kaggle_pipeline.stages.explore_data import draw_data
from kaggle_pipeline.stages.make_submission import make_submission
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_folds import train_folds
from kaggle_pipeline.stages.train_tabular import train_tabular


@dataclass(frozen=True)
class Rehearsed:
    """What one stage took.

    Attributes
    ----------
    cost : Cost
    memory_mb : float
        Peak of the process until then, in MiB.
    disk_mb : float
        Of what it left.
    """

    cost: Cost
    memory_mb: float
    disk_mb: float


def rehearse(config: Experiment, data_dir: Path) -> dict[str, Rehearsed]:
    """Return what each stage took, and under ``start`` what it took to import everything.

    Under ``prepare`` are tables, audit and folds without fingerprints of photos, under ``image``
    joining, scores and calibration of its folds alone.

    Parameters
    ----------
    config : Experiment
        Its folds decide how many rows are scored.
    data_dir : pathlib.Path

    Raises
    ------
    PipelineError
        If a stage would stop, such as on a leak.
    """
    try:
        found = run_in_child(_rehearse, config, Path(data_dir))
    except EndedSilently:
        raise PipelineError(
            "the tables took more memory than there is: close other programs"
        ) from None
    if "error" in found:
        raise PipelineError(found["error"])
    return found


def _rehearse(config: Experiment, data_dir: Path, pipe: Any) -> None:
    """Send what :func:`_clock_stages` found, or an error's line; runs in a process of its own."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            pipe.send(_clock_stages(config, data_dir, Path(scratch) / "run"))
    except PipelineError as error:
        pipe.send({"error": str(error)})


def _clock_stages(config: Experiment, data_dir: Path, run_dir: Path) -> dict[str, Rehearsed]:
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    started, worked = time.perf_counter(), cpu_seconds()
    choose_accelerator(config.device, config.replicas)
    import kaggle_pipeline.models.image.model  # noqa: F401

    start = Cost(time.perf_counter() - started, cpu_seconds() - worked)
    found = {"start": Rehearsed(start, peak_memory_mb() or 0.0, 0.0)}
    run = Run(
        config, data_dir, run_dir, say=lambda line: None, chained=True, fingerprints=False
    )  # fmt: skip
    prepare_data(run, with_records=False)
    compared = _compare_hashes(run, config)
    draw_data(run)
    _make_up_image_folds(run)
    train_folds(replace(run, resume=True), "image", _no_model, None)
    if set(METADATA_STAGES) & set(config.blend.models):
        train_tabular(run)
    make_submission(run)
    stages = ("prepare", "explore", *SCORED_STAGES)
    for stage in (one for one in stages if (run_dir / one / TOOK).exists()):
        took = read_json(run_dir / stage / TOOK)
        cost = Cost(took["seconds"], took["cpu_seconds"])
        if stage == "prepare":
            cost += compared
        memory, disk = took["peak_memory_mb"] or 0.0, folder_mb(run_dir / stage)
        found[stage] = Rehearsed(cost, memory, disk)
    return found


def _no_model(fold: int, folder: Path) -> Any:
    raise AssertionError(f"fold {fold} is made up in {folder}")


def _compare_hashes(run: Run, config: Experiment) -> Cost:
    """Compare made-up hashes of as many photos, each with each, as the audit does."""
    ids = run.examples().index
    codes = np.random.default_rng(0).integers(0, 2**64, len(ids), np.uint64)
    table = pd.DataFrame({"phash": [f"{code:016x}" for code in codes]}, index=ids)
    started, worked = time.perf_counter(), cpu_seconds()
    near_pairs(table, config.leakage.near_bits)
    return Cost(time.perf_counter() - started, cpu_seconds() - worked)


def _make_up_image_folds(run: Run) -> None:
    """Leave folds of the image model whose scores know something of the truth."""
    examples, folds, rng = run.examples(), run.folds(), np.random.default_rng(0)
    classes, test = list(run.spec.classes), split_rows(examples, "test")

    def scores(rows: pd.DataFrame) -> pd.DataFrame:
        logits = rng.normal(size=(len(rows), len(classes))) - 1
        logits += 2 * rows[classes].fillna(0).to_numpy(float)
        values = np.exp(logits) if run.spec.task == "multiclass" else 1 / (1 + np.exp(-logits))
        if run.spec.task == "multiclass":
            values /= values.sum(axis=1, keepdims=True)
        return pd.DataFrame(values, rows.index, classes)

    for fold in folds.numbers:
        place, scored = run.run_dir / "image" / f"fold{fold}", folds.valid_ids(fold)
        place.mkdir(parents=True)
        begin(place, REMEDY)
        if len(test):
            Predictions.build(scores(test), fold, "test").write(place / "test.csv")
        nothing: Mapping[str, float] = {"seconds": 0.0, "cpu_seconds": 0.0}
        write_json(place / "metrics.json", {"fold": fold, "n": len(scored), **nothing})
        Predictions.build(scores(examples.loc[scored]), fold, "oof").write(place / LAST)
        commit(place)
