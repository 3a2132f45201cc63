"""The step that a TPU would spend a run's time on, compiled for it.

In: settings of the image model, a spec, a topology. Out: the compiler's verdict. To be called in a
process that has loaded neither keras nor jax, after ``tpucompiler.prepare_environment``.
"""

from typing import Any

import numpy as np

from kaggle_pipeline.config import ImageConfig
from kaggle_pipeline.rundir import peak_memory_mb, versions
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.tpucompiler import compile_jitted, describe_topology, usable_hbm_gib


def compile_step(image: ImageConfig, spec: DatasetSpec, topology: str) -> dict[str, Any]:
    """Build the network under Keras on JAX and compile its step for a topology; nothing is run.

    The step is the one that ``fit`` compiles: the model's ``train_step`` with its state given away,
    the state the same on all devices, the batch dealt out over them. Where the body is frozen it is
    the extraction of the features, which is what such a run spends its time on.

    Returns
    -------
    dict
        ``verdict`` (:class:`~kaggle_pipeline.tpucompiler.Verdict`), ``devices``, ``policy``,
        ``ram_gib`` (peak of this process), ``versions``.

    Raises
    ------
    PipelineError
        As :func:`preflight`.
    """
    description = describe_topology(topology)
    hbm = usable_hbm_gib(description)
    import keras

    policy = "mixed_bfloat16" if image.mixed_precision else "float32"
    keras.config.set_dtype_policy(policy)
    build = _extraction_step if image.frozen else _training_step
    jitted, arguments = build(image, spec, description.devices)
    verdict = compile_jitted(description, jitted, *arguments, hbm_gib=hbm)
    return {
        "verdict": verdict,
        "devices": len(description.devices),
        "policy": policy,
        "ram_gib": (peak_memory_mb() or float("nan")) / 1024,
        "versions": versions(),
    }


def _training_step(image: ImageConfig, spec: DatasetSpec, devices: list) -> tuple[Any, tuple]:
    """Return the jitted training step and the shapes of its state and batch."""
    import jax

    from kaggle_pipeline.image.network import build_network
    from kaggle_pipeline.image.training import compile_network

    network = build_network(image, spec, load_published=False)
    compile_network(network, image, spec, steps_per_epoch=1000, jit_compile=True)
    side, classes = image.image_size_px, len(spec.classes)
    one = (
        np.zeros((1, side, side, 3), np.uint8),
        np.zeros((1, classes), np.float32),
        np.ones(1, np.float32),
    )
    # As fit does before its first step: makes the variables of metrics and optimizer.
    network._symbolic_build(data_batch=one)
    whole, dealt = _shardings(devices)
    state = tuple(
        [_shape(variable, whole) for variable in variables]
        for variables in (
            network.trainable_variables,
            network.non_trainable_variables,
            network.optimizer.variables,
            network.metrics_variables,
        )
    )
    count = image.batch_size * len(devices)
    batch = tuple(
        jax.ShapeDtypeStruct((count, *part.shape[1:]), part.dtype, sharding=dealt) for part in one
    )
    outputs = (None, tuple([whole] * len(variables) for variables in state))
    step = jax.jit(network.train_step, donate_argnums=0, out_shardings=outputs)
    return step, (state, batch)


def _extraction_step(image: ImageConfig, spec: DatasetSpec, devices: list) -> tuple[Any, tuple]:
    """Return the jitted extraction of a frozen body's features, and its shapes."""
    import jax

    from kaggle_pipeline.image.network import build_body, stacked_views

    views = "dihedral" if image.augment.dihedral else image.tta
    viewer = stacked_views(build_body(image, load_published=False), views)
    whole, dealt = _shardings(devices)
    state = tuple(
        [_shape(variable, whole) for variable in variables]
        for variables in (viewer.trainable_variables, viewer.non_trainable_variables)
    )
    count, side = image.batch_size * len(devices), image.image_size_px
    batch = {
        "image": jax.ShapeDtypeStruct((count, side, side, 3), np.uint8, sharding=dealt),
        "row": jax.ShapeDtypeStruct((count,), np.int32, sharding=dealt),
    }
    return jax.jit(viewer.predict_step), (state, (batch,))


def _shardings(devices: list) -> tuple[Any, Any]:
    """Return "the same on all devices" and "dealt out over them by the first axis"."""
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(devices), ("batch",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))


def _shape(variable: Any, sharding: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(variable.shape, variable.value.dtype, sharding=sharding)
