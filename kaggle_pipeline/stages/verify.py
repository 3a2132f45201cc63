"""Compare every file of a run with what was written, or take what is there as it is.

In: a run's folder. Out: a line for each file that differs; with ``accept_changes`` new records.
"""

from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline.config.names import SCORED_STAGES
from kaggle_pipeline.core.commit import accept, adopt, recorded_folders
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.record import RECORD, differences, read_record
from kaggle_pipeline.data.examples import PREPARE_ANEW
from kaggle_pipeline.models.cross_validation import LAST, REMEDY, trained_on_all
from kaggle_pipeline.stages.run_folder import remedy_of


def verify_run(
    run_dir: Path, *, accept_changes: bool = False, say: Callable[[str], None] = print
) -> None:
    """Hash every file that a run's stages wrote down, large ones too.

    Parameters
    ----------
    run_dir : pathlib.Path
    accept_changes : bool
        Write down all files as they are now, also those of an earlier version, which kept no
        record. For files that were edited on purpose.
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If the folder holds no run, or a file differs and is not accepted.
    """
    run_dir = Path(run_dir)
    unrecorded = {folder: remedy for folder, remedy in _finished(run_dir).items()
                  if read_record_or_none(folder, accept_changes) is None}  # fmt: skip
    for folder, remedy in unrecorded.items():
        if accept_changes:
            (folder / RECORD).unlink(missing_ok=True)  # a damaged one
            adopt(folder, remedy)
            say(f"{folder}: written down as it is")
        else:
            say(f"{folder}: not compared, its files were never written down ({RECORD})")
    folders = [one for one in recorded_folders(run_dir) if one not in unrecorded]
    if not folders and not unrecorded:
        raise PipelineError(f"{run_dir} holds no finished stage of a run: nothing to compare")
    files = differing = 0
    for folder in folders:
        files += len(read_record(folder).files)
        if accept_changes:
            accept(folder, say)
            continue
        lines = differences(folder).values()
        differing += len(lines)
        for line in lines:
            say(line)
        if not read_record(folder).done and folder != run_dir:
            say(f"{folder}: not finished, --resume goes on")
    if differing:
        raise PipelineError(f"{differing} of {files} files of {run_dir} differ")
    if files:
        say(f"{files} files of {run_dir} are as they were written")


def read_record_or_none(folder: Path, damaged_too: bool) -> object | None:
    """Return a folder's record; None where it has none, or has a damaged one and that is asked."""
    try:
        return read_record(folder)
    except PipelineError:
        if damaged_too:
            return None
        raise


def _finished(run_dir: Path) -> dict[Path, str]:
    """Folders of a run in which a stage has ended, and how each is made anew."""
    found = {}
    if (run_dir / "prepare" / "folds.csv").exists():
        found[run_dir / "prepare"] = PREPARE_ANEW
    for stage in SCORED_STAGES:
        for place in sorted((run_dir / stage).glob("fold*")):
            if (place / LAST).exists():
                found[place] = REMEDY
        if (of_all := trained_on_all(run_dir / stage)) is not None:
            found[of_all] = REMEDY
        if (run_dir / stage / "metrics.json").exists():
            found[run_dir / stage] = remedy_of(stage)
    return found
