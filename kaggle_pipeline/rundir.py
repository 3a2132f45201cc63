"""A run's folder: atomic writes, refused overwrites, package versions beside the results.

In: a run folder and a stage's name. Out: files that are whole or not there at all.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kaggle_pipeline.errors import PipelineError

_PACKAGES = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "keras", "jax", "jaxlib", "libtpu", "numpy",
    "pandas", "scikit-learn", "imbalanced-learn", "pillow", "ImageHash", "matplotlib",
)  # fmt: skip

_OURS = ("config.yaml", "leakage.json", "manifest.json", "history.csv", "model.json")
"""A stage's folder holds one of these; nothing else is ever deleted."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it only if the block succeeds.

    Parameters
    ----------
    path : pathlib.Path
        Final place; its folder is made when missing.

    Yields
    ------
    pathlib.Path
        Where to write. A block that raises leaves ``path`` as it was and no temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: matplotlib, Keras and pandas choose a format by it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises
    ------
    PipelineError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: run the stage that writes it first") from None
    except ValueError as error:  # not JSON, or not even text
        raise PipelineError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None


def versions() -> dict[str, str]:
    """Return versions of Python, of this package, its commit and of what it computes with."""
    from kaggle_pipeline import __version__

    found = {"python": platform.python_version(), "kaggle_pipeline": __version__}
    commit = _commit()
    if commit:
        found["commit"] = commit
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the checkout that this code runs from, None when it is no checkout of its own."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # else git would answer for whatever folder surrounds us
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


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


def peak_memory_mb() -> float | None:
    """Return the peak resident memory in MiB of this process, or of the largest that it started.

    None where the system does not tell.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(one).ru_maxrss for one in whose)
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
