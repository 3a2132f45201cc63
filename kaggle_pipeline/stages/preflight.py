"""Preflight as a command: predictions of a TPU run, printed and kept as JSON.

In: an experiment and a topology. Out: a table; a JSON file where one is asked for.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kaggle_pipeline.examples import read_examples, split_rows, validate_examples
from kaggle_pipeline.preflight import make_plan, preflight
from kaggle_pipeline.rundir import write_json
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.stages.run import Run


def preflight_run(
    run: Run,
    topology: str,
    *,
    json_path: Path | None = None,
    weekly_hours: float | None = None,
    find_largest: bool = False,
) -> dict[str, Any]:
    """Compile the experiment's step for a TPU; print and return what it would cost there.

    Parameters
    ----------
    run : Run
        Its run folder, else its data folder, else the published counts give the number of images.
    topology : str
    json_path : pathlib.Path, optional
    weekly_hours : float, optional
        A quota of hours a week, to tell the run's share of it.
    find_largest : bool
        Look for the largest batch even where the config's own fits.

    Raises
    ------
    PipelineError
        As :func:`kaggle_pipeline.preflight.preflight`.
    """
    targets, counted = training_targets(run)
    found = preflight(
        run.config,
        run.spec,
        topology,
        plan=make_plan(run.config, targets),
        find_largest=find_largest,
        say=run.say,
    )
    found["images_counted_in"] = counted
    if weekly_hours and found["hours_at_least"] is not None:
        found["share_of_weekly_quota"] = round(found["hours_at_least"] / weekly_hours, 3)
    for line in describe(found):
        run.say(line)
    if json_path:
        write_json(json_path, found)
        run.say(f"wrote {json_path}")
    return found


def training_targets(run: Run) -> tuple[np.ndarray, str]:
    """Return targets (n, classes) of the labelled images, and where they were counted."""
    spec = run.spec
    prepared = run.prepared / "examples.csv"
    if prepared.exists():
        examples, counted = read_examples(prepared, spec), str(prepared)
    elif run.data_dir.is_dir():
        examples = validate_examples(spec.read_raw(run.data_dir).examples, spec)
        counted = str(run.data_dir)
    else:
        return published_targets(spec), "the published training set"
    return split_rows(examples, "train")[list(spec.classes)].to_numpy(np.float32), counted


def published_targets(spec: DatasetSpec) -> np.ndarray:
    """Return targets (n, classes) of the data set as it was published."""
    kinds = [[name in members for name in spec.classes] for members in spec.published_counts]
    return np.repeat(np.array(kinds, np.float32), list(spec.published_counts.values()), axis=0)


def describe(found: dict[str, Any]) -> list[str]:
    """Return the predictions as lines for a person."""
    size = f"{found['image_size_px']} px, {found['batch_per_replica']} a replica"
    head = f"{found['backbone']} at {size}, {found['policy']}, on {found['topology']}"
    lines = [f"{head} ({found['devices']} devices); predicted by the compiler, not measured"]
    memory = f"{_or_dash(found['peak_hbm_gib'])} of {found['hbm_gib']} GiB a device"
    if found["fits"]:
        lines.append(f"fits: yes, {memory}")
        lines.append(
            f"step: {found['tflop_per_step']} TFLOP and {found['gb_per_step']} GB a device, at "
            f"least {found['floor_step_seconds']} s, bound by {found['bound_by']}; at most "
            f"{found['images_per_second_at_most']} images/s"
        )
        hours = (
            f"all folds and epochs: {found['steps']} steps, at least {found['hours_at_least']} h"
        )
        if "share_of_weekly_quota" in found:
            hours += f", {100 * found['share_of_weekly_quota']:.0f} % of the weekly quota"
        lines.append(f"{hours} (images counted in {found['images_counted_in']})")
    else:
        lines.append(f"fits: no, {memory}: {found['compiler_message']}")
    if found["largest_batch_per_replica"] is not None:
        lines.append(f"largest batch a replica that fits: {found['largest_batch_per_replica']}")
    return lines


def _or_dash(value: float | None) -> str:
    return "more than it can say" if value is None else str(value)
