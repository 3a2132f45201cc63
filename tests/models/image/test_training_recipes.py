"""Tests of the training recipes that a config switches on: each does what its source says."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers_image import STILL, make_examples, tiny_config, to_jpeg, write_records
from sklearn.metrics import roc_auc_score

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.private_api import averaged_variables
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.spec import Number
from kaggle_pipeline.datasets.external import TRANSLATIONS
from kaggle_pipeline.datasets.isic_2017 import SPEC as ISIC_2017
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.models.composite import CompositeModel, SeedEnsemble
from kaggle_pipeline.models.image.label_mapping import (
    class_probabilities,
    learned_spec,
    learned_targets,
)

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.hardware.accelerator import choose_accelerator  # noqa: E402
from kaggle_pipeline.models.image.fit.checkpoint import EpochKeeper  # noqa: E402
from kaggle_pipeline.models.image.fit.losses import make_loss, make_metrics  # noqa: E402
from kaggle_pipeline.models.image.fit.optimizer import AdamW  # noqa: E402
from kaggle_pipeline.models.image.fit.training import compile_network, training_rows  # noqa: E402
from kaggle_pipeline.models.image.fit.weight_averaging import averaged_weights  # noqa: E402
from kaggle_pipeline.models.image.inference.tta import View, random_views  # noqa: E402
from kaggle_pipeline.models.image.input.augment import augment_batch, hair_mask  # noqa: E402
from kaggle_pipeline.models.image.input.mixup import cutmix, mix_batch, mix_targets, mixup  # noqa: E402
from kaggle_pipeline.models.image.metadata_branch import (  # noqa: E402
    check_question,
    metadata_encoder,
)
from kaggle_pipeline.models.image.model import ImageModel  # noqa: E402
from kaggle_pipeline.models.image.network import build_head, build_network  # noqa: E402

COUNT = 18
WORDS = ("nevus", "melanoma", "unknown", "melanoma", "lentigo NOS", "melanoma")
EXAMPLES = make_examples(COUNT).assign(diagnosis=[WORDS[i % len(WORDS)] for i in range(COUNT)])
TRAIN, VALID = EXAMPLES.iloc[:10], EXAMPLES.iloc[10:]
DIAGNOSIS = tiny_config(target="diagnosis")
EVERYTHING = {
    "target": "diagnosis",
    "loss": "focal",
    "ema": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
    "dropout_samples": 3,
    "metadata": True,
    "tta": "random",
    "tta_views": 3,
    "augment": replace(STILL, hairs=2),
    "learning_rate": 0.01,
    "epochs": 3,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Photos of noise that tell nothing of the lesion."""
    rng = np.random.default_rng(5)
    jpegs = {name: to_jpeg(rng.integers(60, 180, (32, 32, 3))) for name in EXAMPLES.index}
    return write_records(tmp_path_factory.mktemp("records"), EXAMPLES, jpegs, SPEC)


@pytest.fixture
def make_model(shards, tmp_path, monkeypatch):
    """``make_model(name, **changes)``: an untrained model with a folder of its own."""
    monkeypatch.setattr(ImageModel, "_tensorboard", lambda self: [])
    device = choose_accelerator("cpu")

    def make(name="run", spec=SPEC, **changes):
        config = tiny_config(**changes)
        return ImageModel(config, spec, lambda ids: shards, device, tmp_path / name, seed=3)

    return make


def weights(model):
    return [np.array(weight) for weight in model.network_.get_weights()]


def batch(count=8, side=16):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    targets = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    return images, targets, rng.uniform(0.2, 5, count).astype(np.float32)


