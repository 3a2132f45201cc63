"""Preflight: compile an experiment's training and prediction step for a TPU that is not there.

In: an experiment, its spec, a topology. Out: a mapping of predictions: whether the step fits, what
bounds it, how long training and prediction take at least. Nothing here was measured on a TPU. Each
compilation runs in a process of its own, since libtpu has to be loaded with its own environment and
may end the process.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.child_process import EndedSilently, run_in_child
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.class_balance import oversampling_repeats, resampling_repeats
from kaggle_pipeline.preflight.compiler import (
    Verdict,
    chip_of,
    prepare_environment,
    resolve_topology,
)
from kaggle_pipeline.preflight.lowering import compile_step, photos_a_step


@dataclass(frozen=True)
class Images:
    """The images that an experiment has.

    Attributes
    ----------
    targets : array of shape (n, classes)
        Of the labelled images that a fold may learn from, all folds together.
    learned_share : float or None
        Of these, what a fold of mean size learns from; None: what the config says.
    validated : float or None
        Images that a fold of mean size is scored on; None: what the config says.
    tests : int
        Of the test part.
    counted_in : str
        Where they were counted.
    """

    targets: np.ndarray
    learned_share: float | None = None
    validated: float | None = None
    tests: int = 0
    counted_in: str = ""


@dataclass(frozen=True)
class Plan:
    """How often an experiment makes its steps.

    Attributes
    ----------
    fits : int
        Models to train: folds, times classes where each has a network, times seeds.
    epochs : int
    shown : int
        Images that an epoch shows, repeats counted, in a fold of mean size.
    judged, tests : int
        Images that a fit's model then predicts: its fold's, in a fold of mean size, and the test
        part's.
    validation : int
        Images that it predicts after every epoch, one view of each.
    views : int
        Of each image, over which a prediction is averaged.
    """

    fits: int
    epochs: int
    shown: int
    validated: int = 0
    tests: int = 0
    validation: int = 0
    views: int = 1

    def steps(self, global_batch: int, steps_per_epoch: int | None) -> int:
        """Return the training steps of the whole experiment."""
        return self.fits * self.epochs * (steps_per_epoch or max(1, self.shown // global_batch))

    def prediction_steps(self, global_batch: int) -> int:
        """Return the prediction steps of one view of the whole experiment; a last batch is full."""
        validated, tests, validation = (
            -(-images // global_batch) for images in (self.validated, self.tests, self.validation)
        )
        return self.fits * (self.views * (validated + tests) + self.epochs * validation)


def make_plan(config: Experiment, images: Images, views: int = 1) -> Plan:
    """Count what an experiment shows its image model and asks of it.

    Where the body is frozen its features are extracted once, for all folds and epochs: that is the
    whole plan, for heads cost next to nothing.

    Parameters
    ----------
    config : Experiment
    images : Images
    views : int
        That a prediction averages.
    """
    image, folds, targets = config.image, config.folds, images.targets
    count = len(targets)
    if image.frozen:
        apart = images.validated if folds.judge else 0
        return Plan(1, 1, count + images.tests + round(apart or 0))
    kept = 1 - (folds.test_share or 0)
    held = 0.0 if folds.judge else kept * (folds.holdout or 1 / folds.k)
    learned_share, validated, tests = images.learned_share, images.validated, images.tests
    if learned_share is None:
        learned_share = kept - held
        tests += round(count * (1 - kept))
    if validated is None:
        validated = count * held
    validation = validated
    if image.checkpoint == "best_inner":
        validation = count * learned_share * image.inner_share
        learned_share *= 1 - image.inner_share
    if image.images_per_class is not None:  # so many whatever there is to draw from
        shown = int(resampling_repeats(targets, image.images_per_class, config.seed).sum())
    else:
        repeats = oversampling_repeats(targets, image.oversample, config.seed)
        shown = round(repeats.sum() * learned_share)
    fits = 1 if folds.holdout or folds.judge else folds.k
    fits *= targets.shape[1] if image.networks == "one_per_class" else 1
    fits *= image.seeds
    return Plan(fits, image.epochs, shown, round(validated), tests, round(validation), views)


def step_settings(config: Experiment, spec: DatasetSpec) -> dict[str, Any]:
    """Return what decides a compiled step, as plain JSON types; equal settings cost as much.

    Rates, probabilities and smoothing are numbers in the step and change nothing; what the host
    does to photos is not in it.
    """
    image = config.image
    same = ("backbone", "image_size_px", "batch_size", "backbone_layer", "pool_share", "frozen",
            "train_from", "frozen_batch_norm", "dropout_samples", "metadata", "loss", "target",
            "mixed_precision")  # fmt: skip
    whether = ("weights", "ema", "mixup", "cutmix", "weight_decay", "head_l2")
    return {
        **{name: getattr(image, name) for name in same},
        **{name: bool(getattr(image, name)) for name in whether},
        "backbone_options": dict(image.backbone_options),
        "augment_on_device": image.augment.where == "device",
        "classes": len(spec.classes),
        "task": spec.task,
    }


CAVEAT = (
    "times are XLA's counts at the chip's peak rates, an estimate from below and no strict bound: "
    "its bytes may include traffic that stays on the chip; padding, the way of gradients between "
    "chips, compilation and waiting for input are not in them"
)


@dataclass(frozen=True)
class Target:
    """What is compiled for.

    Attributes
    ----------
    spec : DatasetSpec
    topology : str
    backend : {"jax", "tensorflow"}
    """

    spec: DatasetSpec
    topology: str
    backend: str = "jax"


def preflight(
    config: Experiment,
    spec: DatasetSpec,
    topology: str,
    *,
    backend: str = "jax",
    plan: Plan | None = None,
    find_largest: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compile the step; return whether it fits, its cost, and how long the run takes at least.

    Parameters
    ----------
    config : Experiment
    spec : DatasetSpec
    topology : str
        ``v5e-8`` or XLA's ``v5e:2x4``.
    backend : {"jax", "tensorflow"}
        Keras on JAX, or TensorFlow under TPUStrategy.
    plan : Plan, optional
        Without it no hours are told, and no prediction step is compiled.
    find_largest : bool
        Look for the largest batch a replica even where the config's own fits.
    say : callable
        Told what goes on: a compilation may take minutes.

    Returns
    -------
    dict
        ``fits``, ``peak_hbm_gib``, ``hbm_gib``, ``tflop_per_step``, ``gb_per_step``,
        ``floor_step_seconds``, ``bound_by``, ``images_per_second_at_most``, ``hours_at_least``
        (``training_hours_at_least`` and ``prediction_hours_at_least`` together),
        ``largest_batch_per_replica`` and what they were made from. Figures of a step are per
        device; GiB are 2^30 bytes, GB 10^9. Those of the prediction step are of one view of each
        image; a step of several views is counted as so many of them. :data:`CAVEAT` holds for all.

    Raises
    ------
    PipelineError
        If the compiler is missing, does not know the topology, or cannot compile the step at all.
    """
    wanted = config.image.batch_size
    if config.image.fold_sizes_px:
        config = replace(config, image=config.image.largest())
        plan = None  # the hours of the largest size would be no lower bound
        say(f"image.fold_sizes_px: the largest alone, {config.image.image_size_px} px")
    say(f"compiling the step of {config.name} for {topology}, {wanted} images a replica")
    target = Target(spec, topology, backend)
    answer = _compile_apart(config, target, wanted)
    verdict: Verdict = answer["verdict"]
    largest = None
    if find_largest or not verdict.fits:
        largest = largest_batch(config, target, answer, say)
    told = None
    if plan is not None and verdict.fits and plan.prediction_steps(1):
        say("compiling the prediction of one view")
        told = _compile_apart(config, target, wanted, predicting=True)
    found = _predict(config, target, plan, answer, told)
    return {**found, "largest_batch_per_replica": largest}


