"""Tests of the plan: hours decide folds and epochs, the data decides what is trained."""

from dataclasses import replace

import numpy as np
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment, parse_experiment
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.preflight import plan_tpu
from kaggle_pipeline.preflight.estimate import Images
from kaggle_pipeline.preflight.plan import _fit_hours, _render
from kaggle_pipeline.preflight.plan_cost import Facts, Fitted, fit_hours, planned_stages, whole_cost
from kaggle_pipeline.preflight.plan_recipe import candidates, recipe, values_of
from kaggle_pipeline.preflight.plan_timing import Cost, Measured
from kaggle_pipeline.preflight.plan_tpu import TpuTask, plan_for_tpu
from kaggle_pipeline.synthetic import generate_like

BASE = {"name": "it", "dataset": "ham10000"}
FACTS = Facts(6000, 1000, ("df", 200), 450, "lesion", 3)
FOUND = Measured(
    prepare=Cost(0.02, 0.02), workers=Cost(5, 8), record_mb=0.01, start=Cost(5, 5),
    fold=Cost(10, 12), asking=Cost(4, 6), answer=Cost(0.03, 0.05), step=Cost(0.5, 0.9),
    epoch=Cost(1, 1), batch=32, memory_mb=1500, imported_mb=700,
)  # fmt: skip


def planned(*, frozen=False, facts=FACTS, preset="good"):
    network = next(
        one for one in candidates("cpu", preset, "imagenet", facts) if one.frozen == frozen
    )
    content = recipe(BASE, facts, network, "cpu", "imagenet")
    return content, parse_experiment(values_of(content))


def fit(hours, **more):
    content, config = planned(**more)
    return _fit_hours(content, more.get("facts", FACTS), FOUND, config, hours)


def test_more_hours_are_more_folds_and_epochs():
    found = {hours: fit(hours) for hours in (0.1, 0.3, 1.0, 2.0, 5.0)}
    assert found[0.1] is None, "too few for anything"
    folds = [values_of(found[hours])["folds"] for hours in (0.3, 1.0, 2.0, 5.0)]
    assert folds[0] == {"holdout": 0.2} and folds[-1] == {"k": 5}
    epochs = [values_of(found[hours])["image"]["epochs"] for hours in (0.3, 5.0)]
    assert epochs[0] < epochs[1] == 12
    for hours in (0.3, 1.0, 2.0, 5.0):
        assert sum(one["seconds"] for one in found[hours]["planned"].value) <= hours * 3600


def test_what_is_fine_tuned_takes_steps_epochs_and_views():
    _, config = planned()
    one = whole_cost(FOUND, config, FACTS, Fitted(1, 0.8, 1))
    two = whole_cost(FOUND, config, FACTS, Fitted(1, 0.8, 2))
    # 150 steps, one of eight views of each of 1,200 validated photos, and the epoch's end.
    assert two.seconds - one.seconds == pytest.approx(150 * 0.5 + 1200 * 0.03 / 8 + 1)
    assert two.cpu - one.cpu == pytest.approx(150 * 0.9 + 1200 * 0.05 / 8 + 1)
    folds = whole_cost(FOUND, config, FACTS, Fitted(5, 0.8, 1)).seconds - one.seconds
    fold = 10 + 2 * 4 + (1200 + 1000) * 0.03 + 150 * 0.5 + 1200 * 0.03 / 8 + 1 + 3  # and tabular
    assert folds == pytest.approx(4 * fold)


def test_a_frozen_backbone_sees_each_photo_once():
    _, config = planned(frozen=True)
    found = replace(FOUND, features=8 * 192)
    one, five = (
        whole_cost(found, config, FACTS, Fitted(folds, 0.8, 10)).seconds for folds in (1, 5)
    )
    head = 10 * (4800 * 8 / 32 * 0.5 + 1)
    assert five - one == pytest.approx(4 * (10 + head + 3))
    small, large = (
        planned_stages(found, config, replace(FACTS, train=n), Fitted(1, 0.8, 10))[1]["memory_mb"]
        for n in (1000, 100_000)
    )
    assert large - small == pytest.approx(3 * 4 * 8 * 192 * 99_000 / 2**20, abs=1)


def test_the_preset_the_device_and_the_photos_bound_the_network():
    sides = [
        planned(frozen=True, preset=preset, facts=facts)[1].image.image_size_px
        for preset, facts in [
            ("quick", FACTS), ("good", FACTS), ("best", FACTS),
            ("best", Facts(9, 0, ("a", 1), 150, None, 0)),
        ]
    ]  # fmt: skip
    assert sides == [128, 192, 256, 128]
    few = replace(FACTS, rarest=("mel", 20))
    assert all(one.frozen for one in candidates("gpu", "best", "imagenet", few))
    gpu = candidates("gpu", "best", "imagenet", FACTS)
    assert gpu[0].backbone == "EfficientNetB4" and gpu[-1].frozen
    assert {one.backbone for one in candidates("gpu", "best", "mine.h5", FACTS)} == {"MobileNetV2"}


