"""Commands that talk to Kaggle: data, kernels, submissions."""

import argparse
from pathlib import Path

from kaggle_pipeline.cli.command import Command
from kaggle_pipeline.cli.options import add_experiment_options, make_run
from kaggle_pipeline.config.names import CHECKOUT


def _build_kernels_options(parser: argparse.ArgumentParser) -> None:
    add_experiment_options(parser)
    parser.add_argument("--owner", required=True, metavar="NAME", help="your user name on Kaggle")
    parser.add_argument(
        "--hardware", choices=["tpu", "gpu"], default="tpu",
        help="whose image kernel the blend reads (default: tpu)",
    )  # fmt: skip
    parser.add_argument(
        "--fold", type=int, action="append", metavar="K",
        help="an image kernel for this fold alone; repeat it for the others",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="OWNER/SLUG",
        help="data set with the ImageNet weights; the image kernels then run without internet",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings", metavar="OWNER/SLUG",
        help="data set with the folder embeddings/ of a run, for the kernel that trains its heads",
    )  # fmt: skip
    parser.add_argument(
        "--keep-records", action="store_true", help="leave TFRecords made there in the output"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: build/kernels, of another experiment than siim_isic_2020 its name below",
    )


def _build_kernels(options: argparse.Namespace) -> None:
    from kaggle_pipeline.kaggle.kernels import build

    folders = build(
        make_run(options), CHECKOUT, options.out, options.overrides, owner=options.owner,
        hardware=options.hardware, folds=tuple(options.fold or ()), weights=options.weights,
        embeddings=options.embeddings, keep_records=options.keep_records,
    )  # fmt: skip
    print(options.said(f"push them: python scripts/push_kernels.py {' '.join(map(str, folders))}"))


def _push_kernels_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernels", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="default: outputs")
    parser.add_argument("--poll-seconds", type=float, default=60.0, metavar="S", help="default: 60")
    parser.add_argument(
        "--restarts", type=int, default=5, metavar="N",
        help="push a kernel that stopped in time so often again (default: 5)",
    )  # fmt: skip
    parser.add_argument("--no-wait", action="store_true", help="push all at once and leave")
    parser.add_argument(
        "--no-log", action="store_true", help="do not show the running kernel's log"
    )


def _push_kernels(options: argparse.Namespace) -> None:
    from kaggle_pipeline.kaggle.push import Pushing, push_kernels

    how = Pushing(
        options.out, options.poll_seconds, options.restarts, not options.no_wait, not options.no_log
    )
    push_kernels(options.kernels, how)


def _submit_options(parser: argparse.ArgumentParser) -> None:
    add_experiment_options(parser, of_run=True)
    parser.add_argument("--file", type=Path, help="default: submission.csv of the run folder")
    parser.add_argument("--sample", type=Path, help="default: the run's own copy of the sample")
    parser.add_argument("--message", default="kaggle_pipeline", help="default: %(default)s")
    parser.add_argument(
        "--wait-minutes", type=float, default=30.0, metavar="M",
        help="wait so long for the score; 0: hand in and leave (default: 30)",
    )  # fmt: skip
    parser.add_argument("--poll-seconds", type=float, default=10.0, metavar="S", help="default: 10")


def _submit(options: argparse.Namespace) -> None:
    from kaggle_pipeline.config.run_folders import require_run
    from kaggle_pipeline.kaggle.submit import Waiting, submit

    run = make_run(options)
    sample = options.sample or run.prepared / "sample_submission.csv"
    if not options.file:
        require_run(run.run_dir)
    file = options.file or run.run_dir / "submission.csv"
    waiting = Waiting(options.wait_minutes, options.poll_seconds)
    submit(run.spec, file, sample, options.message, waiting)


def _download_data_options(parser: argparse.ArgumentParser) -> None:
    add_experiment_options(parser)
    parser.add_argument(
        "--part", choices=["tables", "tfrecords", "all"], default="tfrecords",
        help="CSV files; those and the TFRecords (default); or everything, DICOM and JPEG too",
    )  # fmt: skip


def _download_data(options: argparse.Namespace) -> None:
    from kaggle_pipeline.kaggle.download import download_data

    run = make_run(options)
    download_data(run.spec, run.data_dir, options.part)


KAGGLE_COMMANDS = (
    Command(
        "download-data",
        "Fetch the competition's data from Kaggle.",
        _download_data_options,
        _download_data,
        """\
  python scripts/download_data.py
  python scripts/download_data.py --part tables
  python scripts/download_data.py --part all --data-dir /mnt/large/siim""",
    ),
    Command(
        "build-kernels",
        "Build the scripts that Kaggle takes, one a kernel.",
        _build_kernels_options,
        _build_kernels,
        """\
  python scripts/build_kernels.py --owner NAME
  python scripts/build_kernels.py --owner NAME --hardware gpu --set image.epochs=8
  python scripts/build_kernels.py --owner NAME --fold 0 --fold 1 --fold 2 --fold 3 --fold 4""",
    ),
    Command(
        "push-kernels",
        "Push kernels in turn, wait, fetch logs and outputs.",
        _push_kernels_options,
        _push_kernels,
        """\
  python scripts/push_kernels.py build/kernels/image build/kernels/tabular build/kernels/blend
  python scripts/push_kernels.py build/kernels/tpu_smoke --out outputs""",
    ),
    Command(
        "submit",
        "Check a submission, hand it in on Kaggle, wait for its score.",
        _submit_options,
        _submit,
        """\
  python scripts/submit.py --run-dir runs/siim_isic_2020 --message "first"
  python scripts/submit.py --file outputs/melanoma-blend/submission.csv \\
      --sample data/siim_isic_2020/sample_submission.csv""",
    ),
)
