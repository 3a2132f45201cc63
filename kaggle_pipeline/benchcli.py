"""What ``scripts/benchmark.py`` runs.

In: parsed options. Out: a table on standard output and, where asked for, figures as JSON.
"""

import argparse


def run_benchmark(options: argparse.Namespace) -> None:
    """Run the measurement that ``options.what`` names; each is imported when it is asked for."""
    place = options.work_dir / options.what
    if options.what == "step":
        from kaggle_pipeline.stepbench import Load, measure_step

        load = Load(
            options.backbone, options.image_size_px, options.batch_size, options.device,
            options.steps, options.peak_tflops,
        )  # fmt: skip
        measure_step(load, options.json)
    elif options.what == "serve":
        from kaggle_pipeline.servebench import ServeLoad, measure_serve

        measure_serve(place, ServeLoad(options.backbone, options.image_size_px))
    elif options.what == "convert":
        from kaggle_pipeline.bench_convert import measure_conversion

        measure_conversion(place, options.json, max(24, options.photos or 32))
    elif options.what == "tabular":
        from kaggle_pipeline.bench_tabular import measure_tabular

        measure_tabular(options.data_dir, options.json, options.epochs, options.beside)
    elif options.what == "input":
        from kaggle_pipeline.bench_input import measure_input

        measure_input(place, options.json, photos=options.photos or 256)
    elif options.what == "train":
        from kaggle_pipeline.bench_train import measure_training

        measure_training(options.json)
    elif options.what == "predict":
        from kaggle_pipeline.bench_train import measure_prediction

        measure_prediction(place, options.json, photos=options.photos or 256)
    else:
        from kaggle_pipeline import benchmark

        measure = {"memory": benchmark.measure_memory, "kills": benchmark.measure_kills}
        measure[options.what](place)
