"""What ran: package versions, commit, peak memory."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "keras", "jax", "jaxlib", "libtpu", "numpy",
    "pandas", "scikit-learn", "imbalanced-learn", "pillow", "ImageHash", "matplotlib",
    "torch", "timm",
)  # fmt: skip


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
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # else git would answer for whatever folder surrounds us
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def cpu_seconds() -> float:
    """Return the seconds of all cores that this process has taken, and those that it waited for."""
    return sum(os.times()[:4])


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
