"""Several measurements side by side on one device: they prepare together and are timed alone.

In: a file that all of them name. Out: :class:`Turns`, whose ``alone()`` is entered for what is
timed. It waits until no other prepares (compiles, draws photos) or is timed.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


class Turns:
    """A place among the measurements that share ``path``; None: there are no others.

    The kernel gives the lock back when a process ends, however it ends.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = None
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for all others to be prepared or done; afterwards this one prepares no more."""
        if not self._file:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