def test_what_is_written_is_read_as_the_same_experiment(tmp_path):
    content = fit(200.0, frozen=True)  # the head's steps are made up as slow as others
    path = tmp_path / "plan.yaml"
    path.write_text(_render(content, 2.0, "good"))
    config = load_experiment(path)
    assert config == parse_experiment(values_of(content))
    assert config.image.frozen and [one.stage for one in config.planned] == ["prepare", "image"]
    assert "# features of eight views" in path.read_text()


def test_fewer_than_least_epochs_are_no_plan():
    _, config = planned()
    assert fit_hours(FOUND, config, FACTS, 0.1) is None


class TestTpu:
    """The compiler's answers are made up here; ``test_preflight.py`` asks the real one."""

    def plan(self, monkeypatch, hours, fits=lambda image: True, preset="best"):
        asked = []

        def answer(config, spec, topology, *, plan, say):
            image = config.image
            asked.append((image.image_size_px, image.batch_size))
            step = 0.25 * (image.image_size_px / 1024) ** 2
            return {
                "fits": fits(image), "largest_batch_per_replica": None if fits(image) else 8,
                "batch_per_replica": image.batch_size, "global_batch": 8 * image.batch_size,
                "floor_step_seconds": step, "prediction_floor_step_seconds": step / 3,
                "peak_hbm_gib": 13.2, "hbm_gib": 15.75,
            }  # fmt: skip

        monkeypatch.setattr(plan_tpu, "preflight", answer)
        spec, facts = (
            get_spec("siim_isic_2020"),
            Facts(32_000, 10_982, ("target", 400), 1024, "", 3),
        )
        images = Images(np.repeat([[1.0], [0.0]], [500, 31_500], axis=0), tests=10_982)
        task = TpuTask("v5e-8", hours, images, facts, "imagenet")
        networks = candidates("tpu", preset, "imagenet", facts)
        base = {"name": "it", "dataset": "siim_isic_2020"}
        content = plan_for_tpu(base, spec, networks, task, lambda line: None)
        return parse_experiment(values_of(content)), asked

    def test_hours_decide_folds_epochs_and_size(self, monkeypatch):
        for hours in (0.3, 1.0, 3.0, 9.0):
            config, _ = self.plan(monkeypatch, hours)
            assert config.planned[0].seconds <= hours * 3600 and config.device == "tpu"
        assert config.image.image_size_px == 1024 and config.image.epochs == 16
        assert config.folds.k == 5 and config.planned[0].device_mb == pytest.approx(13.2 * 1024, 1)

    def test_a_batch_that_does_not_fit_is_made_smaller(self, monkeypatch):
        config, asked = self.plan(monkeypatch, 9.0, fits=lambda image: image.batch_size <= 8)
        assert asked == [(1024, 16), (1024, 8)] and config.image.batch_size == 8

    def test_too_few_hours_are_one_line(self, monkeypatch, tmp_path, capsys):
        with pytest.raises(PipelineError, match=r"--hours 0\.001 are too few for 32,000"):
            self.plan(monkeypatch, 0.001)
        words = ["plan", "--dataset", "siim_isic_2020", "--data-dir", str(tmp_path)]
        assert main([*words, "--device", "tpu-v55"]) == 2
        assert "unknown topology 'v55'" in capsys.readouterr().err
        assert main([*words, "--device", "quantum"]) == 2 and "quantum" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_a_table_is_planned_run_and_compared(tmp_path, capsys, frozen, monkeypatch):
    pytest.importorskip("tensorflow")
    from kaggle_pipeline.preflight import plan_recipe

    monkeypatch.setattr(plan_recipe, "FEW_GROUPS", 50 if frozen else 1)
    generate_like("table", tmp_path, images=60, image_size_px=64, seed=1, workers=1)
    data, out, run = tmp_path / "competition", tmp_path / "mine.yaml", tmp_path / "run"
    table = str(HOME / "configs" / "my_photos.yaml")
    words = ["plan", "--table", table, "--data-dir", str(data), "--out", str(out)]
    words += ["--weights", "null"]
    assert main([*words, "--hours", "0.001"]) == 2
    assert "--hours 0.001 are too few" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--hours", "1", "--device", "cpu"]) == 0, capsys.readouterr().err
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert load_experiment(out).image.frozen == frozen
    lighter = ["--set", "folds.k=2", "--set", "image.epochs=1"]
    where = ["--config", str(out), "--data-dir", str(data), "--run-dir", str(run)]
    assert main(["run-pipeline", *where, *lighter]) == 0, capsys.readouterr().err
    page = (run / "report.html").read_text()
    assert "time planned" in page and "Preparation" in page and "core time taken" in page
