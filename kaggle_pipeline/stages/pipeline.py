"""All stages in a row: raw folder → ``submission.csv``."""

import time
from dataclasses import replace
from pathlib import Path

from kaggle_pipeline.config.names import METADATA_STAGES
from kaggle_pipeline.core.progress import describe_seconds
from kaggle_pipeline.ensembling.blend import check_blend
from kaggle_pipeline.stages.embed import check_encoders, needs_records
from kaggle_pipeline.stages.explore_data import draw_data
from kaggle_pipeline.stages.make_submission import make_submission
from kaggle_pipeline.stages.prepare import prepare_data, require_tables
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_embedding import check_embedding, train_embedding
from kaggle_pipeline.stages.train_folds import require_trainable
from kaggle_pipeline.stages.train_image import check_image, train_image
from kaggle_pipeline.stages.train_tabular import stages_of, train_tabular


def run_pipeline(run: Run) -> Path | None:
    """Prepare, train the models that are blended; return the submission's path, if there is one."""
    wanted = run.config.blend.models
    with_image, with_tabular = "image" in wanted, bool(set(METADATA_STAGES) & set(wanted))
    with_embedding = "embedding" in wanted
    kept = replace(run, overwrite=False)  # vectors are made anew by embed alone
    with_records = with_image or (with_embedding and needs_records(kept))
    check_blend(run.config.blend, run.spec)
    trained = ["image"] * with_image + ["embedding"] * with_embedding
    trained += stages_of(run.config.tabular) if with_tabular else []
    begin = _Steps(run, 2 + with_image + with_embedding + with_tabular).begin
    with run.working_on():
        # What is missing is said now, not after the conversion; weights are downloaded last of all.
        require_trainable(run, trained)
        require_tables(run)
        device = check_image(run) if with_image else None
        if with_embedding:
            check_embedding(run, run.spec)
            check_encoders(kept)
        begin("data: audit, folds" + (", records" if with_records else ""))
        fit = prepare_data(run, with_records=with_records)
        draw_data(run)
        chained = replace(run, chained=True)
        if with_image:
            begin("image model")
            train_image(chained, device=device, fit=fit)
        if with_embedding:
            begin("embedding model")
            train_embedding(chained, fit=fit)
        if with_tabular:
            begin("tabular models" if len(run.config.tabular.learners) > 1 else "tabular model")
            train_tabular(chained)
        begin("blend and submission")
        return make_submission(run)


class _Steps:
    """Says which step of how many begins, and when."""

    def __init__(self, run: Run, total: int) -> None:
        self._run, self._total, self._number = run, total, 0
        self._started = time.monotonic()

    def begin(self, what: str) -> None:
        """Say that the next step begins."""
        self._number += 1
        since = f", after {describe_seconds(time.monotonic() - self._started)}"
        self._run.say(f"step {self._number} of {self._total}: {what}{since * (self._number > 1)}")
