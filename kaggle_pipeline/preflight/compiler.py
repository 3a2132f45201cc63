"""What a TPU's own compiler says of a function, on a machine that has no TPU.

In: a jitted function, or an HLO module of TensorFlow's, and a topology's name. Out: a
:class:`Verdict`: memory, arithmetic and bytes of one device. libtpu holds the compiler;
``pip install '.[preflight]'``.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.core.private_api import hlo_compiler

TOPOLOGIES = {
    "v2-8": "v2:2x2",
    "v3-8": "v3:2x2",
    "v4-8": "v4:2x2x1",
    "v5e-1": "v5e:1x1",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5p-8": "v5p:2x2x1",
    "v6e-1": "v6e:1x1",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
    "tpu7x-8": "tpu7x:2x2x1",
}
"""Names that people say, and XLA's own. Kaggle lends a v5e-8."""

_NOISELESS = {
    "JAX_PLATFORMS": "cpu",  # nothing is run, and a TPU that is there stays free
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks a metadata server for minutes
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_UNITS = {"": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}


@dataclass(frozen=True)
class Chip:
    """Peak figures of one chip: Google Cloud, "TPU architecture", a page for each version.

    Attributes
    ----------
    bf16_tflops : float
        Of the matrix units, per second.
    hbm_gb_per_s : float
        10^9 bytes.
    devices : int
        What JAX calls devices, a chip: its cores, where they do not work as one ("megacore", which
        v4 and v5p are).
    """

    bf16_tflops: float
    hbm_gb_per_s: float
    devices: int


CHIPS = {
    "v2": Chip(46, 700, 2),
    "v3": Chip(123, 900, 2),
    "v4": Chip(275, 1228, 1),
    "v5e": Chip(197, 819, 1),
    "v5p": Chip(459, 2765, 1),
    "v6e": Chip(918, 1640, 1),
    "tpu7x": Chip(2307, 7380, 2),
}


@dataclass(frozen=True)
class Verdict:
    """What the compiler found out about one step on one device.

    Attributes
    ----------
    fits : bool
    peak_gib : float or None
        Arguments, results, temporaries and code; where it does not fit, what it would need, None
        if the compiler does not say.
    hbm_gib : float
        What the compiler may use of a device's memory.
    tflop, gb : float or None
        Arithmetic, and bytes to and from memory (10^9), a step and device; None if it does not fit.
    compile_seconds : float
    message : str
        The compiler's own words where it refused.
    """

    fits: bool
    peak_gib: float | None
    hbm_gib: float
    tflop: float | None
    gb: float | None
    compile_seconds: float
    message: str = ""


def resolve_topology(name: str) -> str:
    """Return XLA's name of a topology: ``v5e-8`` and ``v5e:2x4`` both give ``v5e:2x4``.

    Raises
    ------
    PipelineError
        If the name is neither; it names the nearest.
    """
    known = TOPOLOGIES.get(name.lower(), name.lower())
    family, _, shape = known.partition(":")
    if family not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        names = [*TOPOLOGIES, *TOPOLOGIES.values()]
        raise PipelineError(
            f"unknown topology {name!r}{nearest(name, names)}; known: {', '.join(TOPOLOGIES)} and "
            "XLA's own names such as v5e:2x4"
        )
    return known


def chip_of(topology: str) -> Chip:
    """Return the chip that a topology is made of."""
    return CHIPS[resolve_topology(topology).partition(":")[0]]


def prepare_environment(backend: str) -> None:
    """Set what libtpu and Keras read when they are loaded; call it before any of them is."""
    os.environ.update(_NOISELESS, KERAS_BACKEND=backend)


def describe_topology(name: str) -> Any:
    """Return JAX's description of a topology, whose ``devices`` can be compiled for, not run on.

    Raises
    ------
    PipelineError
        If the compiler is not installed or does not know the topology.
    """
    topology = resolve_topology(name)
    try:
        import libtpu  # noqa: F401
        from jax.experimental import topologies
    except ImportError as error:
        raise PipelineError(
            f"the TPU compiler needs {error.name}: pip install '.[preflight]'"
        ) from None
    # libtpu takes it that a host has four chips, and that v4's cores work each for itself.
    further = {"chips_per_host_bounds": (1, 1, 1)} if topology.endswith(":1x1") else {}
    if topology.startswith("v4:"):
        further["chip_config_name"] = "megacore"
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **further)
    # What it raises on a topology that it does not know differs between releases.
    except Exception as error:
        raise PipelineError(f"topology {topology}: {_first_line(error)}") from None


