"""Opening a stage's folder: refused, resumed or emptied, never silently written over."""

import shutil
from pathlib import Path

from kaggle_pipeline.config.run_settings import SOURCE
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED
from kaggle_pipeline.core.record import RECORD
from kaggle_pipeline.core.room import require_room

_OURS = (RECORD, "config.yaml", "leakage.json", "spec.json", "manifest.json", "history.csv", SAVED)
"""A stage's folder holds one of these; nothing else is ever deleted."""
_BEGUN = (RECORD, "config.yaml", "versions.json", SOURCE)
"""What a stage writes first of all."""


_TABLES_BYTES = 8 * 2**20
"""What a stage writes at least, weights and records apart."""


def remedy_of(stage: str) -> str:
    """Return how a damaged file of a stage's own folder, not of its folds', is made anew."""
    if stage == "blend":
        return "run make_submission again, which makes it anew"
    if stage == "ensemble":
        return "run blend_scores again, which makes it anew"
    return f"run its training again with --resume, which writes {stage}/ anew"


def require_free(run_dir: Path, stage: str, *, resume: bool, overwrite: bool) -> bool:
    """Return whether a stage's folder holds anything; nothing is written or deleted.

    Raises
    ------
    PipelineError
        If :func:`open_stage` would refuse the folder.
    """
    folder = Path(run_dir) / stage
    if not (folder.exists() and any(folder.iterdir())):
        return False
    if overwrite:
        if not any((folder / name).exists() for name in _OURS):
            raise PipelineError(
                f"{folder} holds files but no {RECORD}: it may not be a run's, so it is not "
                "deleted; remove it by hand or choose another --run-dir"
            )
    elif not resume:
        raise PipelineError(
            f"{folder} already holds results: say --resume to go on, --overwrite to start "
            "anew, or choose another --run-dir"
        )
    return True


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
    if require_free(run_dir, stage, resume=resume, overwrite=overwrite) and overwrite:
        shutil.rmtree(folder)
    require_room(folder, _TABLES_BYTES, "a stage's tables and pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drop_if_empty(folder: Path) -> None:
    """Delete a stage's folder, and then the run's, where a failure has left nothing in it but what
    says that it was begun."""
    if folder.is_dir():
        found = list(folder.iterdir())
        if {path.name for path in found} <= set(_BEGUN):
            for path in found:
                path.unlink()
    for place in (folder, folder.parent):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
