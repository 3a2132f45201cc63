"""The step that a TPU would spend a run's time on, compiled for it.

In: settings of the image model, a spec, a topology. Out: the compiler's verdict. To be called in a
process that has loaded neither keras nor jax, after ``compiler.prepare_environment``.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import peak_memory_mb, versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.private_api import devices_with_kernel, make_all_variables
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.preflight.compiler import (
    compile_hlo,
    compile_jitted,
    describe_topology,
    usable_hbm_gib,
)

if TYPE_CHECKING:
    import keras


NOT_ON_TPU = {
    "DecodeJpeg", "EagerPyFunc", "PyFunc", "ImageProjectiveTransformV2",
    "ImageProjectiveTransformV3",
}  # fmt: skip
"""Operations that TPUs refuse inside a step whatever XLA does elsewhere: decoding, Python, and the
warp of Keras' RandomRotation, RandomZoom and RandomTranslation."""
_TPU = SimpleNamespace(kind="tpu", jit_compile=True)
_WITHOUT_KERNEL = {"Placeholder"}
"""A step's arguments, which are nothing to compute."""


def compile_step(
    image: ImageConfig, spec: DatasetSpec, topology: str, backend: str, *, predicting: bool = False
) -> dict[str, Any]:
    """Build the network and compile its step for a topology; nothing is run.

    On JAX the step is the one that ``fit`` compiles: the model's ``train_step`` with its state
    given away, the state the same on all devices, the batch dealt out over them. On TensorFlow it
    is one replica's ``train_step`` under TPUStrategy, compiled for one device, without the exchange
    of gradients. Where the body is frozen it is the extraction of the features, on which such a run
    spends its time. With ``predicting`` it is the prediction of one view of a batch's images, as
    after an epoch; one of all views takes so many times as long to compile.

    Returns
    -------
    dict
        ``verdict`` (:class:`~kaggle_pipeline.preflight.compiler.Verdict`), ``devices``, ``policy``,
        ``ram_gib`` (peak of this process), ``versions``.

    Raises
    ------
    PipelineError
        As :func:`~kaggle_pipeline.preflight.estimate.preflight`.
    """
    description = describe_topology(topology)
    hbm = usable_hbm_gib(description)
    import keras

    policy = "mixed_bfloat16" if image.mixed_precision else "float32"
    keras.config.set_dtype_policy(policy)
    if backend == "tensorflow":
        step, arguments = _tensorflow_step(image, spec, predicting)
        refused = refused_ops(step.get_concrete_function(*arguments).graph)
        if refused:
            raise PipelineError(f"a TPU has no kernel for {', '.join(refused)}")
        module = step.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
        verdict = compile_hlo(description, module, hbm)
    else:
        if image.frozen or predicting:
            jitted, arguments = _answer_step(image, spec, description.devices)
        else:
            jitted, arguments = _training_step(image, spec, description.devices)
        verdict = compile_jitted(description, jitted, *arguments, hbm_gib=hbm)
    return {
        "verdict": verdict,
        "devices": len(description.devices),
        "policy": policy,
        "ram_gib": (peak_memory_mb() or float("nan")) / 1024,
        "versions": versions(),
    }


