"""Readers under hostile input for minutes: executions, kinds of faults, coverage of each reader.

In: names of readers. Out: a line a reader; each fault's smallest input in a folder. Changes follow
coverage where atheris is installed, else they are drawn blindly.
"""

import hashlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.page import resident_mib
from benchmarks.readers import READERS, attempt, corpus
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError

_MAX_SECONDS, _MAX_MIB = 5, 1500
_PATIENCE = 20
"""A process is ended only after so many times as long: the machine may be busy."""
_MAX_BYTES = 8192
_ENDS = {70: "an input took too long", 71: "too much memory", 77: "a crash"}
"""Exit codes, libFuzzer's and those of :func:`_limited`."""
_LAST_SECONDS = 300
"""A process that does not end so long after its time is ended, whatever it does."""


def measure_fuzz(
    place: Path,
    seconds: float = 30,
    names: Sequence[str] = tuple(READERS),
    say: Callable[[str], None] = print,
) -> None:
    """Give every reader hostile input for a while, each in a process of its own.

    Parameters
    ----------
    place : pathlib.Path
        Gets the inputs that found something new, and in ``faults/`` those that are faults.
    seconds : float
        A reader.
    names : sequence of str
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a reader raised anything but a PipelineError of one line, took more than 5 s or 1.5 GB.
    """
    faults = 0
    say(f"{'reader':>12}{'executions':>12}{'seconds':>9}{'taken':>9}{'faults':>8}  lines reached")
    for name in names:
        folder = Path(place) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "found.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.fuzz", name, str(folder), str(seconds)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=CHECKOUT, check=False,
                timeout=seconds + _LAST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PipelineError(f"{name}: its process did not end") from None
        if not (folder / "found.json").exists():
            raise PipelineError(f"{name}: its process died: {' '.join(done.stderr.split())[-600:]}")
        found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
        if done.returncode:  # a crash, too much memory or time; the input is in folder
            what = _ENDS.get(done.returncode, f"code {done.returncode}")
            found["faults"][f"its process died: {what}"] = str(folder)
        say(
            f"{name:>12}{found['executions']:>12}{found['seconds']:>9.0f}{found['taken']:>9}"
            f"{len(found['faults']):>8}  {_reached(name, folder)}"
        )
        for kind, path in found["faults"].items():
            say(f"    {kind}: {path}")
        faults += len(found["faults"])
    if faults:
        raise PipelineError(f"{faults} kinds of faults: see {place}")


def _reached(name: str, folder: Path) -> str:
    """Share of the lines of each of a reader's modules, by the inputs that were kept."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--coverage", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    if done.returncode:
        return "not measured: " + (done.stderr.splitlines() or ["?"])[-1]
    found = json.loads(done.stdout)
    return ", ".join(f"{module} {reached}/{of}" for module, (reached, of) in found.items())


class Hunt:
    """One reader's run: counts what happens, and keeps an input of each kind of fault.

    Parameters
    ----------
    name : str
    folder : pathlib.Path
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._reader, self._folder = READERS[name], folder
        self._work = folder / "work"
        self._work.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self.executions = self.taken = 0
        self.faults: dict[str, str] = {}
        self.current: tuple[bytes, float] = (b"", self._began)
        self._written = self._began

    def one(self, content: bytes) -> None:
        """Read ``content``; a fault is kept, not raised."""
        self.executions += 1
        self.current = content, time.monotonic()
        began = time.process_time()  # the machine may be busy with something else
        try:
            self.taken += attempt(self._reader, self._work, content) is None
            kind = None
        except Exception as error:
            kind = f"{type(error).__name__} {_place(error)}"
        if self.executions > 1 and time.process_time() - began > _MAX_SECONDS:  # the first imports
            kind = kind or f"more than {_MAX_SECONDS} s"
        if kind is not None:
            self._keep(kind, content)
        if time.monotonic() - self._written > 1:  # atheris ends the process without a word
            self.write()

    def _keep(self, kind: str, content: bytes) -> None:
        path = self._folder / "faults" / hashlib.sha256(kind.encode()).hexdigest()[:12]
        if kind not in self.faults or len(content) < path.stat().st_size:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            self.faults[kind] = str(path)

    def write(self) -> None:
        """Write down what was found."""
        self._written = time.monotonic()
        seconds = self._written - self._began
        found = {
            "executions": self.executions, "seconds": round(seconds, 1), "taken": self.taken,
            "faults": self.faults,
        }  # fmt: skip
        text = json.dumps(found, indent=1)
        (self._folder / "found.json").write_text(text, encoding="utf-8")


