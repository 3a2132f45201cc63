"""Kaggle's own command line: called, and read, since its exit code is 0 for much that it refuses.

In: words for ``kaggle``. Out: what it said, or an error with Kaggle's own sentence.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec

Answer = TypeVar("Answer")

_REFUSED = re.compile(
    r"(error|denied|forbidden|unauthorized|not found|could not (find|submit|be added)|invalid"
    r"|not valid|does not|do not|must |unable to|failed)",
    re.IGNORECASE,
)
_UTF_8 = {"PYTHONIOENCODING": "utf-8"}
"""What it prints is read as this, whatever the console here is."""
_NOISE = re.compile(
    r"(warning: looks like you're using an outdated|please consider upgrading)", re.I
)


def kaggle(*words: str, accepted: Callable[[str], bool], seconds: float = 600) -> str:
    """Run ``kaggle`` with ``words`` and return what it printed.

    Parameters
    ----------
    *words : str
    accepted : callable
        Whether the text says that Kaggle did what was asked.
    seconds : float
        How long it may take.

    Raises
    ------
    PipelineError
        If it is not installed, takes too long, or says that Kaggle refused.
    """
    command = _program()
    what = f"kaggle {' '.join(words[:2])}"
    try:
        done = subprocess.run(
            [command, *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
            env=os.environ | _UTF_8,
        )
    except subprocess.TimeoutExpired:
        raise PipelineError(f"{what}: no answer in {seconds:.0f} s") from None
    text = done.stdout + done.stderr
    if done.returncode or not accepted(done.stdout):
        raise PipelineError(f"{what}: {refusal(text)}")
    return done.stdout


def start(*words: str) -> "subprocess.Popen[str]":
    """Start ``kaggle`` with ``words``; what it prints can be read as it comes, errors apart.

    Raises
    ------
    PipelineError
        If it is not installed.
    """
    return subprocess.Popen(
        [_program(), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env=os.environ | _UTF_8,
    )


def patiently(ask: Callable[[], Answer], pauses: Iterable[float]) -> Answer:
    """Return what ``ask`` does, asked again after each pause, in seconds, that follows a refusal.

    Raises
    ------
    PipelineError
        The refusal after the last pause.
    """
    for pause in pauses:
        try:
            return ask()
        except PipelineError:
            time.sleep(pause)
    return ask()


def competition_of(spec: DatasetSpec, otherwise: str) -> str:
    """Return a data set's competition as Kaggle calls it.

    Raises
    ------
    PipelineError
        If there is none; ``otherwise`` says what follows from that.
    """
    kind, _, slug = spec.kaggle.partition("/")
    if kind != "competitions":
        raise PipelineError(f"{spec.id} is no competition on Kaggle: {otherwise}")
    return slug


def refusal(text: str) -> str:
    """Return the sentence of the command line's output that says why it refused."""
    if "uthentication required" in text or "kaggle.json" in text or "access_token" in text:
        return "not signed in: put a token from kaggle.com, Settings, API into ~/.kaggle"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.search(line)]
    telling = [line for line in lines if _REFUSED.search(line)]
    return (telling or lines or ["it said nothing"])[-1]


def _program() -> str:
    beside = Path(sys.executable).with_name("kaggle")
    found = str(beside) if beside.exists() else shutil.which("kaggle")
    if not found:
        raise PipelineError("the kaggle command is not installed: pip install '.[kaggle]'")
    return found
