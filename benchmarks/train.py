"""CPU training and prediction beside PyTorch and beside the usual notebook, in one run.

In: a folder to work in. Out: a table and, where asked for, a JSON of the figures.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.engines import Load
from benchmarks.input import make_photos
from benchmarks.step import measure_step
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.datasets import get_spec

LOADS = (Load("MobileNetV2", 224, 32, steps=4), Load("InceptionResNetV2", 299, 16, steps=2))
"""The networks that people train on CPUs, at their published sizes."""


def measure_training(
    json_path: Path | None = None,
    *,
    loads: tuple[Load, ...] = LOADS,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time steps of every engine for each load, as :func:`~benchmarks.step.measure_step` does.

    Returns
    -------
    dict
        Its answers by backbone.
    """
    found = {}
    for load in loads:
        found[load.backbone] = measure_step(load, say=say)
        if json_path:  # minutes a load: what is known stays
            write_json(json_path, found)
    return found


def measure_prediction(
    work_dir: Path,
    json_path: Path | None = None,
    *,
    photos: int = 256,
    rounds: int = 2,
    backbone: str = "MobileNetV2",
    side: int = 224,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time predictions averaged over eight views of photos of 1024 px, and over a pass a view.

    Ours decodes each photo once and turns it on the device; the usual notebook goes over the data
    once a view. Both use the same network and number of images a batch, which leaves a last batch
    that is not full.

    Returns
    -------
    dict
        ``seconds`` by way, ``ratio``, ``largest_difference`` of the probabilities, ``versions``.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator("cpu")
    from kaggle_pipeline.models.image.inference.predictor import Predictor, fused_on_cpu, running
    from kaggle_pipeline.models.image.inference.tta import VIEWS, with_views
    from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches
    from kaggle_pipeline.models.image.network import build_network

    paths, shards = make_photos(work_dir, photos)
    ids = pd.Index([path.stem for path in paths])
    spec = get_spec("siim_isic_2020")
    config = ImageConfig(backbone=backbone, weights=None, image_size_px=side, batch_size=32)
    with running(device, config):
        network = fused_on_cpu(build_network(config, spec, load_published=False), device)
        network.compile(jit_compile=device.jit_compile)
    answerer = Predictor(
        config, spec, lambda wanted: shards, device, work_dir / "features", False, 0
    )
    tta_model = answerer.compiled(with_views(network, VIEWS["dihedral"]))
    source = Source(spec, shards, side)

    def ours() -> np.ndarray:
        return answerer.run(tta_model, len(VIEWS["dihedral"]), ids, "probability")

    def a_pass_a_view() -> np.ndarray:
        answers = np.zeros((len(ids), len(spec.classes)))
        for view in VIEWS["dihedral"]:
            for batch in prediction_batches(source, list(ids), config.batch_size):
                row = batch["row"].numpy()
                images = batch["image"].numpy()[row >= 0]
                images = images[:, :, ::-1] if view.mirror else images
                images = np.rot90(images, view.turns, (1, 2))
                answers[row[row >= 0]] += network.predict(images, verbose=0)
        return answers / len(VIEWS["dihedral"])

    ways = {"decoded once, views on the device": ours, "a pass a view": a_pass_a_view}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {}
    for number in range(rounds + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            answers[way] = run()
            if number:
                seconds[way].append(time.perf_counter() - started)
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    first, second = ways
    for way in ways:
        say(f"{way:<36}{photos / middle[way]:>8.1f} photos/s")
    found = {
        "seconds": middle,
        "ratio": middle[second] / middle[first],
        "largest_difference": float(np.abs(answers[first] - answers[second]).max()),
        "versions": versions(),
    }
    say(f"ratio {found['ratio']:.2f}; largest difference {found['largest_difference']:.1e}")
    if json_path:
        write_json(json_path, found)
    return found
