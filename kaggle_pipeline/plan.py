"""Plan: how often an experiment makes its training step and its prediction step.

In: an experiment and how many images it has. Out: a :class:`Plan`.
"""

from dataclasses import dataclass

import numpy as np

from kaggle_pipeline.balance import oversampling_repeats, resampling_repeats
from kaggle_pipeline.config import Experiment


@dataclass(frozen=True)
class Images:
    """The images that an experiment has.

    Attributes
    ----------
    targets : array of shape (n, classes)
        Of the labelled images that a fold may learn from, all folds together.
    learned_share : float or None
        Of these, what a fold of mean size learns from; None: what the config says.
    judged : float or None
        Images that a fold of mean size is judged by; None: what the config says.
    tests : int
        Of the test part.
    counted_in : str
        Where they were counted.
    """

    targets: np.ndarray
    learned_share: float | None = None
    judged: float | None = None
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
    watched : int
        Images that it predicts after every epoch, one view of each.
    views : int
        Of each image, over which a prediction is averaged.
    """

    fits: int
    epochs: int
    shown: int
    judged: int = 0
    tests: int = 0
    watched: int = 0
    views: int = 1

    def steps(self, global_batch: int, steps_per_epoch: int | None) -> int:
        """Return the training steps of the whole experiment."""
        return self.fits * self.epochs * (steps_per_epoch or max(1, self.shown // global_batch))

    def prediction_steps(self, global_batch: int) -> int:
        """Return the prediction steps of one view of the whole experiment; a last batch is full."""
        judged, tests, watched = (
            -(-images // global_batch) for images in (self.judged, self.tests, self.watched)
        )
        return self.fits * (self.views * (judged + tests) + self.epochs * watched)


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
        apart = images.judged if folds.judge else 0
        return Plan(1, 1, count + images.tests + round(apart or 0))
    kept = 1 - (folds.test_share or 0)
    held = 0.0 if folds.judge else kept * (folds.holdout or 1 / folds.k)
    learned_share, judged, tests = images.learned_share, images.judged, images.tests
    if learned_share is None:
        learned_share = kept - held
        tests += round(count * (1 - kept))
    if judged is None:
        judged = count * held
    watched = judged
    if image.checkpoint == "best_inner":
        watched = count * learned_share * image.inner_share
        learned_share *= 1 - image.inner_share
    if image.images_per_class is not None:  # so many whatever there is to draw from
        shown = int(resampling_repeats(targets, image.images_per_class, config.seed).sum())
    else:
        repeats = oversampling_repeats(targets, image.oversample, config.seed)
        shown = round(repeats.sum() * learned_share)
    fits = 1 if folds.holdout or folds.judge else folds.k
    fits *= targets.shape[1] if image.networks == "one_per_class" else 1
    fits *= image.seeds
    return Plan(fits, image.epochs, shown, round(judged), tests, round(watched), views)
