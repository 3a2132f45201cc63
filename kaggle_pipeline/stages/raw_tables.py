"""The raw tables that a run was prepared from: by hash, so that a change is found.

In: the data folder and those of further collections. Out: ``tables.json``, or an error that names
the table that is another one now.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from kaggle_pipeline.config.experiment import ExternalConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.record import read_record
from kaggle_pipeline.stages.run import Run

TABLES = "tables.json"


def mark_of(one: ExternalConfig) -> str:
    """What stands before the names of a further collection's tables."""
    return f"external {one.dataset}: "


def table_folders(run: Run) -> dict[str, Path]:
    """The data folder, under no mark, and those of the further collections."""
    return {"": run.data_dir} | {
        mark_of(one): run.data_dir / one.data_dir for one in run.config.external
    }


def digest_tables(
    folders: Mapping[str, Path], tables: Mapping[str, Sequence[Path]]
) -> dict[str, str | None]:
    """SHA-256 of tables by mark and name, None of one that is not there."""
    found = {}
    for mark, folder in folders.items():
        for path in tables[mark]:
            inside = path.is_relative_to(folder)
            name = mark + (path.relative_to(folder) if inside else path.absolute()).as_posix()
            there = path.is_file()
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if there else None
    return found


def require_same_tables(run: Run, folder: Path) -> None:
    """Stop when the tables that were read are not what they were; the data folder may be gone.

    A file that no reader asked for is nobody's business.
    """
    before = _read_tables(run, folder / TABLES)
    for mark, place in table_folders(run).items():
        names = [name for name in before if name.startswith("external ") == bool(mark)]
        names = [name for name in names if name.startswith(mark)]
        if not names or not place.is_dir():  # it may be gone as well
            continue
        now = digest_tables(
            {mark: place}, {mark: [place / name.removeprefix(mark) for name in names]}
        )
        if not any(now.values()) and any(before[name] for name in names):
            raise PipelineError(
                f"{place} holds none of the tables that {folder} was made from "
                f"({', '.join(name for name in names if before[name])}): is --data-dir right?"
            )
        for name in names:
            if before[name] != now[name]:
                what = "changed" if before[name] and now[name] else "came or went"
                raise PipelineError(
                    f"{place / name.removeprefix(mark)} {what} since {folder} was made: "
                    "prepare_data --overwrite, and train anew; or choose another --run-dir, or "
                    "the --data-dir of this run"
                )


def _read_tables(run: Run, path: Path) -> dict[str, str | None]:
    """What the tables were when they were prepared; empty where an earlier version's is damaged."""
    try:
        before = read_json(path)
        if not isinstance(before, dict):
            raise PipelineError(f"{path} is damaged")
        return before
    except PipelineError as error:
        if read_record(path.parent) is not None:
            raise error from None
        run.say(f"note: {path} is damaged or missing: nothing tells whether the raw data changed")
        write_json(path, {})
        return {}
