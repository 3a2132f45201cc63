"""A bar for long work, on a terminal; calm lines in a log file. Both stop when the time is up."""

import sys
import time
from collections.abc import Callable

from kaggle_pipeline.core.deadline import Deadline

Advance = Callable[[int], None]
"""Takes the number of items done since the last call."""
_LINE_SECONDS = 30.0
"""Between two lines of a log file; work that is done before the first one says nothing there."""


def describe_seconds(seconds: float) -> str:
    """Return a duration as people say it, such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ignore_progress(done: int) -> None:
    """Show nothing."""


class _Lines:
    """Says in lines of their own how far some work is, to standard error.

    A bar is drawn over itself by carriage returns; in a file its states would stand in one line.
    """

    def __init__(self, total: int, what: str, unit: str) -> None:
        self.total = total
        self._what, self._unit = what, unit
        self._done = 0
        self._started = self._said = time.monotonic()

    def update(self, done: int) -> None:
        """Say a line where the last one is long ago, and one of the end where there was one."""
        self._done += done
        late = time.monotonic() - self._said >= _LINE_SECONDS
        last = self._done >= self.total and self._said > self._started
        if late or last:
            self._say()

    def refresh(self) -> None:
        """Nothing: the next line shows a new total."""

    def close(self) -> None:
        """Say how far work came that ends before all of it is done."""
        if self._said > self._started and self._done < self.total:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        took = self._said - self._started
        scale, unit = (1e6, "MB") if self._unit == "B" else (1, f"{self._unit}s")
        done, total = f"{self._done / scale:,.0f}", f"{self.total / scale:,.0f}"
        if 0 < self._done < self.total:
            left = describe_seconds(took * (self.total / self._done - 1))
            share = f"{self._done / self.total:.0%}"
            line = f"{done} of {total} {unit} ({share}), about {left} left"
        else:
            line = f"{done} {unit} in {describe_seconds(took)}"
        from tqdm import tqdm

        tqdm.write(f"{self._what}: {line}", file=sys.stderr)


class Progress:
    """How far some work is, as a callable: ``progress(n)`` says that n more are done.

    Parameters
    ----------
    total : int
        How many there will be.
    what : str
        The work, such as ``fingerprints``.
    unit : str
        One of them, such as ``photo``; ``B`` for bytes.
    deadline : Deadline, optional
        When to stop.
    """

    def __init__(self, total: int, what: str, unit: str, deadline: Deadline | None = None) -> None:
        self._what = what
        self._deadline = deadline or Deadline.after(None)
        if sys.stderr.isatty():
            from tqdm import tqdm  # here: without it a command still says what is missing

            self._shown = tqdm(
                total=total, desc=what, unit=unit, unit_scale=unit == "B", smoothing=0.05
            )
        else:
            self._shown = _Lines(total, what, unit)

    def __call__(self, done: int) -> None:
        """Say that ``done`` more are done.

        Raises
        ------
        OutOfTime
            If the deadline has come; what is finished is on disk.
        """
        self._shown.update(done)
        self._deadline.check(f"the end of: {self._what}")

    def expect(self, total: int) -> None:
        """Set how many there will be, once it is known."""
        self._shown.total = total
        self._shown.refresh()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()
