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
from collections.abc import Iterator

from kaggle_pipeline.core.files import remove_unfinished

GO_ON = "run the same command with --resume to go on"
_PATIENCE_SECONDS = 10.0
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
    try:
        for one in numbers:
            if before[one] is not signal.SIG_IGN:
                signal.signal(one, _raise)
        yield
    except BaseException:
        remove_unfinished()
        raise
    finally:
        over.set()
        signal.set_wakeup_fd(former)
        os.close(writing)
        for one, handler in before.items():
            signal.signal(one, handler)


def _raise(number: int, _: object) -> None:
    raise Stopped(number)


def _end_in_time(reading: int, over: threading.Event) -> None:
    """Wait for a signal, then for the end; a process that does not come to it is ended here."""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in {getattr(signal, name, None) for name in _SIGNALS}:
                break
        else:
            return
    if over.wait(_PATIENCE_SECONDS):
        return
    for child in multiprocessing.active_children():
        child.kill()
    remove_unfinished()
    stop = Stopped(number[0])
    sys.stderr.write(f"{stop}\n")
    sys.stderr.flush()
    os._exit(stop.code)
