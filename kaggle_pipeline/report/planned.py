"""What was planned beside what happened, for ``report.py``.

In: a run's resolved settings and what its stages left. Out: a table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.names import SCORED_STAGES, TOOK
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html

_TITLES = {"prepare": "Tables and leak audit", "records": "Records", "explore": "Data pictures"}
_ORDER = (*_TITLES, *SCORED_STAGES)
_COLUMNS = (
    ("time", "seconds", "s"),
    ("core time", "cpu_seconds", "s"),
    ("memory", "memory_mb", "MiB"),
    ("device memory", "device_mb", "MiB"),
    ("disk", "disk_mb", "MiB"),
)
"""Title, key of the plan, unit."""


def planned_section(
    run_dir: Path, planned: list[Mapping], metrics: Mapping[str, Mapping], titles: Mapping[str, str]
) -> Html | None:
    """Return what each stage was predicted to take and took; None where nothing was planned.

    Parameters
    ----------
    run_dir : pathlib.Path
    planned : list of mapping
        ``planned`` of the run's settings.
    metrics : mapping of str to mapping
        ``metrics.json`` of the finished stages.
    titles : mapping of str to str
        What a stage is called.
    """
    if not planned:
        return None
    said = {one["stage"]: one for one in planned}
    took = {stage: _took(Path(run_dir) / stage, metrics.get(stage, {})) for stage in _ORDER}
    stages = [stage for stage in _ORDER if stage in said or took[stage]]
    stages += [stage for stage in said if stage not in _ORDER]
    shown = [
        column for column in _COLUMNS
        if any(one.get(column[1]) for one in (*said.values(), *took.values()))
    ]  # fmt: skip
    rows = []
    for stage in stages:
        row = [titles.get(stage) or _TITLES.get(stage, stage)]
        for _, key, unit in shown:
            # A plan of before says 0 where it says nothing.
            row.append(_or_dash(said.get(stage, {}).get(key) or None, unit))
            row.append(_or_dash(took.get(stage, {}).get(key), unit))
        rows.append(row)
    header = ["stage"]
    for title, _, _ in shown:
        header += [
            f"{title} planned",
            "memory until then" if title == "memory" else f"{title} taken",
        ]
    explained = html.element(
        "p",
        "Core time: the seconds that all cores together worked. Where more time passed than "
        "planned and the core time is as planned, other programs had the cores meanwhile. Memory "
        "is the most that the process held from its start to the stage’s end.",
    )
    return html.join([html.table(header, rows), explained])


def _took(folder: Path, metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a stage took, by the plan's keys; empty where it was not run."""
    path = folder / TOOK
    if not path.exists() and not metrics:
        return {}
    found = read_json(path) if path.exists() else metrics  # a run of before has those alone
    took = {key: found.get(key) for key in ("seconds", "cpu_seconds", "device_mb")}
    took |= {"memory_mb": found.get("peak_memory_mb"), "disk_mb": folder_mb(folder)}
    return {key: value for key, value in took.items() if value is not None}


def folder_mb(folder: Path) -> float:
    """Return the size of the files in a folder, in MiB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _or_dash(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:,.1f} {unit}"
