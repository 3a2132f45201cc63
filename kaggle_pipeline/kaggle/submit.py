"""Hand a submission in, once it has passed the check, and wait for its score."""

import csv
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.data.submission import check_submission, read_submission
from kaggle_pipeline.kaggle.client import competition_of, kaggle, patiently

_FORGIVEN = 5
"""Questions in a row that may fail before waiting is given up."""


@dataclass(frozen=True)
class Waiting:
    """How long to wait for a score.

    Attributes
    ----------
    minutes : float
        0: hand in and leave.
    poll_seconds : float
        Between two looks.
    """

    minutes: float = 30.0
    poll_seconds: float = 10.0


def submit(
    spec: DatasetSpec,
    file: Path,
    sample: Path,
    message: str,
    waiting: Waiting = Waiting(),
    say: Callable[[str], None] = print,
) -> None:
    """Check a submission against the competition's sample, hand it in, say its scores.

    Raises
    ------
    PipelineError
        If a file is missing, the check finds a fault, Kaggle refuses, or cannot score it. Not
        where it took the file and does not tell the score.
    """
    slug = competition_of(spec, otherwise="nothing to submit to")
    tables = [read_submission(Path(path), spec) for path in (file, sample)]
    check_submission(tables[0], spec, tables[1])
    say(f"{file}: {len(tables[0])} rows, checked against {sample}")
    earlier = {row["ref"] for row in _submissions(slug)} if waiting.minutes else set()
    text = kaggle(
        "competitions", "submit", slug, "-f", str(file), "-m", message,
        accepted=lambda text: "success" in text.lower(), seconds=3600,
    )  # fmt: skip
    say(text.strip().splitlines()[-1])
    if not waiting.minutes or not _say_score(slug, message, earlier, waiting, say):
        say(f"score: kaggle competitions submissions {slug}")


def _say_score(
    slug: str,
    message: str,
    earlier: Collection[str],
    waiting: Waiting,
    say: Callable[[str], None],
) -> bool:
    """Say the scores of the submission that is not among ``earlier``.

    False if time is up first, or Kaggle does not say.
    """
    say(f"waiting up to {waiting.minutes:g} minutes for the score")
    until = time.monotonic() + 60 * waiting.minutes
    while True:
        try:
            rows = patiently(lambda: _submissions(slug), [waiting.poll_seconds] * _FORGIVEN)
        except PipelineError as error:  # what was handed in stays so
            say(f"the score cannot be asked for: {error}")
            return False
        ours = [
            row for row in rows
            if row["ref"] not in earlier and row["description"].split() == message.split()
        ]  # fmt: skip
        state = ours[0]["status"].rpartition(".")[2].lower() if ours else "pending"
        if state == "complete":
            # A competition that has not ended keeps its private score to itself.
            public, private = (ours[0][name] or "not told" for name in _SCORES)
            say(f"public score {public}, private score {private}")
            return True
        if state != "pending":
            raise PipelineError(
                f"Kaggle could not score it ({state}): see the page of your submissions to {slug}"
            )
        if time.monotonic() + waiting.poll_seconds > until:
            return False
        time.sleep(waiting.poll_seconds)


_SCORES = ("publicScore", "privateScore")


def _submissions(slug: str) -> list[dict[str, str]]:
    """The last submissions to a competition, newest first, as Kaggle's command line lists them."""
    text = kaggle(
        "competitions", "submissions", slug, "--csv",
        accepted=lambda text: "publicScore" in text or "No submissions found" in text,
    )  # fmt: skip
    lines = text.splitlines(keepends=True)  # a message may have several
    head = next((i for i, line in enumerate(lines) if "publicScore" in line), len(lines))
    return list(csv.DictReader(lines[head:], restval=""))
