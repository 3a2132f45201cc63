"""The one loop over folds.

In: a way to make a model, examples and folds. Out: ``fold<k>/{oof,test}.csv`` and weights a fold,
then ``oof.csv`` and ``test.csv`` of all, joined by id.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from functools import partial
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig, TabularConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.names import TRAINED_BY
from kaggle_pipeline.core.child_process import worker_pool
from kaggle_pipeline.core.commit import adopt, begin, commit
from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.environment import cpu_seconds, peak_memory_mb
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, write_json
from kaggle_pipeline.core.progress import describe_seconds
from kaggle_pipeline.core.record import is_done
from kaggle_pipeline.data.examples import EXTERNAL, require_choice, split_rows
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, average
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.learned_rows import digest_rows, keep_rows, require_rows
from kaggle_pipeline.models.protocols import Model

ALL_ROWS = "all"
"""Folder of the model that learned from the rows of all folds, beside those of the folds."""
METRICS = "metrics.json"
"""In both: seconds and memory that the model took."""
ALL_NUMBER = 99
"""Stands for a fold's number where that model's seed and size are chosen."""
LAST = "oof.csv"
"""What a fold writes last before its record."""
MADE_UP = "made_up.csv"
"""In a fold's folder: what its model says of photos that belong to no data set."""
REMEDY = "delete {folder} and run the same command with --resume, which trains that fold anew"


