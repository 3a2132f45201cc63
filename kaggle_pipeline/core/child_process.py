"""Work in other processes: many items shared out among workers, or one call apart from this one.

Processes are spawned, not forked: a fork would inherit the locks of a parent that has loaded
TensorFlow or JAX, and hang.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

_IN_FLIGHT = 8
"""Results a worker may be ahead of the reader: bounds memory whatever the number of items."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` of each item, in the items' order.

    Parameters
    ----------
    work : callable
        A module's own function, or a ``functools.partial`` of one: a process imports it by name.
    items : iterable
    workers : int or None
        Processes; None: one a core. One worker is this process itself: another one would take
        longer to start than most folders of photos take.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _IN_FLIGHT * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
    context = get_context("spawn")
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
