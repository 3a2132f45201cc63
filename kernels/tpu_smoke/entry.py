"""One step of the experiment on this session's TPU, beside what the compiler predicted."""

import sys
from pathlib import Path

import kaggle_pipeline
from kaggle_pipeline.cli.main import main
from kaggle_pipeline.kaggle.kernels import EXPERIMENT

if __name__ == "__main__":  # a process that is spawned reads this file again
    packed = Path(kaggle_pipeline.__file__).parent.parent
    name = (
        (packed / EXPERIMENT).read_text(encoding="utf-8").partition("\n")[0].removeprefix("name: ")
    )
    predicted = packed / "configs" / "preflight" / f"{name}_v5e-8.json"
    beside = ["--beside", str(predicted)] if predicted.exists() else []
    sys.exit(main(["smoke", "--tpu", "--config", str(packed / EXPERIMENT), *beside]))
