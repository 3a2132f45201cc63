"""An experiment planned from the data and this machine, each value with its reason.

In: a data set or a table, hours, a preset. Out: a YAML file for ``run_pipeline``, with what each
stage is predicted to take.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.config.loading import parse_experiment, to_mapping
from kaggle_pipeline.config.random_weights import random_weights
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, require_free_file
from kaggle_pipeline.core.machine import describe_machine, gpu_memory_mb
from kaggle_pipeline.core.photos import fault_of, image_size_px
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import require_data, spec_of
from kaggle_pipeline.leakage.audit import check_features
from kaggle_pipeline.leakage.unreadable import drop_unreadable
from kaggle_pipeline.preflight.compiler import resolve_topology
from kaggle_pipeline.preflight.estimate import Images
from kaggle_pipeline.preflight.kept_answers import KeptAnswers
from kaggle_pipeline.preflight.plan_cost import (
    LEAST_EPOCHS,
    MOST_EPOCHS,
    Facts,
    Rehearse,
    as_planned,
    divisions,
    fit_hours,
    planned_stages,
    whole_cost,
)
from kaggle_pipeline.preflight.plan_recipe import Choice, candidates, divided, recipe, values_of
from kaggle_pipeline.preflight.plan_rehearsal import Rehearsed, rehearse
from kaggle_pipeline.preflight.plan_timing import Measured, measure, some_photos
from kaggle_pipeline.preflight.plan_tpu import TpuTask, plan_for_tpu

_SAMPLE, _LEAST_PHOTOS = 150, 12
_OFFICIAL = "official_validation"
"""Column by which a data set tells its own validation part."""


def plan_experiment(
    base: Mapping[str, Any],
    data_dir: Path,
    out: Path,
    *,
    hours: float,
    preset: str,
    device: str,
    weights: str | None,
    overwrite: bool,
    say: Callable[[str], None] = print,
) -> Experiment:
    """Write the planned experiment as YAML; return it.

    Parameters
    ----------
    base : mapping
        ``name``, ``dataset`` and, for a user's own, ``table``.
    data_dir : pathlib.Path
    out : pathlib.Path
    hours : float
        For everything; for a TPU, of training and prediction there.
    preset : {"quick", "good", "best"}
    device : str
        ``auto``, ``cpu``, ``gpu``: this machine's; ``tpu-v5e-8`` and its like: one elsewhere.
    weights : str or None
        ``imagenet``, a file of MobileNetV2's, or none.
    overwrite : bool
        Whether ``out`` may be there already.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If the data has a mistake, or no photos where they are timed, or the hours are too few for
        any plan.
    """
    tpu, _, topology = device.partition("-")
    if tpu == "tpu":
        resolve_topology(topology or "v5e-8")
    config = parse_experiment({**base, "device": tpu})
    spec = spec_of(config, None, data_dir)
    require_data(spec, data_dir)
    require_free_file(Path(out), "--out", overwrite)
    raw = spec.read_raw(data_dir)
    for line in raw.notes:
        say(f"note: {line}")
    examples = validate_examples(raw.examples, spec)
    rows = len(examples)  # no photo is read yet
    examples, _ = drop_unreadable(examples, {}, config.examples.unreadable == "drop")
    if gone := rows - len(examples):
        say(f"note: {gone} rows name a photo that is not there; they are left out")
    if tpu == "tpu":
        kept = KeptAnswers(Path(out).with_suffix(".compiled.json"))
        fitted = _plan_tpu(
            base, spec, examples, preset, topology or "v5e-8", hours, weights, kept, say
        )
    else:
        fitted = _plan_here(base, spec, examples, data_dir, hours, preset, device, weights, say)
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(_render(fitted, hours, preset), encoding="utf-8")
    planned = parse_experiment(values_of(fitted))
    for stage in planned.planned:
        parts = {
            "s": stage.seconds, "s of a core": stage.cpu_seconds,
            "MiB of memory": stage.memory_mb, "MiB of the device's memory": stage.device_mb,
            "MiB on disk": stage.disk_mb,
        }  # fmt: skip
        said = ", ".join(f"{value:,.0f} {unit}" for unit, value in parts.items() if value)
        say(f"{stage.stage:>10}: {said}")
    if doubt := random_weights("image", to_mapping(planned)):
        say(f"note: {doubt}")
    minutes = sum(stage.seconds for stage in planned.planned) / 60
    where = f"a TPU {topology or 'v5e-8'}" if tpu == "tpu" else f"this machine{_busy()}"
    time = f"{minutes:.0f} minutes" if minutes >= 1 else f"{60 * minutes:.0f} seconds"
    say(f"{out}: predicted {time} on {where}")
    say(f"next: python scripts/run_pipeline.py --config {out} --data-dir {data_dir}")
    return planned


def _plan_here(
    base: Mapping[str, Any],
    spec: DatasetSpec,
    examples: pd.DataFrame,
    data_dir: Path,
    hours: float,
    preset: str,
    device: str,
    weights: str | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Time the preset's networks in turn until one fits the hours."""
    photos = some_photos(split_rows(examples, "train"), _SAMPLE, 0)
    if photos.empty:
        raise PipelineError(f"{data_dir} has no photos: a plan is for the image model")
    faults = [fault_of(Path(data_dir) / path) for path in photos["image_path"]]
    if found := [one for one in faults if one]:
        say(
            f"note: {len(found)} of {len(faults)} photos that were looked at, the first: {found[0]}"
        )
    photos = photos[[one is None for one in faults]]
    if len(photos) < _LEAST_PHOTOS:
        raise PipelineError(
            f"{data_dir} has {len(photos)} training photos that can be read: a plan times at least "
            f"{_LEAST_PHOTOS}"
        )
    sides = [min(image_size_px(Path(data_dir) / path)) for path in photos["image_path"]]
    facts = read_facts(examples, spec, int(np.median(sides)))
    _tell(facts, say)
    kind = "gpu" if device != "cpu" and gpu_memory_mb() else "cpu"
    known: dict[FoldsConfig, Mapping[str, Rehearsed]] = {}
    networks = candidates(kind, preset, weights, facts)
    for network in networks:
        content = recipe(base, facts, network, device, weights)
        config = parse_experiment(values_of(content))
        how = "frozen" if network.frozen else "fine-tuned"
        say(f"timing {network.backbone} of {config.image.image_size_px} px, {how} …")
        found = measure(config, spec, data_dir, photos, facts.train)

        def rehearsed(folds: FoldsConfig, config: Experiment = config) -> Mapping[str, Rehearsed]:
            if folds not in known:
                say("rehearsing tables, audit, scores and blend …")
                shared = replace(folds, shared_groups=config.folds.shared_groups)
                known[folds] = rehearse(replace(config, folds=shared), data_dir)
            return known[folds]

        smaller = networks[networks.index(network) + 1 :]
        tuned = any(not one.frozen for one in smaller)
        least = 2 * LEAST_EPOCHS if tuned else LEAST_EPOCHS
        fitted = _fit_hours(content, facts, found, rehearsed, config, hours, least)
        if fitted is not None:
            return fitted
    division = divisions(facts)[-1]
    stages = planned_stages(
        found, rehearsed(division.folds), config, facts, division, config.image.epochs
    )
    cost = whole_cost(stages, found)
    several = len(networks) > 1  # else the presets have one network between them
    quicker = ", or --preset quick" if several and preset != "quick" else ""
    raise PipelineError(
        f"--hours {hours:g} are too few for {facts.train + facts.test:,} photos on this "
        f"machine{_busy()}: one fold would take {cost.seconds / 60:.1f} minutes, with "
        f"{cost.cpu / 60:.1f} of a core; say more{quicker}"
    )


