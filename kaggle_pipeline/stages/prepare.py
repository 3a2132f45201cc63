"""Raw folder → examples, leak audit, folds, TFRecords.

In: a :class:`Run`. Out: the run's ``prepare/`` and, where images are converted here, ``records/``.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.config.names import MADE_UP_MARK, METADATA_STAGES, PREPARED_BY, TEST_TRUTH
from kaggle_pipeline.core.commit import adopt, begin, commit, renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, write_json
from kaggle_pipeline.core.photo_kinds import kind_of_file
from kaggle_pipeline.core.record import is_done, read_record
from kaggle_pipeline.core.room import require_room
from kaggle_pipeline.data.examples import (
    EXTERNAL,
    PREPARE_ANEW,
    drop_incomplete,
    require_images,
    split_rows,
    validate_examples,
    write_examples,
)
from kaggle_pipeline.data.folds import Folds, divide_train, set_test_aside
from kaggle_pipeline.data.metadata_encoder import choose_features
from kaggle_pipeline.data.spec import RawData
from kaggle_pipeline.data.submission import require_sample
from kaggle_pipeline.datasets import require_data as require_data_of
from kaggle_pipeline.datasets.external import read_external
from kaggle_pipeline.datasets.table import write_learned
from kaggle_pipeline.evaluation.decision.rules import check_decision
from kaggle_pipeline.leakage.audit import (
    STATUS_WORDS,
    LeakageReport,
    audit_groups,
    audit_leakage,
    drop_duplicates,
)
from kaggle_pipeline.leakage.fingerprints import FILE as FINGERPRINTS
from kaggle_pipeline.leakage.fingerprints import fingerprint_images, fingerprint_table, known_pairs
from kaggle_pipeline.leakage.known_external import SHARED_PATIENTS, drop_known, drop_same_id
from kaggle_pipeline.leakage.overlap_figure import plot_overlap
from kaggle_pipeline.leakage.unreadable import drop_unreadable
from kaggle_pipeline.models.cross_validation import require_choices
from kaggle_pipeline.models.learnable import require_labels, require_learnable
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.convert_beam import convert_by_beam, import_beam
from kaggle_pipeline.records.geometry import RecordFit, converted_fit, given_fit
from kaggle_pipeline.records.tfrecords import (
    check_index,
    check_shard,
    count_data_items,
    describe_others,
    index_records,
    list_shards,
    read_index,
)
from kaggle_pipeline.stages.models_before import tell_of_models_before
from kaggle_pipeline.stages.raw_tables import (
    TABLES,
    digest_tables,
    mark_of,
    require_same_tables,
    table_folders,
)
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.run_folder import drop_if_empty, open_stage
from kaggle_pipeline.stages.took import Stopwatch, clocked, write_took

_BYTES_A_PIXEL = 0.05
"""Of a JPEG in a record, at least: the competition's at 1024 px have 0.17."""
_SIZES = ("width_px", "height_px")


def prepare_data(
    run: Run, *, with_records: bool = True, learners: Sequence[str] = (), wait: bool = False
) -> RecordFit | None:
    """Raw folder → examples, leak audit, folds and (where there are images) TFRecords.

    What is there already from the same settings is kept. Returned is how the records' photos were
    made square; None without records.

    Parameters
    ----------
    run : Run
    with_records : bool
        False for a tabular model: no image is needed, and none is converted.
    learners : sequence of str
        Tabular stages that will be trained beside the models that are blended.
    wait : bool
        Where another process prepares this run, wait for it: folds are trained on several
        machines, of which one prepares.

    Raises
    ------
    PipelineError
        If data is missing or broken, the audit finds a leak, the run folder holds another
        experiment's preparation, or another process works there.
    """
    if run.beam is not None:
        import_beam()  # before hours of audit, not after
    # What --overwrite deletes, nobody may be reading.
    with run.working_on("" if run.overwrite else "prepare", wait=wait):
        return _prepare(run, with_records, learners)


def _prepare(run: Run, with_records: bool, learners: Sequence[str]) -> RecordFit | None:
    if run.overwrite or not is_prepared(run.prepared):
        require_data(run)
    if "image" in run.config.blend.models:
        require_whole(run.config.image.weights)
    bound = (run.prepared / "config.yaml").exists()
    if run.overwrite:
        run.begin_prepare(open_stage(run.run_dir, "prepare", resume=False, overwrite=True))
        open_stage(run.run_dir, "records", resume=False, overwrite=True)
        run.drop_blend()
    folder = open_stage(run.run_dir, "prepare", resume=True, overwrite=False)
    if is_prepared(folder):
        run.require_same(folder, PREPARED_BY)
        require_same_tables(run, folder)
        _require_examples(run)
        run.say(f"prepared already: {folder}{adopt(folder, PREPARE_ANEW)}")
    else:
        try:
            with clocked(folder):
                _prepare_tables(run, folder, learners)
        except PipelineError:
            if not bound:  # what was prepared before goes on with its own settings
                drop_if_empty(folder)
            raise
        tell_of_models_before(run)
    if not with_records:
        return None
    image = run.config.image
    if "image" in run.config.blend.models and image.selection != "none":
        require_choices(image, run.examples(), run.folds(), run.spec, run.config.seed)
    return _prepare_records(run, folder)


