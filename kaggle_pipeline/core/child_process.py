"""Work in other processes: many items shared out among workers, or one call apart from this one.

Processes are spawned, not forked: a fork would inherit the locks of a parent that has loaded
TensorFlow or JAX, and hang.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.worker_pool import WorkerPool, end_with_parent, signals_held

FEWER_WORKERS = "run the same command with --resume --set records.workers=1 to go on"
_TOGETHER = 4
"""Items a worker gets at once, where there are enough for all of them: to hand over one takes as
long as to hash a small photo."""
_IN_FLIGHT = 2
"""Such parts a worker may be ahead of the reader: bounds memory whatever the number of items."""
_DONE = "done_before"
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None,
    *,
    what: str = "work",
    remedy: str = FEWER_WORKERS,
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
    what, remedy : str
        What the processes do, and what to do where one is killed, for the message.

    Raises
    ------
    PipelineError
        If a process is killed.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from map(work, items)
        return
    with worker_pool(count, what, remedy) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        together = (
            min(_TOGETHER, -(-len(items) // count)) if isinstance(items, Sized) else _TOGETHER
        )
        left = iter(items)
        while True:
            part = list(islice(left, together))
            if part:
                waiting.append(pool.submit(_work_through, work, part))
            if waiting and (not part or len(waiting) >= _IN_FLIGHT * count):
                try:
                    done = waiting.popleft().result()
                except Exception as error:
                    yield from getattr(error, _DONE, ())
                    raise
                yield from done
            elif not part:
                return


def _work_through(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of the items; the error of one carries those of the items before it."""
    done: list[Result] = []
    try:
        done.extend(map(work, items))
    except Exception as error:
        setattr(error, _DONE, done)
        raise
    return done


@contextmanager
def worker_pool(
    workers: int, what: str, remedy: str, start_process: Callable[[], object] | None = None
) -> Iterator[WorkerPool]:
    """Yield a pool of processes that end with this one, and at once where the block raises.

    Parameters
    ----------
    workers : int
    what, remedy : str
        What the processes do, and what to do where one is killed, for the message.
    start_process : callable, optional
        Called once in each process: a function of a module.

    Raises
    ------
    PipelineError
        If a process is killed, as the system does when memory runs out, or cannot be started.
    """
    try:
        with WorkerPool(workers, start_process) as pool:
            yield pool
    except BrokenProcessPool:
        raise PipelineError(
            f"{what}: a worker process was killed, most often for want of memory: {remedy}"
        ) from None


class EndedSilently(Exception):
    """The process ended without an answer; ``code`` is its exit code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"its process ended (code {code})")
        self.code = code


class TookTooLong(Exception):
    """The process was ended, for its time was up."""


def run_in_child(work: Callable[..., None], *arguments: Any, patience: float | None = None) -> Any:
    """Return what ``work(*arguments, pipe)`` first sends through its pipe from a new process.

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
    answers = answers_of_child(work, *arguments, patience=patience)
    try:
        return next(answers)
    except StopIteration:
        raise EndedSilently(0) from None
    except TookTooLong:
        return None
    finally:
        answers.close()  # ends the process


def answers_of_child(
    work: Callable[..., None], *arguments: Any, patience: float | None = None
) -> Iterator[Any]:
    """Yield all that ``work(*arguments, pipe)`` sends through its pipe, each when it comes.

    Parameters are those of :func:`run_in_child`; ``patience`` is for all of it.

    Raises
    ------
    EndedSilently
        If the process ends with an exit code other than 0.
    TookTooLong
        If it has not ended after ``patience`` seconds; it is ended then.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work_apart, args=(work, *arguments, theirs))
    until = None if patience is None else time.monotonic() + patience
    with signals_held():
        child.start()
    theirs.close()
    try:
        while ours.poll(None if until is None else max(0.0, until - time.monotonic())):
            yield ours.recv()
        raise TookTooLong
    except EOFError:
        child.join()
        if child.exitcode:
            raise EndedSilently(child.exitcode) from None
    finally:
        child.kill()
        child.join()


def _work_apart(work: Callable[..., None], *arguments: Any) -> None:
    end_with_parent()
    work(*arguments)
