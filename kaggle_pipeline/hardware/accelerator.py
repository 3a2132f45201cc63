"""Hardware: chosen here; ``tpu_probe`` looks for a TPU, ``distribution`` divides what is there.

In: what the user asked for. Out: an :class:`Accelerator` that says what was chosen and why, and
under whose ``scope`` models are built. It must be chosen before keras is imported.

Several machines: for TensorFlow set ``TF_CONFIG`` on each, for JAX Keras' own three variables
``KERAS_DISTRIBUTION_JOB_ADDRESSES``, ``…_NUM_PROCESSES``, ``…_PROCESS_ID``, then start the same
command everywhere, each machine with a run folder of its own.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kaggle_pipeline.core.engine import import_tensorflow
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.machine import gpu_memory_mb
from kaggle_pipeline.hardware.distribution import (
    count_replicas,
    cpu_strategy,
    data_parallel,
    divide_jax_cpu,
    find_workers,
    join_other_processes,
    multi_worker_strategy,
)
from kaggle_pipeline.hardware.tpu_probe import PROBES, count_tpu_cores, looks_like_tpu_host

Device = Literal["auto", "cpu", "gpu", "tpu"]


@dataclass(frozen=True)
class Accelerator:
    """What a model is trained on.

    Attributes
    ----------
    kind : {"cpu", "gpu", "tpu"}
    backend : {"tensorflow", "jax"}
        Of Keras.
    replicas : int
        Copies of the model, over all machines; the global batch is the per-replica batch times
        this.
    policy : str
        Keras dtype policy that mixed precision means here.
    jit_compile : bool or "auto"
        For ``model.compile``.
    reason : str
        One sentence for the log.
    strategy : tf.distribute.Strategy, keras.distribution.Distribution or None
        Entered by ``scope``.
    workers : int
        Processes that train together.
    """

    kind: Literal["cpu", "gpu", "tpu"]
    backend: str
    replicas: int
    policy: str
    jit_compile: bool | str
    reason: str
    strategy: Any = None
    workers: int = 1

    def describe(self, *, mixed_precision: bool) -> str:
        """Return what was chosen, why, and in which numbers it computes."""
        numbers = self.precision(mixed=mixed_precision)
        scaled = ", the loss scaled" if numbers == "mixed_float16" else ""
        return f"{self.reason}, {numbers.replace('_', ' ')}{scaled}"

    def precision(self, *, mixed: bool) -> str:
        """Return Keras' name of the numbers in which models compute here: ``float32`` or mixed."""
        return self.policy if mixed else "float32"

    @contextlib.contextmanager
    def scope(self, *, mixed_precision: bool, building: bool = True) -> Iterator[None]:
        """Build models inside, and run them inside with ``building=False``.

        Distribution and dtype policy are set, then restored. TensorFlow's strategies are entered
        for building only: a model remembers its own, and one that this process keeps for itself
        could not run inside.
        """
        import keras

        before = keras.config.dtype_policy(), keras.distribution.distribution()
        keras.config.set_dtype_policy(self.precision(mixed=mixed_precision))
        strategy = contextlib.nullcontext()
        if self.backend == "jax":
            keras.distribution.set_distribution(self.strategy)
            strategy = contextlib.nullcontext() if self.strategy else self._on_first_device()
        elif self.strategy and building:
            strategy = self.strategy.scope()
        try:
            with strategy:
                yield
        finally:
            keras.config.set_dtype_policy(before[0])
            if self.backend == "jax":
                keras.distribution.set_distribution(before[1])

    def _on_first_device(self) -> contextlib.AbstractContextManager:
        import jax

        return jax.default_device(jax.local_devices(backend=self.kind)[0])

    def alone(self) -> "Accelerator":
        """Return what this process can use without the others: one replica, no strategy."""
        return replace(self, replicas=1, strategy=None, workers=1)

    def free_memory_mb(self) -> float | None:
        """Return the memory in MiB that is free on the fullest GPU; None where nothing tells."""
        if self.kind != "gpu":
            return None
        if self.backend != "jax":
            return gpu_memory_mb()
        import jax

        # JAX has taken most of the card for this process already: the driver would call it full.
        found = [gpu.memory_stats() or {} for gpu in jax.local_devices()]
        free = [one["bytes_limit"] - one["bytes_in_use"] for one in found if "bytes_limit" in one]
        return min(free) / 2**20 if free else None

    def peak_memory_mb(self) -> float | None:
        """Return the most, in MiB, that this process has held on one GPU; None if unknown."""
        if self.kind != "gpu":
            return None
        if self.backend != "jax":
            import tensorflow as tf

            names = [
                f"GPU:{number}" for number in range(len(tf.config.list_logical_devices("GPU")))
            ]
            return max(tf.config.experimental.get_memory_info(one)["peak"] for one in names) / 2**20
        import jax

        found = [gpu.memory_stats() or {} for gpu in jax.local_devices()]
        return max(one.get("peak_bytes_in_use", 0) for one in found) / 2**20 or None

    def all_min(self, number: int) -> int:
        """Return the least of all processes' ``number``; every process has to ask."""
        if self.workers == 1:
            return number
        if self.backend == "jax":
            from jax.experimental.multihost_utils import process_allgather

            return int(process_allgather(number).min())
        import tensorflow as tf

        mine = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([number], tf.int64)
        )
        return int(tf.reduce_min(self.strategy.gather(mine, axis=0)))


