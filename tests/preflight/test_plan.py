"""Tests of the plan: hours decide folds and epochs, the data decides what is trained."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment, parse_experiment
from kaggle_pipeline.config.names import HOME, TOOK
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.tables import TABLE_ENDINGS
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.preflight import kept_answers, plan_tpu
from kaggle_pipeline.preflight.estimate import Images, step_settings
from kaggle_pipeline.preflight.kept_answers import KeptAnswers
from kaggle_pipeline.preflight.plan import _fit_hours, _render, read_facts
from kaggle_pipeline.preflight.plan_cost import Facts, divisions, fit_hours, planned_stages
from kaggle_pipeline.preflight.plan_recipe import Choice, candidates, divided, recipe, values_of
from kaggle_pipeline.preflight.plan_rehearsal import Rehearsed
from kaggle_pipeline.preflight.plan_timing import Cost, Measured
from kaggle_pipeline.preflight.plan_tpu import TpuTask, plan_for_tpu
from kaggle_pipeline.synthetic import generate_like

BASE = {"name": "it", "dataset": "ham10000"}
FACTS = Facts(6000, 1000, ("df", 200), 450, "lesion", ("age_years", "sex", "site"))
FOUND = Measured(
    fingerprint=Cost(0.005, 0.005), convert=Cost(0.015, 0.015), workers=Cost(5, 8), record_mb=0.01,
    start=Cost(5, 5),
    fold=Cost(10, 12), asking=Cost(4, 6), answer=Cost(0.03, 0.05), step=Cost(0.5, 0.9),
    epoch=Cost(1, 1), batch=32, memory_mb=1500, saved_mb=9,
)  # fmt: skip


def planned(*, frozen=False, facts=FACTS, preset="good"):
    network = next(
        one for one in candidates("cpu", preset, "imagenet", facts) if one.frozen == frozen
    )
    content = recipe(BASE, facts, network, "cpu", "imagenet")
    return content, parse_experiment(values_of(content))


def rehearsed(folds):
    """A start, and three stages beside the image model's scores."""
    return {
        "start": Rehearsed(Cost(5, 5), 700, 0), "prepare": Rehearsed(Cost(2, 1), 800, 1),
        "explore": Rehearsed(Cost(3, 2), 820, 1), "image": Rehearsed(Cost(6, 4), 900, 2),
        "logistic": Rehearsed(Cost(7, 5), 900, 1), "blend": Rehearsed(Cost(8, 6), 950, 3),
    }  # fmt: skip


def fit(hours, found=FOUND, **more):
    content, config = planned(**more)
    return _fit_hours(content, more.get("facts", FACTS), found, rehearsed, config, hours)


def stages_of(found, config, facts=FACTS, count=1, epochs=10):
    division = next(one for one in divisions(facts) if one.count == count)
    folds = rehearsed(division.folds)
    return planned_stages(found, folds, config, facts, division, epochs)


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
    one, two, five = (
        stages_of(FOUND, config, count=count, epochs=epochs)["image"].cost
        for count, epochs in ((1, 1), (1, 2), (5, 1))
    )
    # 150 steps, one of eight views of each of 1,200 validated photos, and the epoch's end.
    assert two.seconds - one.seconds == pytest.approx(150 * 0.5 + 1200 * 0.03 / 8 + 1)
    assert two.cpu - one.cpu == pytest.approx(150 * 0.9 + 1200 * 0.05 / 8 + 1)
    fold = 10 + 2 * 4 + (1200 + 1000) * 0.03 + 150 * 0.5 + 1200 * 0.03 / 8 + 1
    assert five.seconds - one.seconds == pytest.approx(4 * fold)
    assert one.seconds == pytest.approx(fold + 6), "and its scores"


def test_every_stage_that_will_run_is_predicted():
    _, config = planned()
    config = replace(config, records=replace(config.records, workers=1))
    stages = stages_of(FOUND, config)
    assert list(stages) == ["prepare", "records", "explore", "image", "logistic", "blend"]
    assert stages["prepare"].cost.seconds == pytest.approx(5 + 2 + 7000 * 0.005)
    assert stages["records"].cost.cpu == pytest.approx(8 + 7000 * 0.015)
    assert stages["records"].disk_mb == pytest.approx(70) and stages["image"].disk_mb == 2 + 9
    memory = [stage.memory_mb for stage in stages.values()]
    assert memory[:3] == [800, 800, 820] and memory[3:] == [1500, 1500, 1500], "it never falls"


def test_a_fine_tuned_network_that_is_done_with_leaves_memory_a_frozen_one_does_not():
    for frozen, each in ((False, 80), (True, 0)):
        _, config = planned(frozen=frozen)
        one, five = (stages_of(FOUND, config, count=n)["image"].memory_mb for n in (1, 5))
        assert five - one == 4 * each


