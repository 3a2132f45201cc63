"""Kernels pushed to Kaggle: each when those that it reads are done, again while it lacks time.

In: kernels' folders. Out: their outputs and logs here. All through Kaggle's own command line. A
call that was broken off can be made again: what runs is waited for, what stopped in time goes on.
"""

import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.kaggle.client import kaggle, patiently
from kaggle_pipeline.kaggle.kernels import METADATA
from kaggle_pipeline.kaggle.running_log import RunningLog
from kaggle_pipeline.kaggle.session import SESSION

_LAST_LINES = 20
_FORGIVEN = 5
"""Questions in a row that may fail before waiting is given up: a night is long."""
_STALE_LOOKS = 3
"""After a push Kaggle may tell the state of the version before for a moment: a state in which a
kernel ends is believed at once only if another was seen since, and else after so many looks."""
_ENDED = ("complete", "error", "cancel_acknowledged")


@dataclass(frozen=True)
class Pushing:
    """How to push and wait.

    Attributes
    ----------
    out : pathlib.Path
        Gets a folder of output and log a kernel.
    poll_seconds : float
        Between two looks at a kernel's state.
    restarts : int
        How often a kernel that stopped in time is pushed again, its output attached to itself.
    wait : bool
        False: push and go.
    log : bool
        Whether the log of the kernel that is waited for is shown while it runs.
    say : callable
        Takes a line.
    """

    out: Path
    poll_seconds: float = 60.0
    restarts: int = 5
    wait: bool = True
    log: bool = True
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class _Kernel:
    folder: Path
    identity: str
    reads: frozenset[str]
    tells_state: bool
    """Whether its script writes ``session.json``."""

    @classmethod
    def read(cls, folder: Path) -> "_Kernel":
        content = read_json(folder / METADATA)
        script = folder / content.get("code_file", "")
        if not script.is_file():
            raise PipelineError(f"{folder} has no script yet: python scripts/build_kernels.py")
        reads = frozenset(content["kernel_sources"]) - {content["id"]}
        return cls(
            folder, content["id"], reads, "run_session(" in script.read_text(encoding="utf-8")
        )


def push_kernels(folders: Sequence[Path], how: Pushing) -> None:
    """Push kernels, each when those that it reads are done; fetch their outputs.

    Raises
    ------
    PipelineError
        With Kaggle's own sentence, if it refuses one or one fails there.
    """
    running: dict[str, _Kernel] = {}
    for kernel in _in_order([_Kernel.read(Path(folder)) for folder in folders]):
        for source in sorted(kernel.reads & set(running)):
            if how.wait:
                _finish(running.pop(source), how)
        while not _start(kernel, how, others=bool(running) and how.wait):
            _finish(running.pop(next(iter(running))), how)  # makes room for this one
        running[kernel.identity] = kernel
    while how.wait and running:
        _finish(running.pop(next(iter(running))), how)


def push(folder: Path) -> str:
    """Push one kernel; return Kaggle's sentence.

    Raises
    ------
    PipelineError
        If Kaggle refuses it, or any of its sources, of which its command line says so and goes on.
    """

    def accepted(text: str) -> bool:
        return "successfully pushed" in text and "not valid" not in text

    text = kaggle("kernels", "push", "-p", str(folder), accepted=accepted)
    return next(line for line in text.splitlines() if "successfully pushed" in line)


def push_again(kernel: _Kernel) -> str:
    """Push a kernel with its own last output as one of its inputs."""
    with tempfile.TemporaryDirectory() as temporary:
        content = read_json(kernel.folder / METADATA)
        content["kernel_sources"] = sorted({*content["kernel_sources"], kernel.identity})
        write_json(Path(temporary) / METADATA, content)
        script = content["code_file"]
        shutil.copyfile(kernel.folder / script, Path(temporary) / script)
        return push(Path(temporary))


def fetch_output(identity: str, out: Path, pattern: str | None = None) -> Path:
    """Fetch a kernel's output and log into a folder named after it; return the folder.

    Parameters
    ----------
    identity : str
        ``<owner>/<slug>``.
    out : pathlib.Path
    pattern : str, optional
        Regular expression of the files that are wanted.
    """
    place = Path(out) / identity.rpartition("/")[2]
    if not pattern:
        shutil.rmtree(place, ignore_errors=True)  # an earlier version's files are not this one's
    place.mkdir(parents=True, exist_ok=True)
    only = ("--file-pattern", pattern) if pattern else ()
    patiently(
        lambda: kaggle(
            "kernels", "output", identity, "-p", str(place), "--force", "--page-size", "200", *only,
            accepted=lambda text: True, seconds=24 * 3600,
        ),
        [5.0] * _FORGIVEN,
    )  # fmt: skip
    return place


