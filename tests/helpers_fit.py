"""Fits a tiny image model in a process of its own: ``python helpers_fit.py '<JSON>'``.

A process has one Keras backend and one number of logical devices, so tests that compare two of
them start this. The JSON: ``folder`` (made-up records are written there on first use), ``name`` of
the run, ``replicas``, ``config`` (changes of the tiny config), ``count`` of images, ``load`` (the
run whose model to load instead of fitting).
What comes out lies under ``folder/name``: the saved model, ``history.csv``, ``found.csv``.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402
from helpers_image import STILL, make_examples, tiny_config, to_jpeg, write_records  # noqa: E402

from kaggle_pipeline.datasets.synthetic import SPEC  # noqa: E402
from kaggle_pipeline.hardware.accelerator import choose_accelerator  # noqa: E402


def write_photos(folder, count):
    """Noisy photos of 32 px, the malignant ones redder; return examples and shards."""
    rng = np.random.default_rng(5)
    examples, jpegs = make_examples(count), {}
    for image_id, target in examples["target"].items():
        pixels = rng.integers(60, 180, (32, 32, 3))
        pixels[..., 0] += int(40 * target)
        jpegs[image_id] = to_jpeg(pixels)
    found = sorted(folder.glob("*.tfrec"))
    return examples, found or write_records(folder, examples, jpegs, SPEC)


def main(order):
    """Fit, save and predict."""
    device = choose_accelerator("cpu", order.get("replicas"))
    from kaggle_pipeline.models.image.model import ImageModel

    folder = Path(order["folder"])
    examples, shards = write_photos(folder, order.get("count", 20))
    benign = np.where(np.arange(len(examples)) % 4, "nevus", "unknown")
    examples["diagnosis"] = np.where(examples["target"] == 1, "melanoma", benign)
    place = folder / order["name"]
    place.mkdir(exist_ok=True)
    changes = dict(order.get("config", {}))
    if "hairs" in changes:
        changes["augment"] = replace(STILL, hairs=changes.pop("hairs"))
    config = tiny_config(**changes)
    model = ImageModel(config, SPEC, lambda ids: shards, device, place, seed=3)
    if order.get("load"):
        model.load(folder / order["load"])
    else:
        model.fit(examples, examples)
        model.save(place)
    model.predict(examples).to_csv(place / "found.csv")
    sys.stdout.write(f"{device.reason}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
