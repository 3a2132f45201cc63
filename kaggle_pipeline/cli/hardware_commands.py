"""Commands about the training step: what a TPU's compiler says of it, and how long it takes."""

import argparse
from pathlib import Path

from kaggle_pipeline.cli.command import Command
from kaggle_pipeline.cli.options import add_experiment_options, add_tpu_option, hours, make_run


def _preflight_options(parser: argparse.ArgumentParser) -> None:
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
        "--weekly-hours", type=hours, metavar="H", help="TPU quota a week, to tell the share of it"
    )
    parser.add_argument(
        "--largest-batch", action="store_true",
        help="look for the largest batch a replica even where the config's own fits",
    )  # fmt: skip


def _preflight(options: argparse.Namespace) -> None:
    from kaggle_pipeline.preflight.commands import preflight_run

    preflight_run(
        make_run(options), options.topology, backend=options.backend, json_path=options.json,
        weekly_hours=options.weekly_hours, find_largest=options.largest_batch,
    )  # fmt: skip


def _smoke_options(parser: argparse.ArgumentParser) -> None:
    add_experiment_options(parser)
    add_tpu_option(parser)
    parser.add_argument(
        "--beside", type=Path, metavar="FILE", help="what preflight --json predicted for it"
    )
    parser.add_argument("--steps", type=int, default=10, help="default: 10")


def _smoke(options: argparse.Namespace) -> None:
    from kaggle_pipeline.preflight.commands import smoke_run

    smoke_run(make_run(options), beside=options.beside, steps=max(1, options.steps))


HARDWARE_COMMANDS = (
    Command(
        "preflight",
        "Compile the training step for a TPU that is not there; predict its cost.",
        _preflight_options,
        _preflight,
        """\
  python scripts/preflight.py --config configs/siim_isic_2020_seed.yaml --topology v5e-8
  python scripts/preflight.py --topology v3-8 --set image.batch_size=32 --json preflight.json
  python scripts/preflight.py --topology v5e-8 --weekly-hours 20 --largest-batch""",
    ),
    Command(
        "smoke",
        "Time the real training step on the device at hand, on made-up images.",
        _smoke_options,
        _smoke,
        """\
  python scripts/smoke.py --tpu --config configs/siim_isic_2020_seed.yaml \\
      --beside configs/preflight/siim_isic_2020_seed_v5e-8.json
  python scripts/smoke.py --config configs/demo.yaml --steps 5""",
    ),
)
