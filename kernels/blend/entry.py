"""Blends what the other kernels predicted and writes /kaggle/working/submission.csv."""

import sys

from kaggle_pipeline.kaggle.session import run_session

if __name__ == "__main__":  # a process that is spawned reads this file again
    sys.exit(run_session("blend"))