def photos_a_step(image: ImageConfig) -> int:
    """Return how many photos a replica's step takes: of a frozen body all views fill the batch."""
    return max(1, image.batch_size // image.views) if image.frozen else image.batch_size


def refused_ops(graph: Any) -> list[str]:
    """Return the operations of a TensorFlow graph that a TPU has no kernel for.

    Asked are the kernels of the installed TensorFlow: those for TPUs where it has them, else those
    that XLA has for CPUs, less :data:`NOT_ON_TPU`.
    """
    import tensorflow as tf

    # XLA's kernels are registered when it first compiles something.
    tf.function(lambda: tf.zeros(()) + 1, jit_compile=True)()
    definition = graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    own = {function.signature.name for function in definition.library.function}
    refused = set()
    for name in {node.op for node in nodes} - own - _WITHOUT_KERNEL:
        devices = devices_with_kernel(name)
        compiled = "XLA_TPU_JIT" in devices or ("XLA_CPU_JIT" in devices and name not in NOT_ON_TPU)
        if not compiled:
            refused.add(name)
    return sorted(refused)


def _tensorflow_step(image: ImageConfig, spec: DatasetSpec, predicting: bool) -> tuple[Any, tuple]:
    """Return one replica's step as a compiled ``tf.function``, and the shapes of its batch."""
    import tensorflow as tf

    # The compiler takes tensors side by side only.
    if image.frozen or predicting:
        tta_model = _tta_model(image, spec)
        names = [part.name for part in tta_model.inputs]
        specs = [
            tf.TensorSpec((photos_a_step(image), *part.shape[1:]), part.dtype)
            for part in tta_model.inputs
        ]

        def answer(*parts: Any) -> Any:
            return tta_model(dict(zip(names, parts, strict=True)), training=False)

        return tf.function(answer, jit_compile=True), tuple(specs)
    one = _one_image(image, spec)
    network = _compiled_network(image, spec, one)
    import keras

    specs = [
        tf.TensorSpec((image.batch_size, *part.shape[1:]), part.dtype)
        for part in keras.tree.flatten(one)
    ]

    def step(*parts: Any) -> Any:
        return network.train_step(keras.tree.pack_sequence_as(one, parts))

    return tf.function(step, jit_compile=True), tuple(specs)


def _training_step(image: ImageConfig, spec: DatasetSpec, devices: list) -> tuple[Any, tuple]:
    """Return the jitted training step and the shapes of its state and batch."""
    import jax

    one = _one_image(image, spec)
    network = _compiled_network(image, spec, one)
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
    batch = jax.tree.map(
        lambda part: jax.ShapeDtypeStruct((count, *part.shape[1:]), part.dtype, sharding=dealt),
        one,
    )
    outputs = (None, tuple([whole] * len(variables) for variables in state))
    step = jax.jit(network.train_step, donate_argnums=0, out_shardings=outputs)
    return step, (state, batch)


def _answer_step(image: ImageConfig, spec: DatasetSpec, devices: list) -> tuple[Any, tuple]:
    """Return the jitted prediction, or extraction of a frozen body's features, and its shapes."""
    import jax

    tta_model = _tta_model(image, spec)
    whole, dealt = _shardings(devices)
    state = tuple(
        [_shape(variable, whole) for variable in variables]
        for variables in (tta_model.trainable_variables, tta_model.non_trainable_variables)
    )
    count = photos_a_step(image) * len(devices)
    batch = {
        part.name: jax.ShapeDtypeStruct((count, *part.shape[1:]), part.dtype, sharding=dealt)
        for part in tta_model.inputs
    }
    return jax.jit(tta_model.predict_step), (state, (batch,))


def _one_image(image: ImageConfig, spec: DatasetSpec) -> tuple[Any, ...]:
    """Return inputs, targets and weight of one image, as a TPU's training step takes them."""
    from kaggle_pipeline.models.image.fit.training import augments_on_device
    from kaggle_pipeline.models.image.input.batch_spec import batch_spec

    return batch_spec(image, spec, on_device=augments_on_device(image, _TPU)).made_up(1)


def _compiled_network(image: ImageConfig, spec: DatasetSpec, one: tuple[Any, ...]) -> "keras.Model":
    from kaggle_pipeline.models.image.fit.training import compile_network, trained_model
    from kaggle_pipeline.models.image.network import build_network

    network = build_network(image, spec, load_published=False)
    compile_network(network, image, spec, steps_per_epoch=1000, jit_compile=True)
    network = trained_model(network, image, spec, 1000, _TPU)
    make_all_variables(network, one)
    return network


def _tta_model(image: ImageConfig, spec: DatasetSpec) -> "keras.Model":
    """Return what predicts one view, or gives a frozen body's features of all that a fit needs."""
    from kaggle_pipeline.models.image.inference.tta import VIEWS, stacked_views, with_views
    from kaggle_pipeline.models.image.network import build_body, build_network

    if not image.frozen:
        return with_views(build_network(image, spec, load_published=False), VIEWS["none"])
    return stacked_views(build_body(image, load_published=False), VIEWS[image.stored_views])


def _shardings(devices: list) -> tuple[Any, Any]:
    """Return "the same on all devices" and "dealt out over them by the first axis"."""
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(devices), ("batch",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))


def _shape(variable: Any, sharding: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(variable.shape, variable.value.dtype, sharding=sharding)
