"""Check a run or a bundle as a stranger would: files, folds, scores, answers, names.

In: a run's folder. Out: a line for each file that differs and for what does not fit together; with
``accept_changes`` new records.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kaggle_pipeline.config.names import SCORED_STAGES
from kaggle_pipeline.core.commit import accept, adopt, recorded_folders
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.record import RECORD, differences, read_record
from kaggle_pipeline.data.examples import PREPARE_ANEW
from kaggle_pipeline.models.cross_validation import LAST, REMEDY, trained_on_all
from kaggle_pipeline.stages.ask_again import ask_again
from kaggle_pipeline.stages.run_folder import remedy_of
from kaggle_pipeline.stages.verify_contents import (
    Prepared,
    look_at_folds,
    look_at_scores,
    look_for_names,
)


def verify_run(
    run_dir: Path,
    *,
    accept_changes: bool = False,
    files_only: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Hash every file that a run's stages wrote down, large ones too; then look at what they hold.

    Where all files are as they were written: folds, scores and calibration have to follow from each
    other, the models have to answer to their made-up photos as they did, and no patient may be
    named in what people pass on.

    Parameters
    ----------
    run_dir : pathlib.Path
    accept_changes : bool
        Write down all files as they are now, also those of an earlier version, which kept no
        record. For files that were edited on purpose.
    files_only : bool
        Look at nothing but hashes.
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If the folder holds no run, a file differs and is not accepted, or its parts do not fit
        together.
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
    if not files_only and not accept_changes:
        _look_inside(run_dir, say)


def _look_inside(run_dir: Path, say: Callable[[str], None]) -> None:
    try:
        prepared = Prepared.read(run_dir)
    except PipelineError as error:
        say(str(error))
        raise PipelineError(f"{run_dir}: its tables do not fit together") from None
    looks = [partial(look_for_names, run_dir, prepared), partial(ask_again, run_dir)]
    if prepared is not None:
        looks = [partial(look_at_folds, prepared), partial(look_at_scores, prepared), *looks]
    faults = 0
    for look in looks:
        found = look()
        faults += len(found.faults)
        for line in found.faults or ([found.line] if found.line else []):
            say(line)
    if faults:
        raise PipelineError(f"{run_dir}: {faults} of what was looked at is not as it should be")


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