def _predict(
    config: Experiment,
    target: Target,
    plan: Plan | None,
    answer: dict[str, Any],
    told: dict[str, Any] | None,
) -> dict[str, Any]:
    verdict, devices = answer["verdict"], answer["devices"]
    floor, bound = floor_seconds(verdict, target.topology)
    batch, photos = config.image.batch_size, photos_a_step(config.image)
    hours = steps = None
    if plan is not None:
        given = None if config.image.frozen else config.image.steps_per_epoch
        steps = plan.steps(photos * devices, given)
        hours = steps * floor / 3600 if floor else None
    prediction, predicting = _predict_predictions(target, plan, batch * devices, told)
    total = None if hours is None or predicting is None else hours + predicting
    return {
        "experiment": config.name,
        "topology": resolve_topology(target.topology),
        "backend": target.backend,
        "devices": devices,
        "backbone": config.image.backbone,
        "image_size_px": config.image.image_size_px,
        "batch_per_replica": batch,
        "global_batch": batch * devices,
        "policy": answer["policy"],
        "step": "extraction of features" if config.image.frozen else "training",
        "fits": verdict.fits,
        "peak_hbm_gib": _rounded(verdict.peak_gib, 2),
        "hbm_gib": _rounded(verdict.hbm_gib, 2),
        "tflop_per_step": _rounded(verdict.tflop, 3),
        "gb_per_step": _rounded(verdict.gb, 2),
        "floor_step_seconds": float(f"{floor:.4g}") if floor else None,
        "bound_by": bound,
        "images_per_second_at_most": _rounded(photos * devices / floor if floor else None, 1),
        "steps": steps,
        "training_hours_at_least": _rounded(hours, 2),
        **prediction,
        "hours_at_least": _rounded(total, 2),
        "compile_seconds": round(verdict.compile_seconds, 1),
        "compiler_memory_gib": _rounded(answer["ram_gib"], 1),
        "compiler_message": verdict.message,
        "settings": step_settings(config, target.spec),
        "versions": answer["versions"],
    }


