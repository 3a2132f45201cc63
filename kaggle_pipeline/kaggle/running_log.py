"""The log of a kernel while it runs, line by line, by ``kaggle kernels logs --follow``."""

import subprocess
import threading
from collections.abc import Callable

from kaggle_pipeline.kaggle.client import start

_PATIENCE = 10.0
"""Seconds in which the log of a kernel that has ended is read to its end."""


class RunningLog:
    """Says each line of a running kernel's log once.

    Kaggle tells the log from its beginning to whoever asks, and its stream may break: it is asked
    for again, and what was said is left out.

    Parameters
    ----------
    identity : str
        ``<owner>/<slug>``.
    say : callable
        Takes a line; called from a thread of its own.
    """

    def __init__(self, identity: str, say: Callable[[str], None]) -> None:
        self._identity, self._say = identity, say
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.said = 0

    def follow(self) -> None:
        """Begin to read, or go on where the stream has ended before the kernel did."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._process = start("kernels", "logs", "--follow", self._identity)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number >= self.said:
                self.said = number + 1
                self._say(f"  {line.rstrip()}")

    def close(self, patience: float = 0.0) -> None:
        """Stop; wait up to ``patience`` seconds for the stream's own end first."""
        if self._process is None or self._reader is None:
            return
        self._reader.join(patience)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = self._reader = None

    def finish(self) -> None:
        """Read to the end of a kernel that has ended."""
        self.close(_PATIENCE)
