"""Groups of options that several subcommands take.

In: a parser. Out: the same with more options.
"""

import argparse
import math
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = _ROOT / "configs" / "siim_isic_2020.yaml"
DEMO_RUN = Path("runs") / "demo"


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as every other one is told."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def add_preflight_options(parser: argparse.ArgumentParser) -> None:
    """Add preflight options."""
    add_experiment_options(parser)
    parser.add_argument(
        "--topology", default="v5e-8", help="such as v5e-8, v3-8, v6e-8 or v5e:4x4 (default: v5e-8)"
    )
    parser.add_argument(
        "--backend", choices=["jax", "tensorflow"], default="jax",
        help="Keras on JAX, as on Kaggle (default), or TensorFlow under TPUStrategy",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the predictions there")
    parser.add_argument(
        "--weekly-hours", type=_hours, metavar="H", help="TPU quota a week, to tell the share of it"
    )
    parser.add_argument(
        "--largest-batch", action="store_true",
        help="look for the largest batch a replica even where the config's own fits",
    )  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add run options."""
    add_experiment_options(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what is in the run folder")
    again.add_argument("--overwrite", action="store_true", help="delete this stage's results first")


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which experiment, data and run folder; for commands that write no run."""
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG,
        help="experiment file (default: configs/siim_isic_2020.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", type=Path, help="raw data (default: data/<dataset of the config>)"
    )
    parser.add_argument("--run-dir", type=Path, help="results (default: runs/<name of the config>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change one setting, such as image.epochs=3; may be repeated",
    )  # fmt: skip


def add_beam_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--beam``."""
    parser.add_argument(
        "--beam", nargs="?", const="", metavar="OPTIONS",
        help="convert by Apache Beam: by its processes here, or with its own options in quotes",
    )  # fmt: skip


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of hours above 0")
    return hours


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """Add hardware options."""
    add_tpu_option(parser)
    parser.add_argument(
        "--max-hours", type=_hours, metavar="H",
        help="stop before so many hours with everything saved (exit code 75), for --resume",
    )  # fmt: skip


def add_tpu_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--tpu``."""
    parser.add_argument(
        "--tpu", action="store_true", help="train on a TPU, or fail if there is none"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add model options."""
    parser.add_argument(
        "--fold",
        type=int,
        action="append",
        metavar="K",
        help="train this fold only; may be repeated",
    )


def add_synthetic_options(parser: argparse.ArgumentParser) -> None:
    """Add synthetic options."""
    parser.add_argument("--out", type=Path, required=True, help="gets competition/ and truth.csv")
    parser.add_argument(
        "--dataset", choices=["siim_isic_2020", "isic_2017", "isic_2019", "ham10000"],
        default="siim_isic_2020", help="whose layout and classes (default: siim_isic_2020)",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=600, help="of the other sets (default: 600)")
    parser.add_argument("--patients", type=int, default=200, help="default: 200")
    parser.add_argument("--image-size-px", type=int, default=128, help="default: 128")
    parser.add_argument("--mean-images", type=float, default=8.0, help="a patient (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Add what kernels are built for."""
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
        "--keep-records", action="store_true", help="leave TFRecords made there in the output"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: build/kernels, of another experiment than siim_isic_2020 its name below",
    )


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Add what to push and how to wait."""
    parser.add_argument("kernels", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="default: outputs")
    parser.add_argument("--poll-seconds", type=float, default=60.0, metavar="S", help="default: 60")
    parser.add_argument(
        "--restarts", type=int, default=5, metavar="N",
        help="push a kernel that stopped in time so often again (default: 5)",
    )  # fmt: skip
    parser.add_argument("--no-wait", action="store_true", help="push all at once and leave")


def add_results_options(parser: argparse.ArgumentParser) -> None:
    """Add which runs' results to write, and where."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument(
        "--update", type=Path, metavar="FILE",
        help="replace what stands there between the results_table marks (default: print the table)",
    )  # fmt: skip


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Add which file to submit."""
    add_experiment_options(parser)
    parser.add_argument("--file", type=Path, help="default: submission.csv of the run folder")
    parser.add_argument("--sample", type=Path, help="default: the run's own copy of the sample")
    parser.add_argument("--message", default="kaggle_pipeline", help="default: %(default)s")


def add_download_options(parser: argparse.ArgumentParser) -> None:
    """Add which part of the data to fetch."""
    add_experiment_options(parser)
    parser.add_argument(
        "--part", choices=["tables", "tfrecords", "all"], default="tfrecords",
        help="CSV files; those and the TFRecords (default); or everything, DICOM and JPEG too",
    )  # fmt: skip


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add which run to serve, and where."""
    parser.add_argument(
        "--run-dir", type=Path, default=DEMO_RUN,
        help="with a trained image/ (default: runs/demo, which `make demo` makes)",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: this machine alone, 127.0.0.1); uploads are held in "
        "memory and not limited in sum, so let nobody in whom you do not trust",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Add what to measure."""
    parser.add_argument(
        "what",
        choices=[
            "memory",
            "kills",
            "step",
            "convert",
            "tabular",
            "serve",
            "input",
            "train",
            "predict",
        ],
    )
    parser.add_argument("--work-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there")
    parser.add_argument(
        "--photos", type=int, help="for convert (default: 32), input and predict (default: 256)"
    )
    tabular = parser.add_argument_group("tabular")
    tabular.add_argument("--data-dir", type=Path, help="real metadata (default: made up)")
    tabular.add_argument("--epochs", type=int, default=400, help="default: 400, as published")
    tabular.add_argument(
        "--beside", type=int, default=10, metavar="EPOCHS",
        help="after so many, compare the AUC with that of Keras' fit; 0: do not (default: 10)",
    )  # fmt: skip
    step = parser.add_argument_group("step (backbone and size: of serve too)")
    step.add_argument("--backbone", default="MobileNetV2", help="default: MobileNetV2")
    step.add_argument("--image-size-px", type=int, default=224, help="default: 224")
    step.add_argument("--batch-size", type=int, default=32, help="default: 32")
    step.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="default: cpu")
    step.add_argument("--steps", type=int, default=6, help="timed, after the first (default: 6)")
    step.add_argument(
        "--peak-tflops", type=float, metavar="T", help="of the device, to tell the share reached"
    )
