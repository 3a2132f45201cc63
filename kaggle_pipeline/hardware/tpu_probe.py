"""Looking for a TPU, each look in a process of its own and within a time limit.

In: nothing but the machine. Out: how many cores a backend sees, or why none. Without a TPU these
imports may hang for minutes or abort the process, and one process owns a TPU.
"""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PROBES = {
    "tensorflow": (
        "import tensorflow as tf;"
        "r = tf.distribute.cluster_resolver.TPUClusterResolver(tpu='local');"
        "tf.tpu.experimental.initialize_tpu_system(r);"
        "print('tpu', len(tf.config.list_logical_devices('TPU')))"
    ),
    "jax": "import jax; print(jax.default_backend(), jax.device_count())",
}
"""What each backend is asked; the last two words of the answer are the platform and a count."""

_HOST_VARIABLES = ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")
_PCI_VENDORS = "/sys/bus/pci/devices/*/vendor"
_GOOGLE = "0x1ae0"
# A TPU takes its time to start; where nothing hints at one nobody should wait for it.
_SECONDS_ON_TPU_HOST, _SECONDS_ELSEWHERE = 180, 8


def looks_like_tpu_host() -> bool:
    """Whether the environment or a PCI device of Google's hints at a TPU."""
    if any(name in os.environ for name in _HOST_VARIABLES):
        return True
    vendors = Path("/").glob(_PCI_VENDORS.lstrip("/"))
    return any(path.read_text(encoding="utf-8").strip() == _GOOGLE for path in vendors)


def count_tpu_cores(backend: str) -> tuple[int, str]:
    """Return the number of TPU cores that ``backend`` sees, and why there are none."""
    lacking = _lacking_package(backend)
    if lacking:
        return 0, lacking
    seconds, quiet = _SECONDS_ON_TPU_HOST, {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if not looks_like_tpu_host():
        # Nobody would answer libtpu's questions; on a host it learns its topology there.
        seconds, quiet = _SECONDS_ELSEWHERE, quiet | {"TPU_SKIP_MDS_QUERY": "1"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", PROBES[backend]],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | quiet,
        )
    except subprocess.TimeoutExpired:
        return 0, f"no answer in {seconds} s"
    words = answer.stdout.split()
    if answer.returncode == 0 and words[-2:-1] == ["tpu"]:
        return int(words[-1]), ""
    if answer.returncode == 0:
        return 0, "no TPU device"
    words = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
    return 0, f"it failed, {words[-1][:160]}"


def _lacking_package(backend: str) -> str:
    """Say which package ``backend`` would need to drive a TPU; empty if nothing is missing."""
    if find_spec(backend) is None:
        return "not installed"
    if backend == "jax":
        return "" if find_spec("libtpu") else "jax has no libtpu"
    try:
        version("tensorflow-cpu")
    except PackageNotFoundError:
        return ""
    return "tensorflow-cpu cannot drive a TPU, tensorflow-tpu can"
