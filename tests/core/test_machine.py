"""Tests of memory: what system, control group and limit leave free; what a process hands back."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_pipeline.core.machine import free_memory_mb, gpu_memory_mb

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n")
    return tmp_path


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_limit_it_is_what_the_system_has(root):
    assert free_memory_mb(root) == 16 * 1024
    write(root, "proc/self/cgroup", "0::/user\n")
    write(root, "sys/fs/cgroup/user/memory.max", "max\n")
    write(root, "sys/fs/cgroup/user/memory.current", "123\n")
    assert free_memory_mb(root) == 16 * 1024
    assert free_memory_mb(root / "nowhere") is None


@pytest.mark.parametrize("inside", [True, False], ids=["seen from within", "seen from outside"])
def test_a_containers_limit_counts_and_its_cached_files_do_not(root, inside):
    write(root, "proc/self/cgroup", "0::/machine/container\n")
    place = "sys/fs/cgroup/" if inside else "sys/fs/cgroup/machine/container/"
    write(root, f"{place}memory.max", f"{4 * GIB}\n")
    write(root, f"{place}memory.current", f"{3 * GIB}\n")
    write(root, f"{place}memory.stat", f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB}\n")
    assert free_memory_mb(root) == 3 * 1024


def test_the_older_kind_of_group(root):
    write(root, "proc/self/cgroup", "5:cpu:/\n4:memory:/job\n")
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{2 * GIB}\n")
    write(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{GIB}\n")
    stat = f"inactive_file 7\ntotal_inactive_file {GIB // 4}\ntotal_active_file {GIB // 4}\n"
    write(root, "sys/fs/cgroup/memory/job/memory.stat", stat)
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n")
    assert free_memory_mb(root) == 1536


def test_ulimit_counts(root, monkeypatch):
    resource = pytest.importorskip("resource")
    write(root, "proc/self/status", "VmPeak: 9 kB\nVmSize:  1048576 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (3 * GIB, 3 * GIB))
    assert free_memory_mb(root) == 2 * 1024


@pytest.mark.parametrize(
    ("visible", "free"),
    [(None, 100), ("0", 24000), ("1,0", 9000), ("GPU-c", 100), ("", None), ("MIG-7", None)],
)
def test_the_fullest_card_that_may_be_used_counts(tmp_path, monkeypatch, visible, free):
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\nprintf '0, GPU-a1, 24000\\n1, GPU-b2, 9000\\n2, GPU-c3, 100\\n'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_memory_mb() == free


HEAPS = """
import ctypes, sys, threading
from kaggle_pipeline.core.machine import give_back_freed_memory
if len(sys.argv) > 2:
    assert give_back_freed_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def work():
    together.wait()
    for _ in range(100):
        libc.malloc(10_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
for one in threads:
    one.start()
for one in threads:
    one.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_many_threads_have_few_heaps(tmp_path):
    """What a thread's own heap has freed stays with this process."""
    found = []
    for words in ([], ["together"]):
        path = tmp_path / "heaps.xml"
        command = [sys.executable, "-c", HEAPS, str(path), *words]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        found.append(path.read_text().count("<heap nr="))
    assert found[0] > found[1] and found[1] <= 2
