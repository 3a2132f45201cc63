"""Preflight and smoke run as commands: a TPU run predicted, and one step of it timed.

In: an experiment and a topology, or the device at hand. Out: lines; predictions also as JSON.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.examples import EXTERNAL, split_rows, validate_examples
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.preflight.estimate import CAVEAT, Images, make_plan, preflight
from kaggle_pipeline.preflight.host import describe_host, measure_host
from kaggle_pipeline.preflight.timing import time_steps
from kaggle_pipeline.stages.run import Run


def preflight_run(
    run: Run,
    topology: str,
    *,
    backend: str = "jax",
    json_path: Path | None = None,
    weekly_hours: float | None = None,
    find_largest: bool = False,
) -> dict[str, Any]:
    """Compile the experiment's steps for a TPU; print and return what it would cost there.

    Parameters
    ----------
    run : Run
        Its run folder, else its data folder, else the published counts give the number of images.
    topology : str
    backend : {"jax", "tensorflow"}
    json_path : pathlib.Path, optional
    weekly_hours : float, optional
        A quota of hours a week, to tell the run's share of it.
    find_largest : bool
        Look for the largest batch even where the config's own fits.

    Raises
    ------
    PipelineError
        As :func:`~kaggle_pipeline.preflight.estimate.preflight`.
    """
    images = count_images(run)
    found = preflight(
        run.config,
        run.spec,
        topology,
        backend=backend,
        plan=make_plan(run.config, images, run.config.image.views),
        find_largest=find_largest,
        say=run.say,
    )
    found["images_counted_in"] = images.counted_in
    found["caveat"] = CAVEAT
    if weekly_hours and found["hours_at_least"] is not None:
        found["share_of_weekly_quota"] = round(found["hours_at_least"] / weekly_hours, 3)
    lines = describe(found)
    if found["fits"] and not run.config.image.frozen:
        found["host"] = _measure_host(run, "tpu")
        lines.insert(-1, describe_host(found["host"], found["images_per_second_at_most"]))
    for line in lines:
        run.say(line)
    if json_path:
        write_json(json_path, found)
        run.say(f"wrote {json_path}")
    return found


def smoke_run(run: Run, *, beside: Path | None = None, steps: int = 10) -> dict[str, Any]:
    """Time the experiment's training step on the device at hand, beside what was predicted.

    Parameters
    ----------
    run : Run
    beside : pathlib.Path, optional
        What ``preflight --json`` wrote for the same experiment.
    steps : int

    Raises
    ------
    PipelineError
        If the device that was asked for is missing, or the prediction is of another step.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    if run.config.image.frozen:
        raise PipelineError("image.frozen: such a run trains no whole step that could be timed")
    predicted = read_json(beside) if beside else None
    device = choose_accelerator(run.config.device, run.config.replicas)
    precision = run.config.image.mixed_precision
    run.say(f"device: {device.describe(mixed_precision=precision)}")
    if predicted:
        _require_same_step(run.config.image.largest(), predicted, beside)
    measured = time_steps(run.config, run.spec, device, steps)
    run.say(f"first step, compilation included: {measured['first_step_seconds']} s")
    run.say(
        f"step: {measured['step_seconds']} s, {measured['images_per_second']} images/s at a global "
        f"batch of {measured['global_batch']}"
    )
    if predicted and predicted["fits"]:
        line = (
            f"predicted for {predicted['topology']}: at least {predicted['floor_step_seconds']} s, "
            f"at most {predicted['images_per_second_at_most']} images/s"
        )
        if device.kind == "tpu":
            line += f"; {predicted['floor_step_seconds'] / measured['step_seconds']:.0%} reached"
        run.say(line)
    if device.kind != "cpu":  # there the same cores train
        measured["host"] = _measure_host(run, device.kind)
        run.say(describe_host(measured["host"], measured["images_per_second"]))
    return measured


def _measure_host(run: Run, kind: str) -> dict[str, Any]:
    return measure_host(run.config.image, run.config.records.image_size_px, run.spec, kind)


def _require_same_step(image: ImageConfig, predicted: dict[str, Any], path: Path) -> None:
    ours = (image.backbone, image.image_size_px, image.batch_size)
    theirs = tuple(predicted.get(key) for key in ("backbone", "image_size_px", "batch_per_replica"))
    if ours != theirs:
        raise PipelineError(f"{path} predicts {theirs}, this experiment is {ours}")


