"""Blend the trained models: their out-of-fold and test predictions → ``submission.csv``."""

from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.names import (
    MADE_UP_TRUTH,
    MODEL_STAGES,
    PREPARED_BY,
    SUBMISSION,
    TEST_SCORE,
    TRAINED_BY,
)
from kaggle_pipeline.config.run_folders import require_run
from kaggle_pipeline.config.run_settings import Difference, describe_differences
from kaggle_pipeline.core.commit import begin, commit, renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.record import is_done
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.submission import (
    build_submission,
    check_submission,
    read_submission,
    write_submission,
)
from kaggle_pipeline.ensembling.blend import FILE as BLEND_FILE
from kaggle_pipeline.ensembling.blend import Blend, blend_test, check_blend, fit_nested
from kaggle_pipeline.evaluation.calibration.calibration import read_calibration
from kaggle_pipeline.evaluation.decision.decision import FILE, read_decision
from kaggle_pipeline.evaluation.gallery import write_gallery
from kaggle_pipeline.models.cross_validation import require_same_rows, unfinished
from kaggle_pipeline.models.learned_rows import digest_rows
from kaggle_pipeline.report.report import write_report
from kaggle_pipeline.report.run_tables import compare_runs
from kaggle_pipeline.stages.raw_tables import require_same_tables
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.run_folder import open_stage, remedy_of
from kaggle_pipeline.stages.score_submission import score_submission
from kaggle_pipeline.stages.took import Stopwatch, write_took
from kaggle_pipeline.stages.train_folds import DECIDING


def make_submission(run: Run) -> Path | None:
    """Blend the models' predictions and write ``submission.csv``.

    Returns
    -------
    pathlib.Path or None
        None where the data set has no test rows: the blend is scored, there is nothing to submit.

    Raises
    ------
    PipelineError
        If a model named in ``blend.models`` is not trained, or the result fails the check.
    """
    require_run(run.run_dir)
    with run.working_on("blend"):
        return _make_submission(run)


def _make_submission(run: Run) -> Path | None:
    watch = Stopwatch()
    require_same_tables(run, run.prepared)
    run.require_same(run.prepared, PREPARED_BY)  # another config could hide how rows were divided
    config, spec = run.config, run.spec
    check_blend(config.blend, spec)
    examples, folds = run.examples(), run.folds()
    oof = {name: _read_model(run, name, "oof") for name in config.blend.models}
    rows = digest_rows(examples, spec, folds)
    for name, predictions in oof.items():
        require_same_rows(rows, run.run_dir / name)
        predictions.require(folds.validated.index, name)
        if not predictions.table["fold"].loc[folds.validated.index].equals(folds.validated["fold"]):
            raise PipelineError(
                f"the model {name!r} was scored on other folds than this run's: train it anew with "
                "--overwrite"
            )
        differing = run.differences(run.run_dir / name, DECIDING[name])
        if others := [one for one in differing if not _says_where(one)]:
            run.say(f"note: {name} was trained with {describe_differences(others)}")
    # Cheap and derived from files that are kept: it is simply made anew.
    folder = open_stage(run.run_dir, "blend", resume=False, overwrite=True)
    (run.run_dir / TEST_SCORE).unlink(missing_ok=True)  # of the submission before
    renew(run.run_dir, TEST_SCORE)
    begin(folder, remedy_of("blend"))
    run.record_origin(folder)
    blend, nested = fit_nested(oof, examples, folds, spec, config.blend, seed=config.seed)
    nested.write(folder / "oof.csv")
    write_json(folder / BLEND_FILE, blend.to_mapping())
    seconds = watch.read()["seconds"]
    optimistic = any(
        read_json(run.run_dir / name / "metrics.json")["epoch_chosen_on_judged_rows"]
        for name in oof
    )
    test_ids = split_rows(examples, "test").index
    blended = _blend_test(run, blend, test_ids)
    shares = blend.effective_shares({name: one.probabilities for name, one in oof.items()})
    run.evaluate(
        folder, nested, blended, examples, folds, seconds=seconds, weights=blend.weights,
        effective_shares=shares,
        weights_method=blend.method, weights_why=blend.why,
        epoch_chosen_on_judged_rows=optimistic,
    )  # fmt: skip
    run.draw_roc(folder, {**oof, "blend": nested}, examples)
    write_gallery(folder, examples, nested, spec, run.data_dir)
    if blended is not None:
        blended.write(folder / "test.csv")
    commit(folder)
    write_took(folder, watch.read())  # the report sets it beside the plan
    run.say(compare_runs([run.run_dir]))
    weights = ", ".join(
        f"{name} {weight:.2f}" + (f" (effective {shares[name]:.0%})" if len(shares) > 1 else "")
        for name, weight in blend.weights.items()
    )
    run.say(f"blend weights: {weights} (space: {blend.space}; {blend.why})")
    run.say(f"report: {write_report(run.run_dir, spec)}")
    if blended is None:
        run.say(f"done: scored out of fold; without test rows there is no {SUBMISSION} to write")
        return None
    return write_checked_submission(run, blended, folder)