def _place(error: Exception) -> str:
    """The last function of this package on the way to the error, or what it says."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "kaggle_pipeline" in frame.filename
    ]
    if not frames:
        return f"{' '.join(str(error).split())[:70]}"
    return f"in {Path(frames[-1].filename).name}:{frames[-1].name}"


def changed(
    content: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random
) -> bytes:
    """Return content with some bytes dropped, doubled, flipped, or words put in."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1)
        to = min(len(found), at + rng.choice((1, 2, 8, 60)))
        match rng.randrange(6):
            case 0:
                del found[at:to]
            case 1:
                found[at:at] = found[at:to]
            case 2 if found:
                found[min(at, len(found) - 1)] = rng.randrange(256)
            case 3:
                found[at:to] = rng.choice(words or (b"\0\0\0\0", b"\xff\xff\xff\xff"))
            case 4:
                found[at:at] = rng.choice(words or (b"\0", b"\xff"))
            case _:
                other = rng.choice(others)
                begin = rng.randrange(len(other) + 1)
                found[at:to] = other[begin : begin + rng.choice((4, 40, 400))]
    return bytes(found[:_MAX_BYTES])


def _limited(hunt: Hunt, folder: Path) -> None:
    """End this process where an input takes too much time or memory, as libFuzzer does."""
    while True:
        time.sleep(0.05)
        content, since = hunt.current
        memory = resident_mib(os.getpid()) > _MAX_MIB
        if memory or time.monotonic() - since > _MAX_SECONDS * _PATIENCE:
            (folder / f"{'oom' if memory else 'timeout'}-input").write_bytes(content)
            hunt.write()
            os._exit(71 if memory else 70)


def _blindly(hunt: Hunt, name: str, folder: Path, seconds: float) -> None:
    threading.Thread(target=_limited, args=(hunt, folder), daemon=True).start()
    rng, seeds = random.Random(0), corpus(name)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        hunt.one(changed(rng.choice(seeds), seeds, READERS[name].words, rng))


def _by_coverage(hunt: Hunt, name: str, folder: Path, seconds: float) -> None:
    """Let atheris change what reached new lines; it ends the process."""
    import atheris

    kept = folder / "corpus"
    kept.mkdir(exist_ok=True)
    for number, seed in enumerate(corpus(name)):
        (kept / f"seed{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(
        '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in READERS[name].words
    ))  # fmt: skip
    options = [f"-max_total_time={seconds:.0f}", f"-max_len={_MAX_BYTES}",
               *([f"-dict={words}"] if READERS[name].words else []),
               f"-timeout={_MAX_SECONDS * _PATIENCE}", f"-rss_limit_mb={_MAX_MIB}", "-seed=1",
               f"-artifact_prefix={folder}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(kept)], hunt.one)
    atheris.Fuzz()


def _import_all(name: str) -> None:
    """Import what the reader uses; atheris must see it happen."""
    modules = [f"kaggle_pipeline.{one}" for one in READERS[name].modules]
    try:
        import atheris
    except ImportError:
        return
    with atheris.instrument_imports(include=["kaggle_pipeline"], enable_loader_override=False):
        for one in modules:
            importlib.import_module(one)


def measure_coverage(name: str, contents: Sequence[bytes]) -> dict[str, tuple[int, int]]:
    """Return for each module of a reader how many of its lines these contents reach, and of how
    many."""
    from coverage import Coverage

    files = [
        str(CHECKOUT / "kaggle_pipeline" / f"{one.replace('.', '/')}.py")
        for one in READERS[name].modules
    ]
    seen = Coverage(data_file=None, include=files)
    seen.start()
    with tempfile.TemporaryDirectory() as folder:
        hunt = Hunt(name, Path(folder))
        for content in contents:
            hunt.one(content)
    seen.stop()
    found = {}
    for module, path in zip(READERS[name].modules, files, strict=True):
        _, lines, _, missing, _ = seen.analysis2(path)
        found[module] = (len(lines) - len(missing), len(lines))
    return found


def _main(name: str, folder: Path, seconds: float) -> None:
    _import_all(name)
    hunt = Hunt(name, folder)
    for seed in corpus(name):
        hunt.one(seed)
    if "atheris" in sys.modules:
        _by_coverage(hunt, name, folder, seconds)
    else:
        _blindly(hunt, name, folder, seconds)
    hunt.write()


if __name__ == "__main__":
    if sys.argv[1] == "--coverage":
        _contents = [one.read_bytes() for one in (Path(sys.argv[3]) / "corpus").glob("*")]
        _found = measure_coverage(sys.argv[2], [*corpus(sys.argv[2]), *_contents])
        sys.stdout.write(json.dumps(_found))
    else:
        _main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
