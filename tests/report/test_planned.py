"""Tests of what was planned beside what happened."""

from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.report.planned import planned_section


def test_seconds_of_the_cores_stand_beside_seconds(tmp_path):
    planned = [
        {"stage": "prepare", "seconds": 60, "cpu_seconds": 15, "memory_mb": 900},
        {"stage": "image", "seconds": 400, "cpu_seconds": 130, "memory_mb": 1700},
        {"stage": "forest", "seconds": 7, "memory_mb": 0},
    ]
    took = {"seconds": 55.2, "cpu_seconds": 14.1, "peak_memory_mb": 850.0}
    write_json(tmp_path / "prepare" / "took.json", took)
    metrics = {"image": {"seconds": 1800.0, "peak_memory_mb": 1650.0}}  # a run of before
    page = str(planned_section(tmp_path, planned, metrics, {"image": "Image model"}))
    for text in ("60 s", "55 s", "15 s", "14 s", "850 MiB", "1,800 s", "130 s", "1,650 MiB"):
        assert text in page
    assert page.count("–") == 1 + 4 + 1, "what nobody counted"
    assert planned_section(tmp_path, [], metrics, {}) is None
