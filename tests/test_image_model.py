"""Tests of the image model: it learns, is resumed, saved and loaded, and answers by id."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers_image import make_examples, tiny_config, to_jpeg, write_records
from sklearn.metrics import roc_auc_score

from kaggle_pipeline.config import AugmentConfig
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.errors import PipelineError

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.accelerator import choose_accelerator  # noqa: E402
from kaggle_pipeline.image.features import FeatureStore  # noqa: E402
from kaggle_pipeline.image.input import Source, prediction_batches  # noqa: E402
from kaggle_pipeline.image.model import EpochKeeper, ImageModel, make_optimizer  # noqa: E402
from kaggle_pipeline.image.network import with_views  # noqa: E402

COUNT = 18
EXAMPLES = make_examples(COUNT)
TRAIN, VALID = EXAMPLES.iloc[:10], EXAMPLES.iloc[10:]
TURNS = AugmentConfig(rotation_degrees=30.0)


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


@pytest.fixture
def make_model(device, shards, tmp_path):
    """``make_model(folder name, seed, **changes of the config)``."""

    def build(name="run", seed=0, shards=shards, **changes):
        config = tiny_config(**changes)
        folder = tmp_path / name / "fold0"
        return ImageModel(config, SPEC, lambda ids: shards, device, folder, seed=seed)

    return build


@pytest.fixture
def interrupted(monkeypatch):
    """``interrupted(model, epochs)``: fit, and be killed when so many epochs are on disk."""

    def fit(model, epochs):
        whole = EpochKeeper.on_epoch_end

        def stop(self, epoch, logs=None):
            whole(self, epoch, logs)
            if epoch + 1 == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(EpochKeeper, "on_epoch_end", stop)
            model.fit(TRAIN, VALID)

    return fit


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

    def test_the_seed_decides_every_bit(self, make_model):
        first, again, other = (
            weights(make_model(f"run{i}", seed, augment=TURNS).fit(TRAIN, VALID))
            for i, seed in enumerate((1, 1, 2))
        )
        assert are_equal(first, again)
        assert not are_equal(first, other)

    def test_watched_rows_change_nothing(self, make_model):
        watched = make_model("watched").fit(TRAIN, VALID)
        alone = make_model("alone").fit(TRAIN, None)
        assert are_equal(weights(watched), weights(alone))
        assert "val_auc" not in alone.history_

    def test_the_history_is_complete(self, make_model):
        model = make_model(epochs=3).fit(TRAIN, VALID)
        history = pd.read_csv(model.folder / "history.csv")
        assert history["epoch"].tolist() == [0, 1, 2]
        wanted = {"loss", "auc", "val_loss", "val_auc", "learning_rate"}
        assert wanted <= set(history) and history.notna().all().all()
        assert history["learning_rate"].is_monotonic_decreasing
        pd.testing.assert_frame_equal(history, model.history_)

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

    def test_a_best_epoch_survives_a_stop(self, make_model, monkeypatch, interrupted):
        whole, seen = EpochKeeper.on_epoch_end, {}

        def planted(self, epoch, logs=None):
            seen[epoch] = [np.array(weight) for weight in self.model.get_weights()]
            whole(self, epoch, {**logs, "val_auc": (0.9, 0.5, 0.6)[epoch]})

        monkeypatch.setattr(EpochKeeper, "on_epoch_end", planted)
        interrupted(make_model(epochs=3, checkpoint="best_fold"), epochs=2)
        model = make_model(epochs=3, checkpoint="best_fold").fit(TRAIN, VALID)
        assert are_equal(weights(model), seen[0])

    @pytest.mark.parametrize(
        ("warmup", "schedule", "wanted"),
        [
            (0, "constant", [1, 1, 1, 1]),
            (0, "cosine", [1, 0.5, 0.0, 0.0]),
            (1, "cosine", [0, 1, 0.5, 0]),
        ],
    )
    def test_the_rate_warms_up_and_decays(self, warmup, schedule, wanted):
        epochs = 2 + warmup
        config = tiny_config(
            epochs=epochs, warmup_epochs=warmup, schedule=schedule, learning_rate=1.0
        )
        optimizer = make_optimizer(config, steps_per_epoch=10)
        found = []
        for step in (0, 10, 20, 30):
            optimizer.iterations.assign(step)
            found.append(float(optimizer.learning_rate))
        np.testing.assert_allclose(found, wanted, atol=1e-6)


class TestResume:
    """A fit that was stopped."""

    options = {"epochs": 4, "augment": TURNS, "dropout": 0.3}  # noqa: RUF012

    @pytest.fixture
    def whole(self, make_model):
        return make_model("whole", **self.options).fit(TRAIN, VALID)

    def assert_same(self, model, whole):
        pd.testing.assert_frame_equal(
            pd.read_csv(model.folder / "history.csv"),
            pd.read_csv(whole.folder / "history.csv"),
            rtol=1e-9,
        )
        assert model.history_["epoch"].tolist() == [0, 1, 2, 3]
        assert are_equal(weights(model), weights(whole))

    def test_it_goes_on_as_if_nothing_had_been(self, make_model, interrupted, whole):
        interrupted(make_model(**self.options), epochs=2)
        folder = make_model().folder
        assert {"history.csv", "state-1.weights.h5", "state-2.weights.h5"} <= files(folder)
        model = make_model(**self.options).fit(TRAIN, VALID)
        self.assert_same(model, whole)
        states = {name for name in files(folder) if name.startswith("state")}
        assert states == {"state-3.weights.h5", "state-4.weights.h5"}

    @pytest.mark.parametrize("damaged", [["state-3"], ["state-2", "state-3"]])
    @pytest.mark.parametrize("kept_bytes", [0, 3000])
    def test_a_damaged_state_falls_back(self, make_model, interrupted, whole, damaged, kept_bytes):
        interrupted(make_model(**self.options), epochs=3)
        for name in damaged:
            path = make_model().folder / f"{name}.weights.h5"
            path.write_bytes(path.read_bytes()[:kept_bytes])
        self.assert_same(make_model(**self.options).fit(TRAIN, VALID), whole)

    def test_a_finished_fit_is_not_done_again(self, make_model, whole, monkeypatch):
        monkeypatch.setattr(EpochKeeper, "on_epoch_end", None)
        again = make_model("whole", **self.options).fit(TRAIN, VALID)
        self.assert_same(again, whole)

    def test_saving_forgets_what_only_a_stopped_fit_needs(self, whole):
        whole.save(whole.folder)
        kept = {name for name in files(whole.folder) if name != "tensorboard"}
        assert kept == {"history.csv", "model.json", "model.weights.h5"}


class TestPredict:
    """Answers by id."""

    def test_a_saved_model_predicts_the_same_when_loaded(self, make_model, tmp_path):
        model = make_model(tta="flips").fit(TRAIN, None)
        model.save(tmp_path / "saved")
        loaded = make_model("other", seed=9, tta="flips").load(tmp_path / "saved")
        pd.testing.assert_frame_equal(loaded.predict(EXAMPLES), model.predict(EXAMPLES))

    @pytest.mark.parametrize(
        "changes", [{"image_size_px": 48}, {"backbone_options": {"filters": 8}}]
    )
    def test_weights_of_another_network_are_refused(self, make_model, tmp_path, changes):
        make_model().fit(TRAIN, None).save(tmp_path / "saved")
        (key,) = changes
        with pytest.raises(PipelineError, match=rf"saved was trained with image\.{key} = "):
            make_model("other", **changes).load(tmp_path / "saved")

    def test_missing_files_are_named(self, make_model, tmp_path):
        with pytest.raises(PipelineError, match=r"nowhere/model\.json"):
            make_model().load(tmp_path / "nowhere")
        model = make_model().fit(TRAIN, None)
        model.save(tmp_path / "saved")
        (tmp_path / "saved" / "model.weights.h5").unlink()
        with pytest.raises(PipelineError, match=r"saved/model\.weights\.h5 does not exist"):
            make_model("other").load(tmp_path / "saved")

    def test_order_of_rows_and_shards_and_the_last_batch_change_nothing(
        self, make_model, shards, tmp_path
    ):
        model = make_model(tta="flips").fit(TRAIN, None)
        found = model.predict(EXAMPLES)  # 18 rows in batches of 4
        assert found.index.equals(EXAMPLES.index)
        assert found["target"].nunique() == COUNT
        shuffled = EXAMPLES.sample(frac=1, random_state=1)
        again = model.predict(shuffled)
        assert again.index.equals(shuffled.index)
        pd.testing.assert_frame_equal(again.loc[found.index], found, atol=1e-6)
        model.save(tmp_path / "saved")
        for changes in ({"shards": shards[::-1]}, {"batch_size": 7}):
            other = make_model("other", tta="flips", **changes).load(tmp_path / "saved")
            pd.testing.assert_frame_equal(other.predict(EXAMPLES), found, atol=1e-6)
        few = model.predict(VALID.iloc[[3, 1]])
        pd.testing.assert_frame_equal(few, found.loc[few.index], atol=1e-6)

    def test_an_image_that_the_records_lack_is_named(self, make_model):
        model = make_model(epochs=1).fit(TRAIN, None)
        extra = make_examples(COUNT + 2)
        with pytest.raises(PipelineError, match=r"image ISIC_0000018.*not in the records.*\(2 "):
            model.predict(extra)

    def test_an_answer_that_is_no_number_is_named(self, make_model):
        model = make_model(epochs=1).fit(TRAIN, None)
        broken = [np.full_like(weight, np.nan) for weight in weights(model)]
        model.network_.set_weights(broken)
        with pytest.raises(PipelineError, match=r"ISIC_0000000.*not a number \(18 such\)"):
            model.predict(EXAMPLES)


class TestFrozen:
    """A head on features that are computed once."""

    def test_cached_features_answer_as_the_whole_network(self, make_model, shards):
        options = {"frozen": True, "tta": "flips", "augment": AugmentConfig(), "epochs": 5}
        model = make_model(**options, learning_rate=0.05).fit(TRAIN, VALID)
        found = model.predict(EXAMPLES)["target"]
        viewer = with_views(model.network_, "flips")
        source = Source(SPEC, shards, image_size_px=32)
        by_hand = pd.Series(np.nan, EXAMPLES.index)
        for batch in prediction_batches(source, list(EXAMPLES.index), 4):
            answers = viewer(batch)
            rows = batch["row"].numpy()
            by_hand.iloc[rows[rows >= 0]] = answers["probability"].numpy()[rows >= 0, 0]
        assert found.std() > 1e-3
        np.testing.assert_allclose(found, by_hand, atol=1e-5)

    def test_only_the_head_learns_and_from_standardised_features(self, make_model):
        model = make_model(frozen=True, epochs=3, tta="dihedral").fit(TRAIN, VALID)
        keras.utils.set_random_seed(0)
        fresh = make_model("fresh", frozen=True, epochs=1, tta="dihedral").fit(TRAIN, VALID)
        bodies = [fitted.network_.get_layer("body").get_weights() for fitted in (model, fresh)]
        assert are_equal(*bodies)
        heads = [fitted.network_.get_layer("head").get_weights() for fitted in (model, fresh)]
        assert not are_equal(*heads)
        assert model.history_["epoch"].tolist() == [0, 1, 2]
        assert pd.read_csv(model.folder / "history.csv").shape[0] == 3
        mean = model.network_.get_layer("head").get_layer("standardise").mean
        features = model._features(model.network_, TRAIN.index)[:, 0]
        np.testing.assert_allclose(np.ravel(mean), features.mean(axis=0), rtol=1e-3, atol=1e-4)

    def test_images_are_read_once(self, make_model, monkeypatch, tmp_path):
        model = make_model(frozen=True, epochs=1).fit(TRAIN, VALID)
        found = model.predict(EXAMPLES)
        model.save(tmp_path / "saved")
        monkeypatch.setattr(ImageModel, "_answer", None)  # no image can be looked at any more
        pd.testing.assert_frame_equal(model.predict(EXAMPLES), found)
        loaded = make_model(frozen=True, seed=3, epochs=1).load(tmp_path / "saved")
        pd.testing.assert_frame_equal(loaded.predict(EXAMPLES), found)

    def test_other_weights_have_features_of_their_own(self, make_model):
        for seed in (0, 1):
            make_model(seed=seed, frozen=True, epochs=1).fit(TRAIN, None)
        folder = make_model().folder.parent / "features"
        assert len(files(folder)) == 2

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


def test_several_classes_are_learned(make_model, device, shards, tmp_path):
    spec = replace(SPEC, task="multiclass", classes=("a", "b", "c"))
    which = np.arange(COUNT) % 3
    examples = EXAMPLES.assign(**{name: (which == i) * 1.0 for i, name in enumerate("abc")})
    config = tiny_config(oversample=2, label_smoothing=0.1)
    model = ImageModel(config, spec, lambda ids: shards, device, tmp_path / "three", seed=0)
    found = model.fit(examples, examples).predict(examples)
    assert list(found.columns) == ["a", "b", "c"]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
