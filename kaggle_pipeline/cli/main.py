"""The command line: all commands of the package; ``scripts/`` call it."""

from collections.abc import Sequence

from kaggle_pipeline.cli.command import run_command
from kaggle_pipeline.cli.hardware_commands import HARDWARE_COMMANDS
from kaggle_pipeline.cli.kaggle_commands import KAGGLE_COMMANDS
from kaggle_pipeline.cli.look_commands import LOOK_COMMANDS
from kaggle_pipeline.cli.stage_commands import STAGE_COMMANDS

COMMANDS = (*STAGE_COMMANDS, *LOOK_COMMANDS, *HARDWARE_COMMANDS, *KAGGLE_COMMANDS)
"""A new command is an entry in one of these tables and a file of three lines in ``scripts/``."""
GROUPS = {
    "start here": ("make-synthetic", "plan", "run-pipeline", "predict", "serve"),
    "one stage of run-pipeline": (
        "prepare-data", "train-image", "embed", "train-embedding", "train-tabular",
        "make-submission", "blend-scores",
    ),
    "look at data and runs": (
        "explore-data", "compare-runs", "results-table", "score-submission", "audit-labels",
        "verify-run",
    ),
    "give a run to others": ("export-model", "bundle"),
    "Kaggle": ("download-data", "build-kernels", "push-kernels", "submit"),
    "hardware and networks": ("preflight", "smoke", "list-backbones"),
}  # fmt: skip
"""How ``--help`` lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    return run_command(COMMANDS, arguments, GROUPS)
