"""What JAX compiled for this process: how long it took, and what came from the disk's cache.

In: JAX's own events (``jax.monitoring``). Out: a :class:`CompileLog`, whose figures grow while the
process runs.
"""

import functools
from dataclasses import dataclass, field

_TRACED = ("/jax/core/compile/jaxpr_trace_duration",)
_LOWERED = ("/jax/core/compile/jaxpr_to_mlir_module_duration",)
_COMPILED = ("/jax/core/compile/backend_compile_duration",)
_SAVED = ("/jax/compilation_cache/compile_time_saved_sec",)
_HIT = "/jax/compilation_cache/cache_hits"
_KEPT = "/jax/compilation_cache/cache_misses"  # JAX says so when it writes one


@dataclass
class CompileLog:
    """Sums over all that was compiled since the log began.

    Attributes
    ----------
    seconds : dict
        ``traced``, ``lowered``, ``compiled`` (reading from the cache included) and ``saved`` by it.
    hits : int
        Programs that the cache held.
    kept : int
        Programs that it did not hold and that were put there; those of less than a second are not.
    """

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("traced", "lowered", "compiled", "saved"), 0.0)
    )
    hits: int = 0
    kept: int = 0

    def describe(self) -> str:
        """Return it in words: what a first step's time went to."""
        seconds = self.seconds
        made = seconds["traced"] + seconds["lowered"]
        text = f"{made:.0f} s of tracing, {seconds['compiled']:.0f} s of compiling"
        found = f"{self.hits} programs" if self.hits else "nothing"
        saved = f", {seconds['saved']:.0f} s saved" if self.hits else ""
        return f"{text}; {found} from the cache{saved}, {self.kept} new ones kept there"


@functools.cache  # one listener a process: JAX calls every one that it was given
def compile_log() -> CompileLog:
    """Return this process's log; it begins with the first call."""
    import jax

    log = CompileLog()
    names = {"traced": _TRACED, "lowered": _LOWERED, "compiled": _COMPILED, "saved": _SAVED}
    kinds = {event: kind for kind, events in names.items() for event in events}

    def took(event: str, duration: float, **_: object) -> None:
        if event in kinds:
            log.seconds[kinds[event]] += duration

    def happened(event: str, **_: object) -> None:
        log.hits += event == _HIT
        log.kept += event == _KEPT

    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(happened)
    return log
