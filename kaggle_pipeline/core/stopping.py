"""SIGTERM, SIGINT and SIGHUP: this process ends in order within seconds, and by force if it cannot.

In: a signal. Out: :class:`Stopped` in the main thread, which passes through every ``with`` and
``finally``; after some seconds, spent in a compiler, say, an end without them.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kaggle_pipeline.core.files import remove_unfinished

GO_ON = "run the same command with --resume to go on"
_PATIENCE_SECONDS = 10.0
_AGAIN_SECONDS = 0.05
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes
    ----------
    code : int
        Exit code: 128 and the signal's number, as a shell would tell it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {GO_ON}")
        self.code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals that end a process into :class:`Stopped` inside the block.

    A signal that is ignored already (``nohup``) stays so. In another thread than the main one
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {one: signal.getsignal(one) for one in numbers}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python calls a handler only between two of its own steps; this pipe is written at once.
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    over = threading.Event()
    threading.Thread(target=_end_in_time, args=(reading, over), daemon=True).start()
    former_hook, sys.unraisablehook = sys.unraisablehook, partial(_again, sys.unraisablehook)
    try:
        for one in numbers:
            if before[one] is not signal.SIG_IGN:
                signal.signal(one, _raise)
        yield
    except BaseException:
        remove_unfinished()
        raise
    finally:
        sys.unraisablehook = former_hook
        signal.set_wakeup_fd(former)
        over.set()
        os.close(writing)
        for one, handler in before.items():
            signal.signal(one, handler)


def _raise(number: int, _: object) -> None:
    raise Stopped(number)


def _again(former: Callable[[Any], object], lost: Any) -> None:
    """Send a signal again that came where Python drops exceptions: in a finaliser, say."""
    if not isinstance(lost.exc_value, Stopped):
        former(lost)
        return
    later = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), lost.exc_value.code - 128))
    later.daemon = True
    later.start()


def _end_in_time(reading: int, over: threading.Event) -> None:
    """Wait for a signal, then for the end; a process that does not come to it is ended here."""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in {getattr(signal, name, None) for name in _SIGNALS}:
                break
        else:
            return
        if over.wait(_PATIENCE_SECONDS):  # the pipe stays open: a second signal is written too
            return
    for child in multiprocessing.active_children():
        child.kill()
    remove_unfinished()
    stop = Stopped(number[0])
    sys.stderr.write(f"{stop}\n")
    sys.stderr.flush()
    os._exit(stop.code)
