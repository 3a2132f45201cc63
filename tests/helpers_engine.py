"""Stands for an engine's process of ``benchmarks/step``; it imports nothing, to start at once."""

import os
import time


def child(engine, load, pipe):
    """Send what an engine would; ``load.backbone`` says how it ends."""
    pipe.send({"doing": "compiling", "gflop": 2.0, "first_seconds": 1.5})
    if load.backbone == "slow":
        time.sleep(100)
    if load.backbone == "dead":
        os._exit(9)
    pipe.send({"train": 10.0 if engine == "jax" else 5.0})