def choose_accelerator(device: Device = "auto", replicas: int | None = None) -> Accelerator:
    """Find the hardware, decide the Keras backend and return both.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu", "tpu"}
        ``tpu`` never falls back: without one it is an error.
    replicas : int, optional
        So many of the GPUs, or logical devices made out of the CPU, instead of all there are.

    Raises
    ------
    PipelineError
        If the device that was asked for is not there, or no engine is installed.
    """
    found = _find(device, replicas)
    import keras

    # Whatever ~/.keras/keras.json says: saved weights, kernels and records are of these.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    return found


def _find(device: Device, replicas: int | None) -> Accelerator:
    if device == "tpu" or (device == "auto" and looks_like_tpu_host()):
        if replicas:
            raise PipelineError(f"replicas is {replicas}: a TPU is taken with all its cores")
        return _tpu()
    theirs, workers = find_workers()
    backend = _set_backend(theirs or os.environ.get("KERAS_BACKEND", "tensorflow"), replicas or 1)
    if theirs == "jax":
        join_other_processes()
    gpus = 0 if device == "cpu" else _count_gpus(backend)
    if gpus:
        if (replicas or 1) > gpus or (replicas and workers > 1):
            raise PipelineError(f"replicas is {replicas}: here are {gpus} GPUs; leave it null")
        return _gpu(backend, replicas or gpus, workers)
    if device == "gpu":
        raise PipelineError(f"device=gpu: {backend} sees no GPU here; say cpu or auto")
    why = "asked for" if device == "cpu" else "no GPU or TPU found"
    return _cpu(backend, replicas or 1, workers, why)


def _cpu(backend: str, replicas: int, workers: int, why: str) -> Accelerator:
    # XLA on a CPU costs 8 times the speed of TensorFlow's own kernels (MobileNetV2, 224 px).
    jit: bool | str = False if backend == "tensorflow" else "auto"
    count = f"{replicas} logical devices of a CPU" if replicas > 1 else "CPU"
    reason = f"{count}, Keras on {backend} ({why})"
    strategy = cpu_strategy(backend, replicas, workers)
    if backend == "jax":
        _keep_compiled()
    else:
        import tensorflow as tf

        # Same seed, same weights, bit for bit.
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # a new model a fold is no retracing to warn of
    return _together(Accelerator("cpu", backend, 1, "float32", jit, reason, strategy), workers)


