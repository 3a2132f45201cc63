"""Whose turn it is: a few at once, a few that wait, and nobody for ever.

In: work that would overload the machine if all came at once. Out: its turn, or one sentence.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kaggle_pipeline.core.errors import PipelineError


class Turns:
    """A queue of bounded length and patience.

    Parameters
    ----------
    at_once : int
        Who may work side by side.
    waiting : int
        Who may wait beside them.
    seconds : float
        Longest wait.
    """

    def __init__(self, at_once: int, waiting: int, seconds: float) -> None:
        self._free = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._most, self._seconds = at_once + waiting, seconds
        self._here = 0

    @property
    def here(self) -> int:
        """How many work or wait now."""
        return self._here

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a turn, and keep it for the block.

        Parameters
        ----------
        name : str
            Of the photo, for the message.

        Raises
        ------
        PipelineError
            If too many wait, or the wait takes too long.
        """
        with self._lock:
            if self._here >= self._most:
                raise PipelineError(
                    f"{name} is not read: {self._here} photos are being read or wait already; try "
                    "again in a minute"
                )
            self._here += 1
        try:
            if not self._free.acquire(timeout=self._seconds):
                raise PipelineError(
                    f"{name} is not read: its turn has not come in {self._seconds:.0f} s; try "
                    "again in a minute"
                )
            try:
                yield
            finally:
                self._free.release()
        finally:
            with self._lock:
                self._here -= 1
