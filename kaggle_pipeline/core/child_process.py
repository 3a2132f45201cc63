"""One answer from a process of its own, which may load what this one must not, or end badly.

In: a function and its arguments. Out: what it sent.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any


class EndedSilently(Exception):
    """The process ended without an answer; ``code`` is its exit code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"its process ended (code {code})")
        self.code = code


def run_in_child(work: Callable[..., None], *arguments: Any, patience: float | None = None) -> Any:
    """Return what ``work(*arguments, pipe)`` sends through its pipe from a new process.

    Parameters
    ----------
    work : callable
        A module's own function: the process imports it by name.
    *arguments
    patience : float, optional
        Seconds after which nothing is waited for any more.

    Returns
    -------
    object
        None if nothing came in time.

    Raises
    ------
    EndedSilently
        If the process ended first.
    """
    context = multiprocessing.get_context("spawn")  # a forked TensorFlow or JAX hangs
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(*arguments, theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(patience) else None
    except EOFError:
        child.join()
        raise EndedSilently(child.exitcode) from None
    finally:
        child.kill()
        child.join()