class TestDiagnosis:
    """A finer target than the classes."""

    def test_the_network_learns_the_groups_of_the_winners(self):
        spec = learned_spec(DIAGNOSIS, SPEC)
        assert spec.task == "multiclass" and len(spec.classes) == 9
        targets = learned_targets(EXAMPLES, DIAGNOSIS, SPEC)
        said = [spec.classes[i] for i in targets.argmax(axis=1)]
        assert said[:5] == ["nevus", "melanoma", "unknown", "melanoma", "keratosis"]
        assert (targets.sum(axis=1) == 1).all() and targets.dtype == np.float32

    def test_the_score_is_the_sum_over_the_diagnoses_of_the_class(self):
        answers = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
        for keratosis, wanted in ((None, [[0.1], [0.7]]), ("target", [[0.4], [0.8]])):
            names = {"melanoma": "target", "nevus": None, "keratosis": keratosis, "unknown": None}
            spec = replace(SPEC, diagnoses=replace(SPEC.diagnoses, names=names))
            found = class_probabilities(answers, DIAGNOSIS, spec)
            np.testing.assert_allclose(found, wanted)
        assert class_probabilities(answers, tiny_config(), SPEC) is answers

    def test_the_logged_auc_is_that_of_the_class(self):
        rng = np.random.default_rng(3)
        truth = learned_targets(EXAMPLES, DIAGNOSIS, SPEC)
        said = rng.dirichlet(np.ones(9), COUNT).astype(np.float32)
        auc, accuracy = make_metrics(DIAGNOSIS, SPEC)
        auc.update_state(truth, said)
        assert float(auc.result()) == pytest.approx(
            roc_auc_score(EXAMPLES["target"], said[:, 0]), abs=0.02
        )
        assert accuracy.name == "accuracy" and len(make_metrics(tiny_config(), SPEC)) == 1

    def test_words_of_other_collections_are_known(self):
        for translation in TRANSLATIONS.values():
            words = {*translation.diagnoses.values(), translation.rest}
            assert words <= set(SPEC.diagnoses.words)

    def test_rows_are_balanced_by_the_class(self):
        few = EXAMPLES[(EXAMPLES["target"] == 0) | (np.arange(COUNT) < 4)]
        rows = training_rows(few, replace(DIAGNOSIS, oversample=3.0), SPEC, 0)
        plain = training_rows(few, tiny_config(oversample=3.0), SPEC, 0)
        assert rows.targets.shape == (11, 9) and plain.targets.shape == (11, 1)
        np.testing.assert_array_equal(rows.repeats, plain.repeats)
        np.testing.assert_array_equal(rows.weights, plain.weights)
        assert rows.repeats.max() == 3

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("nevus", r"ISIC_0000001: diagnosis 'nevus' contradicts its target 1"),
            ("melanom", r"ISIC_0000001: unknown diagnosis 'melanom'.*melanoma"),
            (None, r"ISIC_0000001 has no diagnosis"),
        ],
    )
    def test_a_row_that_does_not_fit_is_named(self, word, message):
        examples = EXAMPLES.copy()
        examples.loc["ISIC_0000001", "diagnosis"] = word
        with pytest.raises(PipelineError, match=message):
            learned_targets(examples, DIAGNOSIS, SPEC)

    def test_data_without_diagnoses_is_refused(self):
        with pytest.raises(PipelineError, match="isic_2017 declares no diagnoses"):
            check_question(DIAGNOSIS, ISIC_2017)
        with pytest.raises(PipelineError, match="no column 'diagnosis'"):
            learned_targets(make_examples(4), DIAGNOSIS, SPEC)

    def test_the_diagnosis_is_no_feature(self):
        assert SPEC.diagnoses.column not in SPEC.features
        assert set(SPEC.diagnoses.words.values()) == set(SPEC.diagnoses.names)


