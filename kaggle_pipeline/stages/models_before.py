"""Models of a run whose data was prepared anew. In: a run's folder. Out: a line for each stage."""

from kaggle_pipeline.config.names import MODEL_STAGES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.cross_validation import require_same_rows
from kaggle_pipeline.models.learned_rows import digest_rows
from kaggle_pipeline.stages.run import Run


def tell_of_models_before(run: Run) -> None:
    """Say which trained models learned from other rows than those that are prepared now."""
    stages = [run.run_dir / one for one in MODEL_STAGES if (run.run_dir / one).is_dir()]
    if not stages:
        return
    rows = digest_rows(run.examples(), run.spec, run.folds())
    for stage in stages:
        try:
            require_same_rows(rows, stage)
        except PipelineError as error:
            run.say(f"note: {error}")
