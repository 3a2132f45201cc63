"""Ask a run's models about the made-up photos again, and compare with what they answered then.

In: a run's folder or a bundle with ``made_up/`` and ``made_up.csv``. Out: what differs.
"""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.predictions import AVERAGED, Predictions
from kaggle_pipeline.models.cross_validation import MADE_UP
from kaggle_pipeline.records.tfrecords import shards_holding
from kaggle_pipeline.stages.made_up import FOLDER, made_up_photos, precision_of
from kaggle_pipeline.stages.trained import TrainedImageModels
from kaggle_pipeline.stages.trained_embedding import NotAtHand, TrainedHeads
from kaggle_pipeline.stages.verify_contents import Found

TOLERANCE = 1e-3
"""How far an answer in float32 may move from one machine or version to another."""
_SHORT_TOLERANCE = 0.03
"""The same of a network that computes, or did when it was trained, in 16 bits."""
_OPEN = {"image": TrainedImageModels.open, "embedding": TrainedHeads.open}


def ask_again(run_dir: Path) -> Found:
    """Return whether the models of a run's photos answer as they did when they were trained."""
    found = Found()
    lines = []
    for name, open_stage in _OPEN.items():
        stage = Path(run_dir) / name
        if not any(stage.glob("*/model.json")) and not any(stage.glob("*/*/model.json")):
            continue
        if not (stage / FOLDER).is_dir():
            lines.append(f"answers: {name} keeps none (an earlier version, or BGR records)")
        elif find_spec("keras") is None:
            lines.append(f"answers: {name} not asked again, Keras is not installed")
        else:
            try:
                line, faults = _ask(open_stage(Path(run_dir)))
            except NotAtHand as error:
                line, faults = f"answers: {name} not asked again: {error}", []
            except PipelineError as error:
                line, faults = "", [str(error)]
            lines.append(line)
            found.faults += faults
    found.line = "\n".join(filter(None, lines))
    return found


def answers_of(
    trained: TrainedImageModels | TrainedHeads, keep: Path | None = None
) -> dict[Path, Predictions]:
    """Return what each model of a stage says now of its made-up photos, by the model's folder.

    They are drawn where the stage has none; ``keep`` is a folder that they are copied into.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator("auto")
    recipe = trained.fit.recipe(trained.config.records)
    answers = {}
    with made_up_photos(trained.stage, trained.spec, recipe) as photos:
        if keep is not None:
            replace(photos, precision=_precision_here(trained)).keep(keep)
        shards_of = partial(shards_holding, photos.index)
        for fold, place in trained.places.items():
            model = trained.load(fold, device, shards_of, photos.photos.parent / "features")
            said = model.predict(photos.examples)
            answers[place] = Predictions.build(said, AVERAGED if fold is None else fold, "test")
    return answers


def _ask(trained: TrainedImageModels | TrainedHeads) -> tuple[str, list[str]]:
    short = any(one != "float32" for one in _precisions(trained))
    tolerance = _SHORT_TOLERANCE if short else TOLERANCE
    faults, largest, asked, count = [], 0.0, 0, 0
    for place, now in answers_of(trained).items():
        if not (place / MADE_UP).exists():
            continue
        then = Predictions.read(place / MADE_UP, trained.spec.classes)
        then.require(now.table.index, str(place / MADE_UP))
        away = (now.probabilities - then.probabilities.loc[now.table.index]).abs()
        asked, count = asked + 1, len(away)
        largest = max(largest, float(away.max(axis=None)))
        if away.max(axis=None) > tolerance:
            faults.append(_describe(place, now.probabilities, then.probabilities, away))
    line = (
        f"answers: {asked} models of {trained.stage.name} say of {count} made-up photos what they "
        f"said when they were trained (within {largest:.0e})"
    )
    return line, faults


def _precision_here(trained: TrainedImageModels | TrainedHeads) -> str:
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    return choose_accelerator("auto").precision(mixed=trained.mixed_precision)


def _precisions(trained: TrainedImageModels | TrainedHeads) -> tuple[str, str]:
    """In what the models computed their answers then, and do here.

    An earlier version did not write the first down: then it may be what the setting allows.
    """
    then = precision_of(trained.stage)
    return then or ("mixed" if trained.mixed_precision else "float32"), _precision_here(trained)


def _describe(place: Path, now: pd.DataFrame, then: pd.DataFrame, away: pd.DataFrame) -> str:
    photo, name = away.stack().idxmax()
    return (
        f"{place}: its model says {name} {now.loc[photo, name]:.4f} of {FOLDER}/{photo}, "
        f"{then.loc[photo, name]:.4f} when it was trained: weights, settings or versions are others"
    )
