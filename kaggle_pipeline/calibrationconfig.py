"""Settings of the calibration: from scores to probabilities and thresholds.

In: values. Out: a frozen section of an :class:`~kaggle_pipeline.config.Experiment`.
"""

from dataclasses import dataclass
from typing import Literal

from kaggle_pipeline.configchecks import require


@dataclass(frozen=True)
class CalibrationConfig:
    """How out-of-fold probabilities are made to agree with what was observed."""

    method: Literal["auto", "temperature", "isotonic", "none"] = "auto"
    """``temperature``: slope and intercept on the logit (Platt), for a softmax one temperature; the
    order of the images stays. ``isotonic``: any curve that never falls, which makes ties.
    ``auto``: ``temperature``, unless another is clearly better on groups it was not fitted on."""
    sensitivities: tuple[float, ...] = (0.8, 0.9, 0.95)
    """Shares of a class's images that a threshold is to find."""

    def __post_init__(self) -> None:
        wanted = self.sensitivities
        fine = all(0 < one < 1 for one in wanted) and len(set(wanted)) == len(wanted)
        wish = "different shares in (0, 1)"
        require(fine, "calibration.sensitivities", list(wanted), wish)
