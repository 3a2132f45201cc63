"""One service for all visitors of a process.

In: a run's folder. Out: the same :class:`Service` each time.
"""

from functools import cache
from pathlib import Path

from kaggle_pipeline.webapp.service import Service


@cache
def shared_service(run_dir: Path, show_training_photos: bool = False) -> Service:
    """Return the run's service; loaded at the first call, which ``serve`` makes before it listens.

    Parameters
    ----------
    run_dir : pathlib.Path
    show_training_photos : bool
    """
    return Service(run_dir, say=print, show_training_photos=show_training_photos)
