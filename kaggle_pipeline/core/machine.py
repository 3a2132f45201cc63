"""What a measurement ran on: processor, cores, graphics card."""

import os
import platform
import subprocess
from pathlib import Path


def describe_machine() -> dict[str, str | float]:
    """Return ``processor``, ``cores`` this process may use, ``load`` on them, ``gpu`` if any.

    The load is the mean number of processes of the last minute that ran or waited for a core,
    where the system counts it: above ``cores`` what is measured has not had them for itself.
    """
    found: dict[str, str | float] = {"processor": _processor(), "cores": count_cores()}
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 1)
    gpu = _gpu()
    return {**found, "gpu": gpu} if gpu else found


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> str | None:
    """Return what NVIDIA's driver calls its cards, without loading a library that takes memory."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = sorted(answer.stdout.strip().splitlines())
    return ", ".join(names) or None
