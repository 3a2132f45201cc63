"""An experiment planned from the data and this machine, each value with its reason.

In: a data set or a table, hours, a preset. Out: a YAML file for ``run_pipeline``, with what each
stage is predicted to take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import parse_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.photos import fault_of, image_size_px
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.preflight.plan_timing import Measured, measure, processes, some_photos

PRESETS = {"quick": 128, "good": 192, "best": 256}
"""Preset → side in px that the network sees, at most."""
FEW_GROUPS = 50
"""With fewer patients of the rarest class the backbone stays as ImageNet left it, as for the 27
melanomas of ``siim_mini``; the 73 lesions of HAM10000's rarest class were fine-tuned on."""
_EPOCHS = (3, 12)
"""Fewest and most passes of a fine-tuning."""
_HEAD_EPOCHS, _HEAD_STEP_SECONDS = 10, 0.008
_SPARE = 0.85
"""Share of the hours that is planned for: other programs want some."""
_SAMPLE = 24
_TABULAR_SECONDS = 3.0
_BLEND_SECONDS = 3.0
_PREPARE_MB = 900.0
"""TensorFlow, which writes the records, and little else: photos pass one by one."""


@dataclass(frozen=True)
class Facts:
    """What of the data decides.

    Attributes
    ----------
    train, test : int
        Photos.
    rarest : (str, int)
        The class of the fewest groups with a photo of it, and how many they are.
    short_side_px : int
        Of the median photo.
    group : str or None
    features : int
        Columns of metadata.
    """

    train: int
    test: int
    rarest: tuple[str, int]
    short_side_px: int
    group: str | None
    features: int


@dataclass(frozen=True)
class Choice:
    """A value and why."""

    value: Any
    why: str = ""