def require_whole(weights: str | None) -> None:
    """Stop on a weights file that is another file in its place; it may be on another machine."""
    if weights in (None, "imagenet") or not Path(weights).is_file():
        return
    kind = kind_of_file(Path(weights))
    if kind in ("Git LFS pointer", "HTML"):
        how = "run `git lfs pull`" if kind == "Git LFS pointer" else "get it again"
        raise PipelineError(f"image.weights: {weights} holds no weights but a {kind}: {how}")


def is_prepared(folder: Path) -> bool:
    """Return whether the tables are done and still as they were written; as :func:`is_done`."""
    return is_done(folder, "folds.csv", apart=("config.yaml", "records.csv"))


def require_data(run: Run) -> None:
    """Raise a PipelineError unless the data folder is there."""
    require_data_of(run.spec, run.data_dir)


def require_tables(run: Run) -> None:
    """Raise a PipelineError where nothing is prepared yet and the tables cannot be read.

    It takes seconds, and is asked before weights are downloaded. A table of one's own is first
    learned, by ``prepare_data``.
    """
    if not is_prepared(run.prepared):
        require_data(run)
        if run.config.table is None:
            run.spec.read_raw(run.data_dir)


def _prepare_tables(run: Run, folder: Path, learners: Sequence[str]) -> None:
    config = run.config
    run.begin_prepare(folder)
    if config.table is not None:
        write_learned(config.table, run.data_dir, folder)
    spec = run.spec
    check_decision(config.decision, spec.task, spec.classes)  # said before hours of training
    raw = spec.read_raw(run.data_dir)
    for line in raw.notes:
        run.say(f"note: {line}")
    examples = validate_examples(raw.examples, spec)
    require_labels(examples, spec)
    features = config.tabular.features or spec.features
    features = features if set(METADATA_STAGES) & set(config.blend.models) else ()
    # What the photos tell is not known yet.
    choose_features(spec, [name for name in features if name not in _SIZES], examples)
    listed = pd.Index([])
    if raw.sample_submission is not None:
        listed = split_rows(examples, "test").index
        require_sample(raw.sample_submission, listed, spec)
    _stop_on_shared_groups(run, examples, folder)
    drop = config.examples.unreadable == "drop"
    if examples["image_path"].notna().any():
        require_images(examples, spec, drop=drop, listed=listed)
    tables, outside = {"": raw.tables}, None
    if config.external:
        found = read_external(config.external, run.data_dir, spec, drop=drop)
        for note in found.notes:
            run.say(f"external: {note}")
        tables |= {mark_of(one): found.tables[one.dataset] for one in config.external}
        outside = found.table
    digests = digest_tables(table_folders(run), tables)  # of what was read, before hours of work
    # A row of the same id goes for that alone.
    fresh = None if outside is None else drop_same_id(outside, examples)
    fingerprints, faults = _fingerprint(run, examples, fresh, folder)
    examples, earlier = drop_unreadable(examples, faults, drop, listed)
    pairs = known_pairs(examples, raw.duplicate_pairs, fingerprints)
    if outside is not None:
        outside, more = drop_unreadable(outside, faults, drop)
        earlier += more
        outside, finding = drop_known(
            outside, examples, raw.duplicate_pairs, fingerprints, config.leakage.near_bits,
            part=config.folds.judge,
        )  # fmt: skip
        earlier += [finding, SHARED_PATIENTS]
    examples = _add_sizes(examples, fingerprints)
    examples, finding = drop_duplicates(examples, pairs, config.leakage.duplicates)
    earlier.append(finding)
    truth = raw.test_truth
    if config.folds.test_share is not None:
        examples, truth = set_test_aside(examples, spec, config.folds, config.seed)
    if truth is not None:
        truth = truth[truth.index.isin(examples.index)]
        with atomic_path(folder / TEST_TRUTH) as temporary:
            truth.to_csv(temporary)
    train = split_rows(examples, "train")
    if config.examples.missing == "drop":  # not from the examples: context counts them
        before, train = len(train), drop_incomplete(train, spec)
        run.say(f"{before - len(train)} training rows with a missing feature are in no fold")
    folds = divide_train(train, examples, spec, config.folds, config.seed)
    run_models = {*config.blend.models, *learners}
    for line in require_learnable(train, folds, spec, config, run_models):
        run.say(f"note: {line}")
    # Only what a model of this experiment would use; train_tabular checks its own again.
    choose_features(spec, features, examples)
    report = audit_leakage(
        examples, spec, folds, pairs, fingerprints, features, config.leakage,
        earlier=earlier, groups_split=config.folds.by == "image",
        shared_noted=config.folds.shared_groups != "stop",
    )  # fmt: skip
    _write_report(run, report, folder)
    report.stop_on_leak()
    _write_sample(raw, folder)
    if run.spec.made_up:
        with atomic_path(folder / MADE_UP_MARK) as temporary:
            temporary.write_text("The lesions of this run are made up.\n")
    write_examples(pd.concat([examples, outside]), folder / "examples.csv")
    write_json(folder / TABLES, digests)
    folds.write(folder / "folds.csv")
    commit(folder)
    if read_record(run.run_dir) is None:
        begin(run.run_dir, "run make_submission or report again, which write it anew")
    _tell_examples(run, examples, folds)


