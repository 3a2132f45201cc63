"""Tests of the image model: it learns, is resumed, saved and loaded, and answers by id."""

import errno
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers_image import make_examples, tiny_config, to_jpeg, write_records
from sklearn.metrics import log_loss, roc_auc_score

from kaggle_pipeline.config.image import AugmentConfig
from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.hardware.accelerator import choose_accelerator  # noqa: E402
from kaggle_pipeline.models.image.fit.checkpoint import EpochKeeper  # noqa: E402
from kaggle_pipeline.models.image.fit.optimizer import make_optimizer  # noqa: E402
from kaggle_pipeline.models.image.fit.training import compile_network  # noqa: E402
from kaggle_pipeline.models.image.inference.feature_cache import FeatureStore, body_digest  # noqa: E402
from kaggle_pipeline.models.image.inference.predictor import Predictor, photos_at_once  # noqa: E402
from kaggle_pipeline.models.image.inference.tta import VIEWS, with_views  # noqa: E402
from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches  # noqa: E402
from kaggle_pipeline.models.image.model import ImageModel  # noqa: E402
from kaggle_pipeline.models.image.network import build_body, build_network, unlike_before  # noqa: E402

COUNT = 18
SOME, NEVER = (np.nan, 0.5, np.nan, 0.4), (np.nan,) * 4
"""AUC of four epochs that is no number in some of them, or in all."""
EXAMPLES = make_examples(COUNT)
TRAIN, VALID = EXAMPLES.iloc[:10], EXAMPLES.iloc[10:]
TURNS = AugmentConfig(rotation_degrees=30.0)


@pytest.fixture(scope="module", autouse=True)
def no_tensorboard():
    """Half a second a fit is saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageModel, "_tensorboard", lambda self: [])
        yield


@pytest.fixture(scope="module")
def device():
    return choose_accelerator("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Noisy photos of 32 px, the malignant ones redder."""
    rng = np.random.default_rng(5)
    jpegs = {}
    for image_id, target in EXAMPLES["target"].items():
        pixels = rng.integers(60, 180, (32, 32, 3))
        pixels[..., 0] += int(25 * target)
        jpegs[image_id] = to_jpeg(pixels)
    return write_records(tmp_path_factory.mktemp("records"), EXAMPLES, jpegs, SPEC)


@pytest.fixture(scope="module")
def build(device, shards):
    """``build(folder, seed, **changes of the config)``: an untrained model.

    The usual seed is 0: it is the one that TensorFlow's ``shuffle`` cannot take as a global seed.
    """

    def build_model(folder, seed=0, shards=shards, **changes):
        config = tiny_config(**changes)
        return ImageModel(config, SPEC, lambda ids: shards, device, folder / "fold0", seed=seed)

    return build_model


@pytest.fixture
def make_model(build, tmp_path):
    """The same, with the name of a folder in this test's own."""
    return lambda name="run", *args, **changes: build(tmp_path / name, *args, **changes)


@pytest.fixture(scope="module")
def fitted(build, tmp_path_factory):
    """A trained model of the usual settings, nobody's to change; and where it lies."""
    folder = tmp_path_factory.mktemp("fitted")
    model = build(folder, epochs=1).fit(TRAIN, None)
    model.save(folder / "saved")
    return model, folder / "saved"


def interrupt(model, epochs, valid=None):
    """Fit, and be killed when so many epochs are on disk."""
    write = EpochKeeper.on_epoch_end

    def stop(self, epoch, logs=None):
        write(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EpochKeeper, "on_epoch_end", stop)
        model.fit(TRAIN, valid)


def weights(model):
    return [np.array(weight) for weight in model.network_.get_weights()]


def are_equal(ones, others):
    return all(np.array_equal(a, b) for a, b in zip(ones, others, strict=True))


def files(folder):
    return {path.name for path in folder.iterdir()}


