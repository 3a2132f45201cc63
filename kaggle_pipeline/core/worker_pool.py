"""Processes beside this one that end when it does, however it ends, and never speak for it.

Processes are spawned, not forked: a fork would inherit the locks of a parent that has loaded
TensorFlow or JAX, and hang.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Thread, current_thread, main_thread
from typing import Any, NoReturn

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import remove_unfinished

_ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_SETTLE_SECONDS = 0.2
"""A signal to the whole group kills workers before this process has looked at its own."""


class WorkerPool:
    """A pool of processes; leaving it by an exception ends them at once, whatever they do.

    A Ctrl-C at the terminal reaches every process of the group: workers do not see it, this
    process ends them.

    Parameters
    ----------
    workers : int
    prepare : callable, optional
        Called once in each worker: a function of a module.

    Raises
    ------
    PipelineError
        If the system has no room for another process's locks or pipes.
    """

    def __init__(self, workers: int, prepare: Callable[[], object] | None = None) -> None:
        context = get_context("spawn")
        with _said_in_a_line():
            ended, self._end = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(workers, context, _begin, (ended, prepare))

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Return the future of ``work(*arguments)``, a module's own function."""
        with _said_in_a_line(), signals_held():
            return self._pool.submit(work, *arguments)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._pool.shutdown()
            self._end.close()
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._end.close()  # which the workers see
        self._pool.shutdown()
        if issubclass(kind, Exception):
            time.sleep(_SETTLE_SECONDS)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the signals that end a process, while another one starts that inherits that.

    Neither process then ends between what the other expects of it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Its first start, which a process's start would bring about, lets these signals through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    came: list[tuple[int, object]] = []
    # Another thread may take a signal still; Python calls the handler in this one.
    handlers = {one: signal.getsignal(one) for one in _ENDING}
    handlers = {one: handler for one, handler in handlers.items() if callable(handler)}
    if current_thread() is not main_thread():
        handlers = {}
    for one in handlers:
        signal.signal(one, lambda *what: came.append(what))
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, frame in came[:1]:
            handlers[number](number, frame)


def end_with_parent(also: Connection | None = None) -> None:
    """Let this process end when the one that started it is gone, or ``also`` is closed.

    Called in the process itself. A thread waits for both; ``PR_SET_PDEATHSIG`` would end it with
    the *thread* that started it.
    """
    parent = parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end())
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: _end())
    if hasattr(signal, "pthread_sigmask"):  # it was started with them held back
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    ends = [parent.sentinel, *([also] if also else [])]

    def watch() -> None:
        wait(ends)
        _end()

    Thread(target=watch, daemon=True).start()


def _end() -> NoReturn:
    remove_unfinished()
    os._exit(1)


def _begin(ended: Connection, prepare: Callable[[], object] | None) -> None:
    end_with_parent(ended)
    if prepare:
        prepare()


@contextmanager
def _said_in_a_line() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = {
            errno.ENOSPC: "/dev/shm is full, where processes keep their locks: make room there",
            errno.EMFILE: "too many files are open: raise the limit, such as `ulimit -n 4096`",
            errno.ENFILE: "too many files are open on this machine: end other programs",
            errno.EAGAIN: "no further process is allowed: end others, or raise `ulimit -u`",
            errno.ENOMEM: "there is no memory for another process: ask for fewer workers",
        }.get(error.errno or 0)
        if what is None:
            raise
        raise PipelineError(f"worker processes cannot be started: {what}") from None
