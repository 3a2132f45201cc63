"""The stages of a run: each reads files, calls the layers below and leaves files.

In: an experiment, a data folder, a run folder. Out, in the run folder:

=============  ==================================================================================
``prepare/``   ``examples.csv folds.csv leakage.json overlap.png fingerprints.csv records.csv``
``records/``   the TFRecords, where they were made here
``image/``     ``fold<k>/``, ``oof.csv test.csv metrics.json learning_curves.png roc.png``
``tabular/``   the same
``blend/``     ``blend.json oof.csv test.csv metrics.json roc.png``
=============  ==================================================================================

and ``submission.csv``. Every stage folder also holds ``config.yaml`` (resolved) and
``versions.json``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from kaggle_pipeline.config import Experiment, to_mapping, write_experiment
from kaggle_pipeline.crossval import Model, collect_folds, cross_validate, unfinished
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.examples import (
    read_examples,
    require_images,
    split_rows,
    validate_examples,
    write_examples,
)
from kaggle_pipeline.folds import Folds, make_folds
from kaggle_pipeline.leakage import (
    LeakageReport,
    audit_leakage,
    check_features,
    check_groups,
    drop_duplicates,
    fingerprint_images,
    fingerprint_table,
    known_pairs,
)
from kaggle_pipeline.metrics import auc_with_interval, summarise_oof
from kaggle_pipeline.predictions import Predictions
from kaggle_pipeline.rundir import (
    atomic_path,
    open_stage,
    peak_memory_mb,
    read_json,
    versions,
    write_json,
)
from kaggle_pipeline.spec import DatasetSpec, RawData

MODEL_STAGES = ("image", "tabular")
_PREPARED_BY = ("dataset", "seed", "folds", "leakage")
"""Parts of the config that decide examples and folds; models may differ in the rest."""


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
        Whether progress bars make sense.
    """

    config: Experiment
    data_dir: Path
    run_dir: Path
    resume: bool = False
    overwrite: bool = False
    say: Callable[[str], None] = print
    interactive: bool = False

    @property
    def spec(self) -> DatasetSpec:
        """Spec of the experiment's data set."""
        return get_spec(self.config.dataset)

    @property
    def prepared(self) -> Path:
        """Folder of the prepare stage."""
        return self.run_dir / "prepare"

    def examples(self) -> pd.DataFrame:
        """Examples in use, read from disk."""
        return read_examples(self.prepared / "examples.csv", self.spec)

    def folds(self) -> Folds:
        """Folds, read from disk."""
        return Folds.read(self.prepared / "folds.csv")

    def progress(self, total: int, what: str, unit: str = "image") -> "Progress":
        """Return a progress bar; without a terminal it prints a line now and then."""
        return Progress(total, what, unit, self.interactive)


