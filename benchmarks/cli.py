"""What ``scripts/benchmark.py`` runs: ``COMMAND``, in the same form as the package's commands.

In: options. Out: a table on standard output and, where asked for, figures as JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kaggle_pipeline.cli.command import Command, run_command
from kaggle_pipeline.core.errors import PipelineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one measurement; return the exit code."""
    return run_command([COMMAND], arguments)


_SIZE_PX, _BATCH = 224, 32
"""Of a network that is timed, unless an option or a config says others."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(_MEASUREMENTS))
    parser.add_argument(
        "file", type=Path, nargs="?", help="for compare: new figures; for table: a document"
    )
    parser.add_argument(
        "--kept", type=Path, metavar="FILE",
        help="for compare (default: the file of that name in benchmarks/results)",
    )  # fmt: skip
    recipes = parser.add_argument_group("recipes (and config, set, device)")
    recipes.add_argument("--run-dir", type=Path, help="a run that it prepared; of page: to serve")
    recipes.add_argument("--changes", type=Path, help="YAML list: name, set, seeds, keep")
    recipes.add_argument("--rows", type=Path, help="JSON lines, one a fit; those there are kept")
    recipes.add_argument("--table", action="store_true", help="of the rows there are; no fit")
    recipes.add_argument("--processes", type=int, default=1, help="fits side by side (default: 1)")
    recipes.add_argument("--limit", type=float, metavar="S", help="stop after so many seconds")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there")
    parser.add_argument(
        "--photos",
        type=int,
        help="for convert (default: 32), costs (2000), loop (128), input and predict (256)",
    )
    tabular = parser.add_argument_group("tabular")
    tabular.add_argument("--data-dir", type=Path, help="real metadata (default: made up)")
    tabular.add_argument("--epochs", type=int, default=400, help="default: 400, as published")
    tabular.add_argument(
        "--beside", type=int, default=10, metavar="EPOCHS",
        help="after so many, compare the AUC with that of Keras' fit; 0: do not (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--reader", action="append", help="for fuzz (default: all; --limit: seconds a reader)"
    )
    step = parser.add_argument_group("step (backbone and size: of serve and loop too)")
    step.add_argument("--backbone", default="MobileNetV2", help="default: MobileNetV2")
    step.add_argument(
        "--image-size-px", type=int, metavar="PX", help=f"default: the config's, else {_SIZE_PX}"
    )
    step.add_argument("--batch-size", type=int, metavar="N", help=f"the same, else {_BATCH}")
    step.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="default: cpu")
    step.add_argument("--steps", type=int, help="timed ones (default: 6; of a loop's epoch 12)")
    step.add_argument(
        "--peak-tflops", type=float, metavar="T", help="of the device, to give the share reached"
    )
    step.add_argument(
        "--engines", nargs="+", choices=["numpy", "tensorflow", "jax", "pytorch", "compiled"],
        help="default: all; compiled is torch.compile",
    )  # fmt: skip
    step.add_argument(
        "--seconds", type=float, default=900, help="an engine is ended after so many (default: 900)"
    )
    loop = parser.add_argument_group("loop (and backbone, size, batch, device, steps, turns)")
    loop.add_argument("--config", type=Path, help="an experiment; of recipes too")
    loop.add_argument("--set", action="append", metavar="KEY=VALUE", help="change a setting of it")
    loop.add_argument("--rounds", type=int, default=3, help="epochs of each kind (default: 3)")
    loop.add_argument("--records-px", type=int, help="side of the records (default: the image's)")
    step.add_argument("--train-only", action="store_true", help="time no prediction")
    step.add_argument(
        "--turns", metavar="FILE",
        help="measurements side by side that name the same file are timed one after the other",
    )  # fmt: skip


# Each measurement is imported when it is asked for.


def _memory(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.memory import measure_memory

    measure_memory(place)


def _kills(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.kills import measure_kills

    measure_kills(place)


def _stops(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.stops import measure_stops

    measure_stops(place)


def _disks(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.disks import measure_disks

    measure_disks(place)


def _costs(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.costs import measure_costs

    measure_costs(place, options.photos or 2000)


def _together(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.together import measure_together

    measure_together(place)


def _changes(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.changes import measure_changes

    measure_changes(place)


def _fuzz(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.fuzz import measure_fuzz
    from benchmarks.readers import READERS

    names = options.reader or list(READERS)
    if unknown := [name for name in names if name not in READERS]:
        raise PipelineError(f"--reader {unknown[0]}: there are {', '.join(READERS)}")
    measure_fuzz(place, options.limit or 60, names)


def _page(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.page import PageLoad, measure_page

    if options.run_dir is None:
        raise PipelineError("page needs --run-dir, a trained run")
    measure_page(place, options.run_dir, PageLoad(minutes=(options.limit or 1800) / 60))


def _step(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.step import ENGINES, Load, measure_step

    load = Load(
        options.backbone, options.image_size_px or _SIZE_PX, options.batch_size or _BATCH,
        options.device,
        6 if options.steps is None else options.steps, options.peak_tflops, options.seconds,
        not options.train_only, options.turns,
    )  # fmt: skip
    measure_step(load, options.json, engines=options.engines or tuple(ENGINES))


def _loop(options: argparse.Namespace, place: Path) -> None:
    from dataclasses import replace

    from benchmarks.loop import LoopLoad, measure_loop
    from kaggle_pipeline.config.loading import load_experiment

    if options.config:
        image = load_experiment(options.config, options.set or ()).image
    else:
        from kaggle_pipeline.config.image import ImageConfig

        image = ImageConfig(backbone=options.backbone, image_size_px=_SIZE_PX, batch_size=_BATCH)
    said = {"image_size_px": options.image_size_px, "batch_size": options.batch_size}
    image = replace(image, **{key: value for key, value in said.items() if value is not None})
    load = LoopLoad(
        image, options.device, max(4, options.steps or 12), options.rounds, options.photos or 128,
        options.records_px or image.image_size_px, options.turns,
    )  # fmt: skip
    measure_loop(place, load, options.json)


def _compare(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.compare import compare_results
    from kaggle_pipeline.core.errors import PipelineError

    if options.file is None:
        raise PipelineError("compare what? benchmark compare FILE")
    worse = compare_results(options.file, options.kept)
    if worse:
        sys.exit("\n".join(["worse than before:", *worse]))  # exit code 1: nobody's mistake


def _table(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.table import write_table

    write_table(options.file)


def _card(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.card import measure_card

    steps = 30 if options.steps is None else options.steps
    measure_card(place, options.device, options.json, steps=steps, seconds=options.seconds)


def _convert(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.convert import measure_conversion

    measure_conversion(place, options.json, max(24, options.photos or 32))


def _tabular(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.tabular import measure_tabular

    measure_tabular(options.data_dir, options.json, options.epochs, options.beside)


def _serve(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.serve import ServeLoad, measure_serve

    measure_serve(place, ServeLoad(options.backbone, options.image_size_px or _SIZE_PX))


def _input(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.input import measure_input

    measure_input(place, options.json, photos=options.photos or 256)


def _train(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.train import measure_training

    measure_training(options.json)


def _predict(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.train import measure_prediction

    measure_prediction(place, options.json, photos=options.photos or 256)


def _recipes(options: argparse.Namespace, place: Path) -> None:
    from benchmarks.recipes import measure_recipes, print_table

    rows = options.rows or place / "rows.jsonl"
    if options.table and options.run_dir:
        print_table(rows, options.run_dir)
        return
    needed = (options.config, options.changes, options.run_dir)
    if None in needed:
        raise PipelineError("recipes needs --run-dir, and --config and --changes or --table")
    measure_recipes(
        *needed, rows, processes=options.processes,
        limit_s=options.limit, device=options.device, common=options.set or (),
    )  # fmt: skip


_MEASUREMENTS = {
    "recipes": _recipes,
    "memory": _memory,
    "kills": _kills,
    "stops": _stops,
    "disks": _disks,
    "together": _together,
    "costs": _costs,
    "changes": _changes,
    "fuzz": _fuzz,
    "step": _step,
    "loop": _loop,
    "card": _card,
    "compare": _compare,
    "table": _table,
    "convert": _convert,
    "tabular": _tabular,
    "serve": _serve,
    "page": _page,
    "input": _input,
    "train": _train,
    "predict": _predict,
}

COMMAND = Command(
    "benchmark",
    "Measure what is too slow for a test.",
    _add_options,
    lambda options: _MEASUREMENTS[options.what](options, options.work_dir / options.what),
    """\
  python scripts/benchmark.py memory
  python scripts/benchmark.py kills
  python scripts/benchmark.py stops
  python scripts/benchmark.py disks
  python scripts/benchmark.py together
  python scripts/benchmark.py costs --photos 2000
  python scripts/benchmark.py changes
  python scripts/benchmark.py fuzz --reader yaml --limit 300
  python scripts/benchmark.py convert --json convert.json
  python scripts/benchmark.py tabular --data-dir data/siim_isic_2020
  python scripts/benchmark.py input --json input.json
  python scripts/benchmark.py predict
  python scripts/benchmark.py recipes --config configs/isic_2017.yaml --run-dir runs/isic_2017 \\
      --changes benchmarks/changes/isic_2017.yaml --rows runs/recipes/isic_2017.jsonl
  python scripts/benchmark.py step --backbone InceptionResNetV2 --image-size-px 299 --batch-size 16
  python scripts/benchmark.py step --backbone EfficientNetB4 --image-size-px 512 --device gpu
  python scripts/benchmark.py loop --config configs/siim_isic_2020.yaml --image-size-px 1024 \\
      --batch-size 32 --device gpu --steps 40
  python scripts/benchmark.py train --json train.json
  python scripts/benchmark.py compare train.json --kept benchmarks/results/train.json
  python scripts/benchmark.py table docs/results.md
  python scripts/benchmark.py card --device gpu --seconds 250 --json card.json
  python scripts/benchmark.py serve --backbone InceptionResNetV2 --image-size-px 299
  python scripts/benchmark.py page --run-dir runs/demo --limit 1800""",
)
