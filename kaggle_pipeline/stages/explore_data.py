"""Draw a data set before anything is trained: raw folder → pictures."""

from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.record import is_done
from kaggle_pipeline.data.examples import validate_examples
from kaggle_pipeline.data.explore import explore
from kaggle_pipeline.datasets import require_data, spec_of
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.took import clocked


def explore_data(
    config: Experiment, data_dir: Path, out: Path, say: Callable[[str], None] = print
) -> list[Path]:
    """Draw classes, ages, sites, images a group, gaps and sample photos of a raw data folder.

    Raises
    ------
    PipelineError
        If the data is missing or breaks a rule of the examples table.
    """
    spec = spec_of(config, None, data_dir)
    require_data(spec, data_dir)
    raw = spec.read_raw(data_dir)
    for line in raw.notes:
        say(f"note: {line}")
    examples = validate_examples(raw.examples, spec)
    paths = explore(examples, spec, data_dir, out)
    for path in paths:
        say(str(path))
    return paths


def draw_data(run: Run) -> None:
    """Draw a prepared run's data into its ``explore/``, for the report; once, and never at a loss.

    A picture that cannot be drawn, say of a photo that cannot be read, is said and ends nothing.
    """
    folder = run.run_dir / "explore"
    try:
        if is_done(folder, "summary.json") and not run.overwrite:
            return
    except PipelineError as error:
        run.say(f"note: {str(error).partition(',')[0]}: the data are drawn anew")
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, "delete {folder} and run the same command with --resume, which draws anew")
    with clocked(folder):
        try:
            explore(run.examples(), run.spec, run.data_dir, folder, seed=run.config.seed)
        except PipelineError as error:
            run.say(f"note: not all pictures of the data are drawn: {error}")
        commit(folder)