def _together(found: Accelerator, workers: int) -> Accelerator:
    """Return what was found with the replicas of its strategy, as one of ``workers``."""
    found = replace(found, replicas=count_replicas(found.strategy), workers=workers)
    if workers == 1:
        return found
    return replace(found, reason=f"{found.reason}, one of {workers} workers")


def _set_backend(backend: str, cpu_devices: int = 1) -> str:
    if "keras" in sys.modules:
        import keras

        if keras.backend.backend() != backend:
            raise PipelineError(f"keras runs on {keras.backend.backend()} already, not {backend}")
    os.environ["KERAS_BACKEND"] = backend
    try:
        import_tensorflow()  # tf.data reads the records under either backend
        __import__(backend)
    except ImportError as error:
        raise PipelineError(
            f"{error.name} is not installed: pip install '.[cpu]' (or gpu, tpu)"
        ) from None
    if backend == "jax" and cpu_devices > 1:
        divide_jax_cpu(cpu_devices)
    return backend


def _count_gpus(backend: str) -> int:
    if backend == "jax":
        import jax

        return jax.local_device_count() if jax.default_backend() == "gpu" else 0
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _gpu(backend: str, count: int, workers: int) -> Accelerator:
    if backend == "jax":
        _keep_compiled()
        everyone = None if workers > 1 else count
        strategy = data_parallel("gpu", everyone) if count * workers > 1 else None
    else:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        for gpu in found:
            with contextlib.suppress(RuntimeError):  # already initialised
                tf.config.experimental.set_memory_growth(gpu, True)
        strategy = None
        if workers > 1:
            strategy = multi_worker_strategy()
        elif count > 1:
            strategy = tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(count)])
        elif len(found) > 1:
            strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    jit: bool | str = False if strategy and backend == "tensorflow" else "auto"
    reason = f"{count} GPU, Keras on {backend}"
    policy = "mixed_bfloat16" if _has_bfloat16(backend) else "mixed_float16"
    return _together(Accelerator("gpu", backend, 1, policy, jit, reason, strategy), workers)


def _has_bfloat16(backend: str) -> bool:
    """Return whether every GPU computes in bfloat16, which needs no scaling of the loss.

    NVIDIA's do from compute capability 8.0 on (Ampere, 2020); Kaggle's T4 and P100 are older.
    """
    if backend == "jax":
        import jax

        found = [getattr(gpu, "compute_capability", None) for gpu in jax.local_devices()]
    else:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        gpus = tf.config.list_physical_devices("GPU")
        found = [details(gpu).get("compute_capability") for gpu in gpus]
    majors = [str(one[0] if isinstance(one, tuple) else one).split(".")[0] for one in found]
    return all(major.isdigit() and int(major) >= 8 for major in majors)


@functools.cache  # one process owns a TPU: looking again from a second one would not see it
def _tpu() -> Accelerator:
    """Return the TPU, TPUStrategy first, then Keras on JAX; an error says what was looked for."""
    wanted = os.environ.get("KERAS_BACKEND")
    looked = []
    for backend in [wanted] if wanted in PROBES else list(PROBES):
        count, why = count_tpu_cores(backend)
        if count:
            _set_backend(backend)
            return _tpu_strategy(count) if backend == "tensorflow" else _tpu_jax(count)
        looked.append(f"{backend}: {why}")
    raise PipelineError(
        f"no TPU found ({'; '.join(looked)}); on Kaggle choose the accelerator TPU v5e-8, or run "
        "without --tpu"
    )


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
    import jax

    _keep_compiled()
    # All hosts of a slice answer with all its cores.
    reason = f"TPU with {count} cores, Keras on JAX, data parallel"
    found = Accelerator("tpu", "jax", count, "mixed_bfloat16", "auto", reason, data_parallel("tpu"))
    return replace(found, workers=jax.process_count())


def _keep_compiled() -> None:
    """Keep what XLA compiles on disk: the first step of a large network takes minutes."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "kaggle_pipeline" / "xla"))
