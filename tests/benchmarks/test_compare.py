"""Tests of the comparison with kept figures: a slower step, a lost cache, more memory are named."""

import copy
import json
import time

import pytest

from benchmarks import compare, step
from benchmarks.cli import main
from benchmarks.compare import compare_results
from benchmarks.engines import Load, time_keras, time_products
from benchmarks.table import BEGIN, END, write_table
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError

KEPT = {
    "what": "step",
    "load": {"backbone": "MobileNetV2", "image_size_px": 224},
    "engines": {
        "numpy": {"train": 50.0},
        "tensorflow": {"train": 20.0, "predict": 100.0, "first_seconds": 6.0, "peak_mb": 1000},
        "jax": {"error": "jax is not installed"},
        "pytorch": {"train": 20.0, "predict": 60.0, "first_seconds": 3.0, "peak_mb": 900},
    },
}


def written(path, content):
    path.write_text(json.dumps(content))
    return path


def changed(**changes):
    new = copy.deepcopy(KEPT)
    new["engines"]["tensorflow"] |= changes
    return new


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": 18.0, "first_seconds": 6.6}, "time to train, to pytorch's: 1 → 1.111 (+11%)"),
        ({"predict": 80.0}, "time to predict, to pytorch's: 0.6 → 0.75 (+25%), allowed +10%"),
        ({"first_seconds": 8.0}, "first step, in photos of later ones: 120 → 160 (+33%)"),
        ({"peak_mb": 1060}, "peak memory, MiB: 1000 → 1060 (+6%), allowed +5%"),
    ],
)
def test_what_is_worse_is_named(tmp_path, capsys, changes, words):
    kept = written(tmp_path / "kept.json", KEPT)
    new = written(tmp_path / "new.json", changed(**changes))
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "compare", str(new), "--kept", str(kept)])
    assert words in end.value.code and "MobileNetV2 at 224 px, tensorflow" in end.value.code
    said = capsys.readouterr()
    assert "note: " not in said.out
    assert len(said.out.splitlines()) == 6  # every figure has its line, worse or not


def test_other_settings_are_named(tmp_path):
    new = changed()
    new["load"] = {"backbone": "MobileNetV2", "image_size_px": 224, "image": {"batch_size": 8}}
    kept = {**KEPT, "load": {**KEPT["load"], "image": {"batch_size": 32}}}
    said = []
    compare_results(
        written(tmp_path / "n.json", new), written(tmp_path / "k.json", kept), said.append
    )
    assert said[0] == "note: measured with other settings: image.batch_size 32 → 8"


def test_a_slower_machine_is_no_slow_down(tmp_path):
    new = copy.deepcopy(KEPT)
    for name, answer in new["engines"].items():
        for key in {"train", "predict"} & set(answer):
            answer[key] /= 3
        if name == "tensorflow":
            answer["first_seconds"] *= 3
    kept = written(tmp_path / "kept.json", {"MobileNetV2": KEPT})  # as benchmark train keeps it
    lines = []
    new = written(tmp_path / "new.json", {"MobileNetV2": new})
    assert compare_results(new, kept, lines.append) == []
    assert sum("(+0%)" in line for line in lines) == len(lines) == 6


def test_a_busy_machine_is_said(tmp_path):
    busy = KEPT | {"machine": {"processor": "a CPU", "cores": 2, "load": 7.5}}
    path, lines = written(tmp_path / "kept.json", busy), []
    assert compare_results(path, path, lines.append) == []
    assert "beside other work" in lines[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ({"rows": 3}, "holds no figures"), ("loop", "no figure in common")],
)
def test_a_file_that_cannot_be_compared_is_an_error(tmp_path, content, words):
    kept, path = written(tmp_path / "kept.json", KEPT), tmp_path / "new.json"
    if content == "loop":
        content = {"what": "loop", "loop": [9.0], "step": [10.0]}
    if content:
        written(path, content)
    with pytest.raises(PipelineError, match=words):
        compare_results(path, kept)


def test_kept_figures_can_be_read():
    for path in compare.RESULTS.glob("*.json"):
        lines = []
        assert compare_results(path, path, lines.append) == [] and lines


def test_the_documents_table_is_that_of_the_kept_figures(tmp_path):
    said = []
    write_table(None, say=said.append)
    document = (CHECKOUT / "docs" / "results.md").read_text()
    assert f"{BEGIN}\n{said[0]}\n{END}" in document, "scripts/benchmark.py table docs/results.md"
    with pytest.raises(PipelineError, match="no figures"):
        write_table(None, tmp_path)


def test_a_row_says_what_was_not_reached(tmp_path):
    machine = {"processor": "a CPU", "cores": 2, "gpu": "NVIDIA H200"}
    load = {"backbone": "B", "image_size_px": 512, "batch_size": 32}
    engines = {
        "numpy": {"train": 95.9},  # products a second, no photos: no row
        "jax": {"train": 553.21, "peak_mb": 9000},
        "compiled": {"error": "ended after 200 s"},
    }
    card = {"what": "card", "machine": machine, "jobs": {"x": {
        "what": "step", "load": load, "engines": engines, "machine": machine}}}  # fmt: skip
    written(tmp_path / "card.json", card)
    said = []
    write_table(None, tmp_path, said.append)
    lines = said[0].splitlines()
    assert "| jax | 553 | – | – | 9,000 | NVIDIA H200 |" in lines[2]
    assert "| compiled: ended after 200 s | – |" in lines[3]


@pytest.mark.ci
def test_a_sleep_in_the_step_is_caught(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    from kaggle_pipeline.preflight.timing import StepTimer

    def measure(engine, load):
        told = {}
        one = time_products if engine == "numpy" else lambda *args: time_keras(engine, *args)
        one(load, lambda **facts: told.update(facts))
        return told

    monkeypatch.setattr(step, "_apart", measure)
    load = Load("LeNet", 64, 16, steps=10, predicting=False)
    engines = ("numpy", "tensorflow")
    kept = written(tmp_path / "kept.json", step.measure_step(load, engines=engines))
    seconds = StepTimer.seconds

    def slower(self, steps):
        before = seconds(self, steps)
        time.sleep(4 * before)  # more than what other work on the machine takes and gives back
        return 5 * before

    monkeypatch.setattr(StepTimer, "seconds", slower)
    new = written(tmp_path / "new.json", step.measure_step(load, engines=engines))
    assert "tensorflow: time to train, to numpy's" in compare_results(new, kept)[0]
