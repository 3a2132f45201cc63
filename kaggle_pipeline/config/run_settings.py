"""The settings and the data of a run that is there, for the stages that come later.

In: a run's folder. Out: one experiment, whose sections are those that each stage was made with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import parse_changed, read_settings, without_former_keys
from kaggle_pipeline.config.names import LEARNERS, PREPARED_BY, SCORED_STAGES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json

SOURCE = "source.json"
"""In ``prepare/``: the data folder."""
_NAMED = 5
"""Further settings that are named where a run was made with others."""
_SECTIONS = {
    "embedding": ("embedding", "records"),
    "image": ("image", "records"),  # of two, its records: it reads them again for every epoch
    **dict.fromkeys((*LEARNERS, "tabular"), ("tabular",)),
    "blend": ("blend",),
    "ensemble": ("ensemble",),
    "prepare": PREPARED_BY,
}
"""What a stage's own config says best; a later stage may have been given others."""
_OF_THE_MACHINE = ("device", "replicas")
"""Settings that another machine may lack: a run that began on a TPU goes on on a laptop."""


def settings_of_run(run_dir: Path) -> dict[str, Any] | None:
    """Return the resolved settings of a run, None where it has none yet.

    They are the last stage's, and of each section those of the stage that it decides.

    Raises
    ------
    PipelineError
        If a stage's config is damaged.
    """
    paths = {one: Path(run_dir) / one / "config.yaml" for one in ("prepare", *SCORED_STAGES)}
    found = {
        stage: without_former_keys(read_settings(path))
        for stage, path in paths.items()
        if path.exists()
    }
    if not found:
        return None
    content = dict(list(found.values())[-1])
    for stage, sections in _SECTIONS.items():
        own = found.get(stage, {})
        content |= {section: own[section] for section in sections if section in own}
    return content


def load_run_experiment(run_dir: Path, overrides: Sequence[str] = ()) -> Experiment | None:
    """Return a run's own experiment, changed by ``key=value``; None where it has none yet.

    Raises
    ------
    PipelineError
        As ``load_experiment``, or if a stage's config is damaged.
    """
    content = settings_of_run(run_dir)
    return None if content is None else parse_changed(content, overrides, run_dir)


def load_experiment_here(
    run_dir: Path,
    overrides: Sequence[str] = (),
    content: Mapping[str, Any] | None = None,
) -> Experiment | None:
    """Return the same but for what belongs to the machine: that is as if nothing were said.

    ``content`` is what :func:`settings_of_run` returned, where it was asked already.
    """
    content = settings_of_run(run_dir) if content is None else content
    if content is None:
        return None
    kept = {key: value for key, value in content.items() if key not in _OF_THE_MACHINE}
    return parse_changed(kept, overrides, run_dir)


def record_source(prepared: Path, data_dir: Path) -> None:
    """Write down which data folder a run is prepared from."""
    write_json(prepared / SOURCE, {"data_dir": str(Path(data_dir).absolute())})


def source_of_run(run_dir: Path) -> Path | None:
    """Return the data folder that a run was prepared from.

    None where nothing tells it, as in a run of before, or where it is not there any more.

    Raises
    ------
    PipelineError
        If what tells it is damaged.
    """
    path = Path(run_dir) / "prepare" / SOURCE
    if not path.exists():
        return None
    content = read_json(path)
    said = content.get("data_dir") if isinstance(content, Mapping) else None
    if not isinstance(said, str):
        raise PipelineError(f"{path} is damaged: delete it and say --data-dir")
    return Path(said) if Path(said).is_dir() else None


@dataclass(frozen=True)
class Difference:
    """A setting by its dotted name: what a stage was made with, and what is said now."""

    key: str
    before: object
    now: object


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]
) -> list[Difference]:
    """Return the settings at or below dotted ``keys`` in which two resolved configs differ."""
    return [
        one for key in keys for one in _differences(_look_up(before, key), _look_up(now, key), key)
    ]


def describe_differences(found: Sequence[Difference]) -> str:
    """Return the first with both values and the names of the others, for a message."""
    first, *others = found
    text = f"{first.key} = {first.before}, this experiment says {first.now}"
    if not others:
        return text
    named = ", ".join(one.key for one in others[:_NAMED])
    more = ", …" if len(others) > _NAMED else ""
    return f"{text} (different too: {named}{more})"


def _look_up(content: object, key: str) -> object:
    """Value of a dotted key, None where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _differences(old: object, new: object, key: str) -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}")
    elif old != new:
        yield Difference(key, old, new)
