"""Every file of a finished run changed in turn: found and named, made anew, or used silently?

In: a folder to work in, which gets a made-up competition and its run. Out: a line of counts a
command, and every trial that went wrong.
"""

import io
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmarks.chain import undisturbed
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.record import RECORD
from kaggle_pipeline.stages.make_submission import make_submission
from kaggle_pipeline.stages.pipeline import run_pipeline
from kaggle_pipeline.stages.predict import predict_images
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.verify import verify_run
from kaggle_pipeline.webapp.service import Service

_UNREAD = ("tensorboard", "predictions.csv")
"""What nothing of the package reads."""


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _empty(content: bytes) -> bytes:
    return b""


def _garble(content: bytes) -> bytes:
    return bytes(255 - one for one in content[:4096]) + content[4096:]


def _one_digit(content: bytes) -> bytes:
    """Another digit, or another bit, in the middle of the file."""
    middle = len(content) // 2
    for place in (*range(middle, len(content)), *range(middle)):
        if content[place : place + 1].isdigit():
            digit = (int(content[place : place + 1]) + 1) % 10
            return content[:place] + str(digit).encode() + content[place + 1 :]
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": _truncate, "empty": _empty, "garbage": _garble, "one digit": _one_digit
}  # fmt: skip


def measure_changes(
    work_dir: Path,
    commands: tuple[str, ...] = ("verify", "submission", "predict", "page"),
    every: int = 1,
    say: Callable[[str], None] = print,
) -> Counter:
    """Change each file of a run in four ways and run each command on the changed run.

    Parameters
    ----------
    work_dir : pathlib.Path
        Gets the data, the run and a copy of it that is changed.
    commands : tuple of str
        Of ``verify``, ``submission``, ``predict``, ``page`` and ``resume``.
    every : int
        Each how-manyeth trial is made.
    say : callable
        Takes a line.

    Returns
    -------
    collections.Counter
        Trials by command and outcome: ``named`` in one line, ``same`` result, ``different`` result
        without a word, ``traceback``.
    """
    undisturbed(work_dir)
    data_dir, run_dir = work_dir / "data" / "competition", work_dir / "whole"
    copy, photos = work_dir / "changed", work_dir / "photos"
    shutil.rmtree(copy, ignore_errors=True)
    names = sorted(
        path.relative_to(run_dir)
        for path in run_dir.rglob("*")
        if path.is_file() and not set(path.parts) & set(_UNREAD)
    )
    shutil.copytree(run_dir, copy)
    config = load_experiment(run_dir / "blend" / "config.yaml")
    given = (Run(config, data_dir, copy, resume=True, say=lambda line: None), photos)
    expected = {command: _try(command, *given) for command in commands}
    say(f"{len(names)} files, {len(CHANGES)} changes, {', '.join(commands)}")
    counts: Counter = Counter()
    for number, (name, kind) in enumerate((n, k) for n in names for k in CHANGES):
        if number % every:
            continue
        for command in commands:
            path, content = copy / name, (run_dir / name).read_bytes()
            changed = CHANGES[kind](content)
            if changed == content:
                continue
            path.write_bytes(changed)
            result = _try(command, *given)
            path.write_bytes(content)
            if command not in ("verify", "predict"):  # it may write
                shutil.rmtree(copy)
                shutil.copytree(run_dir, copy)
            outcome = _judge(command, name, result, expected[command])
            counts[command, outcome] += 1
            if outcome in ("traceback", "different", "two lines"):
                say(f"{outcome}: {name} {kind}, {command}: {str(result[1])[-600:]}")
    for command in commands:
        found = ", ".join(f"{n} {what}" for (of, what), n in counts.items() if of == command)
        say(f"{command}: {found}")
    return counts


def _judge(command: str, name: Path, result: tuple, expected: tuple) -> str:
    kind, content = result
    if kind == "error":
        return "two lines" if "\n" in content.strip() else "named"
    if kind == "traceback":
        return "traceback"
    if command == "verify" and name.name not in (RECORD, "manifest.json"):
        return "different"  # it must not pass
    return "same" if content == expected[1] else "different"


def _try(command: str, run: Run, photos: Path) -> tuple[str, object]:
    """Return ``(kind, content)``: the result's bytes, or an error's line or traceback."""
    run_dir, out = run.run_dir, photos.parent / "predictions.csv"
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if command == "verify":
                verify_run(run_dir, files_only=True, say=lambda line: None)
                return "result", b""
            if command == "predict":
                predict_images(run_dir, photos, out, overwrite=True, say=lambda line: None)
                return "result", out.read_bytes()
            if command == "page":
                return "result", _read_by_page(run_dir, sorted(photos.iterdir())[0])
            (run_pipeline if command == "resume" else make_submission)(run)
            return "result", (run_dir / "submission.csv").read_bytes()
    except PipelineError as error:
        return "error", str(error)
    except Exception:
        return "traceback", traceback.format_exc()


def _read_by_page(run_dir: Path, photo: Path) -> bytes:
    """The probabilities that the page gives a photo, and its doubts."""
    service = Service(run_dir)
    try:
        look = service.look(photo.name, photo.read_bytes())
        reading = service.read([look], [{}])[0]
        return repr((dict(reading.probability), reading.decision, look.doubts)).encode()
    finally:
        service.close()
