"""What was planned beside what happened, for ``report.py``.

In: a run's resolved settings and its stages' own figures. Out: a table.
"""

from collections.abc import Mapping
from pathlib import Path

from kaggle_pipeline.config.names import TOOK
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html


def planned_section(
    run_dir: Path, planned: list[Mapping], metrics: Mapping[str, Mapping], titles: Mapping[str, str]
) -> Html | None:
    """Return predicted and real seconds and memory of each stage; None where nothing was planned.

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
    path = Path(run_dir) / "prepare" / TOOK
    found = {**metrics, **({"prepare": read_json(path)} if path.exists() else {})}
    rows = []
    for one in planned:
        real = found.get(one["stage"], {})
        rows.append(
            [
                titles.get(one["stage"], "Preparation"),
                f"{one['seconds']:,.0f} s",
                _or_dash(real.get("seconds"), "s"),
                _or_dash(one.get("cpu_seconds") or None, "s"),
                _or_dash(real.get("cpu_seconds"), "s"),
                _or_dash(one["memory_mb"] or None, "MiB"),
                _or_dash(real.get("peak_memory_mb"), "MiB"),
            ]
        )
    header = ["stage", "time planned", "time taken", "core time planned", "core time taken",
              "memory planned", "memory at most"]  # fmt: skip
    explained = html.element(
        "p",
        "Core time: the seconds that all cores together worked. Where more time passed than "
        "planned and the core time is as planned, other programs had the cores meanwhile.",
    )
    return html.join([html.table(header, rows), explained]) if rows else None


def _or_dash(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.0f} {unit}"
