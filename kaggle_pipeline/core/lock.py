"""Who works in a run's folder: one small file a part of it, so that a second command says so.

In: a run's folder and a part of it, such as ``image/fold0``. Out: ``.locks/image.fold0.json``, as
long as this process works there. It is advisory, needs no server's help and works on network
folders: made at once or not at all (``O_EXCL``), and touched now and then. One whose process is
gone is stale; of another machine's process that is known when the file is not touched any more.
"""

import contextlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.room import not_written, system_error

FOLDER = ".locks"
_TOUCHED_SECONDS = 20
_STALE_SECONDS = 300
"""Without a touch for so long, by the file server's clock, another machine's process is gone."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes
    ----------
    host : str
    system : str
        Boot and process namespace, in which a process number means something.
    process : int
    born : str
        When it began, in the system's own ticks: numbers are used again.
    since : str
    command : str
    """

    host: str
    system: str
    process: int
    born: str
    since: str
    command: str

    @classmethod
    def here(cls) -> "Holder":
        """Return this process."""
        script = Path(sys.argv[0]).name or "python"
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(socket.gethostname(), _system(), os.getpid(), _born(os.getpid()), since, script)

    def is_same(self, other: "Holder") -> bool:
        """Whether both are one process."""
        return (self.host, self.system, self.process, self.born) == (
            other.host, other.system, other.process, other.born
        )  # fmt: skip

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None where it cannot be known from here."""
        if (self.host, self.system) != (socket.gethostname(), _system()) or os.name != "posix":
            return None
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _born(self.process) == self.born


@contextlib.contextmanager
def locked(
    run_dir: Path, part: str, *, wait: bool = False, say: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Hold a part of a run's folder; parts around it and within it are held with it.

    What this process holds already is no obstacle.

    Parameters
    ----------
    run_dir : pathlib.Path
    part : str
        ``""`` for the whole run, else such as ``prepare``, ``image`` or ``image/fold0``.
    wait : bool
        Wait for another process instead of stopping; ``say`` is told once.
    say : callable

    Raises
    ------
    PipelineError
        If another process works there; it says which, where and since when.
    """
    folder, made = Path(run_dir) / FOLDER, not Path(run_dir).exists()
    told = False
    while True:
        _clear_stale(folder, part)
        try:
            path, mine = _take(folder, part)
        except PipelineError:
            _tidy(folder, made)
            raise
        other = _obstacle(folder, part, mine)
        if other is None:
            break
        if path:
            path.unlink(missing_ok=True)
        line = f"{run_dir} is in use: {_describe(*other)}"
        if not wait:
            _tidy(folder, made)
            raise PipelineError(
                f"{line}: wait for its end, choose another --run-dir, or delete {other[0]} if that "
                "process is gone"
            )
        if not told:
            say(f"{line}: waiting for it")
            told = True
        time.sleep(random.uniform(0.5, 1.5))  # two that wait for each other fall out of step
    over = threading.Event()
    if path:
        threading.Thread(target=_keep_fresh, args=(path, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if path:
            holder = _read(path)
            if holder is None or holder.is_same(mine):
                path.unlink(missing_ok=True)
        _tidy(folder, made)


def _take(folder: Path, part: str) -> tuple[Path | None, Holder]:
    """Write this process's lock; no path where it, or another process, has that one."""
    path, mine = folder / _name(part), Holder.here()
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return (path if _write(path, mine) else None), mine
        except FileNotFoundError:  # the folder was tidied away just now
            continue
        except OSError as error:
            number = system_error(error)
            if number is None:
                raise
            raise not_written(path, number, 0) from None


def _write(path: Path, mine: Holder) -> bool:
    """Write a lock that is not there yet; return False if it is."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(file, "w") as opened:
            opened.write(json.dumps(asdict(mine)))
    except BaseException:  # it would keep out the next command
        path.unlink(missing_ok=True)
        raise
    return True


def _obstacle(folder: Path, part: str, mine: Holder) -> tuple[Path, Holder | None] | None:
    """Another process's lock on the part, on one around it or on one within it."""
    for path in _overlapping(folder, part):
        holder = _read(path)
        if path.exists() and (holder is None or not holder.is_same(mine)):
            return path, holder
    return None


def _clear_stale(folder: Path, part: str) -> None:
    """Remove locks whose process is gone."""
    for path in _overlapping(folder, part):
        holder = _read(path)
        alive = holder.is_alive() if holder else None
        if alive is None:
            alive = _age_seconds(path) < _STALE_SECONDS
        if not alive:
            _remove(path, holder)


def _overlapping(folder: Path, part: str) -> list[Path]:
    """Locks on a part, on one around it and on those within it."""
    own = _name(part).removesuffix(".json")

    def overlaps(other: str) -> bool:
        if "run" in (own, other):
            return True
        return own == other or own.startswith(f"{other}.") or other.startswith(f"{own}.")

    return [p for p in sorted(folder.glob("*.json")) if overlaps(p.name.removesuffix(".json"))]


def _name(part: str) -> str:
    return f"{part.replace('/', '.') or 'run'}.json"


def _read(path: Path) -> Holder | None:
    """The lock's holder; None where it is gone or not yet written."""
    for _ in range(10):
        try:
            return Holder(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(0.05)  # being written
    return None


def _remove(path: Path, stale: Holder | None) -> None:
    """Remove a stale lock, and no other that was made in its place meanwhile."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) == stale:
        aside.unlink(missing_ok=True)
    else:
        aside.rename(path)


def _age_seconds(path: Path) -> float:
    """Seconds since the lock was touched, by the clock that its folder's files get."""
    clock = path.with_name(f"now.{os.getpid()}")
    try:
        clock.touch()
        return clock.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    finally:
        clock.unlink(missing_ok=True)


def _keep_fresh(path: Path, over: threading.Event) -> None:
    while not over.wait(_TOUCHED_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _tidy(folder: Path, made: bool) -> None:
    for place in [folder, folder.parent][: 2 if made else 1]:
        with contextlib.suppress(OSError):  # not empty: others work there, or there are results
            place.rmdir()


def _describe(path: Path, holder: Holder | None) -> str:
    part = path.name.removesuffix(".json").replace(".", "/")
    what = "the whole run" if part == "run" else part
    if holder is None:
        return f"another process works on {what} there"
    return (
        f"{holder.command} (process {holder.process} on {holder.host}) works on {what} there since "
        f"{holder.since}"
    )


def _system() -> str:
    """What tells one boot, and one container, from another; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(process: int) -> str:
    """When a process began, in ticks since boot; empty where it cannot be known."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