def _says_where(one: Difference) -> bool:
    """Whether two settings differ in where files lie alone: kernels mount weights and records."""
    of_weights = one.key == "image.weights"
    in_a_file = any("/" in str(value) or "\\" in str(value) for value in (one.before, one.now))
    return one.key == "records.source" or (of_weights and in_a_file)


def _blend_test(run: Run, blend: Blend, ids: pd.Index) -> Predictions | None:
    """The blend of the models' test predictions; None where nothing is to be predicted."""
    if not len(ids):
        return None
    test = {name: _read_model(run, name, "test") for name in run.config.blend.models}
    return blend_test(blend, test, ids)


def write_checked_submission(run: Run, blended: Predictions, folder: Path) -> Path:
    """Write ``submission.csv`` of test predictions, compared with the sample where there is one.

    A made-up competition's is also scored with the truth beside its data, once all is written.
    Where the challenge scores the class with the highest number, the calibrated probabilities are
    rescaled by the decision of the stage, so that this class is the decision.
    """
    spec = run.spec
    if spec.submission.by_highest:
        blended = _rescale(run, blended, folder)
    sample_path = run.prepared / "sample_submission.csv"
    sample = read_submission(sample_path, spec) if sample_path.exists() else None
    submission = build_submission(blended, spec, sample)
    if sample is not None:
        check_submission(submission, spec, sample)
    path = run.run_dir / SUBMISSION
    write_submission(submission, path)
    renew(run.run_dir, SUBMISSION)
    checked = "no sample to check against" if sample is None else "checked against the sample"
    run.say(f"{path}: {len(submission)} rows, {checked}")
    truth = run.data_dir.parent / MADE_UP_TRUTH
    if spec.made_up and sample is not None and truth.is_file():
        try:
            for line in score_submission(path, truth, seed=0).splitlines():
                run.say(line)
        except PipelineError as error:  # the submission is whole
            run.say(f"note: not scored with {truth}: {error}")
    return path


def _rescale(run: Run, blended: Predictions, folder: Path) -> Predictions:
    """Scores of a softmax whose highest in a row is the decision of the stage in ``folder``."""
    calibration, decision = read_calibration(folder), read_decision(folder)
    calibrated = calibration.apply(blended.probabilities)
    found = decision.rule.scores(calibrated.to_numpy())
    run.say(
        f"{run.spec.id} is scored by the class with the highest number, so the submission's "
        f"numbers are calibrated probabilities rescaled by {folder / FILE} ({decision.why}); "
        f"{folder / 'test.csv'} keeps the probabilities"
    )
    scores = pd.DataFrame(found, calibrated.index, calibrated.columns)
    return Predictions.build(scores, blended.table["fold"], "test")


def _read_model(run: Run, name: str, split: str) -> Predictions:
    path = run.run_dir / name / f"{split}.csv"
    if not is_done(path.parent, path.name) or not path.exists():
        folds = run.folds()
        missing = unfinished(folds, run.run_dir / name)
        if len(missing) < len(folds.numbers):
            script = TRAINED_BY[name]
            lacking = f"folds {missing} of the model {name!r} are not trained yet"
            how = "".join(f" --fold {fold}" for fold in missing)
            if not missing:
                lacking, how = f"the folds of the model {name!r} are not joined yet", " --resume"
            how = f" --run-dir {run.run_dir}{how}"
            raise PipelineError(f"{lacking}: python scripts/{script}.py{how}")
        others = [stage for stage in MODEL_STAGES if (run.run_dir / stage / "oof.csv").exists()]
        hint = f", or say --set blend.models=[{','.join(others)}]" if others else ""
        raise PipelineError(f"the model {name!r} is not trained in {run.run_dir}: train it{hint}")
    return Predictions.read(path, run.spec.classes)
