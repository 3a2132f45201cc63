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


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, help="raw data")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="a published data set, such as ham10000")
    which.add_argument(
        "--table", "--config", metavar="CONFIG", type=Path,
        help="config with a section `table`, such as a copy of configs/my_photos.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("planned.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over an existing --out")
    parser.add_argument("--hours", type=hours, default=1.0, help="for everything (default: 1)")
    parser.add_argument("--preset", choices=["quick", "good", "best"], default="good")
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE",
        help="auto, cpu or gpu of this machine, or a TPU elsewhere such as tpu-v5e-8, for which "
        "its compiler is asked (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet, a file of MobileNetV2's, or null: a small network from nothing "
        "(default: imagenet)",
    )


def _plan(options: argparse.Namespace) -> None:
    from kaggle_pipeline.config.experiment import LeakageConfig
    from kaggle_pipeline.config.loading import load_experiment, to_mapping
    from kaggle_pipeline.core.errors import PipelineError, nearest
    from kaggle_pipeline.core.tables import TABLE_ENDINGS
    from kaggle_pipeline.preflight.plan import plan_experiment

    base = {"name": options.out.stem, "dataset": options.dataset}
    weights = None if options.weights == "null" else options.weights
    here = not options.device.startswith("tpu")
    if here and weights not in (None, "imagenet") and not Path(weights).is_file():
        hint = nearest(weights, ["imagenet", "null"], or_all=False)
        raise PipelineError(f"--weights {weights}: no such file{hint}")
    if options.table:
        if options.table.suffix.lower() in TABLE_ENDINGS:
            raise PipelineError(
                f"--table {options.table}: name the config that says what its columns mean, such "
                "as a copy of configs/my_photos.yaml"
            )
        given = to_mapping(load_experiment(options.table))
        base |= {key: given[key] for key in ("dataset", "table", "examples", "seed")}
        usual = to_mapping(LeakageConfig())
        base["leakage"] = {
            key: value for key, value in given["leakage"].items() if value != usual[key]
        }
        base["folds"] = {"shared_groups": given["folds"]["shared_groups"]}
        print(
            f"taken from {options.table}: dataset, table, examples, seed, leakage and "
            "folds.shared_groups; the plan chooses the rest"
        )
    plan_experiment(
        base, options.data_dir, options.out, hours=options.hours, preset=options.preset,
        device=options.device, weights=weights,
        overwrite=options.overwrite,
    )  # fmt: skip


HARDWARE_COMMANDS = (
    Command(
        "plan",
        "Plan an experiment from the data, the hours and this machine.",
        _plan_options,
        _plan,
        """\
  python scripts/plan.py --dataset ham10000 --data-dir data/ham10000 --hours 0.7
  python scripts/plan.py --table configs/my_photos.yaml --data-dir data/made_up/competition \\
      --hours 0.2 --preset quick --out mine.yaml
  python scripts/plan.py --dataset siim_isic_2020 --data-dir data/siim_isic_2020 \\
      --device tpu-v5e-8 --hours 5 --preset best""",
    ),
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
