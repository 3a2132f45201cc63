"""What an experiment takes on this machine, from what some photos took; folds and epochs that fit.

In: :class:`~kaggle_pipeline.preflight.plan_timing.Measured` and :class:`Facts`. Out: costs, stages.
"""

from dataclasses import dataclass
from typing import Any

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.machine import count_cores
from kaggle_pipeline.preflight.commands import count_views
from kaggle_pipeline.preflight.plan_timing import Cost, Measured, processes

LEAST_EPOCHS, MOST_EPOCHS = 3, 12
"""Passes of a fine-tuning."""
HEAD_EPOCHS = 10
_SPARE = 0.85
"""Share of the hours that is planned for: other programs want some."""
_TABULAR = Cost(3.0, 3.0)
"""A fold of the logistic model."""
_SCORES = Cost(8.0, 8.0)
"""Bootstraps, figures and report of a stage."""
_SCORES_MB = 150.0
"""What figures and bootstraps add to what a fit has taken."""


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
class Fitted:
    """Folds, what share of the training photos each learns from, and epochs."""

    folds: int
    learned: float
    epochs: int


def fit_hours(found: Measured, config: Experiment, facts: Facts, hours: float) -> Fitted | None:
    """Return the most folds, then epochs, that fit into the hours; None if not even one fold."""
    budget = hours * 3600 * _SPARE
    for folds, learned in ((5, 0.8), (3, 2 / 3), (1, 0.8)):
        epochs, least = HEAD_EPOCHS, HEAD_EPOCHS
        if not config.image.frozen:
            none = whole_cost(found, config, facts, Fitted(folds, learned, 0)).seconds
            one = whole_cost(found, config, facts, Fitted(folds, learned, 1)).seconds - none
            epochs = min(MOST_EPOCHS, int((budget - none) // one))
            # Rather one fold that has learned than several that have not.
            least = LEAST_EPOCHS if folds == 1 else 2 * LEAST_EPOCHS
        fitted = Fitted(folds, learned, epochs)
        if epochs >= least and whole_cost(found, config, facts, fitted).seconds <= budget:
            return fitted
    return None


def whole_cost(found: Measured, config: Experiment, facts: Facts, fitted: Fitted) -> Cost:
    """Return what all stages take together."""
    image, prepare = _image_cost(found, config, facts, fitted), _prepare_cost(found, config, facts)
    tabular = _TABULAR * (fitted.folds * bool(facts.features))
    return found.start + prepare + image + tabular + _SCORES * 3


def planned_stages(
    found: Measured, config: Experiment, facts: Facts, fitted: Fitted
) -> list[dict[str, Any]]:
    """Return a prediction a stage, as ``planned`` of the experiment has it."""
    photos, more = facts.train + facts.test, _more_memory(found, config, facts)
    prepare, image = _prepare_cost(found, config, facts), _image_cost(found, config, facts, fitted)
    stages = [
        ("prepare", prepare, found.imported_mb + _SCORES_MB, photos * found.record_mb),
        ("image", image, found.memory_mb + _SCORES_MB + more, 0.0),
    ]
    return [
        {
            "stage": stage,
            "seconds": round(cost.seconds, 1),
            "cpu_seconds": round(cost.cpu, 1),
            "memory_mb": round(memory),
            "disk_mb": round(disk, 1),
        }
        for stage, cost, memory, disk in stages
    ]


def _prepare_cost(found: Measured, config: Experiment, facts: Facts) -> Cost:
    work = found.prepare * (facts.train + facts.test)
    apart = min(processes(config), count_cores())
    return found.workers + Cost(work.seconds / apart, work.cpu) + _SCORES * 0.5


def _image_cost(found: Measured, config: Experiment, facts: Facts, fitted: Fitted) -> Cost:
    """Return what the folds take.

    A frozen backbone's features are computed once, for the training, validation and test rows of
    the first fold; else each fold's network predicts its validation and the test photos.
    """
    folds, train = fitted.folds, facts.train * fitted.learned
    scored, parts = facts.train - train, 1 + bool(facts.test)
    fixed = found.fold * folds
    if config.image.frozen:
        views = 8 if config.image.augment.dihedral else 1
        fixed += found.answer * (facts.train + facts.test) + found.asking * (1 + parts)
        epoch = found.step * (train * views / found.batch) + found.epoch
        return fixed + epoch * (folds * fitted.epochs)
    fixed += (found.answer * (scored + facts.test) + found.asking * parts) * folds
    steps = max(1, train // found.batch)
    one_view = found.answer * (1 / count_views(config.image))
    epoch = found.step * steps + one_view * scored + found.epoch
    return fixed + epoch * (folds * fitted.epochs)


def _more_memory(found: Measured, config: Experiment, facts: Facts) -> float:
    """MiB that all photos take beside what some of them took."""
    image = config.image
    decoded = facts.train * image.image_size_px**2 * 3 / 2**20
    cached = 2 * decoded if decoded <= image.cache_mb and not image.frozen else 0.0
    # Read from disk, put into the fold's order, handed to the head.
    return cached + 3 * 4 * found.features * (facts.train + facts.test) / 2**20
