"""Tiny photos, records and settings that the tests of the image side share."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config.image import AugmentConfig, ImageConfig
from kaggle_pipeline.records.tfrecords import encode_record, shard_name

STILL = AugmentConfig(
    dihedral=False,
    rotation_degrees=0.0,
    zoom=0.0,
    shear_degrees=0.0,
    shift=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue_degrees=0.0,
    dropout_boxes=0,
    dropout_size=0.0,
)
"""Every augmentation switched off."""

_TINY = {
    "backbone": "LeNet",
    "backbone_options": {"filters": 4},
    "weights": None,
    "image_size_px": 32,
    "batch_size": 4,
    "epochs": 2,
    "warmup_epochs": 0.0,
    "tta": "none",
    "augment": STILL,
}


def tiny_config(**changes):
    """Settings of a LeNet of 1660 weights on 32 px, trained on images as they are."""
    return ImageConfig(**{**_TINY, **changes})


def make_examples(count, *, split="train"):
    """A table of ``count`` images, every other one malignant, two images a patient."""
    numbers = np.arange(count)
    index = pd.Index([f"ISIC_{number:07d}" for number in numbers], name="image_id")
    return pd.DataFrame(
        {
            "group_id": [f"IP_{number // 2:07d}" for number in numbers],
            "split": split,
            "target": numbers % 2.0 if split == "train" else np.nan,
            "age_years": 20.0 + 5 * (numbers % 12),
            "sex": np.where(numbers % 3, "male", "female"),
            "site": "torso",
            "image_path": [f"{image_id}.jpg" for image_id in index],
        },
        index=index,
    )


def to_jpeg(pixels, **options):
    """Encode an array (height, width, 3), or a colour of a 32 px square, as JPEG bytes."""
    pixels = np.asarray(pixels, np.uint8)
    if pixels.ndim == 1:
        pixels = np.tile(pixels, (32, 32, 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 95, "subsampling": 0} | options)
    return buffer.getvalue()


def write_payloads(path, payloads):
    """Write serialised records as one TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    return path


def write_records(folder, examples, jpegs, spec, shards=3):
    """Write every example with its JPEG, dealt out over ``shards`` files; return the files."""
    paths = []
    for i in range(shards):
        part = examples.iloc[i::shards]
        payloads = [
            encode_record(image_id, row, jpegs[image_id], spec) for image_id, row in part.iterrows()
        ]
        paths.append(write_payloads(folder / shard_name("train", i, len(part)), payloads))
    return paths
