"""Groups of options that several subcommands take.

In: a parser. Out: the same with more options.
"""

import argparse
from pathlib import Path

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "siim_isic_2020.yaml"


def add_preflight_options(parser: argparse.ArgumentParser) -> None:
    """Add preflight options."""
    add_run_options(parser)
    parser.add_argument(
        "--topology", default="v5e-8", help="such as v5e-8, v3-8, v6e-8 or v5e:4x4 (default: v5e-8)"
    )
    parser.add_argument(
        "--backend", choices=["jax", "tensorflow"], default="jax",
        help="Keras on JAX, as on Kaggle (default), or TensorFlow under TPUStrategy",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the predictions there")
    parser.add_argument(
        "--weekly-hours", type=float, metavar="H", help="TPU quota a week, to tell the share of it"
    )
    parser.add_argument(
        "--largest-batch", action="store_true",
        help="look for the largest batch a replica even where the config's own fits",
    )  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add run options."""
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
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what is in the run folder")
    again.add_argument("--overwrite", action="store_true", help="delete this stage's results first")


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """Add hardware options."""
    parser.add_argument(
        "--tpu", action="store_true", help="train on a TPU, or fail if there is none"
    )
    parser.add_argument(
        "--max-hours", type=float, metavar="H",
        help="stop before so many hours with everything saved (exit code 75), for --resume",
    )  # fmt: skip


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
        "--dataset", choices=["siim_isic_2020", "isic_2017", "ham10000"], default="siim_isic_2020",
        help="whose layout and classes (default: siim_isic_2020)",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=600, help="of the other two (default: 600)")
    parser.add_argument("--patients", type=int, default=200, help="default: 200")
    parser.add_argument("--image-size-px", type=int, default=128, help="default: 128")
    parser.add_argument("--mean-images", type=float, default=8.0, help="a patient (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