def usable_hbm_gib(description: Any) -> float:
    """Return the memory that the compiler grants one device, by asking it for far too much."""
    import jax
    import jax.numpy as jnp

    sharding = jax.sharding.SingleDeviceSharding(description.devices[0])
    absurd = jax.ShapeDtypeStruct((2**38,), jnp.float32, sharding=sharding)
    verdict = _compile(lambda: jax.jit(lambda x: x + 1).lower(absurd), hbm_gib=float("nan"))
    found = re.search(r"available HBM \(([\d.]+)([KMGT]?)\)", verdict.message)
    if verdict.fits or not found:
        raise PipelineError(f"the compiler does not tell the device's memory: {verdict.message}")
    return _gib(found)


def compile_jitted(
    description: Any, jitted: Any, *arguments: Any, hbm_gib: float | None = None
) -> Verdict:
    """Compile a ``jax.jit`` function for a topology.

    Parameters
    ----------
    description : object
        Of :func:`describe_topology`.
    jitted : function
        The result of ``jax.jit``.
    *arguments
        ``jax.ShapeDtypeStruct`` trees, sharded over the topology's devices.
    hbm_gib : float, optional
        Known from :func:`usable_hbm_gib`.

    Returns
    -------
    Verdict
    """
    hbm = hbm_gib or usable_hbm_gib(description)
    return _compile(lambda: jitted.trace(*arguments).lower(lowering_platforms=("tpu",)), hbm)


def compile_hlo(description: Any, module: bytes, hbm_gib: float) -> Verdict:
    """Compile a serialised HLO module, as TensorFlow gives it, for one device of a topology."""
    return _timed(
        hlo_compiler(module, description.devices[0]),
        lambda compiled: compiled.get_compiled_memory_stats(),
        hbm_gib,
    )


def _compile(lower: Callable[[], Any], hbm_gib: float) -> Verdict:
    lowered = lower()
    return _timed(lowered.compile, lambda compiled: compiled.memory_analysis(), hbm_gib)


def _timed(
    compile_module: Callable[[], Any], memory_of: Callable[[Any], Any], hbm_gib: float
) -> Verdict:
    import jax

    started = time.perf_counter()
    try:
        compiled = compile_module()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise PipelineError(f"the TPU compiler refuses: {_first_line(error)}") from None
        return refusal(str(error), hbm_gib, time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return accept(memory_of(compiled), compiled.cost_analysis(), hbm_gib, seconds)


def refusal(message: str, hbm_gib: float, seconds: float) -> Verdict:
    """Return the verdict on what does not fit; XLA says so in two ways."""
    needed = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    needed = needed or re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM", message)
    peak = _gib(needed) if needed else None
    return Verdict(False, peak, hbm_gib, None, None, seconds, message.partition("\n")[0])


def accept(memory: Any, cost: dict, hbm_gib: float, seconds: float) -> Verdict:
    """Return the verdict on what fits, from XLA's memory statistics and cost analysis."""
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes  # donated arguments are written over
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Verdict(
        True, peak / 2**30, hbm_gib, cost["flops"] / 1e12, cost["bytes accessed"] / 1e9, seconds
    )


def _gib(match: re.Match) -> float:
    return float(match[1]) * _UNITS[match[2]]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
