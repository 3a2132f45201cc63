"""Trains the dense network on patient metadata; needs no accelerator."""

import sys

from kaggle_pipeline.kaggle.session import run_session

if __name__ == "__main__":  # a process that is spawned reads this file again
    sys.exit(run_session("tabular", hours=11.6))