def plan_experiment(
    base: Mapping[str, Any],
    data_dir: Path,
    out: Path,
    *,
    hours: float,
    preset: str,
    device: str,
    weights: str,
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
        For everything, on this machine.
    preset : {"quick", "good", "best"}
    device : {"auto", "cpu", "gpu", "tpu"}
    weights : str
        ``imagenet``, or a file.
    overwrite : bool
        Whether ``out`` may be there already.
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If the data has a mistake, has no photos, or the hours are too few for any plan.
    """
    if Path(out).exists() and not overwrite:
        raise PipelineError(f"{out} exists: say --overwrite, or another --out")
    first = parse_experiment({**base, "device": device})
    spec = spec_of(first, None, data_dir)
    raw = spec.read_raw(data_dir)
    for line in raw.notes:
        say(f"note: {line}")
    examples = validate_examples(raw.examples, spec)
    photos = some_photos(examples, _SAMPLE, first.seed)
    photos = photos[[fault_of(Path(data_dir) / path) is None for path in photos["image_path"]]]
    if photos.empty:
        raise PipelineError(f"{data_dir} has no photos: a plan is for the image model")
    facts = read_facts(examples, spec, photos, data_dir)
    say(
        f"{facts.train:,} training and {facts.test:,} test photos of {facts.short_side_px} px; "
        f"{facts.rarest[1]} {facts.group or 'image'}s with {facts.rarest[0]}, the rarest class"
    )
    for frozen in (False, True):
        if not frozen and facts.rarest[1] < FEW_GROUPS:
            continue
        content = _recipe(base, facts, preset, device, weights, frozen)
        config = parse_experiment(_values(content))
        say(f"timing {config.image.backbone}, {'frozen' if frozen else 'fine-tuned'} …")
        found = measure(config, spec, data_dir, photos)
        fitted = _fit_hours(content, facts, found, config, hours)
        if fitted is not None:
            break
    else:
        raise PipelineError(
            f"--hours {hours:g} are too few for {facts.train + facts.test:,} photos on this "
            "machine: say more, or --preset quick"
        )
    planned = fitted["planned"].value
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(_render(fitted, facts, hours, preset), encoding="utf-8")
    for stage in planned:
        say(
            f"{stage['stage']:>10}: {stage['seconds']:,.0f} s, {stage['memory_mb']:,.0f} MiB of "
            f"memory, {stage['disk_mb']:,.0f} MiB on disk"
        )
    total = sum(stage["seconds"] for stage in planned)
    say(f"{out}: predicted {total / 60:.0f} minutes on this machine as busy as it is now")
    return parse_experiment(_values(fitted))


def read_facts(
    examples: pd.DataFrame, spec: DatasetSpec, photos: pd.DataFrame, data_dir: Path
) -> Facts:
    """Return what of the data decides; ``photos`` are some of the examples."""
    train = split_rows(examples, "train")
    held = {name: train.loc[train[name] == 1, "group_id"].nunique() for name in spec.classes} | {
        f"not {name}": train.loc[train[name] == 0, "group_id"].nunique() for name in spec.classes
    }
    rarest = min(held, key=held.get)
    sides = [min(image_size_px(Path(data_dir) / path)) for path in photos["image_path"]]
    return Facts(
        len(train), len(split_rows(examples, "test")), (rarest, held[rarest]),
        int(np.median(sides)), spec.group, len(spec.features),
    )  # fmt: skip


def _recipe(
    base: Mapping[str, Any], facts: Facts, preset: str, device: str, weights: str, frozen: bool
) -> dict[str, Any]:
    """The experiment before its hours are known: sections of choices."""
    side = max(64, min(PRESETS[preset], facts.short_side_px // 32 * 32))
    smaller = "the photos' own size" if side < PRESETS[preset] else f"preset {preset}"
    few = f"{facts.rarest[1]} {facts.group or 'image'}s with {facts.rarest[0]}"
    image = {
        "backbone": Choice("MobileNetV2", "small enough for any machine"),
        "weights": Choice(weights),
        "image_size_px": Choice(side, smaller),
    }
    if frozen:
        image |= {
            "frozen": Choice(True, f"{few}: too few, or hours too short, to fine-tune"),
            "backbone_layer": Choice("block_6_expand_relu", "colour and texture"),
            "pool_share": Choice(0.5, "the middle, where the lesion is"),
            "dropout": Choice(0.0),
            "head_l2": Choice(0.03, "few weights for few photos"),
            "batch_size": Choice(128),
            "epochs": Choice(_HEAD_EPOCHS, "of the head alone: seconds"),
            "learning_rate": Choice(3.0e-3),
            "tta": Choice("dihedral", "features of eight views are computed once"),
        }
    else:
        image |= {
            "train_from": Choice("block_6_expand", f"{few}: enough to fine-tune"),
            "batch_norm_momentum": Choice(0.99, "statistics follow in few steps"),
            "dropout": Choice(0.2),
            "batch_size": Choice(32),
            "epochs": Choice(_EPOCHS[1]),
            "learning_rate": Choice(4.0e-4),
            "warmup_epochs": Choice(0.5),
            "class_weight_power": Choice(0.4, "rare classes count more, two fifths of the way"),
            "label_smoothing": Choice(0.05),
            "tta": Choice("dihedral", "eight views of a lesion, which has no up or down"),
            "augment": Choice({"shear_degrees": 0, "dropout_boxes": 0}),
        }
    models = ["image", "logistic"] if facts.features else ["image"]
    tabular = f"{facts.features} columns of metadata, seconds" if facts.features else "no metadata"
    return {
        **{key: _chosen(value) for key, value in base.items()},
        "device": Choice(device),
        "folds": {"k": Choice(5)},
        "leakage": {"duplicates": Choice("drop", "of a photo that is there twice one stays")},
        "records": {"image_size_px": Choice(side, "as the network sees it")},
        "image": image,
        "tabular": {"learners": Choice(["logistic"], tabular)},
        "blend": {"models": Choice(models), "space": Choice("logit")},
    }


def _chosen(value: Any) -> Any:
    """What was said, as choices without a reason; what was left out stays so."""
    if not isinstance(value, Mapping):
        return Choice(value)
    return {key: Choice(one) for key, one in value.items() if one is not None}


def _fit_hours(
    content: dict[str, Any], facts: Facts, found: Measured, config: Experiment, hours: float
) -> dict[str, Any] | None:
    """The content with folds and epochs that fit, and the prediction; None if none do."""
    photos, frozen = facts.train + facts.test, config.image.frozen
    prepare = 10 + photos * found.prepare_seconds / processes(config)
    others = prepare + _BLEND_SECONDS + (5 * _TABULAR_SECONDS if facts.features else 0)
    budget = hours * 3600 * _SPARE - others - found.start_seconds
    for folds, learned in ((5, 0.8), (3, 2 / 3), (1, 0.8)):
        scored = facts.train * (1 - learned)
        answers = folds * (scored + facts.test) * found.answer_seconds
        answers += folds * found.fold_seconds
        if frozen:
            steps = facts.train * learned * 8 / config.image.batch_size
            epochs = _HEAD_EPOCHS
            seconds = photos * found.answer_seconds + folds * found.fold_seconds
            seconds += folds * epochs * steps * _HEAD_STEP_SECONDS
        else:
            steps = max(1, facts.train * learned // found.batch)
            one = steps * found.step_seconds + scored * found.answer_seconds / 8
            epochs = min(_EPOCHS[1], int((budget - answers) / folds // one))
            seconds = folds * epochs * one + answers
        least = _EPOCHS[0] if folds == 1 or frozen else 2 * _EPOCHS[0]
        if epochs >= least and seconds <= budget:
            break
    else:
        return None
    several = Choice(folds, f"every training photo is scored, in {hours:g} hours")
    single = Choice(0.2, f"{hours:g} hours allow one fold")
    why = "of the head alone: seconds" if frozen else f"what {hours:g} hours allow, at most 12"
    stages = [
        ("prepare", prepare, _PREPARE_MB, photos * found.record_mb),
        ("image", found.start_seconds + seconds, found.memory_mb, 0.0),
    ]
    planned = [
        {"stage": stage, "seconds": round(s, 1), "memory_mb": round(m), "disk_mb": round(d, 1)}
        for stage, s, m, d in stages
    ]
    return {
        **content,
        "folds": {"k": several} if folds > 1 else {"holdout": single},
        "image": {**content["image"], "epochs": Choice(epochs, why)},
        "planned": Choice(planned),
    }


def _values(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.value if isinstance(value, Choice) else _values(value)
        for key, value in content.items()
    }


def _render(content: Mapping[str, Any], facts: Facts, hours: float, preset: str) -> str:
    """The YAML file: a line a value, its reason behind it."""
    lines = [
        f"# Planned for {facts.train:,} training and {facts.test:,} test photos, {hours:g} hours,",
        f"# preset {preset}. Change what you like; `planned` is compared in the report.",
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
