"""What a change of the image recipe is worth: one change at a time, several seeds, paired by photo.

In: a prepared run and a YAML list of changes. Out: a JSON row a fit, written as each fit ends, so
that a run that was stopped goes on; and a table of differences from the baseline with intervals.

Scores are of the run's validation rows; rows of a test part are neither predicted nor read.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kaggle_pipeline.config.experiment import DecisionConfig, Experiment, ExternalConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.yaml_text import parse_yaml
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL, read_examples
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.evaluation.calibration import nested as nesting
from kaggle_pipeline.evaluation.decision.fitting import fit_rule
from kaggle_pipeline.evaluation.labelled import join_truth
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, WeightedAuc, score_of
from kaggle_pipeline.records.tfrecords import shards_holding

BASELINE = "baseline"
_SEEDS_APART = 1000
"""Between two fits' seeds; a fold adds its number, the networks of a fold hundreds."""
_DIGITS = 6
_REPLICATES = 1000


@dataclass(frozen=True)
class Change:
    """One entry of the list: ``{name: mixup, set: [image.mixup=0.2], seeds: 3, keep: false}``."""

    name: str
    set: tuple[str, ...] = ()
    seeds: int = 1
    keep: bool = False
    """Save the first seed's network too."""


@dataclass(frozen=True)
class Fit:
    """One fit to be done: a change and the number of its seed."""

    change: Change
    number: int

    @property
    def key(self) -> tuple[str, int]:
        """What a finished row is known by."""
        return self.change.name, self.number


def read_changes(path: Path) -> list[Change]:
    """Return the changes that a YAML file lists.

    Raises
    ------
    PipelineError
        If the file is no such list, names one twice, or has no ``baseline``.
    """
    try:
        content = parse_yaml(Path(path).read_text())
        found = [Change(**{**one, "set": tuple(one.get("set", ()))}) for one in content]
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise PipelineError(f"{path} is no list of changes: {error}") from None
    names = [one.name for one in found]
    if BASELINE not in names or len(set(names)) < len(names):
        raise PipelineError(f"{path}: every change needs a name of its own, one {BASELINE!r}")
    return found


def plan_fits(changes: Sequence[Change], done: set[tuple[str, int]]) -> list[Fit]:
    """Return what is to be fitted: the baseline first, then a seed of every change at a time."""
    fits = [Fit(one, number) for one in changes for number in range(one.seeds)]
    places = {one.name: place for place, one in enumerate(changes)}
    fits.sort(key=lambda fit: (fit.change.name != BASELINE, fit.number, places[fit.change.name]))
    return [fit for fit in fits if fit.key not in done]


