"""Tests of the preflight: plans, the search for a batch, what the compiler says, a real step."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.child_process import run_in_child
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
from kaggle_pipeline.preflight import estimate as module
from kaggle_pipeline.preflight.commands import (
    count_images,
    describe,
    published_targets,
)
from kaggle_pipeline.preflight.compiler import (
    TOPOLOGIES,
    Verdict,
    accept,
    chip_of,
    describe_topology,
    prepare_environment,
    refusal,
    resolve_topology,
)
from kaggle_pipeline.preflight.estimate import (
    Images,
    Plan,
    Target,
    floor_seconds,
    largest_batch,
    make_plan,
    preflight,
)
from kaggle_pipeline.preflight.lowering import photos_a_step, refused_ops
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run

TARGET = Target(SPEC, "v5e-8")


def experiment(folds=None, **image):
    return Experiment("tried", "siim_isic_2020", folds=FoldsConfig(**folds or {}),
                      image=ImageConfig(**image))  # fmt: skip


def fitting(gb=81.9, tflop=1.97):
    return Verdict(True, 4.0, 15.75, tflop, gb, 60.0)


class TestTopology:
    """Names."""

    @pytest.mark.parametrize(
        ("said", "meant"),
        [("v5e-8", "v5e:2x4"), ("V3-8", "v3:2x2"), ("v6e:4x4", "v6e:4x4"), ("v4:2x2x1",) * 2],
    )
    def test_both_kinds_of_names_are_known(self, said, meant):
        assert resolve_topology(said) == meant

    @pytest.mark.parametrize("name", ["v5e-9", "v5e", "h100-8", "v5e:2*4", "v9:2x2"])
    def test_others_are_an_error_with_the_known_ones(self, name):
        with pytest.raises(
            PipelineError, match=f"unknown topology '{name}'.*v5e-8".replace("*4", r"\*4")
        ):
            resolve_topology(name)

    def test_every_known_name_has_a_chip(self):
        assert {resolve_topology(name) for name in TOPOLOGIES} == set(TOPOLOGIES.values())


class TestPlan:
    """How many steps an experiment makes."""

    def test_the_published_recipes_steps(self):
        targets = published_targets(SPEC)
        assert targets.sum() == 584 and len(targets) == 33126
        config = experiment({"holdout": 0.2}, oversample=11.3339, epochs=16)
        plan = make_plan(config, Images(targets))
        assert (plan.fits, plan.epochs, plan.shown) == (1, 16, round(0.8 * 39161))
        assert plan.steps(128, None) == 16 * (round(0.8 * 39161) // 128)
        assert plan.steps(128, 10) == 160

    def test_folds_inner_holdouts_and_networks_a_class_count(self):
        targets = np.eye(2)[[0] * 600 + [1] * 400]
        config = experiment({"k": 5}, epochs=2, checkpoint="best_inner", inner_share=0.25)
        plan = make_plan(config, Images(targets))
        assert plan.shown == 600 and plan.fits == 5
        each = replace(config, image=replace(config.image, networks="one_per_class"))
        assert make_plan(each, Images(targets)).fits == 10
        labelled = make_plan(experiment({"judge": "official_validation"}), Images(targets))
        assert labelled.shown == 1000 and labelled.fits == 1
        drawn = experiment({"holdout": 0.5}, images_per_class=50)
        assert make_plan(drawn, Images(targets)).shown == 100  # 50 of each class, whatever is left
        assert make_plan(config, Images(targets, learned_share=0.5)).shown == 375

    def test_predictions_are_counted_with_their_views_and_after_every_epoch(self):
        targets = np.eye(2)[[0] * 600 + [1] * 400]
        config = experiment({"k": 5}, epochs=2, seeds=3)
        plan = make_plan(config, Images(targets, tests=310), views=8)
        assert (plan.validated, plan.validation, plan.tests) == (200, 200, 310)
        # 15 fits, each of 2 + 4 steps with 8 views and, twice, 2 steps with one.
        assert plan.prediction_steps(100) == 15 * (8 * (2 + 4) + 2 * 2)
        inner = replace(config, image=replace(config.image, checkpoint="best_inner"))
        plan = make_plan(inner, Images(targets, tests=310))
        assert (plan.validated, plan.validation) == (200, round(800 * inner.image.inner_share))
        aside = experiment({"holdout": 0.25, "test_share": 0.2}, epochs=2)
        plan = make_plan(aside, Images(targets))
        assert (plan.shown, plan.validated, plan.tests) == (600, 200, 200)
        counted = make_plan(aside, Images(targets, learned_share=0.7, validated=300, tests=5))
        assert (counted.shown, counted.validated, counted.tests) == (700, 300, 5)
        assert Plan(1, 1, 10).prediction_steps(4) == 0

    def test_frozen_features_are_extracted_once_of_all_images(self):
        targets = np.eye(2)[[0] * 600 + [1] * 400]
        frozen = make_plan(experiment({"k": 5}, frozen=True, epochs=9), Images(targets, tests=200))
        assert frozen.steps(100, None) == 12 and frozen.prediction_steps(100) == 0
        marked = experiment({"judge": "official_validation"}, frozen=True)
        assert make_plan(marked, Images(targets, validated=150, tests=50)).shown == 1200

    @pytest.mark.parametrize("tta", ["none", "flips", "dihedral", "random"])
    def test_the_views_are_those_that_are_averaged(self, tta):
        from kaggle_pipeline.models.image.inference.tta import views_of

        config = ImageConfig(tta=tta, tta_views=5)
        assert config.views == len(views_of(config))
        frozen = replace(config, frozen=True, tta="none", batch_size=16)
        assert (frozen.views, photos_a_step(frozen), photos_a_step(config)) == (8, 2, 16)

    def test_images_are_counted_in_the_prepared_run_or_in_the_data(self, competition, tmp_path):
        config = load_experiment("configs/demo.yaml", ["leakage.fingerprints=false", "folds.k=2"])
        run = Run(config, competition / "competition", tmp_path, say=lambda line: None)
        tests = len(pd.read_csv(competition / "competition" / "test.csv"))
        raw = count_images(run)
        assert raw.tests == tests and raw.validated is raw.learned_share is None
        prepare_data(run, with_records=False)
        found = count_images(run)
        assert found.tests == tests and found.validated == len(run.folds().validated) / 2
        assert found.learned_share == pytest.approx(0.5)
        absent = replace(run, data_dir=tmp_path / "none", run_dir=tmp_path / "no")
        assert count_images(absent).tests == SPEC.published_tests == 10982

    @pytest.mark.parametrize("dataset", ["siim_isic_2020", "isic_2017", "ham10000"])
    def test_published_counts_are_those_of_the_papers(self, dataset):
        spec = get_spec(dataset)
        counted = published_targets(spec)
        total = {"siim_isic_2020": 33126, "isic_2017": 2000, "ham10000": 10015}[dataset]
        assert counted.shape == (total, len(spec.classes))


class TestVerdict:
    """The compiler's words and numbers."""

    def test_both_refusals_are_understood(self):
        long = (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 27.31G of 15.75G hbm. Exceeded hbm capacity by 11.56G.\n\nmore"
        )
        assert refusal(long, 15.75, 30.0).peak_gib == 27.31
        short = (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (2.00T) exceeds available HBM (15.75G)."
        )
        found = refusal(short, 15.75, 1.0)
        assert (found.fits, found.peak_gib, found.tflop) == (False, 2048.0, None)
        assert refusal("RESOURCE_EXHAUSTED: something else", 15.75, 1.0).peak_gib is None

    def test_donated_arguments_are_counted_once(self):
        memory = SimpleNamespace(
            argument_size_in_bytes=3 * 2**30, output_size_in_bytes=2 * 2**30,
            alias_size_in_bytes=2 * 2**30, temp_size_in_bytes=2**30,
            generated_code_size_in_bytes=2**29,
        )  # fmt: skip
        found = accept(memory, {"flops": 2e12, "bytes accessed": 3e9}, 15.75, 5.0)
        assert (found.peak_gib, found.tflop, found.gb) == (4.5, 2.0, 3.0)

    def test_the_slower_of_memory_and_arithmetic_bounds(self):
        assert floor_seconds(fitting(), "v5e-8") == (pytest.approx(0.1), "memory")
        assert floor_seconds(fitting(gb=1.0, tflop=19.7), "v5e-8") == (
            pytest.approx(0.1), "arithmetic",
        )  # fmt: skip
        # Two devices share a chip of v3.
        assert floor_seconds(fitting(gb=45.0), "v3-8") == (pytest.approx(0.1), "memory")
        assert floor_seconds(refusal("", 15.75, 1.0), "v5e-8") == (None, None)