def test_a_frozen_backbone_sees_each_photo_once():
    _, config = planned(frozen=True)
    found = replace(FOUND, features=8 * 192)
    one, five = (stages_of(found, config, count=n)["image"].cost.seconds for n in (1, 5))
    head = 10 * (4800 * 8 / 32 * 0.5 + 1)
    assert five - one == pytest.approx(4 * (10 + head))
    small, large = (
        stages_of(found, config, replace(FACTS, train=n))["image"] for n in (1000, 100_000)
    )
    more = 4 * 8 * 192 * 99_000 / 2**20
    assert large.memory_mb - small.memory_mb == pytest.approx(3 * more)
    assert large.disk_mb - small.disk_mb == pytest.approx(more)


def test_the_data_sets_own_validation_part_is_scored():
    facts = replace(FACTS, official=("official_validation", 0.07))
    content = fit(1.0, facts=facts)
    assert values_of(content)["folds"] == {"judge": "official_validation"}
    assert "420 photos are scored" in content["folds"]["judge"].why


def test_a_smaller_network_comes_before_few_epochs():
    _, config = planned()
    several, few = (fit_hours(FOUND, rehearsed, config, FACTS, 0.22, least) for least in (3, 6))
    assert several.epochs < 6 and few is None


def test_hours_that_epochs_leave_are_further_networks():
    hours = (2.0, 5.0, 9.0)
    images = [values_of(fit(one))["image"] for one in hours]
    assert [one["epochs"] for one in images] == [12, 12, 12]
    assert [one.get("seeds", 1) for one in images] == [1, 2, 3]
    frozen = values_of(fit(9.0, frozen=True))["image"]
    assert "seeds" not in frozen, "no gain was measured for a head"
    _, config = planned()
    one, three = (
        stages_of(FOUND, replace(config, image=replace(config.image, seeds=n)))["image"]
        for n in (1, 3)
    )
    assert three.cost.seconds - 6 == pytest.approx(3 * (one.cost.seconds - 6))
    assert three.memory_mb - one.memory_mb == 2 * 80 and three.disk_mb - one.disk_mb == 2 * 9


def test_columns_that_give_the_target_away_are_not_learned_from():
    raw = pd.DataFrame({
        "image_id": list("abcd"), "group_id": list("abcd"), "split": ["train"] * 2 + ["test"] * 2,
        "target": [0, 1, 0, 0], "age_years": [40.0, 50.0, 60.0, 40.0],
        "sex": ["male", "female", None, None], "site": ["torso", None, "torso", None],
    }).set_index("image_id")  # fmt: skip
    facts = read_facts(raw, get_spec("siim_isic_2020"), 256)
    assert facts.leaking == ("sex",) and "sex" not in facts.features and facts.features
    content, config = planned(facts=replace(facts, rarest=("mel", 99)))
    assert config.tabular.features == facts.features
    assert "sex" in content["tabular"]["features"].why
    _, config = planned(facts=replace(facts, features=()), frozen=True)
    assert config.blend.models == ("image",)


def test_the_preset_the_device_and_the_photos_bound_the_network():
    sides = [
        planned(frozen=True, preset=preset, facts=facts)[1].image.image_size_px
        for preset, facts in [
            ("quick", FACTS), ("good", FACTS), ("best", FACTS),
            ("best", Facts(9, 0, ("a", 1), 150, None, ())),
        ]
    ]  # fmt: skip
    assert sides == [128, 224, 256, 160]
    few = replace(FACTS, rarest=("mel", 20))
    assert all(one.frozen for one in candidates("gpu", "best", "imagenet", few))
    gpu = candidates("gpu", "best", "imagenet", FACTS)
    assert gpu[0].backbone == "EfficientNetB4" and gpu[-1].frozen
    assert {one.backbone for one in candidates("gpu", "best", "mine.h5", FACTS)} == {"MobileNetV2"}


def test_without_weights_a_small_network_learns_from_nothing():
    for kind in ("cpu", "gpu"):
        (network,) = candidates(kind, "best", None, replace(FACTS, rarest=("mel", 20)))
        content = recipe(BASE, replace(FACTS, train=300), network, kind, None)
        image = parse_experiment(values_of(content)).image
        assert image.backbone == "LeNet" and not image.frozen and image.weights is None
        assert (image.learning_rate, image.batch_norm_momentum) == (2.0e-3, None)
    assert candidates("tpu", "best", None, FACTS)[0].backbone == "InceptionResNetV2Merged"


