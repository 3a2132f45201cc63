"""What every stage is given, and what every stage leaves behind.

In: a config and folders. Out: a :class:`Run`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import (
    parse_experiment,
    read_settings,
    resolved_yaml,
    to_mapping,
    write_experiment,
)
from kaggle_pipeline.config.names import BLEND_STAGES, SUBMISSION, TEST_SCORE
from kaggle_pipeline.config.run_settings import (
    Difference,
    describe_differences,
    differences,
    record_source,
)
from kaggle_pipeline.core.commit import begin, renew
from kaggle_pipeline.core.deadline import Deadline
from kaggle_pipeline.core.environment import peak_memory_mb, versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, sweep_unfinished, write_json
from kaggle_pipeline.core.lock import locked
from kaggle_pipeline.core.progress import Progress
from kaggle_pipeline.core.record import is_as_written, was_written
from kaggle_pipeline.data.examples import PREPARE_ANEW, read_examples, read_test_truth, split_rows
from kaggle_pipeline.data.folds import Folds, shared_groups
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.evaluation.evaluate import evaluate
from kaggle_pipeline.evaluation.plots import describe_score, plot_roc, write_evaluation
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.report.results import STAGE_TITLES
from kaggle_pipeline.stages.calibrate import calibrate_stage
from kaggle_pipeline.stages.run_folder import open_stage


@dataclass(frozen=True)
class Run:
    """What every stage is given.

    Attributes
    ----------
    config : Experiment
    data_dir, run_dir : pathlib.Path
    resume, overwrite : bool
    say : callable
        Takes a line for the user.
    interactive : bool
        Whether Keras is to draw a bar an epoch; else it says a line.
    deadline : Deadline
        When to stop, with everything on disk to go on with.
    beam : sequence of str, optional
        Convert photos by Apache Beam with these options of its own; None: by processes here.
    chained : bool
        Whether the command has prepared the data before and goes on to the blend, which says all
        scores in one table.
    fingerprints : bool
        Whether photos are read for ``leakage.fingerprints``; False: not in a rehearsal, whatever
        the settings say.
    """

    config: Experiment
    data_dir: Path
    run_dir: Path
    resume: bool = False
    overwrite: bool = False
    say: Callable[[str], None] = print
    interactive: bool = False
    deadline: Deadline = field(default_factory=lambda: Deadline.after(None))
    beam: Sequence[str] | None = None
    chained: bool = False
    fingerprints: bool = True

    @property
    def spec(self) -> DatasetSpec:
        """Spec of the experiment's data set."""
        return spec_of(self.config, self.prepared, self.data_dir)

    @property
    def prepared(self) -> Path:
        """Folder of the prepare stage."""
        return self.run_dir / "prepare"

    @contextmanager
    def working_on(self, part: str = "", *, wait: bool = False) -> Iterator[None]:
        """Hold a part of the run's folder, the whole of it by default; see :func:`locked`.

        What killed processes left half-written there is removed.
        """
        with locked(self.run_dir, part, wait=wait, say=self.say):
            for name in ("prepare", "records") if part == "prepare" else (part,):
                sweep_unfinished(self.run_dir / name)
            yield

    def examples(self) -> pd.DataFrame:
        """Examples in use, read from disk."""
        return read_examples(self.prepared / "examples.csv", self.spec)

    def folds(self) -> Folds:
        """Folds, read from disk."""
        return Folds.read(self.prepared / "folds.csv")

    def progress(self, total: int, what: str, unit: str = "photo") -> Progress:
        """Return a bar with rate and time left; a line now and then in a log file.

        It raises ``OutOfTime`` once the deadline has come.
        """
        return Progress(total, what, unit, self.deadline)

    def record_origin(self, folder: Path) -> None:
        """Write the resolved config and the package versions beside a stage's results."""
        write_experiment(folder / "config.yaml", self.config)
        write_json(folder / "versions.json", versions())

    def begin_prepare(self, folder: Path) -> None:
        """Write settings and data folder down first of all: an interrupted run goes on by them."""
        begin(folder, PREPARE_ANEW)
        self.record_origin(folder)
        record_source(folder, self.data_dir)

    def drop_blend(self, of: str | None = None) -> None:
        """Delete the blend and the submission: what they were made of is made anew.

        Parameters
        ----------
        of : str, optional
            The stage that is made anew: nothing is deleted unless they were made of it. Without it
            everything is.
        """
        if of is not None and not any(of in self._blended(stage) for stage in BLEND_STAGES):
            return
        parts = [one for one in (*BLEND_STAGES, SUBMISSION) if (self.run_dir / one).exists()]
        if parts:
            self.say(f"deleted too, as made of what is made anew: {', '.join(parts)}")
        for stage in BLEND_STAGES:
            if stage in parts:
                open_stage(self.run_dir, stage, resume=False, overwrite=True).rmdir()
        for name in (SUBMISSION, TEST_SCORE):
            (self.run_dir / name).unlink(missing_ok=True)
        renew(self.run_dir, SUBMISSION, TEST_SCORE)

    def _blended(self, stage: str) -> Sequence[str]:
        """The models that a blend was made of, empty where there is none."""
        path = self.run_dir / stage / "config.yaml"
        return read_settings(path)[stage]["models"] if path.exists() else ()

    def require_same(self, folder: Path, keys: Sequence[str]) -> None:
        """Stop unless the stage in ``folder`` was begun with the same values of (dotted) ``keys``.

        Raises
        ------
        PipelineError
            That names the settings that differ.
        """
        path = folder / "config.yaml"
        if was_written(path, resolved_yaml(self.config)):
            if not is_as_written(path, hashed=True):
                write_experiment(path, self.config)
                self.say(f"note: {path} was damaged: written anew, with the same content")
            return
        if differing := self.differences(folder, keys):
            again = "prepare_data --overwrite" if folder == self.prepared else "--overwrite"
            raise PipelineError(
                f"{folder} was made with {describe_differences(differing)}: leave out --config and "
                f"--set, and --run-dir {self.run_dir} goes on with its own settings; or choose "
                f"another --run-dir, or {again}"
            )

    def differences(self, folder: Path, keys: Sequence[str]) -> list[Difference]:
        """Return in which of the (dotted) ``keys`` the stage in ``folder`` was begun otherwise."""
        path = folder / "config.yaml"
        if not path.exists():
            return []
        content = read_settings(path)
        try:
            # Settings that are newer than the run get their defaults.
            before = to_mapping(parse_experiment(content))
        except PipelineError as error:
            raise PipelineError(f"{path}: {error}") from None
        now = to_mapping(self.config)
        for one in (*(before.get("external") or ()), *now["external"]):
            one.pop("data_dir", None)  # where it lies decides nothing: Kaggle mounts it elsewhere
        return differences(before, now, keys)

    def evaluate(
        self,
        folder: Path,
        oof: Predictions,
        test: Predictions | None,
        examples: pd.DataFrame,
        folds: Folds,
        **further: object,
    ) -> dict:
        """Write ``metrics.json``, the evaluation and the calibration of a stage's predictions.

        Out-of-fold predictions give ``evaluation.json``, ``calibration.json`` and pictures; test
        predictions an evaluation under ``test_``, where the test part was set aside from labelled
        data.

        Parameters
        ----------
        folder : pathlib.Path
        oof, test : Predictions
        examples : pandas.DataFrame
        folds : Folds
        **further
            Added to the metrics, such as ``seconds``.

        Returns
        -------
        dict
            The metrics.
        """
        spec, seed = self.spec, self.config.seed
        groups_split = self.config.folds.by == "image"
        marks = {}
        if groups_split:
            marks[f"{spec.group} seen in training"] = _seen_in_training(examples, folds)
        evaluation = evaluate(examples, oof.probabilities, spec, seed=seed, marks=marks)
        write_evaluation(folder, evaluation)
        truth = None if test is None else read_test_truth(self.prepared, spec)
        if truth is not None:
            scored = evaluate(
                examples, test.probabilities, spec, seed=seed, truth=truth, marks=marks
            )
            write_evaluation(folder, scored, prefix="test_")
        calibrate_stage(folder, oof, test, examples, truth, spec, self.config)
        metrics = _summarise(evaluation)
        metrics |= {"peak_memory_mb": peak_memory_mb(), **further, "groups_ignored": groups_split}
        if spec.group is not None:
            metrics["groups_shared_with_test"] = len(shared_groups(examples))
        metrics["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / "metrics.json", metrics)
        return metrics

    def draw_roc(
        self, folder: Path, models: Mapping[str, Predictions], examples: pd.DataFrame
    ) -> None:
        """Draw ``roc.png`` of out-of-fold predictions, a curve a model and class.

        The evaluations beside the predictions give the intervals; the last model, whose evaluation
        is in ``folder``, has its 95 % band.
        """
        curves, labels = {}, {}
        single = len(self.spec.classes) == 1
        for model, oof in models.items():
            path = self.run_dir / model / "evaluation.json"
            scores = read_json(path)["per_class"] if path.exists() else {}
            for name in self.spec.classes:
                key = STAGE_TITLES[model] if single else f"{model} {name}"
                truth = examples.loc[oof.table.index, name].to_numpy(int)
                curves[key] = (truth, oof.table[name].to_numpy())
                plain = f"{roc_auc(*curves[key]):.3f}"
                labels[key] = f"AUC {describe_score(scores[name]['auc']) if scores else plain}"
        what = self.spec.class_label(self.spec.main_class) if single else "the class"
        roc = read_json(folder / "evaluation.json")["roc"][self.spec.main_class]
        band = roc.get("band") if single and roc else None
        plot_roc(curves, labels, folder / "roc.png", what=what, band=band)


def _summarise(evaluation: dict) -> dict:
    """What ``metrics.json`` says of an evaluation: the few numbers that people compare."""
    auc, positives = evaluation["scores"]["auc"], evaluation["counts"]
    counts = [counted["positive"] for counted in positives.values()]
    return {
        "oof_auc": auc["value"],
        "oof_auc_low": auc["low"],
        "oof_auc_high": auc["high"],
        "accuracy": evaluation["scores"]["accuracy"]["value"],
        "balanced_accuracy": evaluation["scores"]["balanced_accuracy"]["value"],
        "n": evaluation["n"],
        "n_positive": counts[0] if len(counts) == 1 else counts,
    }


def _seen_in_training(examples: pd.DataFrame, folds: Folds) -> pd.Series:
    """Whether the model that was scored on an image had learned from another one of its group."""
    groups = examples["group_id"]
    known = set(groups.loc[folds.table.index])
    seen = {one: groups[one] in known for one in split_rows(examples, "test").index}
    for fold in folds.numbers:
        learned = set(groups.loc[folds.train_ids(fold)])
        seen |= {one: groups[one] in learned for one in folds.valid_ids(fold)}
    return pd.Series(seen)
