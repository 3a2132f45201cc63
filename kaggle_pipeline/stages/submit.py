"""Blend, submission, the whole way, and scoring against kept-apart truth.

In: a :class:`Run` with trained models. Out: the run's ``blend/`` and ``submission.csv``.
"""

import time
from pathlib import Path

import pandas as pd

from kaggle_pipeline.blend import blend_oof, blend_test, fit_blend
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.examples import split_rows
from kaggle_pipeline.metrics import auc_with_interval
from kaggle_pipeline.predictions import Predictions, join_by_id
from kaggle_pipeline.rundir import open_stage, read_json, write_json
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import MODEL_STAGES, Run
from kaggle_pipeline.stages.train import train_image, train_tabular
from kaggle_pipeline.submission import build_submission, check_submission, write_submission


def make_submission(run: Run) -> Path:
    """Blend the models' predictions and write ``submission.csv``; return its path.

    Raises
    ------
    PipelineError
        If a model named in ``blend.models`` is not trained, or the result fails the check.
    """
    started = time.perf_counter()
    config, spec = run.config, run.spec
    examples, folds = run.examples(), run.folds()
    oof = {name: _read_model(run, name, "oof") for name in config.blend.models}
    for name, predictions in oof.items():
        predictions.require(folds.judged.index, name)
        if not predictions.table["fold"].loc[folds.judged.index].equals(folds.judged["fold"]):
            raise PipelineError(f"the model {name!r} was judged on other folds than this run's")
    # Cheap and derived from files that are kept: it is simply made anew.
    folder = open_stage(run.run_dir, "blend", resume=False, overwrite=True)
    run.record_origin(folder)
    nested = blend_oof(oof, examples, folds, spec, config.blend)
    nested.write(folder / "oof.csv")
    ids = folds.judged.index
    targets = examples.loc[ids, list(spec.classes)]
    blend = fit_blend(join_by_id(oof, ids), targets, config.blend)
    write_json(folder / "blend.json", blend.to_mapping())
    seconds = round(time.perf_counter() - started, 3)
    optimistic = any(
        read_json(run.run_dir / name / "metrics.json")["epoch_chosen_on_judged_rows"]
        for name in oof
    )
    run.write_scores(
        folder,
        nested,
        examples,
        seconds=seconds,
        weights=blend.weights,
        epoch_chosen_on_judged_rows=optimistic,
    )
    run.draw_roc(folder, {**oof, "blend": nested}, examples)
    test_ids = split_rows(examples, "test").index
    if not len(test_ids):
        raise PipelineError(f"{spec.id} has no test rows here, so there is nothing to submit")
    test = {name: _read_model(run, name, "test") for name in config.blend.models}
    blended = blend_test(blend, test, test_ids)
    blended.write(folder / "test.csv")
    sample_path = run.prepared / "sample_submission.csv"
    id_type = {spec.submission.id_column: str}
    sample = pd.read_csv(sample_path, dtype=id_type) if sample_path.exists() else None
    submission = build_submission(blended, spec, sample)
    if sample is not None:
        check_submission(submission, spec, sample)
    path = run.run_dir / "submission.csv"
    write_submission(submission, path)
    run.say(_score_table(run))
    checked = "no sample to check against" if sample is None else "checked against the sample"
    run.say(f"{path}: {len(submission)} rows, {checked}")
    return path


def _read_model(run: Run, name: str, split: str) -> Predictions:
    path = run.run_dir / name / f"{split}.csv"
    if not path.exists():
        others = [stage for stage in MODEL_STAGES if (run.run_dir / stage / "oof.csv").exists()]
        hint = f", or say --set blend.models=[{','.join(others)}]" if others else ""
        raise PipelineError(f"the model {name!r} is not trained in {run.run_dir}: train it{hint}")
    return Predictions.read(path, run.spec.classes)


def _score_table(run: Run) -> str:
    """Scores of all finished stages, one line each."""
    lines = [
        "",
        f"{'model':<10}{'OOF AUC':>9}   {'95 % interval':<19}{'images':>8}{'positive':>10}",
    ]
    for stage in (*run.config.blend.models, "blend"):
        path = run.run_dir / stage / "metrics.json"
        if path.exists():
            m = read_json(path)
            interval = f"[{m['oof_auc_low']:.4f}, {m['oof_auc_high']:.4f}]"
            counts = f"{m['n']:>8}{m['n_positive']!s:>10}"
            mark = "  optimistic" if m["epoch_chosen_on_judged_rows"] else ""
            lines.append(f"{stage:<10}{m['oof_auc']:>9.4f}   {interval:<19}{counts}{mark}")
    weights = read_json(run.run_dir / "blend" / "metrics.json")["weights"]
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return "\n".join([*lines, f"blend weights: {shares} (space: {run.config.blend.space})", ""])


def run_pipeline(run: Run) -> Path:
    """Prepare, train both models, blend; return the submission's path."""
    wanted = run.config.blend.models
    if "image" in wanted:
        from kaggle_pipeline.accelerator import choose_accelerator

        choose_accelerator(run.config.device)  # its absence is said now, not after the conversion
    prepare_data(run, with_records="image" in wanted)
    if "image" in wanted:
        train_image(run)
    if "tabular" in wanted:
        train_tabular(run)
    return make_submission(run)


def _read_scored(path: Path) -> pd.DataFrame:
    """A CSV with ``image_name`` and a 0-to-1 ``target``, indexed by the former."""
    try:
        table = pd.read_csv(path, dtype={"image_name": str})
    except FileNotFoundError:
        raise PipelineError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise PipelineError(f"{path} cannot be read as CSV: {error}") from None
    for column in ("image_name", "target"):
        if column not in table:
            raise PipelineError(f"{path} has no column {column!r}")
    if table["image_name"].duplicated().any():
        twice = table["image_name"][table["image_name"].duplicated()].iloc[0]
        raise PipelineError(f"{path} lists {twice} more than once")
    bad = ~pd.to_numeric(table["target"], errors="coerce").between(0, 1)
    if bad.any():
        raise PipelineError(
            f"{path}: target of {table['image_name'][bad].iloc[0]} is not in [0, 1]"
        )
    return table.set_index("image_name")


def score_submission(submission_path: Path, truth_path: Path, seed: int) -> str:
    """Return one line with the AUC of a submission against kept-apart truth.

    Parameters
    ----------
    submission_path : pathlib.Path
        Id column, then probability.
    truth_path : pathlib.Path
        ``image_name``, ``target`` and, for the interval, ``patient_id``.
    seed : int
        Of the bootstrap.

    Raises
    ------
    PipelineError
        If a file is missing or an id is in one of them only.
    """
    tables = []
    for path in (submission_path, truth_path):
        tables.append(_read_scored(path))
    submission, truth = tables
    odd = submission.index.symmetric_difference(truth.index)
    if len(odd):
        raise PipelineError(f"{odd[0]} is in only one of {submission_path} and {truth_path}")
    truth = truth.loc[submission.index]
    groups = truth["patient_id"] if "patient_id" in truth else pd.Series(truth.index)
    score = auc_with_interval(
        truth["target"].to_numpy(int), submission["target"].to_numpy(), groups.to_numpy(), seed=seed
    )
    return f"test AUC {score} on {len(truth)} images, {int(truth['target'].sum())} positive"
