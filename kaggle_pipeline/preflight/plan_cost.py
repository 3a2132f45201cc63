"""What an experiment takes on this machine, from what some photos took; folds and epochs that fit.

In: :class:`~kaggle_pipeline.preflight.plan_timing.Measured`, what
:mod:`~kaggle_pipeline.preflight.plan_rehearsal` found, and :class:`Facts`. Out: a prediction a
stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.core.machine import count_cores
from kaggle_pipeline.preflight.plan_rehearsal import Rehearsed
from kaggle_pipeline.preflight.plan_timing import Cost, Measured, processes

LEAST_EPOCHS, MOST_EPOCHS = 3, 12
"""Passes of a fine-tuning."""
MOST_SEEDS = 3
"""Networks of one fold whose mean is taken: on ISIC 2017 three gain 0.007 [0.005, 0.010] of the
mean AUC over one, while 16 epochs gain nothing over 8 (docs/results.md)."""
HEAD_EPOCHS = 10
_SPARE = 0.85
"""Share of the hours that is planned for: other programs want some."""
_MIB = 2**20
_KEPT_MIB = 80
"""What TensorFlow keeps of a fine-tuned network that is done with: 60 to 100 MiB of a MobileNetV2,
held by no Python object (measured over five folds; collecting and trimming frees none of it)."""


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
    features : tuple of str
        Columns of metadata that a model may learn from.
    official : (str, float), optional
        Raw column that marks the data set's own validation part, and its share of ``train``.
    leaking : tuple of str
        Columns of metadata that give the target away, such as one that is known in train only.
    """

    train: int
    test: int
    rarest: tuple[str, int]
    short_side_px: int
    group: str | None
    features: tuple[str, ...]
    official: tuple[str, float] | None = None
    leaking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Division:
    """A way to divide the training photos: so many folds, each learning from a share of them."""

    folds: FoldsConfig
    count: int
    learned: float


@dataclass(frozen=True)
class Stage:
    """What a stage is predicted to take; ``memory_mb`` is the process's peak until its end."""

    cost: Cost
    memory_mb: float
    disk_mb: float
    device_mb: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """What fits the hours, and what each stage then takes."""

    division: Division
    epochs: int
    seeds: int
    stages: Mapping[str, Stage]


Rehearse = Callable[[FoldsConfig], Mapping[str, Rehearsed]]


def divisions(facts: Facts) -> list[Division]:
    """Return the divisions to try, the one that scores most photos first."""
    if facts.official:
        column, share = facts.official
        return [Division(FoldsConfig(judge=column), 1, 1 - share)]
    return [
        Division(FoldsConfig(k=5), 5, 0.8),
        Division(FoldsConfig(k=3), 3, 2 / 3),
        Division(FoldsConfig(holdout=0.2), 1, 0.8),
    ]