class TestFocalLoss:
    """Lin et al. 2017."""

    TRUTH = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    SAID = np.array([[0.9, 0.08, 0.02], [0.3, 0.3, 0.4]], np.float32)

    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_it_is_the_formula_and_at_gamma_0_the_cross_entropy(self, task):
        def loss(**changes):
            return float(make_loss(tiny_config(**changes), task)(self.TRUTH, self.SAID))

        assert loss(loss="focal", focal_gamma=0.0) == pytest.approx(loss(), rel=1e-5)
        if task == "multiclass":
            right = np.array([0.9, 0.4])
            by_hand = -((1 - right) ** 2) * np.log(right)
        else:
            right = np.where(self.TRUTH == 1, self.SAID, 1 - self.SAID)
            by_hand = -((1 - right) ** 2) * np.log(right)
        assert loss(loss="focal") == pytest.approx(by_hand.mean(), rel=1e-5)

    def test_of_sigmoids_it_is_that_of_keras_for_whole_targets_and_finite_at_the_ends(self):
        ours = make_loss(tiny_config(loss="focal", focal_gamma=1.5), "multilabel")
        theirs = keras.losses.BinaryFocalCrossentropy(gamma=1.5)
        said = np.array([[0.0, 0.3, 1.0], [0.7, 1.0, 0.0]], np.float32)
        found, wanted = (np.asarray(one.call(self.TRUTH, said)) for one in (ours, theirs))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert np.isfinite(found).all()


