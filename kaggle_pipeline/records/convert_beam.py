"""Conversion by Apache Beam, for collections beyond one machine.

In: what ``convert`` is given, and options for Beam. Out: the very files
that it writes, byte for byte, and its manifest; a conversion that was stopped goes on where it was,
under Beam or without.

A worker makes whole shards, so no image travels between machines: only tables go out and digests
come back. Every worker must see the data and the output under the same paths: a shared disk, or a
bucket mounted as one.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.convert import (
    MANIFEST,
    close_conversion,
    convert_image,
    digest_rows,
    is_done,
    open_conversion,
    write_shard,
)

_NOTE = ".{}.json"
"""What a worker leaves beside a shard it has finished, until it is in the manifest."""


def convert_by_beam(
    examples: pd.DataFrame,
    spec: DatasetSpec,
    data_dir: Path,
    out_dir: Path,
    config: RecordsConfig,
    options: Sequence[str] = (),
) -> int:
    """Write the TFRecords of all examples; return how many images were converted for it.

    Parameters
    ----------
    examples, spec, data_dir, out_dir, config
        As for :func:`~kaggle_pipeline.records.convert.convert`.
    options : sequence of str
        Of Beam and its runner, such as ``--runner=FlinkRunner``. Without ``--runner``: processes on
        this machine, ``config.workers`` of them or one a core.

    Raises
    ------
    PipelineError
        If Apache Beam is missing, a worker stops on an image, or ``out_dir`` holds shards of other
        settings.
    """
    beam = import_beam()
    data_dir, out_dir = Path(data_dir).resolve(), Path(out_dir).resolve()
    plan, manifest = open_conversion(examples, spec, out_dir, config)
    # Of a pipeline that was stopped; what it complained of may have been put right since.
    _collect(out_dir, plan, manifest, complain=False)
    todo = []
    for name, rows in plan:
        digest = digest_rows(rows, data_dir)
        if not is_done(manifest, name, digest, out_dir):
            todo.append((name, rows, digest))
    if todo:
        _run(beam, todo, (data_dir, out_dir, spec, config), options)
        _collect(out_dir, plan, manifest)
    close_conversion(out_dir, plan)
    return sum(len(rows) for _, rows, _ in todo)


def make_shard(
    shard: tuple[str, pd.DataFrame, str],
    data_dir: Path,
    out_dir: Path,
    spec: DatasetSpec,
    config: RecordsConfig,
) -> None:
    """Write one shard, and a note of its digest or of what is wrong. A worker's work."""
    name, rows, digest = shard
    images = (convert_image(data_dir / relative, config) for relative in rows["image_path"])
    try:
        write_shard(out_dir / name, rows, images, spec)
        note = {"digest": digest}
    except PipelineError as error:  # raised here, a runner would try the shard again and again
        note = {"error": str(error)}
    write_json(out_dir / _NOTE.format(name), note)


def _run(beam: Any, todo: list, given: tuple, options: Sequence[str]) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    config = given[-1]
    if not any(option.split("=")[0] == "--runner" for option in options):
        workers = min(config.workers or os.cpu_count() or 1, len(todo))
        local = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
        local.append("--default_sdk_harness_log_level=ERROR")
        options = [*local, f"--direct_num_workers={workers}", *options]
    try:
        with _importable(), beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            (
                pipeline
                | "shards" >> beam.Create(todo)
                | "one a worker" >> beam.Reshuffle()
                | "convert" >> beam.Map(make_shard, *given)
            )
    # Runners raise nearly anything, with their workers' tracebacks in it.
    except Exception as error:
        said = " ".join(str(error).split())[-300:] or type(error).__name__
        raise PipelineError(f"Apache Beam: {said}") from None


def _collect(
    out_dir: Path, plan: Sequence[tuple[str, Any]], manifest: dict, *, complain: bool = True
) -> None:
    """Move the workers' notes into the manifest, in the plan's order; raise what they complain."""
    places = {name: out_dir / _NOTE.format(name) for name, _ in plan}
    notes = {name: read_json(path) for name, path in places.items() if path.exists()}
    found = {name: note["digest"] for name, note in notes.items() if "digest" in note}
    if found:
        done = manifest["shards"] | found
        manifest["shards"] = {name: done[name] for name in places if name in done}
        write_json(out_dir / MANIFEST, manifest)
    for name in notes:
        places[name].unlink()
    for note in notes.values():
        if complain and "error" in note:
            raise PipelineError(note["error"])


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Let worker processes on this machine import the package where it is not installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def import_beam() -> Any:
    """Return the module ``apache_beam``.

    Raises
    ------
    PipelineError
        If it is not installed.
    """
    try:
        import apache_beam
    except ImportError:
        raise PipelineError(
            "conversion by Apache Beam needs the 'beam' extra: pip install apache-beam"
        ) from None
    return apache_beam
