"""A time to stop by: Kaggle ends a session after 9 or 12 hours and keeps nothing half done.

In: hours. Out: :class:`OutOfTime` at the first moment at which going on would be in vain.
"""

import time
from dataclasses import dataclass


class OutOfTime(Exception):
    """The time is up; what is on disk is whole, and ``--resume`` goes on from there."""


@dataclass(frozen=True)
class Deadline:
    """Hours from now, or never.

    Attributes
    ----------
    hours : float or None
    started : float
        ``time.monotonic()``.
    """

    hours: float | None
    started: float

    @classmethod
    def after(cls, hours: float | None) -> "Deadline":
        """Return the deadline so many hours from now; None is never."""
        return cls(hours, time.monotonic())

    def leaves(self, seconds: float = 0.0) -> bool:
        """Whether ``seconds`` more would still be in time."""
        if self.hours is None:
            return True
        return time.monotonic() + seconds <= self.started + 3600 * self.hours

    def check(self, what: str, seconds: float = 0.0) -> None:
        """Raise :class:`OutOfTime` unless ``what``, which takes ``seconds``, would be in time."""
        if not self.leaves(seconds):
            raise OutOfTime(f"the {self.hours:g} h are up before {what}")