def _stop_on_shared_groups(run: Run, examples: pd.DataFrame, folder: Path) -> None:
    """Report and stop when a group is in train and in test: nothing after it would mean much."""
    report = audit_groups(examples, run.spec, run.config.folds.shared_groups != "stop")
    if any(finding.status == "leak" for finding in report.findings):
        _write_report(run, report, folder)
        report.stop_on_leak()


def _require_examples(run: Run) -> None:
    """Stop where the folds hold an image that the examples lack: a table that was cut off."""
    missing = run.folds().table.index.difference(run.examples().index)
    if len(missing):
        raise PipelineError(
            f"{run.prepared / 'examples.csv'} lacks {missing[0]} of the folds ({len(missing)} such)"
            f": {PREPARE_ANEW.format(folder=run.prepared)}"
        )


def _fingerprint(
    run: Run, examples: pd.DataFrame, outside: pd.DataFrame | None, folder: Path
) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Fingerprints of the image files, or of the data's own TFRecords; None where neither is read.

    Returned too: the ids of photos that cannot be read, and why. The records' photos are compared
    byte for byte alone: hashing them would decode them all.
    """
    faults: dict[str, str] = {}
    if not (run.fingerprints and run.config.leakage.fingerprints):
        return None, faults
    place = _record_source(run, examples)
    if place == run.data_dir / "tfrecords":
        index = _index(run, [place], folder).set_index("image_id")
        index = index[["image_sha256"]].rename(columns={"image_sha256": "sha256"})
        return index.assign(phash=""), faults
    paths = pd.concat([examples, outside])["image_path"].dropna()
    if paths.empty:
        return None, faults
    with run.progress(len(paths), "fingerprints") as progress:
        rows = []
        workers = run.config.records.workers
        for row in fingerprint_images(paths, run.data_dir, workers, faults):
            rows.append(row)
            progress(1)
    table = fingerprint_table(rows)
    with atomic_path(folder / FINGERPRINTS) as temporary:
        table.to_csv(temporary)
    return table, faults


def _add_sizes(examples: pd.DataFrame, fingerprints: pd.DataFrame | None) -> pd.DataFrame:
    """Fill in the photos' original sizes where the raw tables do not tell them."""
    if fingerprints is None or "width_px" not in fingerprints:
        return examples
    for column in _SIZES:
        # All or nothing: a told size is the original's, a found one may be a resized copy's.
        if column not in examples or examples[column].isna().all():
            found = fingerprints[column].reindex(examples.index).astype(float)
            examples = examples.assign(**{column: found})
    return examples


def _write_report(run: Run, report: LeakageReport, folder: Path) -> None:
    write_json(folder / "leakage.json", report.to_mapping())
    if report.shared_groups:
        plot_overlap(report.shared_groups, run.spec.group or "group", folder / "overlap.png")
    run.say("leak audit:")
    for finding in report.findings:
        status = STATUS_WORDS.get(finding.status, finding.status)
        run.say(f"  {status:>13}  {finding.check}: {finding.detail}")
    apart = f"{run.spec.group}s apart" if run.spec.group else "images apart"
    run.say(f"  AUC of single columns, {apart} (scored on folds the tree has not seen):")
    for row in report.single_features:
        mark = "  acquisition, not the lesion" if row["acquisition"] else ""
        run.say(f"    {row['oof_auc']:.3f}  {row['feature']}{mark}")


def _write_sample(raw: RawData, folder: Path) -> None:
    if raw.sample_submission is not None:
        with atomic_path(folder / "sample_submission.csv") as temporary:
            raw.sample_submission.to_csv(temporary, index=False)