def _plan_tpu(
    base: Mapping[str, Any],
    spec: DatasetSpec,
    examples: pd.DataFrame,
    preset: str,
    topology: str,
    hours: float,
    weights: str | None,
    kept: KeptAnswers,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Ask the TPU's compiler; photos need not be at hand."""
    train = split_rows(examples, "train")
    side = spec.given_size_px or 1024
    if {"width_px", "height_px"} <= set(train) and train["width_px"].notna().any():
        side = int(train[["width_px", "height_px"]].min(axis=1).median())
    facts = read_facts(examples, spec, side)
    _tell(facts, say)
    targets = train[list(spec.classes)].to_numpy(np.float32)
    images = Images(targets, tests=facts.test, counted_in="the table")
    task = TpuTask(topology, hours, images, facts, weights, kept)
    return plan_for_tpu(base, spec, candidates("tpu", preset, weights, facts), task, say)


def _tell(facts: Facts, say: Callable[[str], None]) -> None:
    say(
        f"{facts.train:,} training and {facts.test:,} test photos of {facts.short_side_px} px; "
        f"{facts.rarest[1]} {facts.group or 'image'}s with {facts.rarest[0]}, the rarest class"
    )
    if facts.leaking:
        say(f"note: {', '.join(facts.leaking)} would give the target away: no model learns from it")


def _busy() -> str:
    machine = describe_machine()
    load, cores = machine.get("load", 0.0), machine["cores"]
    if load <= cores:
        return ""
    return f" as busy as it is now: {load:g} processes want its {cores} cores"


def read_facts(examples: pd.DataFrame, spec: DatasetSpec, short_side_px: int) -> Facts:
    """Return what of the data decides."""
    train = split_rows(examples, "train")
    held = {name: train.loc[train[name] == 1, "group_id"].nunique() for name in spec.classes} | {
        f"not {name}": train.loc[train[name] == 0, "group_id"].nunique() for name in spec.classes
    }
    rarest = min(held, key=held.get)
    leaking = tuple(name for name in spec.features if _leaks(examples, spec, name))
    official = None
    if _OFFICIAL in train and 0 < (share := float(train[_OFFICIAL].astype(bool).mean())) < 1:
        official = (_OFFICIAL, share)
    return Facts(
        len(train), len(split_rows(examples, "test")), (rarest, held[rarest]), short_side_px,
        spec.group, tuple(name for name in spec.features if name not in leaking), official, leaking,
    )  # fmt: skip


def _leaks(examples: pd.DataFrame, spec: DatasetSpec, feature: str) -> bool:
    try:
        check_features(examples, spec, [feature])
    except PipelineError:
        return True
    return False


def _fit_hours(
    content: dict[str, Any], facts: Facts, found: Measured, rehearsed: Rehearse,
    config: Experiment, hours: float, least: int = LEAST_EPOCHS,
) -> dict[str, Any] | None:  # fmt: skip
    """The content with folds, epochs and networks that fit, and the prediction; None if none do."""
    fitted = fit_hours(found, rehearsed, config, facts, hours, least)
    if fitted is None:
        return None
    division = fitted.division
    scored = round(facts.train * (1 - division.learned))
    several = Choice(division.count, f"every training photo is scored, in {hours:g} hours")
    single = Choice(0.2, f"{hours:g} hours allow one fold; {scored:,} photos are scored")
    given = Choice(division.folds.judge, f"the data set's own: {scored:,} photos are scored")
    folds = {"k": several} if division.count > 1 else {"holdout": single}
    if division.folds.judge:
        folds = {"judge": given}
    why = f"what {hours:g} hours allow, at most {MOST_EPOCHS}"
    if config.image.frozen:
        why = "of the head alone: seconds"
    image = {**content["image"], "epochs": Choice(fitted.epochs, why)}
    if fitted.seeds > 1:
        image["seeds"] = Choice(
            fitted.seeds, "hours are left: the mean of several networks is better"
        )
    return {
        **content,
        "folds": divided(content, **folds),
        "image": image,
        "planned": Choice(as_planned(fitted.stages)),
    }


def _render(content: Mapping[str, Any], hours: float, preset: str) -> str:
    """The YAML file: a line a value, its reason behind it."""
    lines = [
        f"# Planned for {hours:g} hours, preset {preset}. Change what you like; the report sets",
        "# `planned` beside what it took.",
    ]
    for key, value in content.items():
        if isinstance(value, Choice):
            lines += _lines(key, value, "")
            continue
        lines.append(f"{key}:")
        for inner, choice in value.items():
            lines += _lines(inner, choice, "  ")
    return "\n".join(lines) + "\n"


def _lines(key: str, choice: Choice, indent: str) -> list[str]:
    if isinstance(choice.value, list) and any(isinstance(one, Mapping) for one in choice.value):
        rows = (f"{indent}  - {_flow(one)}" for one in choice.value)
        return [f"{indent}{key}:", *rows]
    reason = f"  # {choice.why}" if choice.why else ""
    return [f"{indent}{key}: {_flow(choice.value)}{reason}"]


def _flow(value: Any) -> str:
    """The value on one line."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").rstrip("\n")
