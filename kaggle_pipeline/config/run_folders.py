"""Folders that are runs: what is said of one that is none, and which stage is a run's last word."""

from pathlib import Path

from kaggle_pipeline.config.names import BLEND_STAGES, SCORED_STAGES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import meant_instead, read_json

_STAGES = ("prepare", *SCORED_STAGES)
_NAMED = 8
"""Runs that are listed where none is called nearly so."""


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a stage of a run, finished or not; a bundle does too."""
    return any((folder / stage).is_dir() for stage in _STAGES)


def require_run(run_dir: Path) -> None:
    """Stop on a folder that is no run, before anything is asked of the run.

    Parameters
    ----------
    run_dir : pathlib.Path

    Raises
    ------
    PipelineError
        That says whether the folder is not there or holds no run, and which run may be meant.
    """
    run_dir = Path(run_dir)
    if is_run(run_dir):
        return
    if run_dir.name in _STAGES and run_dir.is_dir() and is_run(run_dir.parent):
        raise PipelineError(f"{run_dir} is a part of a run: say {run_dir.parent}")
    if run_dir.is_dir():
        what = f"{run_dir} holds no run"
        below = sorted(one for one in run_dir.iterdir() if is_run(one))
        raise PipelineError(what + _listed(below, "there are"))
    what = f"{run_dir}: no such folder"
    beside = run_dir.parent.iterdir() if run_dir.parent.is_dir() else ()
    runs = sorted(one for one in beside if is_run(one))
    raise PipelineError(what + (meant_instead(run_dir) or _listed(runs, "runs beside it are")))


def final_stage(run_dir: Path) -> str | None:
    """Return the stage whose score is the run's: what the submission was made of.

    Of ``blend`` and ``ensemble`` that is the one that was finished last, since both write
    ``submission.csv``. One without ``test.csv`` wrote none, so it counts only where the other has
    none either. Without both it is the first model; None if nothing was scored.
    """
    scored = [one for one in SCORED_STAGES if (Path(run_dir) / one / "metrics.json").exists()]
    submits = [one for one in BLEND_STAGES if (Path(run_dir) / one / "test.csv").exists()]
    blends = {
        read_json(Path(run_dir) / one / "metrics.json").get("finished", ""): one
        for one in scored
        if one in BLEND_STAGES and (not submits or one in submits)
    }
    return blends[max(blends)] if blends else next(iter(scored), None)


def _listed(runs: list[Path], words: str) -> str:
    if not runs:
        return ": train a run first, say by run_pipeline"
    more = ", …" if len(runs) > _NAMED else ""
    return f"; {words} {', '.join(map(str, runs[:_NAMED]))}{more}"
