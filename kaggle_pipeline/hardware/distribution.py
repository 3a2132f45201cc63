"""Strategies: one model on several replicas and in several processes, for both backends.

In: how many replicas and workers. Out: what ``accelerator`` enters to build a model. The backend is
chosen already.
"""

import contextlib
import functools
import json
import os
from typing import Any

from kaggle_pipeline.core.errors import PipelineError


def cpu_strategy(backend: str, replicas: int, workers: int) -> Any:
    """Divide the CPU; keep TensorFlow on it beside a GPU that was not asked for."""
    if backend == "jax":
        import jax

        if jax.local_device_count("cpu") < replicas:
            raise PipelineError(f"replicas={replicas}: JAX has started with fewer devices already")
        return data_parallel("cpu") if replicas * workers > 1 else None
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
        return multi_worker_strategy()
    if replicas > 1:
        return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    beside_gpu = tf.config.list_physical_devices("GPU")
    return tf.distribute.OneDeviceStrategy("/cpu:0") if beside_gpu else None


def divide_jax_cpu(replicas: int) -> None:
    """Make JAX see so many CPU devices; it must not have looked at any yet."""
    import jax

    with contextlib.suppress(RuntimeError):  # it has: cpu_strategy counts what there is
        jax.config.update("jax_num_cpu_devices", replicas)


@functools.cache  # every worker makes it once, before anything else
def multi_worker_strategy() -> Any:
    """Return the strategy that ``TF_CONFIG`` describes; every worker has to ask for it."""
    import tensorflow as tf

    class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
        """Takes what Keras 3 asks of it: the shapes of a batch, and sums of scalars."""

        def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
            if isinstance(value, tuple):  # a batch, of which Keras wants to know shapes only
                return tuple(self.experimental_local_results(part)[0] for part in value)
            first = self.experimental_local_results(value)[0]
            return super().reduce(reduce_op, value, axis if first.shape.rank else None)

    return Strategy()


def data_parallel(kind: str, count: int | None = None) -> Any:
    """Return Keras' data parallelism over the first ``count`` devices of a kind, or all.

    Those of other processes are among them.
    """
    import keras

    return keras.distribution.DataParallel(devices=keras.distribution.list_devices(kind)[:count])


def count_replicas(strategy: Any) -> int:
    """Return over how many replicas a strategy of either backend spreads a batch."""
    if strategy is None:
        return 1
    if hasattr(strategy, "num_replicas_in_sync"):
        return strategy.num_replicas_in_sync
    return strategy.device_mesh.devices.size


def find_workers() -> tuple[str | None, int]:
    """Return the backend whose variables name other processes, and how many train together."""
    if "TF_CONFIG" in os.environ:
        try:
            cluster = json.loads(os.environ["TF_CONFIG"]).get("cluster") or {}
            workers = len(cluster.get("chief", [])) + len(cluster.get("worker", []))
        except (ValueError, AttributeError, TypeError):
            raise PipelineError("TF_CONFIG is not JSON with a cluster: see tf.distribute") from None
        return ("tensorflow", workers) if workers > 1 else (None, 1)
    said = os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1")
    if not said.isdigit() or int(said) < 1:
        raise PipelineError(f"KERAS_DISTRIBUTION_NUM_PROCESSES is {said!r}, must be a number")
    return ("jax", int(said)) if int(said) > 1 else (None, 1)


@functools.cache  # once a process: a second time is an error
def join_other_processes() -> None:
    """Wait for the other JAX processes that Keras' variables name."""
    import jax
    import keras

    with contextlib.suppress(AttributeError):  # the default already in newer releases
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize()