def _predict_predictions(
    target: Target, plan: Plan | None, global_batch: int, told: dict[str, Any] | None
) -> tuple[dict[str, Any], float | None]:
    """What the prediction step costs, and the hours of all; 0 where nothing is predicted."""
    verdict: Verdict | None = told and told["verdict"]
    floor, bound = floor_seconds(verdict, target.topology) if verdict else (None, None)
    steps = None if plan is None else plan.prediction_steps(global_batch)
    hours = 0.0 if steps == 0 else steps * floor / 3600 if steps and floor else None
    found = {
        "views": plan and plan.views,
        "fits": verdict and verdict.fits,
        "peak_hbm_gib": verdict and _rounded(verdict.peak_gib, 2),
        "tflop_per_step": verdict and _rounded(verdict.tflop, 3),
        "gb_per_step": verdict and _rounded(verdict.gb, 2),
        "floor_step_seconds": float(f"{floor:.4g}") if floor else None,
        "bound_by": bound,
        "steps": steps,
        "hours_at_least": _rounded(hours, 2),
        "compile_seconds": verdict and round(verdict.compile_seconds, 1),
    }
    return {f"prediction_{key}": value for key, value in found.items()}, hours


def floor_seconds(verdict: Verdict, topology: str) -> tuple[float | None, str | None]:
    """Return the least time of a step and what bounds it: ``memory`` or ``arithmetic``.

    The roofline (Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785): the longer of
    all arithmetic at the peak rate and all bytes at the memory's bandwidth. Padding that the matrix
    units compute and the gradients' way between chips come on top. Bytes are XLA's count; what it
    keeps in a core's own vector memory between two instructions may be counted with them.
    """
    if not verdict.fits:
        return None, None
    chip = chip_of(topology)
    arithmetic = verdict.tflop / (chip.bf16_tflops / chip.devices)
    memory = verdict.gb / (chip.hbm_gb_per_s / chip.devices)
    return max(arithmetic, memory), "memory" if memory >= arithmetic else "arithmetic"


def largest_batch(
    config: Experiment,
    target: Target,
    first: dict[str, Any],
    say: Callable[[str], None],
) -> int:
    """Return the largest batch a replica that fits, 0 if not even one image does.

    The compiler refuses early and accepts late. So a compilation that has not been refused in three
    times the longest refusal counts as accepted while the search closes in, and only the batch that
    it ends at is compiled to its end; a late refusal sends it on downwards.
    """
    batch = config.image.batch_size
    proven, fails = (batch, None) if first["verdict"].fits else (0, first)
    fits, patience = proven, max(60.0, 3 * first["seconds"] if fails else first["seconds"])
    while fails is None or _batch(fails) - fits > 1 or fits > proven:
        closed = fails is not None and _batch(fails) - fits == 1
        batch = fits if closed else _next_batch(fits, fails)
        patience = max(patience, 3 * fails["seconds"]) if fails else patience
        answer = _compile_apart(config, target, batch, None if closed else patience)
        if answer is not None and not answer["verdict"].fits:
            say(f"{batch} a replica: too large")
            fails, fits = answer, fits if batch > fits else proven
            continue
        say(f"{batch} a replica: " + ("not refused so far" if answer is None else "fits"))
        fits = batch
        proven = proven if answer is None else batch
    return proven


def _batch(answer: dict[str, Any]) -> int:
    return answer["batch_size"]


def _next_batch(fits: int, fails: dict[str, Any] | None) -> int:
    """Return the batch to try next: where memory, taken as linear in the batch, would be full."""
    if fails is None:
        return 2 * fits
    verdict = fails["verdict"]
    if verdict.peak_gib is None:
        return (fits + _batch(fails)) // 2
    guess = int(_batch(fails) * verdict.hbm_gib / verdict.peak_gib)
    return min(max(guess, fits + 1), _batch(fails) - 1)


def _compile_apart(
    config: Experiment,
    target: Target,
    batch_size: int,
    patience: float | None = None,
    predicting: bool = False,
) -> dict[str, Any] | None:
    """Compile in a process of its own; None if that has said nothing after ``patience`` seconds."""
    image = replace(config.image, batch_size=batch_size)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        noise = Path(folder) / "noise.txt"
        try:
            answer = run_in_child(_child, image, target, noise, predicting, patience=patience)
        except EndedSilently as end:
            words = noise.read_text(errors="replace", encoding="utf-8").strip().splitlines() or [
                "it said nothing"
            ]
            raise PipelineError(
                f"the TPU compiler ended its process (code {end.code}): {words[-1]}"
            ) from None
    if answer is None:
        return None
    if "error" in answer:
        raise PipelineError(answer["error"])
    return {**answer, "batch_size": batch_size, "seconds": time.perf_counter() - started}


def _child(
    image: ImageConfig, target: Target, noise: Path, predicting: bool, pipe: Connection
) -> None:
    """Compile and send the answer; libtpu's and TensorFlow's chatter goes to a file."""
    with noise.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    prepare_environment(target.backend)
    try:
        answer = compile_step(
            image, target.spec, target.topology, target.backend, predicting=predicting
        )
    except PipelineError as error:
        answer = {"error": str(error)}
    except Exception as error:
        answer = {"error": f"the step cannot be compiled: {type(error).__name__}: {error}"}
    pipe.send(answer)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
