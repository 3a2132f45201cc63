"""Kaggle from outside: build kernels, push them one after the other, submit.

In: an experiment, kernels' folders, a submission. Out: scripts, the kernels' outputs and logs here,
a submission there. All through Kaggle's own command line.
"""

import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.kagglecli import kaggle
from kaggle_pipeline.kernel import METADATA, Build, build_kernels
from kaggle_pipeline.rundir import read_json, write_json
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.session import SESSION
from kaggle_pipeline.submission import check_submission

_LAST_LINES = 20
_POLLS_FORGIVEN = 5
"""Questions in a row that may fail before waiting is given up: a night is long."""


def build(run: Run, root: Path, out: Path, **wishes: Any) -> list[Path]:
    """Build every kernel for the run's experiment; ``wishes`` are those of :class:`Build`."""
    found = Build(experiment=run.config, source=run.spec.kaggle, **wishes)
    folders = build_kernels(root, out, found)
    for folder in folders:
        size = (folder / read_json(folder / METADATA)["code_file"]).stat().st_size
        run.say(f"{folder}: {size / 1000:.0f} kB of {1000} that Kaggle takes")
    run.say(f"push them: python scripts/push_kernels.py {' '.join(map(str, folders))}")
    return folders


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
    """

    out: Path
    poll_seconds: float = 60.0
    restarts: int = 5
    wait: bool = True


def push_kernels(folders: Sequence[Path], how: Pushing, say: Any = print) -> None:
    """Push kernels, each when those that it reads are done; fetch their outputs.

    Raises
    ------
    PipelineError
        With Kaggle's own sentence, if it refuses one or one fails there.
    """
    metadata = {Path(folder): _metadata(Path(folder)) for folder in folders}
    running: dict[str, Path] = {}
    for folder in _in_order(metadata):
        for source in metadata[folder]["kernel_sources"]:
            if source in running and how.wait:
                _finish(source, running.pop(source), how, say)
        say(push(folder))
        running[metadata[folder]["id"]] = folder
    if how.wait:
        for identity, folder in running.items():
            _finish(identity, folder, how, say)


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


def _metadata(folder: Path) -> dict[str, Any]:
    content = read_json(folder / METADATA)
    if not (folder / content.get("code_file", "")).is_file():
        raise PipelineError(f"{folder} has no script yet: python scripts/build_kernels.py")
    return content


def _in_order(metadata: dict[Path, dict[str, Any]]) -> list[Path]:
    """Folders, those that read another's output after it."""
    left, order = dict(metadata), []
    while left:
        waiting = {content["id"] for content in left.values()}
        ready = [
            folder
            for folder, content in left.items()
            if not waiting & ({*content["kernel_sources"]} - {content["id"]})
        ]
        if not ready:
            raise PipelineError(f"{', '.join(map(str, left))} read each other's output")
        order += ready
        for folder in ready:
            del left[folder]
    return order


def _finish(identity: str, folder: Path, how: Pushing, say: Any) -> None:
    """Wait for a kernel, fetch what it leaves, push it again while it stops for lack of time."""
    for again in range(how.restarts + 1):
        state, message = _wait(identity, how.poll_seconds, say)
        place = fetch_output(identity, how.out)
        if state != "complete":
            for line in _log_tail(place / f"{identity.rpartition('/')[2]}.log"):
                say(f"  {line}")
            raise PipelineError(f"{identity} ended with {state}: {message or 'see the log above'}")
        say(f"{identity}: complete, output in {place}")
        session = place / SESSION
        if not session.exists() or read_json(session)["state"] == "done":
            return
        if again < how.restarts:
            say(f"{identity} stopped in time: {read_json(session)['because']}; pushed again")
            say(push_again(folder, identity))
    raise PipelineError(f"{identity} is still not done after {how.restarts} restarts")


def push_again(folder: Path, identity: str) -> str:
    """Push a kernel with its own last output as one of its inputs."""
    with tempfile.TemporaryDirectory() as temporary:
        content = read_json(folder / METADATA)
        content["kernel_sources"] = sorted({*content["kernel_sources"], identity})
        write_json(Path(temporary) / METADATA, content)
        shutil.copyfile(folder / content["code_file"], Path(temporary) / content["code_file"])
        return push(Path(temporary))


def _wait(identity: str, poll_seconds: float, say: Any) -> tuple[str, str]:
    """Return the state in which a kernel ended, and Kaggle's message if there is one."""
    before, failed = "", 0
    while True:
        try:
            text = kaggle("kernels", "status", identity, accepted=lambda text: "status" in text)
        except PipelineError:
            failed += 1
            if failed > _POLLS_FORGIVEN:
                raise
            time.sleep(poll_seconds)
            continue
        failed = 0
        state = re.search(r'has status "(?:\w+\.)?(\w+)"', text)[1].lower()
        message = re.search(r'Failure message: "(.*)"', text, re.DOTALL)
        if state != before:
            say(f"{identity}: {state}")
        if state in ("complete", "error", "cancel_acknowledged", "cancelacknowledged"):
            return state, message[1] if message else ""
        before = state
        time.sleep(poll_seconds)


def fetch_output(identity: str, out: Path) -> Path:
    """Fetch a kernel's output and log into a folder named after it; return the folder."""
    place = Path(out) / identity.rpartition("/")[2]
    place.mkdir(parents=True, exist_ok=True)
    kaggle(
        "kernels", "output", identity, "-p", str(place), "--force",
        accepted=lambda text: True, seconds=3600,
    )  # fmt: skip
    return place


def _log_tail(path: Path) -> list[str]:
    """Last lines of a kernel's log, which Kaggle keeps as JSON, a piece of text an entry."""
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # plain text, as of some failures
        text = "".join(entry["data"] for entry in json.loads(text))
    return text.splitlines()[-_LAST_LINES:]


def submit(spec: DatasetSpec, file: Path, sample: Path, message: str, say: Any = print) -> None:
    """Check a submission against the competition's sample, then hand it in.

    Raises
    ------
    PipelineError
        If a file is missing, the check finds a fault, or Kaggle refuses.
    """
    kind, _, slug = spec.kaggle.partition("/")
    if kind != "competitions":
        raise PipelineError(f"{spec.id} is no competition on Kaggle: nothing to submit to")
    tables = []
    for path in (Path(file), Path(sample)):
        if not path.exists():
            raise PipelineError(f"{path} does not exist")
        tables.append(pd.read_csv(path, dtype={spec.submission.id_column: str}))
    check_submission(tables[0], spec, tables[1])
    say(f"{file}: {len(tables[0])} rows, checked against {sample}")
    text = kaggle(
        "competitions", "submit", slug, "-f", str(file), "-m", message,
        accepted=lambda text: "success" in text.lower(), seconds=3600,
    )  # fmt: skip
    say(text.strip().splitlines()[-1])
    say(f"score: kaggle competitions submissions {slug}")
