"""``python scripts/bundle.py --help``; the command is in ``kaggle_pipeline/cli``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installing

from kaggle_pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bundle", *sys.argv[1:]]))
