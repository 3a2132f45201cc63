"""Whether a run's probabilities are calibrated, and by what.

In: the folder of the stage whose probabilities are shown. Out: a function, or None.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

Calibrate = Callable[[pd.DataFrame], pd.DataFrame]


def find_calibration(stage: Path) -> Calibrate | None:
    """Return what turns a stage's probabilities into calibrated ones; None where it has nothing."""
    return None
