"""Trains the image model on two T4 GPUs at half the size: 16 GiB hold 16 images of 512 px."""

import sys

from kaggle_pipeline.stages.session import run_session

if __name__ == "__main__":  # a process that is spawned reads this file again
    changes = ["device=gpu", "records.source=tfrecords", "image.image_size_px=512"]
    sys.exit(run_session("image", changes, hours=11.6))
