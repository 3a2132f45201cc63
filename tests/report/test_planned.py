"""Tests of what was planned beside what happened."""

import re

from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.report.planned import planned_section

TITLES = {"image": "Image model", "forest": "Forest", "logistic": "Logistic"}


def rows_of(page):
    """Cells of each row, the head too."""
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


def test_what_was_planned_stands_beside_what_it_took(tmp_path):
    planned = [
        {"stage": "prepare", "seconds": 60, "cpu_seconds": 15, "memory_mb": 900, "disk_mb": 2.0},
        {"stage": "image", "seconds": 400, "cpu_seconds": 130, "memory_mb": 1700},
        {"stage": "forest", "seconds": 7, "memory_mb": 0},
    ]
    took = {"seconds": 55.2, "cpu_seconds": 14.1, "peak_memory_mb": 850.0}
    write_json(tmp_path / "prepare" / "took.json", took)
    (tmp_path / "prepare" / "folds.csv").write_bytes(b"0" * 3 * 2**20)
    write_json(tmp_path / "logistic" / "took.json", {**took, "seconds": 9.5})
    metrics = {"image": {"seconds": 1800.0, "peak_memory_mb": 1650.0}}  # a run of before
    head, *rows = rows_of(str(planned_section(tmp_path, planned, metrics, TITLES)))
    assert head[:3] == ["stage", "time planned", "time taken"] and "device memory" not in str(head)
    assert rows == [
        ["Tables and leak audit", "60 s", "55 s", "15 s", "14 s", "900 MiB", "850 MiB", "2.0 MiB",
         "3.0 MiB"],
        ["Image model", "400 s", "1,800 s", "130 s", "–", "1,700 MiB", "1,650 MiB", "–", "0.0 MiB"],
        ["Forest", "7.0 s", "–", "–", "–", "–", "–", "–", "–"],
        ["Logistic", "–", "9.5 s", "–", "14 s", "–", "850 MiB", "–", "0.0 MiB"],
    ]  # fmt: skip
    assert planned_section(tmp_path, [], metrics, TITLES) is None
