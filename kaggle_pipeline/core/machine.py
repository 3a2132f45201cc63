"""What a measurement ran on: processor, cores, memory that is free, graphics card."""

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of glibc's ``malloc.h``."""


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
    return ", ".join(sorted(_ask_gpus("name"))) or None


def _ask_gpus(what: str) -> list[str]:
    """A line a card of what NVIDIA's driver tells, without loading a library that takes memory."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.strip().splitlines()


def free_memory_mb(root: Path = Path("/")) -> float | None:
    """Return how much memory, in MiB, this process may still take; None where nothing tells.

    The least of what the system has free and of what its control group (a container's limit) and
    ``ulimit -v`` leave. Linux alone tells. ``root`` is where ``proc`` and ``sys`` are.
    """
    found = [_system_free(root), *_groups_free(root), _limit_free(root)]
    known = [one for one in found if one is not None]
    return min(known) / 2**20 if known else None


def give_back_freed_memory() -> bool:
    """Let this process hand back what it frees, however many threads it has.

    glibc gives up to eight threads a core a heap of their own, and keeps in each what was freed
    there: a server of large photos grows. Here there are two heaps, and blocks from 1 MiB on stand
    outside of them. Source: ``mallopt(3)``.

    Returns
    -------
    bool
        False where another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, 2) and mallopt(_M_MMAP_THRESHOLD, 2**20))


def gpu_memory_mb() -> float | None:
    """Return the MiB that are free on the fullest of NVIDIA's cards that this process may use.

    ``CUDA_VISIBLE_DEVICES`` names those. None without one, or where nothing tells.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = [one.strip() for one in (allowed or "").split(",")]
    free = []
    for line in _ask_gpus("index,uuid,memory.free"):
        index, uuid, mib = (one.strip() for one in line.split(","))
        named = index in wanted or any(one and uuid.startswith(one) for one in wanted)
        if mib.isdigit() and (allowed is None or named):
            free.append(float(mib))
    return min(free, default=None)


def _system_free(root: Path) -> float | None:
    info = _read(root / "proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", info, re.MULTILINE)
    return float(found[1]) * 1024 if found else None


def _groups_free(root: Path) -> Iterator[float]:
    """What each control group around this process leaves; pages of files there can be dropped."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / kinds
        names = ("memory.max", "memory.current") if not kinds else (
            "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
        below = "total_" if kinds else ""  # the older kind also counts a group without its own
        inner = top / path.lstrip("/")
        for folder in [inner, *inner.parents]:
            limit, used = (_read(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                stat = _read(folder / "memory.stat")
                files = re.findall(rf"^{below}(?:in)?active_file (\d+)", stat, re.MULTILINE)
                yield float(limit) - float(used) + sum(map(float, files))
            if folder == top:
                break


def _limit_free(root: Path) -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = re.search(r"^VmSize:\s+(\d+) kB", _read(root / "proc/self/status"), re.MULTILINE)
    return None if limit == resource.RLIM_INFINITY or not used else limit - float(used[1]) * 1024


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