def measure_recipes(
    config_path: Path,
    changes_path: Path,
    run_dir: Path,
    rows_path: Path,
    *,
    processes: int = 1,
    limit_s: float | None = None,
    device: str = "auto",
    common: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Do the fits that are not done yet; :func:`describe_rows` makes a table of them.

    Parameters
    ----------
    config_path : pathlib.Path
        The experiment that is changed.
    changes_path : pathlib.Path
        See :class:`Change`.
    run_dir : pathlib.Path
        Prepared by that config, with every further collection that a change may use.
    rows_path : pathlib.Path
        JSON lines, one a fit; networks that are kept lie beside it.
    processes : int
        Fits side by side, on one device.
    limit_s : float, optional
        Stop after so many seconds; fits that are under way are lost.
    device : {"auto", "cpu", "gpu", "tpu"}
    common : sequence of str
        ``key=value`` for every fit, such as the place of the weights.
    say : callable
    """
    started = time.monotonic()
    changes = read_changes(changes_path)
    for one in changes:  # a mistake is said before any fit
        chosen = load_experiment(config_path, [*common, *one.set]).image
        if chosen.selection != "none":
            raise PipelineError(
                f"{changes_path}: {one.name}: image.checkpoint is {chosen.checkpoint}, must be "
                "last: nothing is held out to choose an epoch by"
            )
    rows_path.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["change"], row["number"]) for row in read_rows(rows_path)}
    fits = plan_fits(changes, done)
    say(f"{len(fits)} fits to do, {len(done)} done already, {processes} side by side")
    spawn = get_context("spawn")
    waiting, finished = spawn.Queue(), spawn.Queue()
    for fit in fits:
        waiting.put(fit)
    work = partial(_work, config_path, run_dir, rows_path.parent, device, tuple(common))
    workers = [
        spawn.Process(target=work, args=(waiting, finished), daemon=True)
        for _ in range(min(processes, len(fits)))
    ]
    for worker in workers:
        worker.start()
    left = len(fits)
    while left and (limit_s is None or time.monotonic() - started < limit_s):
        working = any(worker.is_alive() for worker in workers)  # before: the last row may wait
        try:
            row = finished.get(timeout=1)
        except Empty:
            if not working:
                break
            continue
        left -= 1
        if "error" in row:
            say(f"{row['change']} seed {row['number']}: {row['error']}")
            continue
        with rows_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        say(f"{time.monotonic() - started:6.0f} s  {row['change']}, seed {row['number']}: "
            f"{row['seconds']:.0f} s")  # fmt: skip
    if left:
        why = "the time is up" if any(worker.is_alive() for worker in workers) else "a process died"
        say(f"{left} fits are not done: {why}; the same command goes on")
    for worker in workers:
        worker.terminate()


def _work(
    config_path: Path, run_dir: Path, out: Path, device: str, common: Sequence[str],
    waiting: Any, finished: Any,
) -> None:  # fmt: skip
    """Do one fit after the other, in a process of its own, until there is none."""
    while True:
        try:
            fit = waiting.get(timeout=1)
        except Empty:
            return
        row = {"change": fit.change.name, "number": fit.number, "set": list(fit.change.set)}
        try:
            config = load_experiment(config_path, [*common, *fit.change.set])
            keep = out / fit.change.name if fit.change.keep and fit.number == 0 else None
            row |= fit_once(config, run_dir, fit.number, device, keep)
        except Exception as error:  # the others go on
            row["error"] = f"{type(error).__name__}: {error}"
        finished.put(row)


def fit_once(
    config: Experiment, run_dir: Path, number: int, device: str = "auto", keep: Path | None = None
) -> dict[str, Any]:
    """Train every fold of a prepared run with one seed; return its out-of-fold probabilities.

    Parameters
    ----------
    config : Experiment
    run_dir : pathlib.Path
    number : int
        Of the seed; the folds stay as they were prepared.
    device : {"auto", "cpu", "gpu", "tpu"}
    keep : pathlib.Path, optional
        Save each fold's network there.

    Returns
    -------
    dict
        ``ids``, ``probabilities``, ``seconds``, ``cpu_seconds``, ``device``.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    chosen = choose_accelerator(device)
    from kaggle_pipeline.stages.train_image import image_model_maker

    prepared = Path(run_dir) / "prepare"
    spec = spec_of(config, prepared, None)
    examples = read_examples(prepared / "examples.csv", spec)
    outside = choose_external(examples[examples["split"] == EXTERNAL], config.external)
    folds = Folds.read(prepared / "folds.csv")
    index = pd.read_csv(prepared / "records.csv", dtype=str)
    config = replace(config, seed=config.seed + _SEEDS_APART * number)
    started, used = time.perf_counter(), time.process_time()
    parts = []
    with TemporaryDirectory() as scratch:
        make_model = image_model_maker(
            config, spec, partial(shards_holding, index), chosen,
            features_dir=Path(scratch) / "features", verbose=0,
            swap_red_blue=config.records.channel_order == "bgr",
        )  # fmt: skip
        for fold in folds.numbers:
            place = Path(scratch) / f"fold{fold}"
            place.mkdir()
            model = make_model(fold, place)
            model.fit(pd.concat([examples.loc[folds.train_ids(fold)], outside]), None)
            parts.append(model.predict(examples.loc[folds.valid_ids(fold)]))
            if keep is not None:
                (keep / f"fold{fold}").mkdir(parents=True, exist_ok=True)
                model.save(keep / f"fold{fold}")
    found = pd.concat(parts)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "device": chosen.reason,
        "ids": found.index.tolist(),
        "probabilities": found.round(_DIGITS).to_numpy().tolist(),
    }


