"""Opening a stage's folder: refused, resumed or emptied, never silently written over."""

import shutil
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED

_OURS = ("config.yaml", "leakage.json", "spec.json", "manifest.json", "history.csv", SAVED)
"""A stage's folder holds one of these; nothing else is ever deleted."""


def open_stage(run_dir: Path, stage: str, *, resume: bool, overwrite: bool) -> Path:
    """Return the folder of one stage of a run, ready to be written to.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder.
    stage : str
        ``"prepare"``, ``"image"``, ``"tabular"`` or ``"blend"``.
    resume : bool
        Keep what is there and go on.
    overwrite : bool
        Delete what is there and start anew.

    Raises
    ------
    PipelineError
        If the stage already has files and neither ``resume`` nor ``overwrite`` was said.
    """
    folder = Path(run_dir) / stage
    if folder.exists() and any(folder.iterdir()):
        if overwrite:
            if not any((folder / name).exists() for name in _OURS):
                raise PipelineError(
                    f"{folder} holds files but no {_OURS[0]}: it may not be a run's, so it is not "
                    "deleted; remove it by hand or choose another --run-dir"
                )
            shutil.rmtree(folder)
        elif not resume:
            raise PipelineError(
                f"{folder} already holds results: say --resume to go on, --overwrite to start "
                "anew, or choose another --run-dir"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drop_if_empty(folder: Path) -> None:
    """Delete a stage's folder, and then the run's, where a failure has left nothing in it."""
    for place in (folder, folder.parent):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
