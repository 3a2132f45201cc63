"""Tests of the plan: hours decide folds and epochs, the data decides what is trained."""

import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment, parse_experiment
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.preflight.plan import Facts, _fit_hours, _recipe, _render, _values
from kaggle_pipeline.preflight.plan_timing import Measured
from kaggle_pipeline.synthetic import generate_like

BASE = {"name": "it", "dataset": "ham10000"}
FACTS = Facts(6000, 1000, ("df", 200), 450, "lesion", 3)
FOUND = Measured(
    prepare_seconds=0.02, record_mb=0.01, start_seconds=5, fold_seconds=10, answer_seconds=0.03,
    step_seconds=0.5, batch=32, memory_mb=1500,
)  # fmt: skip


def fit(hours, *, frozen=False, facts=FACTS, preset="good"):
    content = _recipe(BASE, facts, preset, "cpu", "imagenet", frozen)
    config = parse_experiment(_values(content))
    return _fit_hours(content, facts, FOUND, config, hours)


def test_more_hours_are_more_folds_and_epochs():
    found = {hours: fit(hours) for hours in (0.1, 0.3, 1.0, 2.0, 5.0)}
    assert found[0.1] is None, "too few for anything"
    folds = [_values(found[hours])["folds"] for hours in (0.3, 1.0, 2.0, 5.0)]
    assert folds[0] == {"holdout": 0.2} and folds[-1] == {"k": 5}
    epochs = [_values(found[hours])["image"]["epochs"] for hours in (0.3, 5.0)]
    assert epochs[0] < epochs[1] == 12
    for hours in (0.3, 1.0, 2.0, 5.0):
        assert sum(one["seconds"] for one in found[hours]["planned"].value) <= hours * 3600


def test_the_preset_and_the_photos_bound_the_size():
    sides = [
        _values(_recipe(BASE, facts, preset, "cpu", "imagenet", True))["image"]["image_size_px"]
        for preset, facts in [
            ("quick", FACTS), ("good", FACTS), ("best", FACTS),
            ("best", Facts(9, 0, ("a", 1), 150, None, 0)),
        ]
    ]  # fmt: skip
    assert sides == [128, 192, 256, 128]


def test_what_is_written_is_read_as_the_same_experiment(tmp_path):
    content = fit(2.0, frozen=True)
    path = tmp_path / "plan.yaml"
    path.write_text(_render(content, FACTS, 2.0, "good"))
    config = load_experiment(path)
    assert config == parse_experiment(_values(content))
    assert config.image.frozen and [one.stage for one in config.planned] == ["prepare", "image"]
    assert "# features of eight views" in path.read_text()


@pytest.mark.slow
def test_a_table_is_planned_run_and_compared(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    generate_like("table", tmp_path, images=60, image_size_px=64, seed=1, workers=1)
    data, out, run = tmp_path / "competition", tmp_path / "mine.yaml", tmp_path / "run"
    table = str(HOME / "configs" / "my_photos.yaml")
    words = ["plan", "--table", table, "--data-dir", str(data), "--out", str(out)]
    assert main([*words, "--hours", "0.001"]) == 2
    assert "--hours 0.001 are too few" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--hours", "1", "--device", "cpu"]) == 0, capsys.readouterr().err
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert load_experiment(out).image.frozen, "so few patients"
    lighter = ["--set", "image.weights=null", "--set", "folds.k=2", "--set", "image.epochs=1"]
    where = ["--config", str(out), "--data-dir", str(data), "--run-dir", str(run)]
    assert main(["run-pipeline", *where, *lighter]) == 0, capsys.readouterr().err
    page = (run / "report.html").read_text()
    assert "time planned" in page and "Preparation" in page
