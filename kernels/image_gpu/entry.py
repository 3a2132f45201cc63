"""Trains the image model on two T4 GPUs, fold after fold, and answers for the test images."""

import sys

from kaggle_pipeline.kaggle.session import run_session

if __name__ == "__main__":  # a process that is spawned reads this file again
    sys.exit(run_session("image", ["device=gpu"], hours=11.6))
