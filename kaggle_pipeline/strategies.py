"""Strategies: one model on several replicas and in several processes, for both backends.

In: how many replicas and workers. Out: what ``accelerator`` enters to build a model. The backend is
chosen already.
"""

import contextlib
import functools
import json
import os
from typing import Any

from kaggle_pipeline.errors import PipelineError


def cpu_strategy(backend: str, replicas: int, workers: int) -> Any:
    """Divide the CPU; keep TensorFlow on it beside a GPU that was not asked for."""
    if backend == "jax":
        import jax

        if jax.local_device_count("cpu") < replicas:
            raise PipelineError(f"replicas={replicas}: JAX has started with fewer devices already")
        return data_parallel() if replicas * workers > 1 else None
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
    return (
        tf.distribute.OneDeviceStrategy("/cpu:0")
        if tf.config.list_physical_devices("GPU")
        else None
    )


def divide_jax_cpu(replicas: int) -> None:
    """Make JAX see so many CPU devices; it must not have looked at any yet."""
    import jax

    with contextlib.suppress(RuntimeError):  # it has: cpu_strategy counts what there is
        jax.config.update("jax_num_cpu_devices", replicas)


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


def data_parallel() -> Any:
    """Return Keras' data parallelism over all devices, those of other processes too."""
    import keras

    return keras.distribution.DataParallel(auto_shard_dataset=True)  # over all machines' devices


def count_workers() -> int:
    """Return how many processes train together, as the environment says."""
    if "TF_CONFIG" in os.environ:
        try:
            cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
        except (ValueError, KeyError, TypeError):
            raise PipelineError("TF_CONFIG is not JSON with a cluster: see tf.distribute") from None
        return max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1))


def backend_of_workers() -> str | None:
    """Return the backend whose variables name other machines."""
    if "TF_CONFIG" in os.environ:
        return "tensorflow"
    return "jax" if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ else None


@functools.cache  # once a process: a second time is an error
def join_other_processes() -> None:
    """Wait for the other JAX processes that Keras' variables name."""
    import jax
    import keras

    with contextlib.suppress(AttributeError):  # the default already in newer releases
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize()
