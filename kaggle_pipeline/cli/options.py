"""Options that several commands take, and the run that they describe."""

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_pipeline.config.names import DEFAULT_CONFIG

if TYPE_CHECKING:
    from kaggle_pipeline.stages.run import Run


def add_experiment_options(parser: argparse.ArgumentParser, *, of_run: bool = False) -> None:
    """Add what says which experiment, data and run folder.

    ``of_run``: of the run in ``--run-dir``, where there is one, settings and data are taken that
    are not said.
    """
    config, data = "configs/siim_isic_2020.yaml", "data/<dataset of the config>"
    if of_run:
        config, data = f"that of --run-dir's run, else {config}", f"that of the run, else {data}"
    parser.add_argument(
        "--config", type=Path, default=None if of_run else DEFAULT_CONFIG,
        help=f"experiment file (default: {config})",
    )  # fmt: skip
    parser.add_argument("--data-dir", type=Path, help=f"raw data (default: {data})")
    parser.add_argument("--run-dir", type=Path, help="results (default: runs/<name of the config>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change one setting, such as image.epochs=3; may be repeated",
    )  # fmt: skip
    parser.set_defaults(of_run=of_run)


def add_run_folder(
    parser: argparse.ArgumentParser, help: str, *, default: Path | None = None
) -> None:
    """Add the run that a command reads: ``RUN_DIR`` or ``--run-dir RUN_DIR``, which are the same.

    :func:`run_folder` and :func:`run_folders` read what was said.
    """
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN_DIR", help=help)
    parser.add_argument(
        "--run-dir", type=Path, action="append", default=[], metavar="RUN_DIR",
        help="the same, by name",
    )  # fmt: skip
    parser.set_defaults(otherwise=default)


def run_folders(options: argparse.Namespace) -> list[Path]:
    """Return the runs that were named, one at least.

    Raises
    ------
    PipelineError
        If a folder is no run.
    """
    from kaggle_pipeline.config.run_folders import require_run

    found = [*options.runs, *options.run_dir]
    if not found and options.otherwise is None:
        options.refuse("name a run's folder")
    if not found and not options.otherwise.is_dir():
        return [options.otherwise]  # the command says how it is made
    for one in found:
        require_run(one)
    return found or [options.otherwise]


def run_folder(options: argparse.Namespace) -> Path:
    """Return the one run that was named; see :func:`run_folders`."""
    found = run_folders(options)
    if len(found) > 1:
        options.refuse(f"name one run's folder, not {len(found)}")
    return found[0]


def add_run_options(
    parser: argparse.ArgumentParser,
    resume: str = "go on with what is in the run folder",
    overwrite: str = "delete this stage's results first (with --fold those of these folds), and "
    "the blend and the submission, which were made of them",
) -> None:
    """Add what a command that writes into a run folder takes.

    ``resume`` and ``overwrite`` say what these options do to it.
    """
    add_experiment_options(parser, of_run=True)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=resume)
    again.add_argument("--overwrite", action="store_true", help=overwrite)


def add_fold_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--fold``."""
    parser.add_argument(
        "--fold",
        type=int,
        action="append",
        metavar="K",
        help="train this fold only; may be repeated",
    )


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--tpu`` and ``--max-hours``."""
    add_tpu_option(parser)
    parser.add_argument(
        "--max-hours", type=hours, metavar="H",
        help="stop before so many hours with everything saved (exit code 75), for --resume",
    )  # fmt: skip


def add_tpu_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--tpu``."""
    parser.add_argument(
        "--tpu", action="store_true", help="train on a TPU, or fail if there is none"
    )


def hours(text: str) -> float:
    """Return a number of hours above 0, or raise what argparse turns into an error."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of hours above 0")
    return number


def make_run(options: argparse.Namespace) -> "Run":
    """Return the run that the parsed options describe; say what is taken from one that is there.

    Raises
    ------
    PipelineError
        If the config or an override is wrong.
    """
    from kaggle_pipeline.config.loading import load_experiment
    from kaggle_pipeline.config.run_settings import (
        load_experiment_here,
        settings_of_run,
        source_of_run,
    )
    from kaggle_pipeline.core.deadline import Deadline
    from kaggle_pipeline.core.files import meant_instead
    from kaggle_pipeline.stages.run import Run

    overrides = list(options.overrides)
    beam = getattr(options, "beam", None)
    if getattr(options, "tpu", False):
        overrides.append("device=tpu")
    own, taken = None, []
    if options.config is None and options.run_dir:
        own = settings_of_run(options.run_dir)
    if own is not None:
        config = load_experiment_here(options.run_dir, overrides, own)
        taken.append("settings")
    else:
        config = load_experiment(options.config or DEFAULT_CONFIG, overrides)
    run_dir = options.run_dir or Path("runs") / config.name
    data_dir = options.data_dir
    if data_dir is None and options.of_run:
        own = own or settings_of_run(run_dir)
        # A config of another data set, by --overwrite, has its data elsewhere.
        if own and own.get("dataset") == config.dataset and (data_dir := source_of_run(run_dir)):
            taken.append(f"data folder {data_dir}")
    if taken:
        others = "--config, --set and --data-dir say others"
        print(f"taken from {run_dir}: {', '.join(taken)} ({others})")
    if getattr(options, "resume", False) and not run_dir.is_dir():
        print(f"note: there is no {run_dir} to go on with, so it begins{meant_instead(run_dir)}")
    return Run(
        config,
        data_dir or Path("data") / config.dataset,
        run_dir,
        resume=getattr(options, "resume", False),
        overwrite=getattr(options, "overwrite", False),
        interactive=sys.stdout.isatty(),
        deadline=Deadline.after(getattr(options, "max_hours", None)),
        beam=None if beam is None else shlex.split(beam),
    )
