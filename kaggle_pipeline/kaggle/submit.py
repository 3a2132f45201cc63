"""Hand a submission in, once it has passed the check."""

from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.data.submission import check_submission, read_submission
from kaggle_pipeline.kaggle.client import competition_of, kaggle


def submit(
    spec: DatasetSpec,
    file: Path,
    sample: Path,
    message: str,
    say: Callable[[str], None] = print,
) -> None:
    """Check a submission against the competition's sample, then hand it in.

    Raises
    ------
    PipelineError
        If a file is missing, the check finds a fault, or Kaggle refuses.
    """
    slug = competition_of(spec, otherwise="nothing to submit to")
    tables = [read_submission(Path(path), spec) for path in (file, sample)]
    check_submission(tables[0], spec, tables[1])
    say(f"{file}: {len(tables[0])} rows, checked against {sample}")
    text = kaggle(
        "competitions", "submit", slug, "-f", str(file), "-m", message,
        accepted=lambda text: "success" in text.lower(), seconds=3600,
    )  # fmt: skip
    say(text.strip().splitlines()[-1])
    say(f"score: kaggle competitions submissions {slug}")