def test_what_is_written_is_read_as_the_same_experiment(tmp_path):
    content = fit(200.0, frozen=True)  # the head's steps are made up as slow as others
    path = tmp_path / "plan.yaml"
    path.write_text(_render(content, 2.0, "good"))
    config = load_experiment(path)
    assert config == parse_experiment(values_of(content))
    assert config.image.frozen and len(config.planned) == 6
    assert "# features of eight views" in path.read_text()


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_a_table_in_place_of_the_config_that_explains_it_is_told(tmp_path, capsys, ending):
    path = tmp_path / f"lesions{ending.upper()}"
    path.write_bytes(b"\xd0\xcf\x11\xe0")
    assert main(["plan", "--table", str(path), "--data-dir", str(tmp_path)]) == 2
    assert "name the config that says what its columns mean" in capsys.readouterr().err


def test_what_a_config_says_of_the_data_is_planned_with(tmp_path, monkeypatch, capsys):
    path, bases = tmp_path / "mine.yaml", []
    path.write_text(
        "{name: x, dataset: table, table: {train: a.csv, image: i, target: t}, seed: 4, "
        "image: {epochs: 99}, folds: {k: 7, shared_groups: note}, leakage: {near_bits: 3}}"
    )
    monkeypatch.setattr(
        "kaggle_pipeline.preflight.plan.plan_experiment", lambda base, *_, **__: bases.append(base)
    )
    words = ["plan", "--table", str(path), "--data-dir", str(tmp_path)]
    assert main([*words, "--out", str(tmp_path / "p.yaml")]) == 0
    assert "the plan chooses the rest" in capsys.readouterr().out
    content = recipe(
        bases[0], FACTS, candidates("cpu", "good", "imagenet", FACTS)[0], "cpu", "imagenet"
    )
    assert parse_experiment(values_of(content)).folds.shared_groups == "note"
    content["folds"] = divided(content, holdout=Choice(0.2))
    config = parse_experiment(values_of(content))
    assert (config.seed, config.table.train, config.leakage.near_bits) == (4, "a.csv", 3)
    assert (config.folds.holdout, config.folds.shared_groups) == (0.2, "note")
    assert config.leakage.duplicates == "drop" and config.image.epochs < 99


def test_fewer_than_least_epochs_are_no_plan():
    _, config = planned()
    assert fit_hours(FOUND, rehearsed, config, FACTS, 0.1) is None