class TestMixing:
    """Mixup and CutMix."""

    def test_off_changes_nothing(self):
        images, targets, weight = batch()
        found = mix_batch(images, None, targets, weight, [1, 2], tiny_config())
        assert found[0] is images and found[2] is targets and found[3] is weight

    @pytest.mark.parametrize("kind", ["crossentropy", "focal"])
    @pytest.mark.parametrize("task", ["multiclass", "multilabel", "binary"])
    def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(self, task, kind):
        _, targets, weight = batch()
        rng = np.random.default_rng(2)
        share = rng.uniform(size=8).astype(np.float32)
        said = rng.dirichlet(np.ones(3), 8).astype(np.float32)
        if task == "binary":
            targets, said = targets[:, :1], said[:, :1]
        loss = make_loss(tiny_config(loss=kind, label_smoothing=0.1), task)
        mixed, total = mix_targets(targets, weight, share)
        found = np.asarray(total * loss.call(mixed, tf.constant(said)))
        own, other = (
            np.asarray(loss.call(tf.constant(truth), tf.constant(said)))
            for truth in (targets, np.roll(targets, 1, axis=0))
        )
        wanted = share * weight * own + (1 - share) * np.roll(weight, 1) * other
        # Smoothing acts on the mixture's target; it is affine, so the sum stays the same.
        np.testing.assert_allclose(found, wanted, rtol=1e-4)

    def test_mixup_blends_pixels_by_the_drawn_share(self):
        images, _, _ = batch()
        mixed, share = mixup(images, [1, 2], 0.4)
        share = np.asarray(share)[:, None, None, None]
        by_hand = share * images + (1 - share) * np.roll(images, 1, axis=0)
        assert np.abs(np.asarray(mixed) - by_hand).max() <= 0.51
        assert np.ptp(share) > 0.05

    @pytest.mark.parametrize(("alpha", "spread"), [(0.2, 0.42), (1.0, 0.289), (8.0, 0.121)])
    def test_shares_are_of_the_beta_distribution(self, alpha, spread):
        share = np.asarray(mixup(np.zeros((4000, 1, 1, 3), np.uint8), [5, 6], alpha)[1])
        assert share.mean() == pytest.approx(0.5, abs=0.03)
        assert share.std() == pytest.approx(spread, abs=0.02)  # 1 / sqrt(4 (2 alpha + 1))

    def test_cutmix_pastes_a_square_and_counts_it(self):
        images = np.zeros((64, 20, 20, 3), np.uint8)
        images[1::2] = 200
        mixed, share = (np.asarray(one) for one in cutmix(images, [3, 4], 1.0))
        pasted = (mixed != images).all(axis=-1)
        np.testing.assert_allclose(1 - pasted.mean(axis=(1, 2)), share, atol=1e-6)
        assert (share == 1).mean() + (share < 0.9).mean() > 0.1
        for one in pasted[(share > 0.2) & (share < 0.95)]:
            rows, columns = one.any(axis=1), one.any(axis=0)
            assert one.sum() == rows.sum() * columns.sum()  # a whole rectangle

    @pytest.mark.parametrize("both", [{"mixup": 0.4}, {"mixup": 1, "cutmix": 1}])
    def test_seed_and_step_decide_and_the_metadata_follows(self, both):
        images, targets, weight = batch()
        config = tiny_config(**both)
        metadata = targets[:, :2]
        mix = tf.function(lambda seed: mix_batch(images, metadata, targets, weight, seed, config))
        first, again, later = (mix(tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert not np.array_equal(first[0], later[0])
        assert first[0].shape == images.shape and first[0].dtype == tf.uint8
        np.testing.assert_allclose(np.asarray(first[2]).sum(axis=1), 1, rtol=1e-5)
        # With equal weights targets are mixed as the metadata is.
        _, known, truth, _ = mix_batch(images, metadata, targets, np.ones(8, "f"), [1, 2], config)
        np.testing.assert_allclose(known, np.asarray(truth)[:, :2], atol=1e-6)


class TestWeightDecay:
    """Decoupled: a step takes rate × weight_decay of a kernel, of nothing else."""

    def network(self, **changes):
        config = tiny_config(
            weight_decay=0.3, learning_rate=0.1, schedule="constant",
            backbone="MobileNetV2", backbone_options={"alpha": 0.35}, **changes,
        )  # fmt: skip
        return compile_network(build_network(config, SPEC), config, SPEC, 10, False)

    @pytest.mark.parametrize("changes", [{}, {"ema": 0.5}])
    def test_a_kernel_shrinks_by_the_exact_factor_and_no_vector_does(self, changes):
        network = self.network(**changes)
        variables = network.trainable_variables
        for variable in variables:
            variable.assign(np.full(variable.shape, 2.0))
        for _ in range(2):  # without a gradient Adam's own step is 0
            network.optimizer.apply([np.zeros(one.shape, "f") for one in variables], variables)
        names = {True: set(), False: set()}
        for variable in variables:
            is_kernel = variable.name.endswith("kernel")
            names[is_kernel].add(variable.name)
            wanted = 2 * (1 - 0.1 * 0.3) ** 2 if is_kernel else 2.0
            np.testing.assert_allclose(variable, wanted, rtol=1e-6, err_msg=variable.path)
        assert names[False] == {"beta", "bias", "gamma"} and "kernel" in names[True]

    def test_a_saved_state_goes_on_with_the_same_decay(self, tmp_path):
        network = self.network()
        network.optimizer.build(network.trainable_variables)
        network.save_weights(tmp_path / "state.weights.h5")
        again = self.network()
        again.optimizer.build(again.trainable_variables)
        again.load_weights(tmp_path / "state.weights.h5")
        for one in (network, again):
            variables = one.trainable_variables
            one.optimizer.apply([np.ones(one.shape, "f") for one in variables], variables)
        for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_its_one_operation_does_what_keras_own_many_do(self):
        """The same weights, moments and saved state as ``keras.optimizers.AdamW``."""
        rate = keras.optimizers.schedules.CosineDecay(0.01, 20, warmup_target=0.1, warmup_steps=3)
        rng, found = np.random.default_rng(0), []
        kernel, bias = (rng.normal(size=shape).astype("f") for shape in ((3, 4), (4,)))
        steps = [
            [rng.normal(size=one.shape).astype("f") for one in (kernel, bias)] for _ in "12345"
        ]
        theirs = keras.optimizers.AdamW(rate, weight_decay=0.3)
        for optimizer in (AdamW(rate, 0.3), theirs):
            variables = [keras.Variable(kernel), keras.Variable(bias)]
            if optimizer is theirs:
                optimizer.exclude_from_weight_decay(var_list=variables[1:])
            for gradients in steps:
                optimizer.apply(gradients, variables)
            found.append([np.array(one) for one in (*variables, *optimizer.variables)])
        assert np.abs(found[0][0] - kernel).max() > 0.1
        for ours, other in zip(*found, strict=True):
            np.testing.assert_allclose(ours, other, atol=5e-6)  # of 5 steps of 0.1
        again = AdamW.from_config(AdamW(0.1, 0.3).get_config())
        assert again._decay == 0.3


class TestAveragedWeights:
    """Exponential moving averages."""

    def test_inside_the_network_is_the_average_and_outside_itself(self):
        network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        network.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5), "mse")
        network.fit(np.ones((2, 1)), np.full((2, 1), 9.0), batch_size=1, verbose=0)
        mean = np.array(averaged_variables(network.optimizer)[0])
        np.testing.assert_array_equal(network.get_weights()[0], mean)  # as every fit ends
        network.set_weights([mean + 1])
        with averaged_weights(network):
            np.testing.assert_array_equal(network.get_weights()[0], mean)
        np.testing.assert_array_equal(network.get_weights()[0], mean + 1)

    @pytest.mark.slow
    def test_the_average_is_judged_and_kept_as_the_best(self, make_model, monkeypatch):
        """The first of two epochs is the best: its weights are the average of two steps."""
        steps, write = [], EpochKeeper.on_epoch_end

        class Spy(keras.callbacks.Callback):
            def on_train_batch_end(self, step, logs=None):
                steps.append([np.array(one) for one in self.model.trainable_variables])

        def planted(self, epoch, logs=None):
            write(self, epoch, {**logs, "val_auc": (0.9, 0.5)[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        monkeypatch.setattr(ImageModel, "_tensorboard", lambda self: [Spy()])
        options = {"ema": 0.8, "epochs": 2, "learning_rate": 0.01, "schedule": "constant"}
        model = make_model(**options, checkpoint="best_inner").fit(TRAIN, VALID.iloc[:4])
        assert len(steps) == 4
        for found, first, second in zip(
            model.network_.trainable_variables, *steps[:2], strict=True
        ):
            np.testing.assert_allclose(found, 0.8 * first + 0.2 * second, atol=1e-6)
            assert np.abs(found - second).max() > 1e-5


class TestEverything:
    """All recipes at once."""

    @pytest.mark.slow
    def test_a_killed_fit_goes_on_as_if_nothing_had_been(self, make_model, monkeypatch):
        whole = make_model("whole", **EVERYTHING).fit(TRAIN, VALID)
        write = EpochKeeper.on_epoch_end

        def stop(self, epoch, logs=None):
            write(self, epoch, logs)
            if epoch == 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(EpochKeeper, "on_epoch_end", stop)
            make_model(**EVERYTHING).fit(TRAIN, VALID)
        model = make_model(**EVERYTHING).fit(TRAIN, VALID)
        for one, other in zip(weights(model), weights(whole), strict=True):
            np.testing.assert_array_equal(one, other)
        pd.testing.assert_frame_equal(model.history_, whole.history_, rtol=1e-9)
        # The AUC that an epoch is chosen by is that of the answers without further views.
        model.config = model._predictor.config = replace(model.config, tta="none")
        labelled = roc_auc_score(VALID["target"], model.predict(VALID)["target"])
        assert model.history_["val_auc"].iloc[-1] == pytest.approx(labelled)

    @pytest.mark.slow
    def test_saved_and_loaded_it_answers_the_same_by_id(self, make_model):
        options = {**EVERYTHING, "epochs": 1, "tta_views": 2}
        model = make_model(**options).fit(TRAIN, None)
        found = model.predict(EXAMPLES)
        assert list(found.columns) == ["target"] and found["target"].between(0, 1).all()
        model.save(model.folder)
        loaded = make_model("other", **options).load(model.folder)
        again = loaded.predict(EXAMPLES.iloc[::-1])
        assert again.index.equals(EXAMPLES.index[::-1])
        pd.testing.assert_frame_equal(again.loc[found.index], found, atol=1e-6)
        for key, value in (("metadata", False), ("target", "classes")):
            with pytest.raises(PipelineError, match=rf"trained with image\.{key} = "):
                make_model(**{**options, key: value}).load(model.folder)


class TestMetadata:
    """Late fusion."""

    def test_the_bounds_are_those_of_the_training_rows(self, make_model, monkeypatch):
        monkeypatch.setattr(ImageModel, "_fit_network", lambda self, train, valid: None)
        train = TRAIN.assign(age_years=np.linspace(20, 80, len(TRAIN)))
        valid = VALID.assign(age_years=200.0)
        model = make_model(metadata=True).fit(train, valid)
        assert model.encoder_.bounds_ == {"age_years": (20.0, 80.0)}
        assert make_model().fit(train, valid).encoder_ is None

    def test_what_no_training_row_has_is_no_noise_in_an_answer(self, make_model):
        whole = TRAIN.assign(age_years=np.linspace(20, 80, len(TRAIN)), sex="male", site="torso")
        model = make_model(metadata=True).fit(whole, None)
        branch = model.network_.get_layer("metadata_branch")
        kernel, _ = branch.get_layer("metadata_dense").get_weights()
        seen = model.encoder_.transform(whole).any(axis=0)
        assert seen.sum() == 3 and kernel[seen].all() and not kernel[~seen].any()
        # Marked as missing or as a word that nobody learned of: the same.
        blank = whole.assign(age_years=20.0, sex=np.nan, site=np.nan)
        other = blank.assign(sex="female", site="palms/soles")
        pd.testing.assert_frame_equal(model.predict(blank), model.predict(other))

    def test_the_network_learns_from_it(self):
        keras.utils.set_random_seed(2)
        config = tiny_config(metadata=True, dropout=0.0, learning_rate=0.05, schedule="constant")
        examples = make_examples(16)
        examples["age_years"] = np.where(examples["target"] == 1, 80.0, 20.0)
        encoder = metadata_encoder(SPEC).fit(examples)
        network = compile_network(build_network(config, SPEC), config, SPEC, 1, False)
        grey = np.full((16, 32, 32, 3), 128, np.uint8)
        inputs = {"image": grey, "metadata": encoder.transform(examples)}
        target = examples["target"].to_numpy(np.float32)
        network.fit(inputs, target[:, None], batch_size=16, epochs=15, verbose=0)
        found = network.predict_on_batch(inputs)[:, 0]
        assert found[target == 1].min() > found[target == 0].max() + 0.1
        blank = blank_metadata(examples[["group_id", "split"]], SPEC)
        inputs["metadata"] = encoder.transform(blank)
        assert inputs["metadata"][:, -len(SPEC.features) :].all()  # all marked as missing
        assert np.ptp(network.predict_on_batch(inputs)) < 1e-6

    def test_a_planted_leak_among_the_features_stops_the_training(self, tmp_path, monkeypatch):
        from kaggle_pipeline.stages import train_image as stage

        many = make_examples(60)
        many["leak"] = many["target"] * 3.0
        spec = replace(SPEC, numeric={**SPEC.numeric, "leak": Number()})
        monkeypatch.setattr(stage, "require_tables", lambda run: None)
        monkeypatch.setattr(stage, "read_index", lambda folder: many)
        monkeypatch.setattr(stage, "prepare_data", lambda run, wait: None)
        monkeypatch.setattr(stage, "check_image", lambda run: choose_accelerator("cpu"))
        monkeypatch.setattr(stage, "replace", lambda run, **changes: run)
        config = SimpleNamespace(image=tiny_config(metadata=True), folds=FoldsConfig())
        run = SimpleNamespace(
            config=config,
            spec=spec,
            prepared=tmp_path,
            run_dir=tmp_path,
            chained=False,
            examples=lambda: many,
            say=lambda line: 0,
            working_on=lambda part: nullcontext(),
            resume=False,
            overwrite=False,
        )
        with pytest.raises(PipelineError, match="leak"):
            stage.train_image(run)

    def test_a_data_set_without_metadata_is_refused(self):
        bare = replace(SPEC, numeric={}, categorical={})
        with pytest.raises(PipelineError, match="synthetic declares no metadata"):
            check_question(tiny_config(metadata=True), bare)


def test_dropout_samples_share_a_layer_and_change_no_answer():
    keras.utils.set_random_seed(4)
    heads = [build_head(tiny_config(dropout_samples=n, dropout=0.5), SPEC, 64) for n in (1, 8)]
    one, eight = heads
    assert [w.shape for w in one.get_weights()] == [w.shape for w in eight.get_weights()]
    eight.set_weights(one.get_weights())
    features = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    np.testing.assert_allclose(one(features), eight(features), atol=1e-6)

    def noise(head):
        dropped, plain = (np.asarray(head(features, training=flag)) for flag in (True, False))
        return np.std(np.log(dropped / (1 - dropped)) - np.log(plain / (1 - plain)))

    # The mean of 8 masks strays from no dropout by about 1 / sqrt(8) of what one does.
    assert 0.15 < noise(eight) / noise(one) < 0.7


class TestViews:
    """Random test-time augmentation."""

    def test_views_are_the_same_every_time_and_few_begin_many(self):
        many = random_views(12)
        assert many == random_views(12) and many[:5] == random_views(5)
        assert many[0] == View() and len(set(many)) == 12
        assert all(0.8 <= view.side <= 1 for view in many)
        assert all(0 <= share <= 1 - view.side for view in many for share in (view.top, view.left))

    def test_a_view_is_cut_out_and_enlarged(self):
        ramp = np.tile(np.arange(0, 200, 5, dtype=np.uint8)[:, None, None], (1, 1, 40, 3))
        found = np.asarray(View(top=0.1, left=0.0, side=0.8)(tf.constant(ramp)))
        assert found.shape == ramp.shape and found.dtype == np.uint8
        middle = found[0, 1:-1, 5, 0]  # rows 4 to 35 of the ramp
        assert abs(int(middle[0]) - 22) <= 3 and abs(int(middle[-1]) - 173) <= 3
        turned = np.asarray(View(turns=1, mirror=True, top=0.1, side=0.8)(tf.constant(ramp)))
        np.testing.assert_array_equal(turned, np.rot90(found[:, :, ::-1], 1, axes=(1, 2)))


class TestHairs:
    """Drawn hairs."""

    def test_only_hairs_change_and_they_are_dark(self):
        images = np.full((16, 64, 64, 3), 200, np.uint8)
        plain = np.asarray(augment_batch(images, [1, 2], STILL))
        hairy = np.asarray(augment_batch(images, [1, 2], replace(STILL, hairs=4)))
        changed = (plain != hairy).any(axis=-1)
        shares = changed.mean(axis=(1, 2))
        assert shares.max() > 0.01 and shares.max() < 0.2 and (shares == 0).any()
        assert hairy[changed].max() <= 60 and (hairy[~changed] == 200).all()
        again = np.asarray(augment_batch(images, [1, 2], replace(STILL, hairs=4)))
        later = np.asarray(augment_batch(images, [1, 3], replace(STILL, hairs=4)))
        assert np.array_equal(hairy, again) and not np.array_equal(hairy, later)

    def test_a_hair_is_one_unbroken_stroke(self):
        from scipy.ndimage import label

        mask = np.asarray(hair_mask(40, 96, tf.constant([1, 5]), 1))
        grown = mask[mask.any(axis=(1, 2))]
        assert 8 <= len(grown) <= 32  # none or one, evenly
        # A curve may leave the image and come back.
        assert all(label(one, np.ones((3, 3)))[1] <= 2 for one in grown)
        assert np.mean([label(one, np.ones((3, 3)))[1] == 1 for one in grown]) > 0.7


class Constant:
    """A model that answers one number and counts its fits."""

    selection, inner_share = "inner", 0.15

    def __init__(self, seed, folder):
        self.seed, self.folder, self.fits = seed, folder, 0

    def fit(self, train, valid):
        self.fits += 1
        return self

    def predict(self, examples):
        order = examples.sort_index().index
        return pd.DataFrame({"target": self.seed / 1000}, order)

    def save(self, folder):
        (folder / "model.json").write_text("{}")

    def load(self, folder):
        assert (folder / "model.json").exists()
        return self


def test_several_seeds_are_averaged_and_done_once(tmp_path):
    model = SeedEnsemble(Constant, 7, 3, tmp_path)
    assert isinstance(model, CompositeModel) and model.selection == "inner"
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "model.json").write_text("{}")
    model.fit(TRAIN, VALID).save(tmp_path)
    assert [one.seed for one in model.models_.values()] == [7, 107, 207]
    assert [one.fits for one in model.models_.values()] == [1, 0, 1]
    found = SeedEnsemble(Constant, 7, 3, tmp_path).load(tmp_path).predict(EXAMPLES.iloc[::-1])
    assert found.index.equals(EXAMPLES.index[::-1])
    np.testing.assert_allclose(found["target"], 0.107)


def test_each_fold_has_its_size_and_seeds():
    from kaggle_pipeline.config.experiment import Experiment
    from kaggle_pipeline.stages.train_image import image_model_maker

    image = tiny_config(fold_sizes_px=(32, 48), seeds=2)
    config = Experiment("tried", "synthetic", seed=10, image=image)
    device = choose_accelerator("cpu")
    make = image_model_maker(
        config, SPEC, None, device, features_dir=None, swap_red_blue=False, verbose=0
    )
    for fold, side in ((0, 32), (1, 48), (4, 32)):
        models = make(fold, Path("x"))._models
        assert [one.config.image_size_px for one in models.values()] == [side, side]
        assert [one.seed for one in models.values()] == [10 + fold, 110 + fold]
    assert image.largest().image_size_px == 48


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"ema": 1.0}, "image.ema"),
        ({"mixup": -0.1}, "image.mixup"),
        ({"cutmix": -1}, "image.cutmix"),
        ({"focal_gamma": -1}, "image.focal_gamma"),
        ({"dropout_samples": 0}, "image.dropout_samples"),
        ({"tta_views": 0}, "image.tta_views"),
        ({"seeds": 10}, "image.seeds"),
        ({"fold_sizes_px": ()}, "image.fold_sizes_px"),
        ({"fold_sizes_px": (32, 0)}, r"image.fold_sizes_px\[1\]"),
        ({"target": "diagnosis", "networks": "one_per_class"}, "image.networks"),
        ({"frozen": True, "mixup": 0.2}, "image.mixup"),
        ({"frozen": True, "metadata": True}, "image.metadata"),
        ({"frozen": True, "tta": "random"}, "image.tta"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, key):
    with pytest.raises(PipelineError, match=f"^{key} is "):
        tiny_config(**changes)
    with pytest.raises(PipelineError, match=r"image\.augment\.hairs is -1"):
        replace(STILL, hairs=-1)


