"""All stages in a row: raw folder → ``submission.csv``."""

from pathlib import Path

from kaggle_pipeline.config.names import METADATA_STAGES
from kaggle_pipeline.ensembling.blend import check_blend
from kaggle_pipeline.stages.explore_data import draw_data
from kaggle_pipeline.stages.make_submission import make_submission
from kaggle_pipeline.stages.prepare import prepare_data, require_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_image import check_image, train_image
from kaggle_pipeline.stages.train_tabular import train_tabular


def run_pipeline(run: Run) -> Path | None:
    """Prepare, train the models that are blended; return the submission's path, if there is one."""
    wanted = run.config.blend.models
    check_blend(run.config.blend, run.spec)
    # What is missing is said now, not after the conversion; weights are downloaded last of all.
    if not (run.prepared / "folds.csv").exists():
        require_data(run)
    device = check_image(run) if "image" in wanted else None
    prepare_data(run, with_records="image" in wanted)
    draw_data(run)
    if "image" in wanted:
        train_image(run, device=device)
    if set(METADATA_STAGES) & set(wanted):
        train_tabular(run)
    return make_submission(run)
