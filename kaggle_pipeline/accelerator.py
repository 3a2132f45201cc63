"""Hardware: this file chooses it, and ``tpuprobe`` looks for a TPU; no other asks what there is.

In: what the user asked for. Out: an :class:`Accelerator` that says what was chosen and why, and
under whose ``scope`` models are built. It must be chosen before keras is imported.

Several machines: for TensorFlow set ``TF_CONFIG`` on each, for JAX Keras' own three variables
``KERAS_DISTRIBUTION_JOB_ADDRESSES``, ``…_NUM_PROCESSES``, ``…_PROCESS_ID``, then start the same
command everywhere, each machine with a run folder of its own.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.tpuprobe import PROBES, count_tpu_cores, looks_like_tpu_host

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

    def alone(self) -> "Accelerator":
        """Return what this process can use without the others: one replica, no strategy."""
        return replace(self, replicas=1, strategy=None, workers=1)

    def least(self, number: int) -> int:
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
    if device == "tpu" or (device == "auto" and looks_like_tpu_host()):
        return _tpu()
    workers = _workers()
    backend = _set_backend(_backend_of_workers() or os.environ.get("KERAS_BACKEND", "tensorflow"))
    gpus = 0 if device == "cpu" else _count_gpus(backend)
    if gpus:
        return _gpu(backend, min(gpus, replicas or gpus), workers)
    if device == "gpu":
        raise PipelineError(f"device=gpu: {backend} sees no GPU here; say --set device=cpu or auto")
    why = "asked for" if device == "cpu" else "no GPU or TPU found"
    return _cpu(backend, replicas or 1, workers, why)


def _cpu(backend: str, replicas: int, workers: int, why: str) -> Accelerator:
    # XLA on a CPU costs 8 times the speed of TensorFlow's own kernels (MobileNetV2, 224 px).
    jit: bool | str = False if backend == "tensorflow" else "auto"
    count = f"{replicas} logical devices of a CPU" if replicas > 1 else "CPU"
    reason = f"{count}, Keras on {backend} ({why})"
    strategy = _cpu_strategy(backend, replicas, workers)
    if backend == "tensorflow":
        import tensorflow as tf

        # Same seed, same weights, bit for bit.
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")  # a new model a fold is no retracing to warn of
    return _together(
        Accelerator("cpu", backend, replicas, "float32", jit, reason, strategy), workers
    )


def _cpu_strategy(backend: str, replicas: int, workers: int) -> Any:
    """Divide the CPU; keep TensorFlow on it beside a GPU that was not asked for."""
    if backend == "jax":
        import jax

        if replicas > 1:
            jax.config.update("jax_num_cpu_devices", replicas)
        if jax.local_device_count("cpu") < replicas:
            raise PipelineError(f"replicas={replicas}: JAX has started with fewer devices already")
        return _data_parallel() if replicas * workers > 1 else None
    import tensorflow as tf

    if replicas > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        try:
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError:  # TensorFlow has started: fine if with as many
            if len(tf.config.list_logical_devices("CPU")) < replicas:
                raise PipelineError(
                    f"replicas={replicas}: TensorFlow has started with fewer devices already"
                ) from None
    if workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if replicas > 1:
        return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    return tf.distribute.OneDeviceStrategy("/cpu:0") if _count_gpus(backend) else None


def _data_parallel() -> Any:
    import keras

    return keras.distribution.DataParallel(auto_shard_dataset=True)  # over all machines' devices


def _workers() -> int:
    """Return how many processes train together, as the environment says."""
    if "TF_CONFIG" in os.environ:
        try:
            cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
        except (ValueError, KeyError, TypeError):
            raise PipelineError("TF_CONFIG is not JSON with a cluster: see tf.distribute") from None
        return max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1))


def _backend_of_workers() -> str | None:
    """Return the backend whose variables name other machines."""
    if "TF_CONFIG" in os.environ:
        return "tensorflow"
    return "jax" if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ else None


def _together(alone: Accelerator, workers: int) -> Accelerator:
    """Return the accelerator that is part of ``workers`` equal ones."""
    if workers == 1:
        return alone
    return replace(
        alone,
        replicas=alone.replicas * workers,
        workers=workers,
        reason=f"{alone.reason}, one of {workers} workers",
    )


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
    if backend == "jax" and "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        _join_other_processes()
    return backend


@functools.cache  # once a process: a second time is an error
def _join_other_processes() -> None:
    import jax
    import keras

    with contextlib.suppress(AttributeError):  # the default already in newer releases
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize()


def _count_gpus(backend: str) -> int:
    if backend == "jax":
        import jax

        return jax.local_device_count() if jax.default_backend() == "gpu" else 0
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _gpu(backend: str, count: int, workers: int) -> Accelerator:
    if backend == "jax":
        import jax

        _keep_compiled()
        strategy = None
        if count * workers > 1:
            import keras

            devices = jax.devices() if workers > 1 else jax.devices()[:count]
            strategy = keras.distribution.DataParallel(
                devices=[f"gpu:{device.id}" for device in devices]
            )
    else:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        for gpu in found:
            with contextlib.suppress(RuntimeError):  # already initialised
                tf.config.experimental.set_memory_growth(gpu, True)
        strategy = None
        if workers > 1:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        elif count > 1:
            strategy = tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(count)])
        elif len(found) > 1:
            strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    jit: bool | str = False if strategy and backend == "tensorflow" else "auto"
    reason = f"{count} GPU, Keras on {backend}"
    # bfloat16 needs no loss scaling, but GPUs before 2020 (Kaggle's T4) have none.
    return _together(
        Accelerator("gpu", backend, count, "mixed_float16", jit, reason, strategy), workers
    )


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
    found = Accelerator("tpu", "jax", count, "mixed_bfloat16", "auto", reason, _data_parallel())
    return replace(found, workers=jax.process_count())


def _keep_compiled() -> None:
    """Keep what XLA compiles on disk: the first step of a large network takes minutes."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "kaggle_pipeline" / "xla"))