def count_images(run: Run) -> Images:
    """Return how many images an experiment learns from, is scored on and predicts.

    Read from the prepared run, else from the data folder, else from the published counts; only the
    first knows its folds, and the last none that are scored by a mark (``folds.judge``).
    """
    spec, judge = run.spec, run.config.folds.judge
    classes = list(spec.classes)
    prepared = run.prepared / "examples.csv"
    if prepared.exists() and (run.prepared / "folds.csv").exists():
        examples, folds = run.examples(), run.folds()
        learned = [len(folds.train_ids(fold)) for fold in folds.numbers]
        ids = folds.table.index if not judge else folds.train_ids(folds.numbers[0])
        targets = examples.loc[ids, classes].to_numpy(np.float32)
        # What every fold learns from beside its own.
        outside = split_rows(examples, EXTERNAL)[classes].to_numpy(np.float32)
        counted = np.mean(learned) + len(outside)
        targets = np.concatenate([targets, outside])
        return Images(
            targets, float(counted) / len(targets), len(folds.validated) / len(folds.numbers),
            len(split_rows(examples, "test")), str(run.prepared),
        )  # fmt: skip
    if not run.data_dir.is_dir():
        where = f"the published data set{_uncounted(run)}"
        return Images(
            published_targets(spec), validated=0 if judge else None, tests=spec.published_tests,
            counted_in=where + (f"; those that {judge} marks not counted" if judge else ""),
        )  # fmt: skip
    table = validate_examples(spec.read_raw(run.data_dir).examples, spec)
    examples, validated = split_rows(table, "train"), None
    if judge:
        marked = examples[judge].isin([True, 1, "True", "true", "1"])
        examples, validated = examples[~marked], int(marked.sum())
    return Images(
        examples[classes].to_numpy(np.float32), validated=validated,
        tests=len(split_rows(table, "test")), counted_in=f"{run.data_dir}{_uncounted(run)}",
    )  # fmt: skip


def _uncounted(run: Run) -> str:
    return " (external rows not counted)" if run.config.external else ""


def published_targets(spec: DatasetSpec) -> np.ndarray:
    """Return targets (n, classes) of the data set as it was published."""
    kinds = [[name in members for name in spec.classes] for members in spec.published_counts]
    return np.repeat(np.array(kinds, np.float32), list(spec.published_counts.values()), axis=0)


def describe(found: dict[str, Any]) -> list[str]:
    """Return the predictions as lines for a person."""
    size = f"{found['image_size_px']} px, {found['batch_per_replica']} a replica"
    head = f"{found['backbone']} at {size}, {found['policy']}, {found['backend']}"
    where = f"{found['topology']} ({found['devices']} devices)"
    lines = [f"{head}, on {where}; predicted by the compiler, not measured"]
    memory = f"{_or_dash(found['peak_hbm_gib'])} of {found['hbm_gib']} GiB a device"
    if found["fits"]:
        lines.append(f"fits: yes, {memory}")
        lines.append(
            f"step: {found['tflop_per_step']} TFLOP and {found['gb_per_step']} GB a device, at "
            f"least {found['floor_step_seconds']} s, bound by {found['bound_by']}; at most "
            f"{found['images_per_second_at_most']} images/s"
        )
        lines += _describe_hours(found)
    else:
        lines.append(f"fits: no, {memory}: {found['compiler_message']}")
    if found["largest_batch_per_replica"] is not None:
        lines.append(f"largest batch a replica that fits: {found['largest_batch_per_replica']}")
    return [*lines, f"note: {CAVEAT}"]


def _describe_hours(found: dict[str, Any]) -> list[str]:
    """Training, prediction, and both together."""
    if found["steps"] is None:
        return []
    counted = f"images counted in {found['images_counted_in']}"
    lines = [
        f"all folds and epochs: {found['steps']} steps, at least "
        f"{found['training_hours_at_least']} h ({counted})"
    ]
    if found["prediction_fits"] is False:
        lines.append(f"prediction: does not fit, {_or_dash(found['prediction_peak_hbm_gib'])} GiB")
    if found["prediction_fits"]:
        views = found["prediction_views"]
        several = f"{views} view{'s' if views > 1 else ''}"
        lines.append(
            f"prediction, one view: {found['prediction_tflop_per_step']} TFLOP and "
            f"{found['prediction_gb_per_step']} GB a device, at least "
            f"{found['prediction_floor_step_seconds']} s; validation after each epoch, then out of "
            f"fold and test with {several}: {found['prediction_steps']} steps, at least "
            f"{found['prediction_hours_at_least']} h"
        )
    if found["hours_at_least"] is not None:
        total = f"together at least {found['hours_at_least']} h"
        if "share_of_weekly_quota" in found:
            total += f", {100 * found['share_of_weekly_quota']:.0f} % of the weekly quota"
        lines.append(total)
    return lines


def _or_dash(value: float | None) -> str:
    return "more than it can say" if value is None else str(value)