def _in_order(kernels: Sequence[_Kernel]) -> list[_Kernel]:
    """Kernels, those that read another's output after it."""
    left, order = list(kernels), []
    while left:
        waiting = {kernel.identity for kernel in left}
        ready = [kernel for kernel in left if not waiting & kernel.reads]
        if not ready:
            names = ", ".join(kernel.identity for kernel in left)
            raise PipelineError(f"{names} read each other's output")
        order += ready
        left = [kernel for kernel in left if kernel not in ready]
    return order


def _start(kernel: _Kernel, how: Pushing, others: bool) -> bool:
    """Push a kernel, or join it where it runs; False where others take all the sessions."""
    state = _state_before(kernel.identity)
    if state in ("queued", "running"):
        how.say(f"{kernel.identity}: {state} already")
        return True
    again = state == "complete" and _stopped_in_time(kernel, how.out)
    try:
        how.say(push_again(kernel) if again else push(kernel.folder))
    except PipelineError as error:
        if "session count" in str(error) and others:
            return False
        raise
    return True


def _state_before(identity: str) -> str | None:
    """State of a kernel's last version; None where there is none."""
    with contextlib.suppress(PipelineError):
        return _state(identity)[0]
    return None


def _stopped_in_time(kernel: _Kernel, out: Path) -> bool:
    """Whether the last version stopped before it was done; one that does not say is made anew."""
    with contextlib.suppress(PipelineError):
        return _unfinished(kernel, out) is not None
    return False


def _finish(kernel: _Kernel, how: Pushing) -> None:
    """Wait for a kernel, push it again while it stops for lack of time, fetch what it leaves."""
    identity = kernel.identity
    for restart in range(how.restarts + 1):
        log = RunningLog(identity, how.say) if how.log else None
        try:
            state, message = _wait(identity, how, log)
        finally:
            if log:
                log.close()
        if state != "complete":
            place = fetch_output(identity, how.out)
            if not (log and log.said):
                for line in _log_tail(place / f"{identity.rpartition('/')[2]}.log"):
                    how.say(f"  {line}")
            raise PipelineError(f"{identity} ended with {state}: {message or 'see the log above'}")
        because = _unfinished(kernel, how.out)
        if because is None:
            how.say(f"{identity}: complete, output in {fetch_output(identity, how.out)}")
            return
        if restart < how.restarts:
            how.say(f"{identity} stopped in time: {because}; pushed again")
            how.say(push_again(kernel))
    raise PipelineError(
        f"{identity} is still not done after {how.restarts} restarts: the same command goes on"
    )


def _unfinished(kernel: _Kernel, out: Path) -> str | None:
    """Why the last version stopped before it was done; None if it is done."""
    if not kernel.tells_state:
        return None
    path = fetch_output(kernel.identity, out, rf"^{re.escape(SESSION)}$") / SESSION
    if not path.exists():
        raise PipelineError(f"{kernel.identity} left no {SESSION}: its output is not whole")
    session = read_json(path)
    path.unlink()
    return None if session["state"] == "done" else str(session["because"])


def _wait(identity: str, how: Pushing, log: RunningLog | None) -> tuple[str, str]:
    """Return the state in which a kernel ended, and Kaggle's message if there is one."""
    before, looks = "", 0
    while True:
        state, message = patiently(lambda: _state(identity), [how.poll_seconds] * _FORGIVEN)
        looks += 1
        if state != before:
            how.say(f"{identity}: {state}")
        if state in _ENDED and (before not in ("", state) or looks > _STALE_LOOKS):
            if log:
                log.finish()
            return state, message
        if log and state == "running":
            log.follow()
        before = state
        time.sleep(how.poll_seconds)


def _state(identity: str) -> tuple[str, str]:
    text = kaggle("kernels", "status", identity, accepted=lambda text: "has status" in text)
    state = re.search(r'has status "(?:\w+\.)?(\w+)"', text)[1].lower()
    message = re.search(r'Failure message: "(.*)"', text, re.DOTALL)
    return state, message[1] if message else ""


def _log_tail(path: Path) -> list[str]:
    """Last lines of a kernel's log, which Kaggle keeps as JSON, a piece of text an entry."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # plain text, as of some failures
        text = "".join(entry["data"] for entry in json.loads(text))
    return text.splitlines()[-_LAST_LINES:]
