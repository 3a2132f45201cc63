"""A bar for long work, which also stops when the time is up."""

from collections.abc import Callable

from tqdm import tqdm

from kaggle_pipeline.core.deadline import Deadline

Advance = Callable[[int], None]
"""Takes the number of items done since the last call."""


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

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