def fit_hours(
    found: Measured, rehearse: Rehearse, config: Experiment, facts: Facts, hours: float,
    least: int = LEAST_EPOCHS,
) -> Fitted | None:  # fmt: skip
    """Return the most folds, then epochs, then networks a fold, that fit into the hours.

    None if not even one fold does.

    Parameters
    ----------
    found : Measured
    rehearse : callable
        Gives what all stages take but the photos' own work; asked where the image model fits.
    config : Experiment
    facts : Facts
    hours : float
        For everything.
    least : int
        Epochs of a fine-tuning in one fold; several folds get twice as many at least.
    """
    budget = hours * 3600 * _SPARE
    for division in divisions(facts):
        few = HEAD_EPOCHS
        if not config.image.frozen:
            # Rather one fold that has learned than several that have not.
            few = least if division.count == 1 else 2 * LEAST_EPOCHS
        if fit_cost(found, config, facts, division, few).seconds > budget:
            continue
        stages = planned_stages(found, rehearse(division.folds), config, facts, division, few)
        epoch = epoch_cost(found, config, facts, division).seconds * division.count
        left = budget - whole_cost(stages, found).seconds
        if left < 0:
            continue
        epochs, seeds = few, 1
        if not config.image.frozen:
            epochs = min(MOST_EPOCHS, few + int(left // epoch))
            left -= (epochs - few) * epoch
            network = fit_cost(found, config, facts, division, epochs).seconds
            seeds = min(MOST_SEEDS, 1 + int(left // network))
        several = replace(config, image=replace(config.image, seeds=seeds))
        stages = planned_stages(found, rehearse(division.folds), several, facts, division, epochs)
        return Fitted(division, epochs, seeds, stages)
    return None


def whole_cost(stages: Mapping[str, Stage], found: Measured) -> Cost:
    """Return what all stages take together, and the start."""
    return sum((stage.cost for stage in stages.values()), start=found.start)


def planned_stages(
    found: Measured, rehearsed: Mapping[str, Rehearsed], config: Experiment, facts: Facts,
    division: Division, epochs: int,
) -> dict[str, Stage]:  # fmt: skip
    """Return a prediction for each stage that ``run_pipeline`` runs, in that order.

    A rehearsed stage takes what it took; to ``prepare`` come the photos' fingerprints. The peak of
    a process never falls, so a stage's memory is at least that of the stage before.
    """
    photos = facts.train + facts.test
    networks = division.count * config.image.seeds
    disk = photos * 4 * found.features / _MIB + found.saved_mb * networks
    work = {
        "prepare": (_spread(found, found.fingerprint * photos, config), 0.0),
        "records": (_spread(found, found.convert * photos, config), photos * found.record_mb),
        "explore": (Cost(), 0.0),
        "image": (fit_cost(found, config, facts, division, epochs), disk),
    }
    stages, peak = {}, 0.0
    for stage in (*work, *(one for one in rehearsed if one not in ("start", *work))):
        own = rehearsed.get(stage, Rehearsed(Cost(), 0.0, 0.0))
        cost, more = work.get(stage, (Cost(), 0.0))
        fit = stage == "image"
        peak = max(
            peak,
            own.memory_mb,
            fit * (found.memory_mb + _more_memory(found, config, facts, division)),
        )
        stages[stage] = Stage(
            own.cost + cost, peak, own.disk_mb + more, found.device_mb * fit
        )  # fmt: skip
    return stages


def as_planned(stages: Mapping[str, Stage]) -> list[dict[str, Any]]:
    """Return the stages as ``planned`` of the experiment has them."""
    return [
        {
            "stage": name,
            "seconds": round(stage.cost.seconds, 1),
            "cpu_seconds": round(stage.cost.cpu, 1),
            "memory_mb": round(stage.memory_mb),
            **({"device_mb": round(stage.device_mb)} if stage.device_mb else {}),
            "disk_mb": round(stage.disk_mb, 1),
        }
        for name, stage in stages.items()
    ]


def _spread(found: Measured, work: Cost, config: Experiment) -> Cost:
    """Work on photos that several processes share, and their start."""
    apart = min(processes(config), count_cores())
    return found.workers + Cost(work.seconds / apart, work.cpu)


def fit_cost(
    found: Measured, config: Experiment, facts: Facts, division: Division, epochs: int
) -> Cost:
    """Return what the folds of the image model take.

    A frozen backbone's features are computed once, for the training, validation and test rows of
    the first fold; else each network of a fold predicts its validation and the test photos.
    """
    networks, scored = division.count, facts.train * (1 - division.learned)
    parts = 1 + bool(facts.test)
    if config.image.frozen:
        fixed = found.answer * (facts.train + facts.test) + found.asking * (1 + parts)
    else:
        networks *= config.image.seeds
        fixed = (found.answer * (scored + facts.test) + found.asking * parts) * networks
    each = found.fold + epoch_cost(found, config, facts, division) * epochs
    return fixed + each * networks


def epoch_cost(found: Measured, config: Experiment, facts: Facts, division: Division) -> Cost:
    """Return what an epoch of one fold takes, with one view of each photo for validation."""
    learned = facts.train * division.learned
    if config.image.frozen:
        views = 8 if config.image.augment.dihedral else 1
        return found.step * (learned * views / found.batch) + found.epoch
    one_view = found.answer * (1 / config.image.views)
    steps = max(1, learned // found.batch)
    return found.step * steps + one_view * (facts.train - learned) + found.epoch


def _more_memory(found: Measured, config: Experiment, facts: Facts, division: Division) -> float:
    """MiB that all photos and folds take beside what one fold of some photos took."""
    image = config.image
    decoded = facts.train * image.image_size_px**2 * 3 / _MIB
    cached = 2 * decoded if decoded <= image.cache_mb and not image.frozen else 0.0
    # Read from disk, put into the fold's order, handed to the head.
    features = 3 * 4 * found.features * (facts.train + facts.test) / _MIB
    earlier = 0 if image.frozen else division.count * image.seeds - 1
    return cached + features + earlier * _KEPT_MIB