class Progress:
    """A tqdm bar as a callable: ``bar(n)`` says that n more are done."""

    def __init__(self, total: int, what: str, unit: str, interactive: bool) -> None:
        from tqdm import tqdm

        every = 0.1 if interactive else 20.0
        self._bar = tqdm(total=total, desc=what, unit=unit, mininterval=every, smoothing=0.05)

    def __call__(self, done: int) -> None:
        self._bar.update(done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


# ---------------------------------------------------------------------------- prepare


def prepare_data(run: Run, *, with_records: bool = True) -> None:
    """Raw folder → examples, leak audit, folds and (where there are images) TFRecords.

    What is there already from the same settings is kept.

    Parameters
    ----------
    run : Run
    with_records : bool
        False for a tabular model: no image is needed, and none is converted.

    Raises
    ------
    PipelineError
        If data is missing or broken, the audit finds a leak, or the run folder holds another
        experiment's preparation.
    """
    if run.overwrite:
        open_stage(run.run_dir, "prepare", resume=False, overwrite=True)
        open_stage(run.run_dir, "records", resume=False, overwrite=True)
    folder = open_stage(run.run_dir, "prepare", resume=True, overwrite=False)
    if (folder / "folds.csv").exists():
        _check_same_preparation(run)
        run.say(f"prepared already: {folder}")
    else:
        _prepare_tables(run, folder)
    if with_records:
        _prepare_records(run, folder)


def _check_same_preparation(run: Run) -> None:
    before = yaml.safe_load((run.prepared / "config.yaml").read_text())
    now = to_mapping(run.config)
    for key in _PREPARED_BY:
        if before.get(key) != now[key]:
            raise PipelineError(
                f"{run.run_dir} was prepared with {key} = {before.get(key)}, this experiment says "
                f"{now[key]}: choose another --run-dir, or --overwrite"
            )


def _prepare_tables(run: Run, folder: Path) -> None:
    spec, config = run.spec, run.config
    if not run.data_dir.is_dir():
        raise PipelineError(f"no data folder {run.data_dir}: {spec.source}")
    raw = spec.read_raw(run.data_dir)
    examples = validate_examples(raw.examples, spec)
    check_groups(examples, spec)
    if examples["image_path"].notna().any():
        require_images(examples, spec)
    fingerprints = _fingerprint(run, examples, folder)
    pairs = known_pairs(examples, raw.duplicate_pairs, fingerprints)
    examples, found = drop_duplicates(examples, pairs, config.leakage.duplicates)
    folds = make_folds(split_rows(examples, "train"), spec, config.folds, config.seed)
    features = config.tabular.features or spec.features
    report = audit_leakage(
        examples, spec, folds, pairs, fingerprints, features, config.leakage, earlier=[found]
    )
    _write_report(run, report, folder)
    report.stop_on_leak()
    _write_sample(raw, folder)
    write_examples(examples, folder / "examples.csv")
    _write_origin(run, folder)
    folds.write(folder / "folds.csv")  # last: it says that the tables are done
    _tell_examples(run, examples, folds)


def _fingerprint(run: Run, examples: pd.DataFrame, folder: Path) -> pd.DataFrame | None:
    paths = examples["image_path"].dropna()
    if paths.empty or not run.config.leakage.fingerprints:
        return None
    path = folder / "fingerprints.csv"
    if path.exists():
        known = pd.read_csv(path, dtype={"image_id": str, "phash": str}).set_index("image_id")
        if known.index.equals(paths.index):
            return known
    with run.progress(len(paths), "fingerprints") as progress:
        rows = []
        for row in fingerprint_images(paths, run.data_dir, run.config.records.workers):
            rows.append(row)
            progress(1)
    table = fingerprint_table(rows)
    with atomic_path(path) as temporary:
        table.to_csv(temporary)
    return table


def _write_report(run: Run, report: LeakageReport, folder: Path) -> None:
    from kaggle_pipeline.plots import plot_overlap

    write_json(folder / "leakage.json", report.to_mapping())
    if report.shared_groups:
        plot_overlap(report.shared_groups, run.spec.group or "group", folder / "overlap.png")
    run.say("leak audit:")
    for finding in report.findings:
        run.say(f"  {finding.status:>13}  {finding.check}: {finding.detail}")
    run.say("  AUC of single columns, patients apart (judged on folds the tree has not seen):")
    for row in report.single_features:
        mark = "  acquisition, not the lesion" if row["acquisition"] else ""
        run.say(f"    {row['oof_auc']:.3f}  {row['feature']}{mark}")


def _write_sample(raw: RawData, folder: Path) -> None:
    if raw.sample_submission is not None:
        with atomic_path(folder / "sample_submission.csv") as temporary:
            raw.sample_submission.to_csv(temporary, index=False)


def _write_origin(run: Run, folder: Path) -> None:
    write_experiment(folder / "config.yaml", run.config)
    write_json(folder / "versions.json", versions())


def _tell_examples(run: Run, examples: pd.DataFrame, folds: Folds) -> None:
    spec = run.spec
    train = split_rows(examples, "train")
    positives = ", ".join(f"{int(train[name].sum())} {name}" for name in spec.classes)
    groups = f", {train['group_id'].nunique()} {spec.group}s" if spec.group else ""
    run.say(
        f"{len(train)} training images ({positives}{groups}), "
        f"{len(split_rows(examples, 'test'))} test images, folds {folds.numbers}"
    )


def _prepare_records(run: Run, folder: Path) -> None:
    """Convert images, or index the TFRecords that are there; then compare with the examples."""
    from kaggle_pipeline.convert import convert
    from kaggle_pipeline.records import check_index, check_shard, index_records, list_shards

    examples, config = run.examples(), run.config.records
    place = _record_source(run, examples)
    if place is None:
        run.say(f"no images and no tfrecords/ in {run.data_dir}: tabular models only")
        return
    if place == run.run_dir / "records":
        with run.progress(len(examples), f"convert to {config.image_size_px} px") as progress:
            convert(examples, run.spec, run.data_dir, place, config, progress)
    shards = list_shards(place)
    index_path = folder / "records.csv"
    if index_path.exists() and _indexes(index_path, place, [shard.path.name for shard in shards]):
        for shard in shards:
            check_shard(shard)
        return
    with run.progress(sum(shard.count for shard in shards), "index", "record") as progress:
        rows = []
        for row in index_records(shards, run.spec):
            rows.append({"folder": str(place.resolve()), **row})
            progress(1)
    index = pd.DataFrame(rows)
    check_index(index, examples, run.spec)
    with atomic_path(index_path) as temporary:
        index[["image_id", "shard", "folder"]].to_csv(temporary, index=False)


def _record_source(run: Run, examples: pd.DataFrame) -> Path | None:
    """Folder of the records to use: our own of the images, the data's own, or None."""
    own, given = run.run_dir / "records", run.data_dir / "tfrecords"
    has_images = examples["image_path"].notna().any()
    source = run.config.records.source
    if source == "images" or (source == "auto" and has_images):
        require_images(examples, run.spec)
        return own
    if source == "tfrecords" or given.is_dir():
        return given
    return None


def _indexes(path: Path, place: Path, names: list[str]) -> bool:
    index = pd.read_csv(path, dtype=str)
    of_here = index["folder"].eq(str(place.resolve())).all()
    return of_here and sorted(index["shard"].unique()) == sorted(names)


# ---------------------------------------------------------------------------- models


def train_tabular(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the tabular model; prepares the tables first where they are missing."""
    prepare_data(_keeping(run), with_records=False)
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator("cpu")  # a network this small waits for a GPU more than it gains
    from kaggle_pipeline.tabular.model import TabularModel

    config = run.config
    check_features(run.examples(), run.spec, config.tabular.features or run.spec.features)

    def make_model(fold: int, folder: Path) -> TabularModel:
        return TabularModel(
            config.tabular, run.spec, seed=config.seed + fold, jit_compile=device.jit_compile
        )

    _train(run, "tabular", make_model, only)


def train_image(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the image model; prepares tables and records first where they are missing."""
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator(run.config.device)  # before hours of conversion, not after
    run.say(f"device: {device.reason}")
    prepare_data(_keeping(run))
    index_path = run.prepared / "records.csv"
    if not index_path.exists():
        raise PipelineError(
            f"no images for {run.spec.id} in {run.data_dir}: it needs jpeg/, DICOM or tfrecords/"
        )
    from kaggle_pipeline.image.model import ImageModel

    config = run.config
    shard_of = pd.read_csv(index_path, dtype=str).set_index("image_id")

    def shards_of(ids: pd.Index) -> list[Path]:
        rows = shard_of.loc[ids].drop_duplicates().sort_values("shard")
        return [Path(row.folder) / row.shard for row in rows.itertuples()]

    def make_model(fold: int, folder: Path) -> ImageModel:
        return ImageModel(
            config.image, run.spec, shards_of, device, folder,
            seed=config.seed + fold,
            swap_red_blue=config.records.channel_order == "bgr",
            verbose=1 if run.interactive else 2,
        )  # fmt: skip

    _train(run, "image", make_model, only)


def _keeping(run: Run) -> Run:
    """The same run with preparation kept: --overwrite of a model does not convert again."""
    return Run(
        run.config, run.data_dir, run.run_dir, resume=True, say=run.say, interactive=run.interactive
    )


def _train(
    run: Run, stage: str, make_model: Callable[[int, Path], Model], only: Sequence[int] | None
) -> None:
    # A stage of which some folds are done is open for the others; a fold is never done twice.
    folder = run.run_dir / stage
    going_on = run.resume or (bool(only) and not run.overwrite)
    folder = open_stage(run.run_dir, stage, resume=going_on, overwrite=run.overwrite)
    _write_origin(run, folder)
    examples, folds = run.examples(), run.folds()
    cross_validate(
        make_model, examples, run.spec, folds, folder, seed=run.config.seed, only=only,
        report=lambda line: run.say(f"{stage} {line}"),
    )  # fmt: skip
    missing = unfinished(folds, folder)
    if missing:
        run.say(f"{stage}: folds {missing} are still to be trained (--fold)")
        return
    oof, _ = collect_folds(folds, run.spec, examples, folder)
    seconds = sum(read_json(folder / f"fold{k}" / "metrics.json")["seconds"] for k in folds.numbers)
    metrics = _write_metrics(run, folder, oof, examples, seconds)
    metrics["epoch_chosen_on_judged_rows"] = make_model(0, folder).selection == "fold"
    write_json(folder / "metrics.json", metrics)
    _plot_stage(folder, {stage: oof}, examples, run.spec, folds)
    run.say(f"{stage}: {_describe(metrics)}")


def _write_metrics(
    run: Run, folder: Path, oof: Predictions, examples: pd.DataFrame, seconds: float
) -> dict:
    targets, groups = examples[list(run.spec.classes)], examples["group_id"]
    metrics = summarise_oof(targets, oof.probabilities, groups, seed=run.config.seed)
    metrics |= {"seconds": round(seconds, 1), "peak_memory_mb": peak_memory_mb()}
    write_json(folder / "metrics.json", metrics)
    return metrics


def _describe(metrics: dict) -> str:
    low, high = metrics["oof_auc_low"], metrics["oof_auc_high"]
    text = (
        f"OOF AUC {metrics['oof_auc']:.4f} [{low:.4f}, {high:.4f}] on {metrics['n']} images, "
        f"{metrics['n_positive']} positive, in {metrics['seconds']:.0f} s"
    )
    if metrics.get("epoch_chosen_on_judged_rows"):
        text += " (optimistic: each epoch was chosen on the rows it is judged by)"
    return text


def _plot_stage(
    folder: Path,
    models: dict[str, Predictions],
    examples: pd.DataFrame,
    spec: DatasetSpec,
    folds: Folds,
) -> None:
    from kaggle_pipeline.metrics import roc_auc
    from kaggle_pipeline.plots import plot_histories, plot_roc

    curves, labels = {}, {}
    for model, oof in models.items():
        for name in spec.classes:
            key = model if len(spec.classes) == 1 else f"{model} {name}"
            truth = examples.loc[oof.table.index, name].to_numpy(int)
            curves[key] = (truth, oof.table[name].to_numpy())
            labels[key] = f"AUC {roc_auc(*curves[key]):.3f}"
    plot_roc(curves, labels, folder / "roc.png")
    files = {fold: folder / f"fold{fold}" / "history.csv" for fold in folds.numbers}
    histories = {fold: pd.read_csv(path) for fold, path in files.items() if path.exists()}
    if histories:
        plot_histories(histories, folder / "learning_curves.png")


# ---------------------------------------------------------------------------- blend


def make_submission(run: Run) -> Path:
    """Blend the models' predictions and write ``submission.csv``; return its path.

    Raises
    ------
    PipelineError
        If a model named in ``blend.models`` is not trained, or the result fails the check.
    """
    from kaggle_pipeline.blend import blend_oof, blend_test, fit_blend
    from kaggle_pipeline.predictions import join_by_id
    from kaggle_pipeline.submission import build_submission, check_submission, write_submission

    started = time.perf_counter()
    config, spec = run.config, run.spec
    examples, folds = run.examples(), run.folds()
    oof = {name: _read_model(run, name, "oof") for name in config.blend.models}
    # Cheap and derived from files that are kept: it is simply made anew.
    folder = open_stage(run.run_dir, "blend", resume=False, overwrite=True)
    _write_origin(run, folder)
    nested = blend_oof(oof, examples, folds, spec, config.blend)
    nested.write(folder / "oof.csv")
    ids = folds.judged.index
    targets = examples.loc[ids, list(spec.classes)]
    blend = fit_blend(join_by_id(oof, ids), targets, config.blend)
    write_json(folder / "blend.json", blend.to_mapping())
    metrics = _write_metrics(run, folder, nested, examples, time.perf_counter() - started)
    metrics["weights"] = blend.weights
    write_json(folder / "metrics.json", metrics)
    _plot_stage(folder, {**oof, "blend": nested}, examples, spec, folds)
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
    run.say(f"{path}: {len(submission)} rows, " + ("checked against the sample" if sample is not None
            else "no sample to check against"))  # fmt: skip
    return path


def _read_model(run: Run, name: str, split: str) -> Predictions:
    path = run.run_dir / name / f"{split}.csv"
    if not path.exists():
        others = [stage for stage in MODEL_STAGES if (run.run_dir / stage / "oof.csv").exists()]
        hint = f", or say --set blend.models=[{','.join(others)}]" if others else ""
        raise PipelineError(f"the model {name!r} is not trained in {run.run_dir}{hint}")
    return Predictions.read(path, run.spec.classes)


def _score_table(run: Run) -> str:
    """Scores of all finished stages, one line each."""
    lines = ["", f"{'model':<10}{'OOF AUC':>9}   {'95 % interval':<19}{'images':>8}{'positive':>10}"]
    for stage in (*MODEL_STAGES, "blend"):
        path = run.run_dir / stage / "metrics.json"
        if path.exists():
            m = read_json(path)
            interval = f"[{m['oof_auc_low']:.4f}, {m['oof_auc_high']:.4f}]"
            lines.append(
                f"{stage:<10}{m['oof_auc']:>9.4f}   {interval:<19}{m['n']:>8}{m['n_positive']!s:>10}"
            )
    weights = read_json(run.run_dir / "blend" / "metrics.json")["weights"]
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return "\n".join([*lines, f"blend weights: {shares} (space: {run.config.blend.space})", ""])


def run_pipeline(run: Run) -> Path:
    """Prepare, train both models, blend; return the submission's path."""
    wanted = run.config.blend.models
    if "image" in wanted:
        from kaggle_pipeline.accelerator import choose_accelerator

        choose_accelerator(run.config.device)
    prepare_data(run, with_records="image" in wanted)
    if "image" in wanted:
        train_image(run)
    if "tabular" in wanted:
        train_tabular(run)
    return make_submission(run)


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
        if not path.exists():
            raise PipelineError(f"{path} does not exist")
        tables.append(pd.read_csv(path, dtype={"image_name": str}).set_index("image_name"))
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