@pytest.mark.slow
def test_a_run_of_several_seeds_and_sizes_predicts_new_photos(competition, tmp_path, capsys):
    changes = (
        "folds.k=2", "records.image_size_px=48", "records.workers=1", "leakage.fingerprints=false",
        "leakage.duplicates=drop", "image.fold_sizes_px=[32, 48]", "image.seeds=2",
        "image.target=diagnosis", "image.metadata=true", "image.epochs=1", "image.tta=random",
        "image.tta_views=2", "image.ema=0.9", "image.mixup=0.2",
    )  # fmt: skip
    more = [word for change in changes for word in ("--set", change)]
    run, data = tmp_path / "run", competition / "competition"
    config = str(Path(__file__).resolve().parents[3] / "configs" / "demo.yaml")
    places = ["--config", config, "--data-dir", str(data), "--run-dir", str(run)]
    assert main(["train-image", *places, *more]) == 0, capsys.readouterr().err
    for fold, side in ((0, 32), (1, 48)):
        for seed in ("seed0", "seed1"):
            settings = read_json(run / "image" / f"fold{fold}" / seed / "model.json")
            assert settings["image"]["image_size_px"] == side and settings["encoder"]["bounds"]
    known = pd.read_csv(run / "image" / "test.csv").set_index("image_id")
    capsys.readouterr()
    photos, out = data / "jpeg" / "test", tmp_path / "new.csv"
    words = ["predict", "--run-dir", str(run), "--images", str(photos), "--out", str(out)]
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count("come without metadata") == 1
    assert "uncalibrated: calibration and decision were measured with metadata" in said
    assert not {"melanoma_calibrated", "decision"} & set(pd.read_csv(out))
    found = pd.read_csv(out).set_index("image_id")["melanoma"]
    assert set(found.index) == set(known.index) and found.between(0, 1).all()
