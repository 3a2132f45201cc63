"""What the input pipeline is measured against, each as its user would write it.

In: JPEG files or TFRecords of photos of 1024 px. Out: a function that goes over all of them once.
"""

import io
import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.tfrecords import parse_id_and_image

BATCH = 16


def decoding_alone(jpegs: Sequence[bytes], threads: int) -> tuple[str, Callable[[], object]]:
    """Return the limit: libjpeg-turbo decoding from memory, nothing else; and its name."""
    try:
        import simplejpeg
    except ImportError:

        def decode(jpeg: bytes) -> Any:
            return np.asarray(Image.open(io.BytesIO(jpeg)))

        name = "Pillow"
    else:

        def decode(jpeg: bytes) -> Any:
            return simplejpeg.decode_jpeg(jpeg)

        name = "simplejpeg"

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(decode, jpegs):
                pass

    return f"decoding alone ({name}, {threads} threads)", run


def reading_alone(shards: Sequence[Path], spec: DatasetSpec) -> Callable[[], object]:
    """Return the least that ``tf.data`` does: read, decode, batch; no fold, no order, no change."""
    import tensorflow as tf

    parse = parse_id_and_image(spec)
    records = tf.data.TFRecordDataset([str(path) for path in shards]).map(parse)
    images = records.map(
        lambda _, jpeg: tf.io.decode_jpeg(jpeg, channels=3), num_parallel_calls=tf.data.AUTOTUNE
    )
    stream = images.batch(BATCH).prefetch(2)

    return partial(deque, stream, maxlen=0)


def notebook(shards: Sequence[Path], spec: DatasetSpec, side: int) -> Callable[[], object]:
    """Return the usual notebook's pipeline: decode, float, resize, five ``tf.image`` changes."""
    import tensorflow as tf

    parse = parse_id_and_image(spec)

    def prepare(_: Any, jpeg: Any) -> Any:
        image = tf.image.decode_jpeg(jpeg, channels=3)
        image = tf.cast(image, tf.float32) / 255.0
        image = tf.image.resize(image, (side, side))
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_flip_up_down(image)
        image = tf.image.random_hue(image, 0.01)
        image = tf.image.random_saturation(image, 0.7, 1.3)
        return tf.image.random_contrast(image, 0.8, 1.2)

    records = tf.data.TFRecordDataset([str(path) for path in shards], num_parallel_reads=4)
    stream = records.map(parse).shuffle(64).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    stream = stream.batch(BATCH).prefetch(tf.data.AUTOTUNE)

    return partial(deque, stream, maxlen=0)


class Apart:
    """Calls a way in a process of its own, which TensorFlow's determinism here does not slow.

    Parameters
    ----------
    make : callable
        Returns the way, in the other process.
    *arguments
        Of ``make``.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make, arguments), daemon=True).start()
        theirs.close()

    def __call__(self) -> None:
        """Run the way once, to its end."""
        self._pipe.send("once")
        self._pipe.recv()


def _serve(pipe: Connection, make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    run = make(*arguments)
    while True:
        try:
            pipe.recv()
        except EOFError:  # the other end is gone
            return
        run()
        pipe.send("done")


class _Photos:
    """A PyTorch data set of JPEG files, read by Pillow, flipped at random."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self._paths, self._side = list(paths), side

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Any:
        import torch

        image = Image.open(self._paths[number]).convert("RGB")
        if image.size != (self._side, self._side):
            image = image.resize((self._side, self._side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
        for axis in (1, 2):
            if torch.rand(()) < 0.5:
                pixels = pixels.flip(axis)
        return pixels


def data_loader(paths: Sequence[Path], side: int, workers: int) -> Callable[[], object]:
    """Return PyTorch's DataLoader over the files; raises ImportError without PyTorch."""
    from torch.utils.data import DataLoader

    # Processes that a forked TensorFlow would hang in start anew, and stay for all passes.
    loader = DataLoader(
        _Photos(paths, side), batch_size=BATCH, shuffle=True, num_workers=workers,
        multiprocessing_context="spawn", persistent_workers=True,
    )  # fmt: skip

    return partial(deque, loader, maxlen=0)
