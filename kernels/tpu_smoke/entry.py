"""One step of the published recipe on this session's TPU, beside what the compiler predicted."""

import sys
from pathlib import Path

import kaggle_pipeline
from kaggle_pipeline.cli import main

configs = Path(kaggle_pipeline.__file__).parent.parent / "configs"
config = configs / "siim_isic_2020_seed.yaml"
predicted = configs / "preflight" / "siim_isic_2020_seed_v5e-8.json"
sys.exit(main(["smoke", "--tpu", "--config", str(config), "--beside", str(predicted)]))
