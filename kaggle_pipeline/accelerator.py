"""Hardware: the only file that looks at it.

In: what the user asked for. Out: an :class:`Accelerator` that says what was chosen and why, and
under whose ``scope`` models are built. It must be chosen before keras is imported.
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kaggle_pipeline.errors import PipelineError

Device = Literal["auto", "cpu", "gpu", "tpu"]
_PROBE_SECONDS = 15
# A probe of its own process: without a TPU these imports may hang for minutes or abort.
_PROBES = {
    "jax": "import jax; print(jax.default_backend(), jax.device_count())",
    "tensorflow": (
        "import tensorflow as tf;"
        "r = tf.distribute.cluster_resolver.TPUClusterResolver(tpu='local');"
        "tf.tpu.experimental.initialize_tpu_system(r);"
        "print('tpu', len(tf.config.list_logical_devices('TPU')))"
    ),
}


@dataclass(frozen=True)
class Accelerator:
    """What a model is trained on.

    Attributes
    ----------
    kind : {"cpu", "gpu", "tpu"}
    backend : {"tensorflow", "jax"}
        Of Keras.
    replicas : int
        Copies of the model; the global batch is the per-replica batch times this.
    policy : str
        Keras dtype policy that mixed precision means here.
    jit_compile : bool or "auto"
        For ``model.compile``.
    reason : str
        One sentence for the log.
    strategy : tf.distribute.Strategy, keras.distribution.Distribution or None
        Entered by ``scope``.
    """

    kind: Literal["cpu", "gpu", "tpu"]
    backend: str
    replicas: int
    policy: str
    jit_compile: bool | str
    reason: str
    strategy: Any = None

    @contextlib.contextmanager
    def scope(self, *, mixed_precision: bool) -> Iterator[None]:
        """Build and train models inside: distribution and dtype policy are set, then restored."""
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.policy if mixed_precision else "float32")
        try:
            with self.strategy.scope() if self.strategy else contextlib.nullcontext():
                yield
        finally:
            keras.config.set_dtype_policy(before)


def choose_accelerator(device: Device = "auto") -> Accelerator:
    """Find the hardware, decide the Keras backend and return both.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu", "tpu"}
        ``tpu`` never falls back: without one it is an error.

    Raises
    ------
    PipelineError
        If the device that was asked for is not there, or no engine is installed.
    """
    if device == "tpu":
        return _tpu()
    if device == "auto" and _looks_like_tpu_host():
        return _tpu()
    backend = _set_backend(os.environ.get("KERAS_BACKEND", "tensorflow"))
    gpus = 0 if device == "cpu" else _count_gpus(backend)
    if gpus:
        return _gpu(backend, gpus)
    if device == "gpu":
        raise PipelineError(f"device=gpu: {backend} sees no GPU here; say --set device=cpu or auto")
    _make_cpu_repeatable(backend)
    # XLA on a CPU costs 8 times the speed of TensorFlow's own kernels (MobileNetV2, 224 px).
    jit: bool | str = False if backend == "tensorflow" else "auto"
    why = "asked for" if device == "cpu" else "no GPU or TPU found"
    reason = f"CPU, Keras on {backend} ({why})"
    return Accelerator("cpu", backend, 1, "float32", jit, reason, _cpu_strategy(backend))


def _cpu_strategy(backend: str) -> Any:
    """Keep TensorFlow on the CPU beside a GPU that was not asked for."""
    if backend != "tensorflow" or not _count_gpus(backend):
        return None
    import tensorflow as tf

    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _set_backend(backend: str) -> str:
    if "keras" in sys.modules:
        import keras

        if keras.backend.backend() != backend:
            raise PipelineError(f"keras runs on {keras.backend.backend()} already, not {backend}")
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        __import__(backend)
        __import__("tensorflow")  # tf.data reads the records under either backend
    except ImportError as error:
        raise PipelineError(
            f"{error.name} is not installed: pip install '.[cpu]' (or gpu, tpu)"
        ) from None
    return backend


def _count_gpus(backend: str) -> int:
    if backend == "jax":
        import jax

        return jax.device_count() if jax.default_backend() == "gpu" else 0
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _gpu(backend: str, count: int) -> Accelerator:
    if backend == "jax":
        strategy = None
    else:
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            with contextlib.suppress(RuntimeError):  # already initialised
                tf.config.experimental.set_memory_growth(gpu, True)
        strategy = tf.distribute.MirroredStrategy() if count > 1 else None
    replicas = strategy.num_replicas_in_sync if strategy else 1
    jit: bool | str = False if strategy else "auto"
    reason = f"{replicas} GPU, Keras on {backend}"
    return Accelerator("gpu", backend, replicas, "mixed_float16", jit, reason, strategy)


def _looks_like_tpu_host() -> bool:
    return any(name in os.environ for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID"))


@functools.cache  # one process owns a TPU: looking again from a second one would not see it
def _tpu() -> Accelerator:
    """Return the TPU, TPUStrategy first, then Keras on JAX; an error says what was looked for."""
    wanted = os.environ.get("KERAS_BACKEND")
    looked = []
    for backend in [wanted] if wanted in _PROBES else ["tensorflow", "jax"]:
        count, why = _probe_tpu(backend)
        if count:
            _set_backend(backend)
            return _tpu_strategy(count) if backend == "tensorflow" else _tpu_jax(count)
        looked.append(f"{backend}: {why}")
    raise PipelineError(
        f"no TPU found ({'; '.join(looked)}); on Kaggle choose the accelerator TPU v5e-8, or run "
        "without --tpu"
    )


def _probe_tpu(backend: str) -> tuple[int, str]:
    """Return the number of TPU cores that ``backend`` sees, and why there are none."""
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _PROBES[backend]]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, env=os.environ | quiet
        )
    except subprocess.TimeoutExpired:
        return 0, f"no answer in {_PROBE_SECONDS} s"
    words = answer.stdout.split()
    if answer.returncode == 0 and words[-2:-1] == ["tpu"]:
        return int(words[-1]), ""
    if f"No module named '{backend}'" in answer.stderr:
        return 0, "not installed"
    return 0, "no TPU device"


def _tpu_strategy(count: int) -> Accelerator:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    strategy = tf.distribute.TPUStrategy(resolver)
    reason = f"TPU with {count} cores, TPUStrategy"
    replicas = strategy.num_replicas_in_sync
    return Accelerator("tpu", "tensorflow", replicas, "mixed_bfloat16", False, reason, strategy)


def _tpu_jax(count: int) -> Accelerator:
    import keras

    parallel = keras.distribution.DataParallel()  # its scope() ends with ours
    reason = f"TPU with {count} cores, Keras on JAX, data parallel"
    return Accelerator("tpu", "jax", count, "mixed_bfloat16", "auto", reason, parallel)


def _make_cpu_repeatable(backend: str) -> None:
    """Same seed, same weights, bit for bit."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # a new model a fold is no retracing to warn of