@pytest.fixture
def compiler(monkeypatch):
    """``compiler(limit, late=...)``: a compiler for which ``limit`` images are the most.

    Batches in ``late`` are refused only when nobody hurries. It lists what it was asked for.
    """

    def build(limit, late=(), tells=True, predicts=None):
        asked = []

        def compile_apart(config, target, batch_size, patience=None, predicting=False):
            asked.append((batch_size, patience is not None))
            if predicting:
                return {"verdict": predicts or fitting(gb=8.19, tflop=0.2)}
            fits = batch_size <= limit and batch_size not in late
            if patience is not None and (fits or batch_size in late):
                return None
            peak = 15.75 * batch_size / (limit + 0.5) if tells else None
            verdict = fitting() if fits else Verdict(False, peak, 15.75, None, None, 20, "no")
            return {"verdict": verdict, "batch_size": batch_size, "seconds": 20.0, "devices": 8,
                    "policy": "mixed_bfloat16", "ram_gib": 1.0, "versions": {}}  # fmt: skip

        monkeypatch.setattr(module, "_compile_apart", compile_apart)
        return compile_apart, asked

    return build


class TestSearch:
    """The largest batch."""

    @pytest.mark.parametrize("tells", [True, False])
    @pytest.mark.parametrize(("start", "limit"), [(32, 18), (32, 31), (16, 1), (8, 0), (4, 37)])
    def test_it_ends_at_the_limit_and_proves_it(self, compiler, start, limit, tells):
        compile_apart, asked = compiler(limit, tells=tells)
        config = experiment(batch_size=start)
        first = compile_apart(config, TARGET, start)
        assert largest_batch(config, TARGET, first, lambda line: None) == limit
        if limit:
            assert (limit, False) in asked
        assert len(asked) < 12

    def test_a_late_refusal_sends_it_downwards(self, compiler):
        compile_apart, asked = compiler(18, late=(18, 17))
        config = experiment(batch_size=32)
        first = compile_apart(config, TARGET, 32)
        assert largest_batch(config, TARGET, first, lambda line: None) == 16
        assert asked[-1] == (16, False)

    def test_predictions_name_what_they_are_of(self, compiler):
        compiler(32)
        config = experiment({"holdout": 0.2}, batch_size=16)
        images = Images(published_targets(SPEC), tests=SPEC.published_tests)
        plan = make_plan(config, images, views=8)
        found = preflight(config, SPEC, "v5e-8", plan=plan, say=lambda line: None)
        assert found["fits"] and found["largest_batch_per_replica"] is None
        assert found["floor_step_seconds"] == 0.1 and found["bound_by"] == "memory"
        assert found["images_per_second_at_most"] == 1280.0
        assert found["steps"] == plan.steps(128, None)
        hours = found["steps"] * 0.1 / 3600
        assert found["training_hours_at_least"] == round(hours, 2)
        # A tenth of the bytes: 0.01 s a step, and far from nothing in sum.
        assert found["prediction_floor_step_seconds"] == 0.01 and found["prediction_views"] == 8
        assert found["prediction_steps"] == plan.prediction_steps(128) > 1500
        more = found["prediction_steps"] * 0.01 / 3600
        assert found["prediction_hours_at_least"] == round(more, 2)
        assert found["hours_at_least"] == round(hours + more, 2)
        lines = describe({**found, "images_counted_in": "x", "share_of_weekly_quota": 0.05})
        assert "predicted by the compiler, not measured" in lines[0]
        said = " ".join(lines)
        assert f"{found['prediction_steps']} steps" in said and "with 8 views" in said
        assert "5 % of the weekly quota" in said
        assert "no strict bound" in lines[-1] and "on the chip" in lines[-1]

    def test_a_prediction_that_does_not_fit_leaves_no_hours_of_all(self, compiler):
        compiler(32, predicts=refusal("", 15.75, 1.0))
        plan = make_plan(experiment(), Images(published_targets(SPEC)))
        found = preflight(experiment(), SPEC, "v5e-8", plan=plan, say=lambda line: None)
        assert found["training_hours_at_least"] > 0 and found["hours_at_least"] is None
        assert "prediction: does not fit" in " ".join(describe({**found, "images_counted_in": "x"}))

    def test_what_does_not_fit_is_said_with_the_batch_that_does(self, compiler):
        compiler(18)
        found = preflight(experiment(batch_size=32), SPEC, "v5e-8", say=lambda line: None)
        assert not found["fits"] and found["largest_batch_per_replica"] == 18
        assert found["peak_hbm_gib"] > 15.75 and found["hours_at_least"] is None
        lines = describe({**found, "images_counted_in": "x"})
        assert "fits: no" in lines[1] and lines[-2].endswith("that fits: 18")


