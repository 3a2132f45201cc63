"""``python -m kaggle_pipeline --help``: every command, where no file of ``scripts/`` is at hand."""

import sys

from kaggle_pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
