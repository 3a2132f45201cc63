"""Trains the linear head on encoders' vectors that are attached; needs no accelerator."""

import sys

from kaggle_pipeline.kaggle.session import run_session

if __name__ == "__main__":  # a process that is spawned reads this file again
    sys.exit(run_session("embedding", hours=11.6))
