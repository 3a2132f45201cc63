"""What a stage took, in its folder's ``took.json``: time, the cores' time, memory."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.names import TOOK
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.environment import cpu_seconds, peak_memory_mb
from kaggle_pipeline.core.files import write_json


class Stopwatch:
    """Runs from when it is made on."""

    def __init__(self) -> None:
        self._began, self._worked = time.perf_counter(), cpu_seconds()

    def read(self, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, float | None]:
        """Return ``seconds``, ``cpu_seconds`` of all cores, ``peak_memory_mb`` of the process.

        The peak is that of the process until now, so of the stages before too.

        Parameters
        ----------
        others : sequence of mapping
            The same of work that others did, such as the folds that a resumed stage finds.
        """
        found = {"seconds": time.perf_counter() - self._began,
                 "cpu_seconds": cpu_seconds() - self._worked}  # fmt: skip
        for name in found:
            found[name] = round(found[name] + sum(one.get(name, 0.0) for one in others), 3)
        peaks = [peak_memory_mb(), *(one.get("peak_memory_mb") for one in others)]
        return {**found, "peak_memory_mb": max((one for one in peaks if one), default=None)}


def write_took(folder: Path, took: Mapping[str, float | None]) -> None:
    """Write ``took.json`` of a stage that is done."""
    write_json(folder / TOOK, took)
    renew(folder, TOOK)


@contextmanager
def clocked(folder: Path) -> Iterator[None]:
    """Write ``took.json`` into a stage's folder once the block has ended without an error."""
    watch = Stopwatch()
    yield
    write_took(folder, watch.read())
