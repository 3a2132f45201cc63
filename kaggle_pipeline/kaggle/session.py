"""A session on Kaggle: find what is attached, run a stage, leave what the next session needs.

In: what a kernel's script was built for and ``/kaggle/input``. Out: ``/kaggle/working/run``,
``session.json``, and from the blend ``/kaggle/working/submission.csv``.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.loading import load_experiment, to_mapping
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, write_json
from kaggle_pipeline.core.record import is_done
from kaggle_pipeline.kaggle.inputs import (
    RUN,
    find_embedding,
    find_file,
    find_runs,
    find_source,
    find_weights,
    gather_embedding,
    gather_run,
)
from kaggle_pipeline.kaggle.kernels import EXPERIMENT, SETTINGS, require_no_hub
from kaggle_pipeline.models.cross_validation import unfinished
from kaggle_pipeline.stages.make_submission import make_submission
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_embedding import train_embedding
from kaggle_pipeline.stages.train_folds import finish_stage
from kaggle_pipeline.stages.train_image import train_image
from kaggle_pipeline.stages.train_tabular import train_tabular

Stage = Literal["image", "embedding", "tabular", "blend"]
_ROOT, _SET = "KAGGLE_PIPELINE_ROOT", "KAGGLE_PIPELINE_SET"
"""Variables for trying a kernel elsewhere: a place in place of ``/kaggle``, and settings such as
``device=cpu;image.epochs=1``."""
_WEIGHTS_HOST = ("storage.googleapis.com", 443)
SESSION = "session.json"
"""What a session says of itself in its output: ``state`` is ``done`` or ``unfinished``."""


def run_session(
    stage: Stage,
    overrides: Sequence[str] = (),
    *,
    hours: float | None = None,
    packed: Path | None = None,
) -> int:
    """Run one stage as a Kaggle kernel; return the exit code, 2 after an error of one line.

    A session whose time is up ends well: only then does Kaggle keep its output, from which the next
    version goes on (``scripts/push_kernels.py`` attaches it).

    Parameters
    ----------
    stage : {"image", "embedding", "tabular", "blend"}
    overrides : sequence of str
        Settings that the kernel's hardware asks for, such as ``device=tpu``.
    hours : float, optional
        Stop before so many: Kaggle ends a TPU's session after 9, others after 12.
    packed : pathlib.Path, optional
        Where the script was unpacked; by default where this package lies.
    """
    deadline = Deadline.after(hours)
    packed = packed or CHECKOUT
    try:
        session = _open(stage, [*overrides, *_changes()], deadline, packed)
        unfinished_because = _work(session)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    state = "unfinished" if unfinished_because else "done"
    write_json(
        session.working / SESSION, {"stage": stage, "state": state, "because": unfinished_because}
    )
    if unfinished_because:
        session.run.say(f"stopped in time: {unfinished_because}; attach this output and run again")
    session.run.say(DISCLAIMER)
    return 0


@dataclass(frozen=True)
class _Session:
    stage: Stage
    working: Path
    settings: dict[str, Any]
    run: Run


def _changes() -> list[str]:
    return [change for change in os.environ.get(_SET, "").split(";") if change]


def _open(stage: Stage, overrides: Sequence[str], deadline: Deadline, packed: Path) -> _Session:
    """Find everything that the stage needs, or say all that is missing in one line."""
    settings = read_json(packed / SETTINGS)
    root = Path(os.environ.get(_ROOT, "/kaggle"))
    inputs, working = root / "input", root / "working"
    config = load_experiment(packed / EXPERIMENT, overrides)
    missing = []
    data_dir = find_source(inputs, settings["source"])
    if stage != "blend":
        if data_dir is None:
            missing.append(f"the input {settings['source']}")
        elif (data_dir / "tfrecords").is_dir() and config.records.source == "auto":
            overrides = [*overrides, "records.source=tfrecords"]  # else hours of conversion
        found = [find_source(inputs, source) for source in settings["external"]]
        missing += [
            f"the input {source}"
            for source, place in zip(settings["external"], found, strict=True)
            if place is None
        ]
        further = [
            {**to_mapping(one), "data_dir": str(place)}
            for one, place in zip(config.external, found, strict=True)
        ]
        overrides = [*overrides, f"external={json.dumps(further)}"]  # JSON is YAML
    weights = config.image.weights
    if stage == "image":
        require_no_hub(weights)
    if stage == "image" and weights is not None and not Path(weights).is_file():
        found = find_weights(
            inputs, config.image.backbone, config.image.backbone_options.get("alpha", 1.0)
        )
        if weights != "imagenet":  # a file where the kernel was built
            found = find_file(inputs, Path(weights).name)
        if found:
            overrides = [*overrides, f"image.weights={found}"]
        elif weights != "imagenet":
            missing.append(f"a data set with the weights {Path(weights).name}")
        elif not _online():
            missing.append(
                f"a data set with the ImageNet weights of {config.image.backbone}, or internet"
            )
    vectors = {}
    if stage == "embedding":
        names = [one.folder for one in config.embedding.encoders]
        vectors = {name: find_embedding(inputs, name) for name in names}
        missing += [
            f"a data set with the vectors embeddings/{name}, as a run holds them"
            for name, place in vectors.items()
            if place is None
        ]
    sources = find_runs(inputs)
    if stage == "blend":
        for model in config.blend.models:
            if not any((source / model).is_dir() for source in sources):
                missing.append(f"the output of a kernel that trained the {model} model")
    if missing:
        raise PipelineError(f"attach {'; '.join(missing)} (looked in {inputs})")
    run = Run(
        load_experiment(packed / EXPERIMENT, overrides), data_dir or working / "no_data",
        working / RUN, resume=True, deadline=deadline,
    )  # fmt: skip
    for source in sources:
        run.say(f"goes on from {source}")
    gather_run(sources, run.run_dir, with_weights=stage != "blend")
    for place in vectors.values():
        gather_embedding(place, run.run_dir)
    return _Session(stage, working, settings, run)


def _online() -> bool:
    try:
        socket.create_connection(_WEIGHTS_HOST, timeout=5).close()
    except OSError:
        return False
    return True


def _work(session: _Session) -> str | None:
    """Run the stage; return why it is not finished, None if it is."""
    run, folds = session.run, session.settings["folds"]
    try:
        if session.stage == "image":
            train_image(run, folds)
        elif session.stage == "embedding":
            train_embedding(run)
        elif session.stage == "tabular":
            train_tabular(run)
        else:
            _blend(run, session.working)
    except OutOfTime as stop:
        return str(stop)
    finally:
        _tidy(session)
    return None


def _blend(run: Run, working: Path) -> None:
    folds = run.folds()
    for model in run.config.blend.models:
        missing = unfinished(folds, run.run_dir / model)
        if missing:
            raise PipelineError(
                f"folds {missing} of the {model} model are not trained: run their kernels first"
            )
        if not is_done(run.run_dir / model, "oof.csv"):  # folds of several kernels
            finish_stage(run, model)
    submission = make_submission(replace(run, resume=False))
    if submission:
        with atomic_path(working / submission.name) as temporary:
            shutil.copyfile(submission, temporary)


def _tidy(session: _Session) -> None:
    """Take out of the output what the next session makes anew and nobody reads."""
    shutil.rmtree(session.run.run_dir / "image" / "features", ignore_errors=True)
    if not session.settings["keep_records"]:
        shutil.rmtree(session.run.run_dir / "records", ignore_errors=True)
