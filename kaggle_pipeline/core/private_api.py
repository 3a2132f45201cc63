"""What this package needs of other packages and they do not document: a new release breaks here.

Each function does one thing with the inside of one package, imports it when called, and has a test
of its own against the installed version; ``tests/test_architecture.py`` lets no other module do so.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from argparse import ArgumentParser

# Python


def option_strings(parser: "ArgumentParser") -> list[str]:
    """Return every option that an ``argparse`` parser takes, such as ``--help``."""
    return list(parser._option_string_actions)


# Keras


def averaged_variables(optimizer: Any) -> list[Any]:
    """Return the moving averages that a Keras optimizer with ``use_ema`` keeps, in its variables'
    order."""
    return optimizer._model_variables_moving_average


def adam_moments(optimizer: Any, variable: Any) -> tuple[Any, Any]:
    """Return the two moments that Keras' Adam keeps of a variable: of its gradient, and of that
    squared."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def calls_within(network: Any) -> list[Any]:
    """Return the calls that make up a functional Keras network, each with ``operation``,
    ``input_tensors`` and ``output_tensors``.

    A layer itself knows the calls in all networks that share it.
    """
    return [node for level in network._nodes_by_depth.values() for node in level]


def all_layers(network: Any) -> list[Any]:
    """Return a Keras network's layers and those within them, the network itself first."""
    return list(network._flatten_layers())


def make_all_variables(network: Any, batch: Any) -> None:
    """Make the variables of a compiled Keras network's metrics and optimizer, as ``fit`` does
    before its first step."""
    network._symbolic_build(data_batch=batch)


# scikit-learn


def boosting_nodes(boosting: Any) -> list[list[Any]]:
    """Return the trees of a fitted ``HistGradientBoostingClassifier``: for each iteration, for each
    output, a structured array with ``is_leaf``, ``value``, ``feature_idx``, ``num_threshold``,
    ``left`` and ``right``."""
    return [[tree.nodes for tree in iteration] for iteration in boosting._predictors]


def boosting_baseline(boosting: Any) -> Any:
    """Return what a fitted ``HistGradientBoostingClassifier`` adds to its trees: (outputs,)."""
    return boosting._baseline_prediction.ravel()


# TensorFlow


def devices_with_kernel(operation: str) -> set[str]:
    """Return the kinds of devices that TensorFlow has a kernel of this operation for."""
    from tensorflow.python.framework import kernels

    found = kernels.get_registered_kernels_for_op(operation).kernel
    return {kernel.device_type for kernel in found}


# JAX


def hlo_compiler(module: bytes, device: Any) -> Callable[[], Any]:
    """Return what compiles a serialised HLO module for one device of a described topology.

    No public function takes a module; ``jax.jit`` itself ends in these calls. What is returned
    gives an executable with ``cost_analysis`` and ``get_compiled_memory_stats``.
    """
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax, xla_client
    from jax._src.lib.mlir import ir

    with mlir.make_ir_context():
        stable = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(module))
        _drop_copies(stable, ir)
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    devices = xla_client.DeviceList((device,))
    return lambda: device.client.compile(
        stable, executable_devices=devices, compile_options=options
    )


def _drop_copies(module: Any, ir: Any) -> None:
    """Take out copies, which are HLO's only and say no more than "another buffer"."""
    copies = []

    def visit(operation: Any) -> Any:
        if operation.name == "mhlo.copy":
            copies.append(operation.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()


# Streamlit and the server under it


def run_streamlit(
    page: Path,
    arguments: Sequence[str],
    settings: Mapping[str, object],
    around: type[Any] | None = None,
    **options: object,
) -> None:
    """Serve a Streamlit page from this process until it is stopped, as ``streamlit run`` does.

    The command itself takes no function to be run before or after, and no middleware.

    Parameters
    ----------
    page : pathlib.Path
    arguments : sequence of str
        The page's own.
    settings : mapping
        Streamlit's.
    around : type, optional
        ASGI middleware before all of Streamlit's, made with ``options``.

    Raises
    ------
    PipelineError
        If this release has no place for a middleware.
    """
    from streamlit.web import bootstrap

    if around is not None:
        _put_before(around, options)
    bootstrap.load_config_options(dict(settings))
    bootstrap.run(str(page), False, list(arguments), dict(settings))


def _put_before(around: type[Any], options: Mapping[str, object]) -> None:
    try:
        from starlette.middleware import Middleware
        from streamlit.web.server.starlette import starlette_app

        theirs = starlette_app.create_streamlit_middleware
    except (ImportError, AttributeError):
        raise PipelineError(
            "this Streamlit has no place to check requests: pip install 'streamlit>=1.67'"
        ) from None
    starlette_app.create_streamlit_middleware = lambda: [Middleware(around, **options), *theirs()]


def upload_bytes() -> int:
    """Return how many bytes of uploads the running Streamlit keeps, of all visitors together."""
    from streamlit.runtime import exists, get_instance

    if not exists():
        return 0
    kept = get_instance().uploaded_file_mgr.file_storage
    return sum(len(file.data) for files in list(kept.values()) for file in list(files.values()))


def keep_uploads_in_memory(max_bytes: int) -> None:
    """Starlette, under Streamlit from 1.5x on, would put an upload of more than 1 MiB on disk.

    Raises
    ------
    PipelineError
        If this release has no such setting.
    """
    try:
        from starlette.formparsers import MultiPartParser
    except ImportError:  # an older Streamlit: Tornado keeps uploads in memory
        return
    # Named so from Starlette 0.46 on; another name's being set would change nothing.
    names = [one for one in ("spool_max_size", "max_file_size") if hasattr(MultiPartParser, one)]
    if not names:
        raise PipelineError(
            "this Starlette puts uploads on disk and has no setting against it: pip install "
            "'starlette==1.10'"
        )
    setattr(MultiPartParser, names[0], max_bytes)