class TestFit:
    """Learning."""

    def test_it_overfits_its_own_rows(self, make_model):
        model = make_model(epochs=25, learning_rate=0.01, schedule="constant", dropout=0.0)
        found = model.fit(TRAIN, None).predict(TRAIN)
        assert list(found.columns) == ["target"] and found["target"].dtype == np.float64
        assert roc_auc_score(TRAIN["target"], found["target"]) > 0.99

    def test_the_seed_decides_every_bit_and_watched_rows_none(self, make_model):
        first, again, other = (
            make_model(f"run{i}", seed, augment=TURNS).fit(TRAIN, valid)
            for i, (seed, valid) in enumerate([(1, None), (1, VALID), (2, None)])
        )
        assert are_equal(weights(first), weights(again))
        assert not are_equal(weights(first), weights(other))
        assert "val_auc" not in first.history_
        history = pd.read_csv(again.folder / "history.csv")
        assert history["epoch"].tolist() == [0, 1]
        wanted = {"loss", "auc", "val_loss", "val_auc", "learning_rate"}
        assert wanted <= set(history) and history.notna().all().all()
        pd.testing.assert_frame_equal(history, again.history_)

    def test_watched_rows_are_judged_by_the_weights_of_their_epoch(self, make_model):
        model = make_model(epochs=3, tta="none").fit(TRAIN, VALID)
        last = log_loss(VALID["target"], model.predict(VALID)["target"])
        assert model.history_["val_loss"].iloc[-1] == pytest.approx(last, rel=1e-5)
        assert model.history_["val_loss"].nunique() == 3

    @pytest.mark.slow
    def test_images_changed_on_the_device_teach_the_same_also_after_a_kill(self, make_model):
        host, device = (
            make_model(where, augment=AugmentConfig(where=where), epochs=3)
            for where in ("input", "device")
        )
        host.fit(TRAIN, VALID)
        interrupt(device, epochs=1, valid=VALID)
        begun_on_host = make_model("device", augment=AugmentConfig(where="input"), epochs=3)
        interrupt(begun_on_host, epochs=2, valid=VALID)  # either reads the other's state
        device.fit(TRAIN, VALID)
        for one, other in zip(weights(host), weights(device), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
        assert len(device.history_) == 3
        pd.testing.assert_frame_equal(host.history_, device.history_, atol=1e-3)

    @pytest.mark.parametrize(("checkpoint", "kept"), [("best_inner", 1), ("last", 3)])
    def test_the_checkpoint_is_kept_that_was_asked_for(
        self, make_model, monkeypatch, checkpoint, kept
    ):
        seen, whole = [], EpochKeeper.on_epoch_end

        def planted(self, epoch, logs=None):
            seen.append([np.array(weight) for weight in self.model.get_weights()])
            whole(self, epoch, {**logs, "val_auc": (0.5, 0.9, 0.6, 0.8)[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        model = make_model(epochs=4, checkpoint=checkpoint, learning_rate=0.01).fit(TRAIN, VALID)
        assert model.selection == ("inner" if checkpoint == "best_inner" else "none")
        assert [are_equal(weights(model), epoch) for epoch in seen] == [i == kept for i in range(4)]
        assert len(model.history_) == 4

    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("checkpoint", ["best_inner", "best_fold"])
    @pytest.mark.parametrize("target", [0, 1, None])
    def test_an_epoch_is_not_chosen_by_rows_that_cannot(
        self, make_model, frozen, checkpoint, target
    ):
        valid = None if target is None else VALID[VALID["target"] == target]
        model = make_model(checkpoint=checkpoint, frozen=frozen)
        lack = "is not" if target == 1 else "is"
        message = rf"have no image that {lack} target: say image\.checkpoint = last"
        with pytest.raises(PipelineError, match=message):
            model.fit(TRAIN, valid)
        assert not model.folder.exists()  # nothing was begun

    @pytest.mark.parametrize(
        ("validation", "kept", "stopped_after"),
        [
            (SOME, 1, 1), (NEVER, 3, None),
            *[pytest.param(*more, marks=pytest.mark.slow) for more in (
                (SOME, 1, None), (SOME, 1, 3), (NEVER, 3, 1), (NEVER, 3, 3),
            )],
        ],
    )  # fmt: skip
    def test_an_auc_that_is_nan_never_wins_also_in_a_resumed_fit(
        self, make_model, monkeypatch, validation, kept, stopped_after
    ):
        seen, whole = {}, EpochKeeper.on_epoch_end

        def planted(self, epoch, logs=None):
            seen[epoch] = [np.array(weight) for weight in self.model.get_weights()]
            whole(self, epoch, {**logs, "val_auc": validation[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        options = {"epochs": 4, "checkpoint": "best_inner", "learning_rate": 0.01}
        if stopped_after:
            interrupt(make_model(**options), stopped_after, VALID)
        model = make_model(**options).fit(TRAIN, VALID)
        assert [are_equal(weights(model), seen[epoch]) for epoch in range(4)] == [
            epoch == kept for epoch in range(4)
        ]

    @pytest.mark.parametrize(
        ("warmup", "schedule", "wanted"),
        [
            (0, "constant", [1, 1, 1, 1, 1]),
            (0, "cosine", [1, 0.9938, 0.5, 0.0062, 0]),
            (0.1, "cosine", [1, 0.9938, 0.5, 0.0062, 0]),  # one step: at the peak already
            (0.5, "constant", [0.2, 0.4, 1, 1, 1]),
            (0.5, "cosine", [0.2, 0.4, 0.6913, 0.0096, 0]),
            (2, "cosine", [0.05, 0.1, 0.55, 1, 0]),
            (9, "constant", [1 / 90, 2 / 90, 11 / 90, 20 / 90, 21 / 90]),
        ],
    )
    def test_the_rate_warms_up_and_decays(self, warmup, schedule, wanted):
        epochs = 2
        config = tiny_config(
            epochs=epochs, warmup_epochs=warmup, schedule=schedule, learning_rate=1.0
        )
        optimizer = make_optimizer(config, 10)
        found = []
        for step in (0, 1, 10, 19, 20):  # 20 is what would come after the last
            optimizer.iterations.assign(step)
            found.append(float(optimizer.learning_rate))
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.fixture(scope="module")
def whole(build, tmp_path_factory):
    """A fit of four epochs that nothing stopped."""
    return build(tmp_path_factory.mktemp("whole"), **RESUMED).fit(TRAIN, None)


@pytest.fixture(scope="module")
def killed(build, tmp_path_factory):
    """The same, killed after its third epoch."""
    model = build(tmp_path_factory.mktemp("killed"), **RESUMED)
    interrupt(model, epochs=3)
    return model


RESUMED = {"epochs": 4, "dropout": 0.0}


class TestResume:
    """A fit that was stopped."""

    def assert_same(self, model, whole):
        history = pd.read_csv(model.folder / "history.csv")
        pd.testing.assert_frame_equal(history, whole.history_, rtol=1e-9)
        pd.testing.assert_frame_equal(history, model.history_, rtol=1e-9)
        assert are_equal(weights(model), weights(whole))

    @pytest.fixture
    def stopped(self, killed, make_model):
        """The folder of a run that was killed after its third epoch, a copy to damage."""
        folder = make_model().folder
        shutil.copytree(killed.folder, folder)
        states = {"state-2.weights.h5", "state-3.weights.h5"}
        assert files(folder) == {"history.csv", "begun.json", *states}
        return folder

    @pytest.mark.parametrize(
        ("damaged", "kept_bytes"),
        [
            (["state-3"], 3000),
            pytest.param([], 0, marks=pytest.mark.slow),
            pytest.param(["state-2", "state-3"], 0, marks=pytest.mark.ci),
        ],
    )
    def test_it_goes_on_as_if_nothing_had_been(
        self, make_model, stopped, whole, damaged, kept_bytes
    ):
        for name in damaged:
            path = stopped / f"{name}.weights.h5"
            path.write_bytes(path.read_bytes()[:kept_bytes])
        model = make_model(**RESUMED).fit(TRAIN, None)
        assert model.history_["epoch"].tolist() == [0, 1, 2, 3]
        self.assert_same(model, whole)
        states = {name for name in files(stopped) if name.startswith("state")}
        assert states == {"state-3.weights.h5", "state-4.weights.h5"}

    def test_a_deadline_stops_between_two_epochs(self, make_model, whole, monkeypatch):
        monkeypatch.setattr(Deadline, "leaves", lambda self, seconds=0.0: not seconds)
        with pytest.raises(OutOfTime, match="1 of 4 epochs are done and saved"):
            make_model(**RESUMED).fit(TRAIN, None)
        monkeypatch.undo()
        monkeypatch.setattr(ImageModel, "_tensorboard", lambda self: [])
        self.assert_same(make_model(**RESUMED).fit(TRAIN, None), whole)

    def test_a_deadline_that_has_passed_stops_within_an_epoch(self, make_model):
        model = make_model(**RESUMED)
        model.deadline = Deadline.after(0)
        with pytest.raises(OutOfTime, match=r"the 0 h are up before the epoch's end"):
            model.fit(TRAIN, None)
        assert files(model.folder) == {"begun.json"}

    def test_a_deadline_that_has_passed_stops_predicting(self, fitted, make_model, monkeypatch):
        model = make_model().load(fitted[1])

        def check(self, what, seconds=0.0):
            raise OutOfTime(what)

        monkeypatch.setattr(Deadline, "check", check)
        with pytest.raises(OutOfTime, match="all images are answered for"):
            model.predict(TRAIN)

    @pytest.mark.ci
    def test_a_full_disk_leaves_the_epoch_before_whole(self, make_model, whole, monkeypatch):
        write, times = keras.Model.save_weights, []

        def fill_up(self, path, **options):
            write(self, path, **options)
            times.append(path)
            if len(times) == 3:
                path.write_bytes(path.read_bytes()[:2000])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(keras.Model, "save_weights", fill_up)
        model = make_model(**RESUMED)
        with pytest.raises(PipelineError, match="no space left"):
            model.fit(TRAIN, None)
        states = {"state-1.weights.h5", "state-2.weights.h5"}
        assert files(model.folder) == {"history.csv", "begun.json", *states}
        self.assert_same(make_model(**RESUMED).fit(TRAIN, None), whole)

    def test_workers_go_on_with_the_last_epoch_that_all_have(
        self, make_model, stopped, whole, device
    ):
        model = make_model(**RESUMED)
        network = build_network(model.config, SPEC)
        compile_network(network, model.config, SPEC, 2, False)
        keeper = EpochKeeper(stopped, keep_best=False, seed=0, all_min=lambda epoch: min(epoch, 2))
        assert keeper.resume(network) == 2 and keeper.history["epoch"].tolist() == [0, 1]
        keeper = EpochKeeper(stopped, keep_best=False, seed=0, all_min=lambda epoch: min(epoch, 1))
        with pytest.raises(PipelineError, match="no state of epoch 1, from which the other"):
            keeper.resume(network)
        before = network.get_weights()
        keeper = EpochKeeper(stopped, keep_best=False, seed=0, all_min=lambda epoch: 0)
        fresh = build_network(model.config, SPEC)
        fresh.set_weights([weight + 1 for weight in before])
        compile_network(fresh, model.config, SPEC, 2, False)
        assert keeper.resume(fresh) == 0 and keeper.history.empty
        assert are_equal(fresh.get_weights(), [weight + 1 for weight in before])
        assert files(stopped) == {"history.csv", "begun.json"}  # what was given up is gone

    def test_another_batch_is_refused_before_anything_is_loaded(self, make_model, stopped):
        message = r"was begun with global batch = 4, here it is 2: go on where it was begun"
        with pytest.raises(PipelineError, match=message):
            make_model(**RESUMED, batch_size=2).fit(TRAIN, None)
        assert pd.read_csv(stopped / "history.csv")["epoch"].tolist() == [0, 1, 2]

    def test_a_fit_that_began_without_a_familys_scaling_is_not_gone_on_with(
        self, make_model, stopped, monkeypatch
    ):
        config = replace(tiny_config(), backbone="EfficientNetB0", weights="a_file.h5")
        lacking = unlike_before(config)
        assert lacking and not unlike_before(replace(config, weights="imagenet"))
        assert not unlike_before(replace(config, backbone="MobileNetV2"))
        monkeypatch.setattr(
            "kaggle_pipeline.models.image.model.unlike_before", lambda config: lacking
        )
        message = r"was begun with scaling of the images = None, here it is as published: .*anew"
        with pytest.raises(PipelineError, match=message):
            make_model(**RESUMED).fit(TRAIN, None)

    @pytest.mark.ci
    def test_dropout_draws_what_it_would_have_drawn(self, make_model):
        options = {"epochs": 2, "dropout": 0.5}
        uninterrupted = make_model("other", **options).fit(TRAIN, None)
        interrupt(make_model(**options), epochs=1)
        self.assert_same(make_model(**options).fit(TRAIN, None), uninterrupted)

    @pytest.mark.ci
    def test_the_best_epoch_is_remembered(self, make_model, monkeypatch):
        write, seen = EpochKeeper.on_epoch_end, {}

        def planted(self, epoch, logs=None):
            seen[epoch] = [np.array(weight) for weight in self.model.get_weights()]
            write(self, epoch, {**logs, "val_auc": (0.9, 0.5)[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        interrupt(make_model(checkpoint="best_fold"), epochs=1, valid=VALID)
        model = make_model(checkpoint="best_fold").fit(TRAIN, VALID)
        assert list(seen) == [0, 1] and are_equal(weights(model), seen[0])

    def test_a_finished_fit_is_not_done_again_and_saving_tidies_up(
        self, build, whole, monkeypatch, tmp_path
    ):
        shutil.copytree(whole.folder, tmp_path / "fold0")
        monkeypatch.setattr(EpochKeeper, "on_epoch_end", None)
        again = build(tmp_path, **RESUMED).fit(TRAIN, None)
        self.assert_same(again, whole)
        again.save(again.folder)
        assert files(again.folder) == {"history.csv", "model.json", "model.weights.h5"}


class TestPredict:
    """Answers by id."""

    def test_a_saved_model_predicts_the_same_when_loaded(self, fitted, make_model):
        model, saved = fitted
        loaded = make_model(seed=9).load(saved)
        pd.testing.assert_frame_equal(loaded.predict(EXAMPLES), model.predict(EXAMPLES))

    @pytest.mark.parametrize(
        "changes", [{"image_size_px": 48}, {"backbone_options": {"filters": 8}}]
    )
    def test_weights_of_another_network_are_refused(self, fitted, make_model, changes):
        (key,) = changes
        with pytest.raises(PipelineError, match=rf"saved was trained with image\.{key} = "):
            make_model(**changes).load(fitted[1])

    def test_missing_files_are_named(self, fitted, make_model, tmp_path):
        with pytest.raises(PipelineError, match=r"nowhere/model\.json"):
            make_model().load(tmp_path / "nowhere")
        shutil.copy(fitted[1] / "model.json", tmp_path)
        with pytest.raises(PipelineError, match=r"/model\.weights\.h5 does not exist"):
            make_model().load(tmp_path)

    def test_order_of_rows_and_shards_and_the_last_batch_change_nothing(
        self, fitted, make_model, shards
    ):
        model, saved = fitted
        found = model.predict(EXAMPLES)  # 18 rows in batches of 4
        assert found.index.equals(EXAMPLES.index)
        assert found["target"].nunique() == COUNT
        shuffled = EXAMPLES.sample(frac=1, random_state=1)
        again = model.predict(shuffled)
        assert again.index.equals(shuffled.index)
        pd.testing.assert_frame_equal(again.loc[found.index], found, atol=1e-6)
        for changes in ({"shards": shards[::-1]}, {"batch_size": 7}):
            other = make_model(**changes).load(saved)
            pd.testing.assert_frame_equal(other.predict(EXAMPLES), found, atol=1e-6)
        few = model.predict(VALID.iloc[[3, 1]])
        pd.testing.assert_frame_equal(few, found.loc[few.index], atol=1e-6)

    def test_an_image_that_the_records_lack_is_named(self, fitted):
        extra = make_examples(COUNT + 2)
        with pytest.raises(PipelineError, match=r"image ISIC_0000018.*not in the records.*\(2 "):
            fitted[0].predict(extra)

    def test_an_answer_that_is_no_number_is_named(self, fitted, make_model):
        model = make_model().load(fitted[1])
        model.network_.set_weights([np.full_like(weight, np.nan) for weight in weights(model)])
        with pytest.raises(PipelineError, match=r"ISIC_0000000.*not a number \(18 such\)"):
            model.predict(EXAMPLES)


class TestFrozen:
    """A head on features that are computed once."""

    def test_cached_features_answer_as_the_whole_network(self, make_model, shards):
        options = {"frozen": True, "tta": "flips", "augment": AugmentConfig(), "epochs": 3}
        model = make_model(**options, learning_rate=0.05).fit(TRAIN, VALID)
        found = model.predict(EXAMPLES)["target"]
        tta_model = with_views(model.network_, VIEWS["flips"])
        source = Source(SPEC, shards, image_size_px=32)
        by_hand = pd.Series(np.nan, EXAMPLES.index)
        for batch in prediction_batches(source, list(EXAMPLES.index), 4):
            answers = tta_model(batch)
            rows = batch["row"].numpy()
            by_hand.iloc[rows[rows >= 0]] = answers["probability"].numpy()[rows >= 0, 0]
        assert found.std() > 1e-3
        np.testing.assert_allclose(found, by_hand, atol=1e-5)

    def test_only_the_head_learns_and_every_image_is_read_once(self, make_model, monkeypatch):
        seen, write = [], EpochKeeper.on_epoch_end

        def validation(self, epoch, logs=None):
            seen.append(self.model.get_weights())
            write(self, epoch, logs)

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", validation)
        model = make_model(frozen=True).fit(TRAIN, VALID)
        assert not are_equal(*seen)
        assert pd.read_csv(model.folder / "history.csv")["epoch"].tolist() == [0, 1]
        mean = model.network_.get_layer("head").get_layer("standardise").mean
        features = model._predictor.features(model.network_, TRAIN.index)[:, 0]
        np.testing.assert_allclose(np.ravel(mean), features.mean(axis=0), rtol=1e-3, atol=1e-4)
        found = model.predict(EXAMPLES)
        model.save(model.folder)
        fresh = make_model(frozen=True).load(model.folder)
        monkeypatch.setattr(Predictor, "run", None)  # no image can be looked at any more
        pd.testing.assert_frame_equal(fresh.predict(EXAMPLES), found)

    def test_bodies_are_told_apart_by_their_weights(self):
        keras.utils.set_random_seed(1)
        one, other = (build_body(tiny_config(), load_published=False) for _ in range(2))
        assert body_digest(one) != body_digest(other)
        other.set_weights(one.get_weights())
        assert body_digest(one, 32) == body_digest(other, 32) != body_digest(other, 48)

    def test_bodies_are_told_apart_by_their_scaling_too(self):
        inputs = keras.Input((2,))
        ones = [keras.Model(inputs, keras.layers.Rescaling(k)(inputs)) for k in (1.0, 1.0, 2.0)]
        first, again, other = (body_digest(keras.Model(inputs, one(inputs))) for one in ones)
        assert first == again != other

    def test_the_best_epoch_is_kept(self, make_model, monkeypatch):
        seen, whole = [], EpochKeeper.on_epoch_end

        def planted(self, epoch, logs=None):
            seen.append(self.model.get_weights())
            whole(self, epoch, {**logs, "val_auc": (0.5, 0.9, 0.6)[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        model = make_model(frozen=True, epochs=3, checkpoint="best_inner", learning_rate=0.1)
        head = model.fit(TRAIN, VALID).network_.get_layer("head").get_weights()
        assert [are_equal(head, epoch) for epoch in seen] == [False, True, False]


class TestFeatureStore:
    """Blocks on disk."""

    @staticmethod
    def extract(ids):
        return np.array([[[float(i)]] for i in ids], np.float32)

    def test_only_new_ids_are_computed_and_order_is_kept(self, tmp_path):
        asked = []

        def extract(ids):
            asked.append(list(ids))
            return self.extract(ids)

        store = FeatureStore(tmp_path, extract)
        for wanted in (["3", "1"], ["1", "2", "3"], ["2", "2", "3"]):
            found = FeatureStore(tmp_path, extract).get(pd.Index(wanted))
            assert found.dtype == np.float32
            assert found[:, 0, 0].tolist() == [float(i) for i in wanted]
        assert asked == [["3", "1"], ["2"]]
        assert store.get(pd.Index(["1"])).shape == (1, 1, 1)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip"])
    def test_a_damaged_block_is_named(self, tmp_path, content):
        FeatureStore(tmp_path, self.extract).get(pd.Index(["1", "2"]))
        (path,) = tmp_path.iterdir()
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=rf"{path} is damaged.*delete it"):
            FeatureStore(tmp_path, self.extract).get(pd.Index(["1"]))


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_several_classes_are_learned(names, make_model, device, shards, tmp_path):
    spec = replace(SPEC, task="multiclass", classes=tuple(names))
    which = np.arange(COUNT) % len(names)
    examples = EXAMPLES.assign(**{name: (which == i) * 1.0 for i, name in enumerate(names)})
    config = tiny_config(oversample=2, label_smoothing=0.1)
    model = ImageModel(config, spec, lambda ids: shards, device, tmp_path / "three", seed=0)
    found = model.fit(examples, examples).predict(examples)
    assert list(found.columns) == list(names)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_shard_read_twice_is_an_error(fitted, make_model, shards):
    model = make_model().load(fitted[1])
    model._predictor.shards_of = lambda ids: list(shards) * 2
    with pytest.raises(PipelineError, match="more than once"):
        model.predict(TRAIN)


@pytest.mark.parametrize(("side", "views", "on_cpu", "on_others"),
                         [(64, 1, 128, 128), (224, 1, 16, 128), (224, 8, 2, 16), (1024, 8, 1, 16)]
                         )  # fmt: skip
def test_a_batch_holds_all_views_of_as_many_photos_as_memory_likes(side, views, on_cpu, on_others):
    config = tiny_config(image_size_px=side, batch_size=128)
    found = [photos_at_once(config, kind, views) for kind in ("cpu", "gpu", "tpu")]
    assert found == [on_cpu, on_others, on_others]