class TestTpu:
    """The compiler's answers are made up here; ``test_preflight.py`` asks the real one."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        self.kept, self.said = tmp_path / "plan.compiled.json", []
        monkeypatch.setattr(kept_answers, "SHIPPED", tmp_path / "shipped")

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
                "peak_hbm_gib": 13.2, "hbm_gib": 15.75, "versions": versions(),
                "settings": step_settings(config, spec), "topology": "v5e:2x4",
            }  # fmt: skip

        monkeypatch.setattr(plan_tpu, "preflight", answer)
        spec, facts = (
            get_spec("siim_isic_2020"),
            Facts(32_000, 10_982, ("target", 400), 1024, "", ("sex",)),
        )
        images = Images(np.repeat([[1.0], [0.0]], [500, 31_500], axis=0), tests=10_982)
        task = TpuTask("v5e-8", hours, images, facts, "imagenet", KeptAnswers(self.kept))
        networks = candidates("tpu", preset, "imagenet", facts)
        base = {"name": "it", "dataset": "siim_isic_2020"}
        content = plan_for_tpu(base, spec, networks, task, self.said.append)
        return parse_experiment(values_of(content)), asked

    def test_hours_decide_folds_epochs_and_size(self, monkeypatch):
        for hours in (0.3, 1.0, 3.0, 9.0):
            self.kept.unlink(missing_ok=True)
            config, _ = self.plan(monkeypatch, hours)
            assert config.planned[0].seconds <= hours * 3600 and config.device == "tpu"
        assert config.image.image_size_px == 1024 and config.image.epochs == 16
        assert config.folds.k == 5 and config.planned[0].device_mb == pytest.approx(13.2 * 1024, 1)

    def test_a_batch_that_does_not_fit_is_made_smaller(self, monkeypatch):
        config, asked = self.plan(monkeypatch, 9.0, fits=lambda image: image.batch_size <= 8)
        assert asked == [(1024, 16), (1024, 8)] and config.image.batch_size == 8

    def test_what_was_compiled_once_is_kept_and_said_to_be(self, monkeypatch):
        first, asked = self.plan(monkeypatch, 9.0)
        assert len(asked) == 1 and "compiled with keras" in self.said[-1]
        again, asked = self.plan(monkeypatch, 9.0)
        assert again == first and not asked and f"kept in {self.kept} (keras " in self.said[-1]
        known = json.loads(self.kept.read_text())
        known[0]["versions"]["libtpu"] = "0.0.1"
        self.kept.write_text(json.dumps(known))
        _, asked = self.plan(monkeypatch, 9.0)
        assert bool(asked) == ("libtpu" in versions()), "of another compiler than is here"

    def test_what_is_no_answer_is_passed_over(self, monkeypatch):
        for content in ("{}", '[1, {"topology": "v5e:2x4"}]', '"text"', "null"):
            self.kept.write_text(content)
            _, asked = self.plan(monkeypatch, 9.0)
            assert len(asked) == 1, "compiled, and kept"
            (whole,) = read_json(self.kept)
            del whole["floor_step_seconds"]
        write_json(self.kept, [whole])
        _, asked = self.plan(monkeypatch, 9.0)
        assert len(asked) == 1, "half an answer is none"

    def test_answers_that_come_with_the_package_are_of_its_configs(self, monkeypatch):
        shipped = HOME / "configs" / "preflight"
        monkeypatch.setattr(kept_answers, "SHIPPED", shipped)
        monkeypatch.setattr(kept_answers, "versions", dict)  # no compiler here
        config, asked = self.plan(monkeypatch, 9.0)
        known = shipped / "siim_isic_2020_v5e-8.json"
        assert not asked and config.image.image_size_px == 1024
        assert str(known) in self.said[-1] and "libtpu 0.0.42.1" in self.said[-1]
        hand_made = load_experiment(HOME / "configs" / "siim_isic_2020.yaml")
        spec = get_spec("siim_isic_2020")
        assert read_json(known)["settings"] == step_settings(hand_made, spec)
        other = replace(hand_made, image=replace(hand_made.image, train_from=None))
        assert KeptAnswers(self.kept).find(other, spec, "v5e-8") is None
        assert KeptAnswers(self.kept).find(hand_made, spec, "v5e-4") is None

    def test_too_few_hours_are_one_line(self, monkeypatch, tmp_path, capsys):
        with pytest.raises(PipelineError, match=r"--hours 0\.001 are too few for 32,000"):
            self.plan(monkeypatch, 0.001)
        words = ["plan", "--dataset", "siim_isic_2020", "--data-dir", str(tmp_path)]
        assert main([*words, "--device", "tpu-v55"]) == 2
        assert "unknown topology 'v55'" in capsys.readouterr().err
        assert main([*words, "--device", "quantum"]) == 2 and "quantum" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frozen", "fine-tuned", "from nothing"])
def test_a_table_is_planned_run_and_compared(tmp_path, capsys, kind, monkeypatch):
    pytest.importorskip("tensorflow")
    import keras

    from kaggle_pipeline.preflight import plan_recipe

    frozen, weights = kind == "frozen", "null"
    monkeypatch.setattr(plan_recipe, "FEW_GROUPS", 50 if frozen else 1)
    if kind != "from nothing":
        weights = str(tmp_path / "mine.weights.h5")
        keras.applications.MobileNetV2(weights=None, include_top=False).save_weights(weights)
    generate_like("table", tmp_path, images=60, image_size_px=64, seed=1, workers=1)
    data, out, run = tmp_path / "competition", tmp_path / "mine.yaml", tmp_path / "run"
    table = str(HOME / "configs" / "my_photos.yaml")
    words = ["plan", "--table", table, "--data-dir", str(data), "--out", str(out)]
    words += ["--weights", weights]
    assert main([*words, "--hours", "0.001"]) == 2
    assert "--hours 0.001 are too few" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--hours", "1", "--device", "cpu"]) == 0, capsys.readouterr().err
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    image = load_experiment(out).image
    assert image.frozen == frozen and (image.backbone == "LeNet") == (kind == "from nothing")
    lighter = ["--set", "folds.k=2", "--set", "image.epochs=1"]
    where = ["--config", str(out), "--data-dir", str(data), "--run-dir", str(run)]
    assert main(["run-pipeline", *where, *lighter]) == 0, capsys.readouterr().err
    page = (run / "report.html").read_text()
    plan = page[page.index("Plan and run") :]
    for stage in ("Tables and leak audit", "Records", "Data pictures", "Image model", "Blend"):
        assert stage in plan
    took = {one.stage: read_json(run / one.stage / TOOK) for one in load_experiment(out).planned}
    assert set(took) == {"prepare", "records", "explore", "image", "logistic", "blend"}
    assert all(one["seconds"] > 0 and one["peak_memory_mb"] > 300 for one in took.values())
    assert main(["verify-run", "--run-dir", str(run)]) == 0
