"""Where a probability stands among those of the training images.

In: out-of-fold predictions and truth of a run. Out: the share of images below a probability, and
the threshold that finds a wanted share of the positives, with what it costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.evaluation.decision.fitting import threshold_for

_SENSITIVITIES = (0.80, 0.90, 0.95)


@dataclass(frozen=True)
class Threshold:
    """A probability from which on a lesion counts as positive.

    Attributes
    ----------
    value : float
    specificity : (float, float, float)
        Share of the others that it rightly leaves out, and its 95 % interval (NaN where unknown).
    nested : bool
        Whether that share is of groups that had no part in finding the threshold.
    """

    value: float
    specificity: tuple[float, float, float]
    nested: bool


class TrainingDistribution:
    """Out-of-fold probabilities of all judged training images.

    Parameters
    ----------
    probabilities : pandas.DataFrame
        Final ones, indexed by image id, a column a class.
    truth : pandas.DataFrame
        0 or 1, the same classes; rows of other ids are left out.
    thresholds : mapping of str to list of dict
        Thresholds of the run's calibration, which judged them nested; others are found here.

    Raises
    ------
    PipelineError
        If an image has no truth.
    """

    def __init__(
        self,
        probabilities: pd.DataFrame,
        truth: pd.DataFrame,
        thresholds: Mapping[str, Sequence[Mapping]] = MappingProxyType({}),
    ) -> None:
        truth = truth.reindex(probabilities.index)[list(probabilities.columns)]
        if truth.isna().any(axis=None):
            raise PipelineError("the run's out-of-fold predictions hold an image without truth")
        self.size = len(probabilities)
        self._thresholds = thresholds
        self._sorted = {name: np.sort(column) for name, column in probabilities.items()}
        self._positive = {
            name: np.sort(column[truth[name] == 1]) for name, column in probabilities.items()
        }
        self._negative = {
            name: np.sort(column[truth[name] == 0]) for name, column in probabilities.items()
        }

    def rank(self, name: str, probability: float) -> float:
        """Return the share of training images below a probability, ties counted half.

        Examples
        --------
        >>> import pandas as pd
        >>> scores = pd.DataFrame({"mel": [0.1, 0.2, 0.2, 0.9]})
        >>> TrainingDistribution(scores, (scores > 0.5).astype(int)).rank("mel", 0.2)
        0.5
        """
        values = self._sorted[name]
        below, upto = (np.searchsorted(values, probability, side) for side in ("left", "right"))
        return float((below + upto) / 2 / len(values))

    def spread(self, name: str) -> float:
        """Return the standard deviation of the training images' probabilities."""
        return float(np.std(self._sorted[name]))

    def prevalence(self, name: str) -> float:
        """Return the share of training images that are of the class."""
        return len(self._positive[name]) / self.size

    def threshold(self, name: str, sensitivity: float) -> Threshold | None:
        """Return the threshold that finds ``sensitivity`` of the positives.

        None where the class has no positive or no negative image.
        """
        for one in self._thresholds.get(name, ()):
            if one["sensitivity"] == sensitivity and one["threshold"] is not None:
                reached = one["nested"]["specificity"]
                return Threshold(one["threshold"], _numbers(reached), nested=True)
        positive, negative = self._positive[name], self._negative[name]
        if not len(positive) or not len(negative):
            return None
        value = threshold_for(np.ones(len(positive)), positive, sensitivity)
        spared = float(np.mean(negative < value))
        return Threshold(value, (spared, np.nan, np.nan), nested=False)

    def sensitivities(self, name: str) -> tuple[float, ...]:
        """Return the sensitivities to choose a threshold by: the calibration's, if it has any."""
        return tuple(sorted(one["sensitivity"] for one in self._thresholds.get(name, ()))) or (
            _SENSITIVITIES
        )


def _numbers(score: Mapping) -> tuple[float, float, float]:
    return tuple(np.nan if score.get(key) is None else float(score[key])
                 for key in ("value", "low", "high"))  # fmt: skip
