"""A plan for a TPU that is not here: its own compiler says what fits, and the least it takes.

In: networks to try, facts and labels of the data, a topology, hours. Out: an experiment that the
preflight accepts, and what it is predicted to take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.config.loading import parse_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.preflight.estimate import Images, make_plan, preflight
from kaggle_pipeline.preflight.kept_answers import KeptAnswers, describe_compiler
from kaggle_pipeline.preflight.plan_cost import Facts
from kaggle_pipeline.preflight.plan_recipe import Choice, Network, divided, recipe, values_of

_LEAST, _MOST = 3, 16
_FORWARD = 1 / 3
"""A prediction's share of a training step's time where no prediction was compiled: the backward
pass has about twice the arithmetic of the forward pass."""
_ABOVE_FLOOR = 1.5
"""The compiler's times are from below (see ``preflight``); so many times as long is planned for."""


@dataclass(frozen=True)
class TpuTask:
    """What is planned for.

    Attributes
    ----------
    topology : str
        Such as ``v5e-8``.
    hours : float
    images : Images
    facts : Facts
    weights : str or None
    kept : KeptAnswers
        What the compiler said before.
    """

    topology: str
    hours: float
    images: Images
    facts: Facts
    weights: str | None
    kept: KeptAnswers


def plan_for_tpu(
    base: Mapping[str, Any],
    spec: DatasetSpec,
    networks: list[Network],
    task: TpuTask,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return the first network's experiment that fits the device and the hours, as choices.

    Raises
    ------
    PipelineError
        If the compiler is missing, or nothing fits.
    """
    for network in networks:
        content = recipe(base, task.facts, network, "tpu", task.weights)
        config = parse_experiment(values_of(content))
        found = _compiled(config, spec, task, say)
        batch = found["largest_batch_per_replica"]
        if not found["fits"] and batch:
            config = replace(config, image=replace(config.image, batch_size=batch))
            found = _compiled(config, spec, task, say)
        if not found["fits"]:
            continue
        fitted = _fit_hours(config, found, task)
        if fitted:
            return _content(content, found, fitted, task)
    raise PipelineError(
        f"--hours {task.hours:g} are too few for {task.facts.train:,} training photos on "
        f"{task.topology}: say more, or --preset quick"
    )


def _compiled(
    config: Experiment, spec: DatasetSpec, task: TpuTask, say: Callable[[str], None]
) -> dict[str, Any]:
    known = task.kept.find(config, spec, task.topology)
    if known is not None:
        image = config.image
        say(
            f"{image.backbone} of {image.image_size_px} px, {image.batch_size} photos a replica: "
            f"not compiled anew, the compiler's answer is kept in {known['kept_in']} "
            f"({describe_compiler(known)})"
        )
        return known
    plan = make_plan(config, task.images, config.image.views)
    found = preflight(config, spec, task.topology, plan=plan, say=say)
    task.kept.keep(found)
    say(f"compiled with {describe_compiler(found)}")
    return found


def _fit_hours(
    config: Experiment, found: Mapping[str, Any], task: TpuTask
) -> tuple[FoldsConfig, int, float] | None:
    """Folds, epochs and hours; the most folds, then epochs, that fit."""
    for folds in (FoldsConfig(k=5), FoldsConfig(k=3), FoldsConfig(holdout=0.2)):
        least = _LEAST if folds.holdout else 2 * _LEAST
        for epochs in range(_MOST, least - 1, -1):
            tried = replace(config, folds=folds, image=replace(config.image, epochs=epochs))
            hours = _hours(tried, found, task)
            if hours <= task.hours:
                return folds, epochs, hours
    return None


def _hours(config: Experiment, found: Mapping[str, Any], task: TpuTask) -> float:
    plan = make_plan(config, task.images, config.image.views)
    batch = found["global_batch"]
    seconds = plan.steps(batch, None) * found["floor_step_seconds"]
    forward = found.get("prediction_floor_step_seconds")
    if not forward:
        forward = _FORWARD * found["floor_step_seconds"]
    seconds += plan.prediction_steps(batch) * forward
    return _ABOVE_FLOOR * seconds / 3600


def _content(
    content: dict[str, Any],
    found: Mapping[str, Any],
    fitted: tuple[FoldsConfig, int, float],
    task: TpuTask,
) -> dict[str, Any]:
    folds, epochs, hours = fitted
    several = Choice(folds.k, f"every training photo is scored, in {task.hours:g} hours")
    single = Choice(0.2, f"{task.hours:g} hours allow one fold")
    memory = (
        f"{found['peak_hbm_gib']} of {found['hbm_gib']} GiB a device, says the compiler "
        f"({describe_compiler(found)})"
    )
    planned = {
        "stage": "image",
        "seconds": round(hours * 3600),
        "memory_mb": 0,
        "device_mb": round(found["peak_hbm_gib"] * 1024),
    }
    return {
        **content,
        "folds": divided(content, **({"holdout": single} if folds.holdout else {"k": several})),
        "image": {
            **content["image"],
            "batch_size": Choice(found["batch_per_replica"], memory),
            "epochs": Choice(epochs, f"{hours:.1f} h, {_ABOVE_FLOOR:g} times the compiler's least"),
        },
        "planned": Choice([planned]),
    }