def test_a_compiler_that_ends_its_process_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "_child", _die)
    with pytest.raises(PipelineError, match=r"ended its process \(code 7\): libtpu is unhappy"):
        module._compile_apart(experiment(), TARGET, 16)


def _die(image, target, noise, predicting, pipe):
    noise.write_text("much chatter\nlibtpu is unhappy\n")
    raise SystemExit(7)


@pytest.mark.parametrize(
    "backend",
    [pytest.param("jax", marks=pytest.mark.ci), pytest.param("tensorflow", marks=pytest.mark.slow)],
)
def test_a_small_step_is_compiled_for_kaggles_tpu(backend, tmp_path, capsys):
    pytest.importorskip("libtpu")
    path = tmp_path / "found.json"
    arguments = ["--config", "configs/ham10000_lenet.yaml", "--topology", "v5e-8"]
    arguments += ["--backend", backend, "--weekly-hours", "20"]
    assert main(["preflight", *arguments, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["fits"] and 0 < found["peak_hbm_gib"] < 1 and found["hbm_gib"] > 15
    assert found["devices"] == 8 and found["global_batch"] == 8 * found["batch_per_replica"]
    # 64 × 64 × 3 images: three convolutions and their gradients, 32 images.
    assert 0.0005 < found["tflop_per_step"] < 0.01 and found["bound_by"] == "memory"
    # A forward pass is about a third of it.
    assert 0.2 < found["prediction_tflop_per_step"] / found["tflop_per_step"] < 0.6
    assert 0 < found["prediction_gb_per_step"] < found["gb_per_step"]
    said = capsys.readouterr().out
    assert found["versions"]["libtpu"] and "fits: yes" in said and "no strict bound" in said


@pytest.mark.slow
def test_the_extraction_of_features_is_compiled_on_tensorflow_too(capsys):
    pytest.importorskip("libtpu")
    frozen = ["--set", "image.frozen=true", "--config", "configs/ham10000_lenet.yaml"]
    assert main(["preflight", "--topology", "v5e-8", "--backend", "tensorflow", *frozen]) == 0
    assert "fits: yes" in capsys.readouterr().out


def _count_devices(pipe):
    prepare_environment("jax")
    found = {name: len(describe_topology(name).devices) for name in TOPOLOGIES}
    pipe.send(found)


@pytest.mark.slow
def test_the_compiler_sees_as_many_devices_as_the_chips_have():
    pytest.importorskip("libtpu")
    found = run_in_child(_count_devices)
    for name, shape in TOPOLOGIES.items():
        chips = math.prod(int(side) for side in shape.partition(":")[2].split("x"))
        assert found[name] == chips * chip_of(name).devices, name


@pytest.mark.slow
def test_a_frozen_network_of_full_size_is_compiled(tmp_path):
    """The extraction of features: no gradient, and far less memory than a training step."""
    pytest.importorskip("libtpu")
    path = tmp_path / "found.json"
    frozen = ["image.frozen=true", "image.train_from=null", "image.backbone=InceptionResNetV2"]
    frozen += ["image.tta=none", "image.augment.dihedral=false"]  # one view, not eight
    words = [word for change in frozen for word in ("--set", change)]
    assert main(["preflight", "--topology", "v5e-8", *words, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["step"] == "extraction of features" and found["image_size_px"] == 1024
    assert found["fits"] and 0.5 < found["peak_hbm_gib"] < found["hbm_gib"]
    # A forward pass is a third of the 18.8 TFLOP that a training step of 16 images takes.
    assert found["tflop_per_step"] == pytest.approx(18.8 / 3, rel=0.2)


def test_operations_that_a_tpu_refuses_are_named():
    tf = pytest.importorskip("tensorflow")

    @tf.function
    def step(images):
        maps = tf.zeros((1, 8))
        shape = tf.constant([8, 8])
        warped = tf.raw_ops.ImageProjectiveTransformV3(
            images=images, transforms=maps, output_shape=shape, fill_value=0.0,
            interpolation="BILINEAR",
        )  # fmt: skip
        return tf.strings.length(tf.strings.as_string(warped + tf.nn.relu(images)))

    graph = step.get_concrete_function(tf.TensorSpec((1, 8, 8, 3))).graph
    assert refused_ops(graph) == ["AsString", "ImageProjectiveTransformV3", "StringLength"]


def test_without_the_compiler_the_extra_is_named(capsys):
    try:
        import libtpu  # noqa: F401
    except ImportError:
        assert main(["preflight", "--topology", "v5e-8"]) == 2
        assert "pip install '.[preflight]'" in capsys.readouterr().err
    else:
        pytest.skip("the compiler is installed")