def _tell_examples(run: Run, examples: pd.DataFrame, folds: Folds) -> None:
    spec = run.spec
    train = examples.loc[folds.table.index]
    positives = ", ".join(
        f"{int(train[name].sum())} {spec.class_label(name)}" for name in spec.classes
    )
    groups = f", {train['group_id'].nunique()} {spec.group}s" if spec.group else ""
    run.say(
        f"{len(train)} training photos ({positives}{groups}), "
        f"{len(split_rows(examples, 'test'))} test photos, folds {folds.numbers}"
    )


def _prepare_records(run: Run, folder: Path) -> RecordFit | None:
    """Convert images, or take the TFRecords that are there; then compare with the examples."""
    examples, watch = run.examples(), Stopwatch()
    place, own = _record_source(run, examples), run.run_dir / "records"
    require_data(run)
    if place is None:
        run.say(f"no photos and no tfrecords/ in {run.data_dir}: tabular models only")
        return None
    settings = run.config.records
    fit = converted_fit(settings) if place == own else given_fit(place, settings, run.spec)
    if line := fit.describe():
        run.say(line)
    if place != own and (line := describe_others(place)):
        run.say(f"note: {line}")
    # Other collections' photos are converted here even where the data set's own are records.
    photos = examples if place == own else split_rows(examples, EXTERNAL)
    anew = len(photos) and not any(own.glob("*.tfrec"))
    if len(photos):
        _convert(run, photos, own, fit.recipe(settings))
    places = [place, own] if place != own and len(photos) else [place]
    check_index(_index(run, places, folder), examples, run.spec)
    if anew:
        write_took(own, watch.read())
    return fit


def _convert(run: Run, photos: pd.DataFrame, place: Path, config: RecordsConfig) -> None:
    """Make records of photos, by processes or by Beam."""
    there = sum(path.stat().st_size for path in place.glob("*.tfrec"))
    needed = round(len(photos) * config.image_size_px**2 * _BYTES_A_PIXEL) - there
    require_room(place, needed, f"the records of {len(photos)} photos")
    if run.beam is None:
        with run.progress(len(photos), f"convert to {config.image_size_px} px") as progress:
            convert(photos, run.spec, run.data_dir, place, config, progress)
        return
    started = time.perf_counter()
    done = convert_by_beam(photos, run.spec, run.data_dir, place, config, run.beam)
    seconds = time.perf_counter() - started
    run.say(f"converted by Apache Beam: {done} photos in {seconds:.0f} s, {done / seconds:.1f}/s")


def _index(run: Run, places: Sequence[Path], folder: Path) -> pd.DataFrame:
    """Return what is in the records of ``places`` and keep it as ``records.csv``."""
    shards = [shard for place in places for shard in list_shards(place)]
    path = folder / "records.csv"
    if (index := _known_index(run, path)) is not None:
        known = {Path(row.folder) / row.shard for row in index[["folder", "shard"]].itertuples()}
        if known == {shard.path.parent.resolve() / shard.path.name for shard in shards}:
            for shard in shards:
                check_shard(shard)
            return index
    with run.progress(count_data_items(shards), "index", "record") as progress:
        rows = []
        for shard in shards:
            for row in index_records([shard], run.spec):
                rows.append({"folder": str(shard.path.parent.resolve()), **row})
                progress(1)
    index = pd.DataFrame(rows)
    path.unlink(missing_ok=True)
    renew(folder, path.name)  # first: what a kill leaves is not taken for damage
    with atomic_path(path) as temporary:
        index.to_csv(temporary, index=False)
    renew(folder, path.name)
    return index


def _known_index(run: Run, path: Path) -> pd.DataFrame | None:
    """The index that is there; None where it is damaged, for the records tell it anew."""
    try:
        return read_index(run.run_dir)
    except PipelineError as error:
        run.say(f"note: {str(error).partition(':')[0]}: it is made anew from the records")
        return None


def _record_source(run: Run, examples: pd.DataFrame) -> Path | None:
    """Folder of the records to use: our own of the images, the data's own, or None."""
    own, given = run.run_dir / "records", run.data_dir / "tfrecords"
    examples, source = examples[examples["split"] != EXTERNAL], run.config.records.source
    any_photo = examples["image_path"].notna().any()
    if source == "images" and not any_photo:
        raise PipelineError(
            f"records.source is 'images', but no row of {run.spec.id} has an image file in "
            f"{run.data_dir}: add them, or choose another records.source"
        )
    if any_photo and source != "tfrecords":
        return own
    if source == "tfrecords" or given.is_dir():
        return given
    return None