def cross_validate(
    make_model: Callable[[int, Path], Model],
    examples: pd.DataFrame,
    spec: DatasetSpec,
    folds: Folds,
    folder: Path,
    *,
    seed: int,
    only: Sequence[int] | None = None,
    made_up: pd.DataFrame | None = None,
    deadline: Deadline | None = None,
    all_min: Callable[[int], int] = int,
    processes: int = 1,
    start_process: Callable[[], object] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Train and judge one model a fold; a fold whose predictions are on disk is not done again.

    Parameters
    ----------
    make_model : callable
        ``make_model(fold, folder) -> Model``.
    examples : pandas.DataFrame
        Training and test rows; every fold's model also learns from ``external`` ones.
    spec : DatasetSpec
    folds : Folds
    folder : pathlib.Path
        Of the stage; each fold gets ``fold<k>`` in it.
    seed : int
        Of the inner splits.
    only : sequence of int, optional
        These folds alone.
    made_up : pandas.DataFrame, optional
        Examples of photos that belong to no data set: each fold keeps its answers to them.
    deadline : Deadline, optional
        No fold is begun after it.
    all_min : callable
        Least of all processes' numbers, where several train together: a fold is done, or trained,
        when it is so for all of them, or some would wait for the others for ever.
    processes : int
        Folds trained side by side, each in a process of its own; ``make_model`` must be picklable
        and ``all_min`` the default. The predictions are the same.
    start_process : callable, optional
        Called once in each of these processes: a function of a module.
    report : callable
        Told in one line what goes on.

    Raises
    ------
    PipelineError
        If ``only`` names a fold that there is not, or a fold's process is killed.
    OutOfTime
        If the deadline comes first; the same call then goes on where this one stopped.
    """
    pending, rows = [], digest_rows(examples, spec, folds)
    for fold in _chosen(folds, only):
        place = folder / f"fold{fold}"
        require_rows(place, rows)
        if all_min(is_done(place, LAST)):
            report(f"fold {fold}: done already{adopt(place, REMEDY)}")
        else:
            pending.append(fold)
    outside = len(split_rows(examples, EXTERNAL))
    more = f" and {outside} from elsewhere" if outside else ""
    job = partial(
        _train_fold,
        make_model,
        examples,
        spec,
        folds,
        folder,
        seed,
        made_up,
        deadline,
        all_min,
        rows,
    )

    def announce(fold: int) -> None:
        learned, scored = len(folds.train_ids(fold)), len(folds.valid_ids(fold))
        report(f"fold {fold}: {learned} photos{more} to learn from, {scored} for validation")

    if processes == 1 or len(pending) < 2:
        for done, fold in enumerate(pending, start=1):
            announce(fold)
            seconds, left = job(fold), len(pending) - done
            rest = f", about {describe_seconds(seconds * left)} for {left} more" if left else ""
            report(f"fold {fold}: done in {describe_seconds(seconds)}{rest}")
        return
    advice = "run the same command with --resume to go on, with --fold K for one fold at a time"
    with worker_pool(min(processes, len(pending)), str(folder), advice, start_process) as pool:
        waiting, running = deque(pending), {}
        while waiting or running:
            # No more than run at once: what a pool has taken cannot be taken back.
            while waiting and len(running) < processes:
                fold = waiting.popleft()
                announce(fold)
                running[pool.submit(job, fold)] = fold
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                report(f"fold {running.pop(future)}: done in {future.result():.0f} s")


def _train_fold(
    make_model: Callable[[int, Path], Model],
    examples: pd.DataFrame,
    spec: DatasetSpec,
    folds: Folds,
    folder: Path,
    seed: int,
    made_up: pd.DataFrame | None,
    deadline: Deadline | None,
    all_min: Callable[[int], int],
    rows: Mapping[str, str],
    fold: int,
) -> float:
    """Train, save and judge one fold's model; return the seconds."""
    if deadline and not all_min(deadline.leaves()):
        raise OutOfTime(f"the time is up before fold {fold}")
    place = folder / f"fold{fold}"
    train, scored = (examples.loc[ids] for ids in (folds.train_ids(fold), folds.valid_ids(fold)))
    place.mkdir(parents=True, exist_ok=True)
    begin(place, REMEDY)
    keep_rows(place, rows)
    took = _clock()
    model = make_model(fold, place)
    if all_min((place / SAVED).exists()):  # stopped between training and the last prediction
        model.load(place)
    else:
        learned, validation = fit_rows(model, train, scored, spec, seed)
        model.fit(pd.concat([learned, split_rows(examples, EXTERNAL)]), validation)
        model.save(place)
    _predict_test(model, examples, made_up, place, fold)
    oof = Predictions.build(model.predict(scored), fold, "oof")
    found = took()
    write_json(place / METRICS, {"fold": fold, "n": len(scored), **found})
    oof.write(place / LAST)
    commit(place)
    return found["seconds"]


def _clock() -> Callable[[], dict[str, float | None]]:
    """Return a function that tells what was taken since now: seconds, of cores too, and memory."""
    started, worked = time.perf_counter(), cpu_seconds()
    return lambda: {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": round(cpu_seconds() - worked, 2),
        "peak_memory_mb": peak_memory_mb(),
    }


def _predict_test(
    model: Model, examples: pd.DataFrame, made_up: pd.DataFrame | None, place: Path, number: int
) -> None:
    """Write what a model says of the test part and of the made-up photos that later checks ask."""
    test = split_rows(examples, "test")
    if len(test):
        Predictions.build(model.predict(test), number, "test").write(place / "test.csv")
    if made_up is not None:
        Predictions.build(model.predict(made_up), number, "test").write(place / MADE_UP)


def train_on_all(
    make_model: Callable[[int, Path], Model],
    examples: pd.DataFrame,
    spec: DatasetSpec,
    folds: Folds,
    folder: Path,
    *,
    made_up: pd.DataFrame | None = None,
    deadline: Deadline | None = None,
    all_min: Callable[[int], int] = int,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Train one more model on the rows of all folds, in ``folder/all``, and predict the test part.

    Nothing is left to judge it by. Parameters and errors as for :func:`cross_validate`.
    """
    place, last = folder / ALL_ROWS, "test.csv" if len(split_rows(examples, "test")) else SAVED
    rows = digest_rows(examples, spec, folds)
    require_rows(place, rows)
    if all_min(int(is_done(place, last))):
        report(f"model of all rows: done already{adopt(place, REMEDY)}")
        return
    if deadline and not all_min(deadline.leaves()):
        raise OutOfTime("the time is up before the model of all rows")
    place.mkdir(parents=True, exist_ok=True)
    begin(place, REMEDY)
    keep_rows(place, rows)
    took = _clock()
    model = make_model(ALL_NUMBER, place)
    if all_min((place / SAVED).exists()):
        model.load(place)
    else:
        train = examples.loc[folds.table.index]
        report(f"model of all rows: {len(train)} photos to learn from, none for validation")
        model.fit(pd.concat([train, split_rows(examples, EXTERNAL)]), None)
        model.save(place)
    _predict_test(model, examples, made_up, place, AVERAGED)
    write_json(place / METRICS, took())
    commit(place)


def collect_folds(
    folds: Folds, spec: DatasetSpec, examples: pd.DataFrame, folder: Path
) -> tuple[Predictions, Predictions | None]:
    """Join the folds' files into ``oof.csv`` and ``test.csv`` and return both.

    Test probabilities are those of the model of all rows where there is one, else the mean over the
    folds' models; None where there is no test split.

    Raises
    ------
    PipelineError
        If a fold is not done yet, or an id is scored by no fold or by two.
    """
    places = [folder / f"fold{fold}" for fold in folds.numbers]
    parts = [Predictions.read(place / "oof.csv", spec.classes) for place in places]
    for fold, place, part in zip(folds.numbers, places, parts, strict=True):
        part.require(folds.valid_ids(fold), str(place))
    oof = Predictions(pd.concat([part.table for part in parts]), spec.classes)
    oof = Predictions(oof.table.loc[folds.validated.index], spec.classes)
    oof.write(folder / "oof.csv")
    ids = split_rows(examples, "test").index
    if not len(ids):
        return oof, None
    if of_all := trained_on_all(folder):
        test = Predictions.read(of_all / "test.csv", spec.classes)
    else:
        test = average([Predictions.read(place / "test.csv", spec.classes) for place in places])
    test.require(ids, str(folder))
    test = Predictions(test.table.loc[ids], spec.classes)
    test.write(folder / "test.csv")
    return oof, test


def require_same_rows(
    rows: Mapping[str, str], folder: Path, only: Sequence[int] | None = None
) -> None:
    """Stop if a model of the stage in ``folder`` learned from other rows than these.

    Parameters
    ----------
    rows : mapping of str to str
        From :func:`~kaggle_pipeline.models.learned_rows.digest_rows`, once for all stages.
    folder : pathlib.Path
    only : sequence of int, optional
        The models of these folds alone.

    Raises
    ------
    PipelineError
        That names the model's folder and what changed since.
    """
    places = [*sorted(Path(folder).glob("fold*")), Path(folder) / ALL_ROWS]
    for place in [Path(folder) / f"fold{fold}" for fold in only] if only else places:
        require_rows(place, rows)


def unfinished(folds: Folds, folder: Path) -> list[int]:
    """Return the folds that are not done yet.

    Raises
    ------
    PipelineError
        If a file of one that is done differs from what was written.
    """
    return [fold for fold in folds.numbers if not is_done(folder / f"fold{fold}", LAST)]


def _chosen(folds: Folds, only: Sequence[int] | None) -> list[int]:
    for fold in only or ():
        if fold not in folds.numbers:
            raise PipelineError(f"--fold {fold}: this run has the folds {folds.numbers}")
    return list(only) if only else folds.numbers


def require_choices(
    config: ImageConfig | TabularConfig,
    examples: pd.DataFrame,
    folds: Folds,
    spec: DatasetSpec,
    seed: int,
    only: Sequence[int] | None = None,
) -> None:
    """Stop, before anything is trained, where an epoch is to be chosen by rows that cannot.

    Parameters
    ----------
    config : ImageConfig or TabularConfig
    examples : pandas.DataFrame
    folds : Folds
    spec : DatasetSpec
    seed : int
        Of the inner splits, as for :func:`cross_validate`.
    only : sequence of int, optional
        These folds alone.

    Raises
    ------
    PipelineError
        That names fold, class and setting.
    """
    if config.selection == "none":
        return
    for fold in _chosen(folds, only):
        train, scored = (
            examples.loc[ids] for ids in (folds.train_ids(fold), folds.valid_ids(fold))
        )
        _, held_out = fit_rows(config, train, scored, spec, seed)
        where = f"the {len(held_out)} rows held out for fold {fold}"
        require_choice(held_out, spec, config.choice_advice, where)


def fit_rows(
    model: Model | ImageConfig | TabularConfig,
    train: pd.DataFrame,
    scored: pd.DataFrame,
    spec: DatasetSpec,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows to learn from and rows to watch.

    Only a model that chooses nothing by the watched rows, or says openly that it does, is shown
    the rows that it will be scored on.
    """
    if model.selection != "inner":
        return train, scored
    inner = make_folds(train, spec, FoldsConfig(holdout=model.inner_share), seed)
    return train.loc[inner.train_ids(0)], train.loc[inner.valid_ids(0)]


def trained_folds(stage: Path) -> dict[int, Path]:
    """Return the folders of a stage's folds that are trained and saved, by number.

    Raises
    ------
    PipelineError
        If there is none.
    """
    folders = sorted(path.parent for path in Path(stage).glob(f"fold*/{SAVED}"))
    if not folders or not (stage / "config.yaml").exists():
        script = TRAINED_BY.get(stage.name, "train_tabular")
        raise PipelineError(f"{stage} holds no trained {stage.name} model: run {script} first")
    return {int(folder.name.removeprefix("fold")): folder for folder in folders}


def trained_on_all(stage: Path) -> Path | None:
    """Return the folder of a stage's model of all rows, None where there is none."""
    place = Path(stage) / ALL_ROWS
    return place if (place / SAVED).exists() else None


def missing_folds(run_dir: Path, trained: Collection[int]) -> list[int]:
    """Return the folds that a run has and no model yet; none where it does not say."""
    path = Path(run_dir) / "prepare" / "folds.csv"
    return sorted(set(Folds.read(path).numbers) - set(trained)) if path.exists() else []