def choose_external(rows: pd.DataFrame, wanted: Sequence[ExternalConfig]) -> pd.DataFrame:
    """Return the rows of the collections that an experiment names, weighed as it says.

    Raises
    ------
    PipelineError
        If a collection was not prepared.
    """
    weights = {one.dataset: one.weight for one in wanted}
    missing = set(weights) - set(rows["source"] if len(rows) else ())
    if missing:
        raise PipelineError(f"external: {min(missing)} is not in the prepared run")
    rows = rows[rows["source"].isin(weights)] if len(rows) else rows
    return rows.assign(row_weight=rows["source"].map(weights)) if len(rows) else rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the finished fits; the last line of a stopped run may be cut off."""
    if not Path(path).exists():
        return []
    found = []
    for line in Path(path).read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


# ---------------------------------------------------------------------------- table


def print_table(rows_path: Path, run_dir: Path, say: Callable[[str], None] = print) -> None:
    """Say the table of finished fits of a prepared run."""
    prepared = Path(run_dir) / "prepare"
    spec = spec_of(load_experiment(prepared / "config.yaml"), prepared, None)
    say(describe_rows(read_rows(rows_path), read_examples(prepared / "examples.csv", spec), spec))


def describe_rows(
    rows: Sequence[Mapping[str, Any]], examples: pd.DataFrame, spec: DatasetSpec
) -> str:
    """Return a Markdown table: each change's mean over seeds, and its paired gain.

    A change is compared with the baseline on the seeds that both have. Intervals draw whole groups;
    they know nothing of how two seeds differ, which the column ``spread`` shows. A change of
    several seeds has a second row, the mean of their networks beside the baseline's single ones.

    Parameters
    ----------
    rows : sequence of mapping
        Of :func:`measure_recipes`.
    examples : pandas.DataFrame
    spec : DatasetSpec

    Raises
    ------
    PipelineError
        If two fits scored other photos: they cannot be compared in pairs.
    """
    for row in rows:
        if row["ids"] != rows[0]["ids"]:
            raise PipelineError(
                f"{row['change']}, seed {row['number']}, scored other photos than "
                f"{rows[0]['change']}: write the fits of another prepared run to other --rows"
            )
    scores = {(row["change"], row["number"]): score_fit(row, examples, spec) for row in rows}
    bare = {number: one for (name, number), one in scores.items() if name == BASELINE}
    head = ["change", "seeds", "AUC", "spread", f"AUC {spec.classes[0]}", "log loss",
            "decision", "seconds", "over the baseline: AUC", f"AUC {spec.classes[0]}",
            "log loss", "decision"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(row["change"] for row in rows):
        fits = [row for row in rows if row["change"] == name]
        mine = {row["number"]: scores[name, row["number"]] for row in fits}
        both = sorted(set(mine) & set(bare)) if name != BASELINE else []
        pairs = [(mine[one], bare[one]) for one in both]
        seconds = np.mean([row["seconds"] for row in fits])
        lines.append([name, *_describe_scores(list(mine.values()), seconds, pairs)])
        if len(fits) > 1:  # what image.seeds would do
            joined = score_fit(mean_fit(fits), examples, spec)
            pairs = [(joined, one) for one in bare.values()]
            seconds = sum(row["seconds"] for row in fits)
            lines.append([f"{name}: mean of the {len(fits)} networks",
                          *_describe_scores([joined], seconds, pairs)])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_fit(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of several fits' probabilities as one fit, as ``image.seeds`` makes it."""
    return {**rows[0], "probabilities": np.mean([row["probabilities"] for row in rows], axis=0)}


_KEYS = ("auc", "first", "log_loss", "decision")


def _describe_scores(
    scores: Sequence[Mapping[str, np.ndarray]],
    seconds: float,
    pairs: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
) -> list[str]:
    """Return a line's cells: mean scores of some fits, and what they gain in pairs."""
    means = {key: np.mean([one[key][0] for one in scores]) for key in _KEYS}
    spread = np.ptp([one["auc"][0] for one in scores])
    cells = [str(len(scores)), f"{means['auc']:.4f}", f"{spread:.4f}"]
    cells += [f"{means[key]:.4f}" for key in _KEYS[1:]] + [f"{seconds:.0f}"]
    for key in _KEYS:
        gains = [mine[key] - other[key] for mine, other in pairs]
        found = score_of(np.mean(gains, axis=0)) if gains else None
        cells.append(f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]" if found else "–")
    return cells


def score_fit(
    row: Mapping[str, Any], examples: pd.DataFrame, spec: DatasetSpec
) -> dict[str, np.ndarray]:
    """Return a fit's scores under each bootstrap weight, (1 + replicates,) each.

    ``auc`` (mean over the classes), ``first`` (of the first class), ``log_loss`` (of calibrated
    probabilities) and ``decision``: the balanced accuracy of the learned decision, both nested.
    """
    frame = pd.DataFrame(row["probabilities"], row["ids"], list(spec.classes))
    if spec.task == "multiclass":  # rounded in the file
        frame = frame.div(frame.sum(axis=1), axis=0)
    labelled = join_truth(examples, frame, spec, 0, _REPLICATES, None)
    truth, weights = labelled.truth, labelled.weights
    learn = partial(fit_rule, task=spec.task, classes=spec.classes, config=DecisionConfig(),
                    leave=nesting.lacking(labelled))  # fmt: skip
    nested = nesting.nest(
        "temperature", labelled, nesting.divide(labelled, 0), leave=nesting.lacking(labelled),
        rules={"learned": lambda truth, found: learn(truth, found).decide},
    )  # fmt: skip
    calibrated, decided = nested.probabilities, nested.decided["learned"]
    return {
        "auc": MeanAuc(truth, labelled.probabilities).each(weights),
        "first": WeightedAuc(truth[:, 0], labelled.probabilities[:, 0]).each(weights),
        "log_loss": weighted_scores.log_loss(weights, truth, calibrated, spec.task),
        "decision": weighted_scores.balanced_accuracy(weights, truth, decided, spec.task),
    }
