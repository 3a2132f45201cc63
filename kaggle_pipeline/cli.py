"""The command line: one parser, a subcommand a stage; ``scripts/`` call it.

In: words. Out: an exit code: 0, 75 when ``--max-hours`` are up, or 2 with one line on standard
error that says what to mend.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_pipeline import DISCLAIMER, __version__
from kaggle_pipeline.benchcli import run_benchmark
from kaggle_pipeline.cliexamples import EXAMPLES
from kaggle_pipeline.clioptions import (
    DEFAULT_CONFIG,
    Parser,
    add_beam_option,
    add_benchmark_options,
    add_build_options,
    add_download_options,
    add_experiment_options,
    add_hardware_options,
    add_model_options,
    add_preflight_options,
    add_push_options,
    add_results_options,
    add_run_options,
    add_serve_options,
    add_submit_options,
    add_synthetic_options,
    add_tpu_option,
)
from kaggle_pipeline.deadline import OutOfTime
from kaggle_pipeline.errors import PipelineError, describe_missing

if TYPE_CHECKING:
    from kaggle_pipeline.stages.run import Run

OUT_OF_TIME = 75
"""Exit code after ``--max-hours``: not done, not failed (EX_TEMPFAIL of BSD's sysexits)."""
_GO_ON = "run the same command with --resume to go on"
_ROOT = Path(__file__).resolve().parent.parent


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = Parser(prog="kaggle_pipeline", description=DISCLAIMER)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        script = f"scripts/{name.replace('-', '_')}.py"
        return commands.add_parser(
            name,
            prog=f"python {script}",
            help=text,
            description=f"{text} {DISCLAIMER}",
            epilog=f"examples:{EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    prepare = add("prepare-data", "Audit the raw data for leaks, make folds and TFRecords.")
    add_run_options(prepare)
    add_beam_option(prepare)
    image = add("train-image", "Cross-validate the image model; OOF and test predictions by id.")
    add_run_options(image)
    add_model_options(image)
    add_hardware_options(image)
    tabular = add("train-tabular", "Cross-validate the dense network on patient metadata.")
    add_run_options(tabular)
    add_model_options(tabular)
    add_run_options(add("make-submission", "Blend the trained models and write submission.csv."))
    add_run_options(add("blend-scores", "Compare ways to blend finished scores; use the best."))
    whole = add("run-pipeline", "All stages in a row: raw folder to submission.csv.")
    add_run_options(whole)
    add_hardware_options(whole)
    add_synthetic_options(add("make-synthetic", "Write a made-up competition for tests and demos."))
    _add_other_tools(add)
    score = add("score-submission", "Score a submission against truth that was kept apart.")
    score.add_argument("--submission", type=Path, required=True)
    score.add_argument("--truth", type=Path, required=True)
    score.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    add_preflight_options(
        add("preflight", "Compile the training step for a TPU that is not there; predict its cost.")
    )
    smoke = add("smoke", "Time the real training step on the device at hand, on made-up images.")
    add_experiment_options(smoke)
    add_tpu_option(smoke)
    smoke.add_argument(
        "--beside", type=Path, metavar="FILE", help="what preflight --json predicted for it"
    )
    smoke.add_argument("--steps", type=int, default=10, help="default: 10")
    add_build_options(add("build-kernels", "Build the scripts that Kaggle takes, one a kernel."))
    add_push_options(add("push-kernels", "Push kernels in turn, wait, fetch logs and outputs."))
    add_submit_options(add("submit", "Check a submission, then hand it in on Kaggle."))
    add_download_options(add("download-data", "Fetch the competition's data from Kaggle."))
    add_benchmark_options(add("benchmark", "Measure what is too slow for a test."))
    return parser


def _add_other_tools(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    predict = add("predict", "Predict a folder of new photos with a run's trained image models.")
    predict.add_argument("--run-dir", type=Path, required=True, help="with a trained image/")
    predict.add_argument("--images", type=Path, required=True, help="JPEG, PNG or DICOM files")
    predict.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), help="default: %(default)s"
    )
    predict.add_argument("--overwrite", action="store_true", help="write over an existing --out")
    predict.add_argument("--device", choices=["auto", "cpu", "gpu", "tpu"], default="auto")
    add_serve_options(add("serve", "Show a page that reads lesions with a trained run."))
    explore = add("explore-data", "Draw a data set: classes, ages, sites, gaps, sample photos.")
    explore.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="says which data set")
    explore.add_argument("--data-dir", type=Path, help="default: data/<dataset of the config>")
    explore.add_argument("--out", type=Path, help="default: pictures/<dataset>")
    compare = add("compare-runs", "Print the scores of several runs in one table.")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    add_results_options(add("results-table", "Write what runs reached as a Markdown table."))
    backbones = add("list-backbones", "Print every backbone: parameters, input range, output.")
    backbones.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    backbones.add_argument("--image-size-px", type=int, default=1024, help="default: 1024")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except OutOfTime as stop:
        print(f"stopped in time: {stop}; {_GO_ON}", file=sys.stderr)
        return OUT_OF_TIME
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "kaggle_pipeline").startswith("kaggle_pipeline"):
            raise
        print(f"error: {describe_missing(error.name)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written, a file in its place
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: {_GO_ON}", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> "Run":
    from kaggle_pipeline.configfile import load_experiment
    from kaggle_pipeline.deadline import Deadline
    from kaggle_pipeline.stages.run import Run

    overrides = list(options.overrides)
    beam = getattr(options, "beam", None)
    if getattr(options, "tpu", False):
        overrides.append("device=tpu")
    config = load_experiment(options.config, overrides)
    return Run(
        config,
        options.data_dir or Path("data") / config.dataset,
        options.run_dir or Path("runs") / config.name,
        resume=getattr(options, "resume", False),
        overwrite=getattr(options, "overwrite", False),
        interactive=sys.stderr.isatty(),
        deadline=Deadline.after(getattr(options, "max_hours", None)),
        beam=None if beam is None else shlex.split(beam),
    )


def _stage(module: str, name: str) -> Callable[[argparse.Namespace], None]:
    """Return a command that imports its stage only when it is called: --help stays quick."""

    def call(options: argparse.Namespace) -> None:
        stage = getattr(import_module(f"kaggle_pipeline.stages.{module}"), name)
        extra = {"only": options.fold} if hasattr(options, "fold") else {}
        stage(_run(options), **extra)

    return call


def _make_synthetic(options: argparse.Namespace) -> None:
    from kaggle_pipeline.datasets.generators import generate_like
    from kaggle_pipeline.datasets.synthetic import generate
    from kaggle_pipeline.stages.run import Progress

    of_patients = options.dataset == "siim_isic_2020"
    expected = round(options.patients * options.mean_images) if of_patients else options.images
    with Progress(expected, "draw", "image", sys.stderr.isatty()) as progress:
        common = {
            "image_size_px": options.image_size_px, "seed": options.seed, "progress": progress
        }  # fmt: skip
        if of_patients:
            size = {"patients": options.patients, "mean_images": options.mean_images}
            generate(options.out, **size, **common)
        else:
            generate_like(options.dataset, options.out, images=options.images, **common)
    truth = options.out / "truth.csv"
    print(f"wrote {options.out / 'competition'}" + (f" and {truth}" if truth.exists() else ""))


def _predict(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.predict import predict_images

    predict_images(
        options.run_dir, options.images, options.out,
        device=options.device, overwrite=options.overwrite,
    )  # fmt: skip
    print(DISCLAIMER)


def _serve(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.serve import serve

    serve(options.run_dir, host=options.host, port=options.port)


def _explore_data(options: argparse.Namespace) -> None:
    from kaggle_pipeline.configfile import load_experiment
    from kaggle_pipeline.stages.look import explore_data

    dataset = load_experiment(options.config).dataset
    explore_data(
        dataset,
        options.data_dir or Path("data") / dataset,
        options.out or Path("pictures") / dataset,
    )


def _compare_runs(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.look import compare_runs

    print(compare_runs(options.runs))


def _results_table(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.results import update_table

    update_table(options.runs, options.update)


def _list_backbones(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.look import describe_backbones

    print(describe_backbones(options.names, options.image_size_px))


def _score_submission(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.submit import score_submission

    print(score_submission(options.submission, options.truth, options.seed))


def _preflight(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.preflight import preflight_run

    preflight_run(
        _run(options), options.topology, backend=options.backend, json_path=options.json,
        weekly_hours=options.weekly_hours, find_largest=options.largest_batch,
    )  # fmt: skip


def _smoke(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.preflight import smoke_run

    smoke_run(_run(options), beside=options.beside, steps=max(1, options.steps))


def _build_kernels(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.kaggle import build

    build(
        _run(options), _ROOT, options.out, options.overrides, owner=options.owner,
        hardware=options.hardware, folds=tuple(options.fold or ()), weights=options.weights,
        keep_records=options.keep_records,
    )  # fmt: skip


def _push_kernels(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.push import Pushing, push_kernels

    how = Pushing(options.out, options.poll_seconds, options.restarts, not options.no_wait)
    push_kernels(options.kernels, how)


def _submit(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.kaggle import submit

    run = _run(options)
    sample = options.sample or run.prepared / "sample_submission.csv"
    submit(run.spec, options.file or run.run_dir / "submission.csv", sample, options.message)


def _download_data(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.download import download_data

    run = _run(options)
    download_data(run.spec, run.data_dir, options.part, interactive=run.interactive)


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "prepare-data": _stage("prepare", "prepare_data"),
    "train-image": _stage("train", "train_image"),
    "train-tabular": _stage("train", "train_tabular"),
    "make-submission": _stage("submit", "make_submission"),
    "blend-scores": _stage("ensemble", "blend_scores"),
    "run-pipeline": _stage("submit", "run_pipeline"),
    "make-synthetic": _make_synthetic,
    "predict": _predict,
    "serve": _serve,
    "explore-data": _explore_data,
    "compare-runs": _compare_runs,
    "results-table": _results_table,
    "list-backbones": _list_backbones,
    "score-submission": _score_submission,
    "preflight": _preflight,
    "smoke": _smoke,
    "build-kernels": _build_kernels,
    "push-kernels": _push_kernels,
    "submit": _submit,
    "download-data": _download_data,
    "benchmark": run_benchmark,
}

if __name__ == "__main__":
    sys.exit(main())
