"""A bar for long work, which also stops when the time is up."""

from collections.abc import Callable

from tqdm import tqdm

from kaggle_pipeline.core.deadline import Deadline

Advance = Callable[[int], None]
"""Takes the number of items done since the last call."""


def describe_seconds(seconds: float) -> str:
    """Return a duration as people say it, such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ignore_progress(done: int) -> None:
    """Show nothing."""


class Progress:
    """A tqdm bar as a callable: ``bar(n)`` says that n more are done, unless the time is up."""

    def __init__(
        self,
        total: int,
        what: str,
        unit: str,
        interactive: bool,
        deadline: Deadline | None = None,
    ) -> None:
        every = 0.1 if interactive else 20.0
        self._what = what
        self._deadline = deadline or Deadline.after(None)
        self._bar = tqdm(total=total, desc=what, unit=unit, mininterval=every, smoothing=0.05)

    def __call__(self, done: int) -> None:
        """Say that ``done`` more are done.

        Raises
        ------
        OutOfTime
            If the deadline has come; what is finished is on disk.
        """
        self._bar.update(done)
        self._deadline.check(f"the end of: {self._what}")

    def expect(self, total: int) -> None:
        """Set how many there will be, once it is known."""
        self._bar.total = total
        self._bar.refresh()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
