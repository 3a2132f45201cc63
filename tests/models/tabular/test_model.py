"""Tests of the tabular side: encoding, invented rows and the model on them."""

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.cross_validation import cross_validate
from kaggle_pipeline.models.tabular import parallel_folds
from kaggle_pipeline.models.tabular.smote import resample_rows

SITES = SPEC.categorical["site"]
WIDTH = 1 + 2 + len(SITES)
SEX, SITE = slice(1, 3), slice(3, WIDTH)

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
TABLES = st.lists(
    st.tuples(
        NUMBERS,
        st.sampled_from(SPEC.categorical["sex"]) | st.just(np.nan),
        st.sampled_from(SITES) | st.just(np.nan),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: pd.DataFrame(rows, columns=["age_years", "sex", "site"]))


def encoder():
    return FeatureEncoder(SPEC.numeric, SPEC.categorical)


def table(ages, sex="male", site="torso"):
    return pd.DataFrame({"age_years": np.asarray(ages, float), "sex": sex, "site": site})


class TestFeatureEncoder:
    """Metadata → numbers."""

    @settings(max_examples=60)
    @given(train=TABLES, other=TABLES)
    def test_every_number_is_in_the_unit_interval(self, train, other):
        fitted = encoder().fit(train)
        for rows in (train, other):
            matrix = fitted.transform(rows)
            assert matrix.shape == (len(rows), WIDTH) and matrix.dtype == np.float32
            assert ((matrix >= 0) & (matrix <= 1)).all()
            for column, block in (("sex", SEX), ("site", SITE)):
                assert set(np.unique(matrix[:, block])) <= {0, 1}
                there = rows[column].notna().to_numpy()
                np.testing.assert_array_equal(matrix[:, block].sum(axis=1), there)

    @settings(max_examples=30)
    @given(train=TABLES)
    def test_one_hot_columns_name_the_category(self, train):
        matrix = encoder().fit(train).transform(train)
        for i, site in enumerate(SITES):
            np.testing.assert_array_equal(matrix[:, SITE][:, i] == 1, train["site"] == site)

    def test_numbers_are_scaled_by_training_rows_and_clipped(self):
        fitted = encoder().fit(table([20, 60, np.nan]))
        assert fitted.bounds_ == {"age_years": (20.0, 60.0)}
        found = fitted.transform(table([20, 30, 60, 10, 90, np.nan]))[:, 0]
        np.testing.assert_allclose(found, [0, 0.25, 1, 0, 1, 0], atol=1e-6)

    @pytest.mark.parametrize("ages", [[50, 50], [np.nan, np.nan]], ids=["constant", "missing"])
    def test_a_column_that_says_nothing_is_harmless(self, ages):
        found = encoder().fit(table(ages)).transform(table([*ages, 70]))
        assert np.isfinite(found).all() and ((found >= 0) & (found <= 1)).all()

    def test_a_row_encodes_alike_whatever_stands_beside_it(self, small_examples):
        examples = small_examples()
        fitted = encoder().fit(examples)
        whole = fitted.transform(examples)
        alone = np.vstack([fitted.transform(examples.iloc[[i]]) for i in range(len(examples))])
        np.testing.assert_array_equal(whole, alone)

    def test_the_vocabulary_does_not_depend_on_the_rows(self):
        fitted = encoder().fit(table([20, 60]))
        assert fitted.transform(table([30], "female", "palms/soles")).shape == (1, WIDTH)
        unseen = fitted.transform(table([30], np.nan, "on the moon"))
        assert not unseen[:, 1:].any()

    def test_numbers_alone_and_categories_alone(self):
        rows = table([20, 40])
        assert FeatureEncoder(["age_years"], {}).fit(rows).transform(rows).shape == (2, 1)
        sex = FeatureEncoder([], {"sex": ("female", "male")}).fit(rows).transform(rows)
        np.testing.assert_array_equal(sex, [[0, 1], [0, 1]])


class TestChooseFeatures:
    """Which columns a config asks for."""

    columns = pd.DataFrame(
        {"age_years": [1.0], "sex": ["male"], "site": ["torso"], "patient_images": [3], "id": ["a"]}
    )

    def test_the_specs_features_by_default(self):
        numeric, categorical = choose_features(SPEC, None, self.columns)
        assert numeric == ["age_years"] and categorical == dict(SPEC.categorical)

    def test_a_further_column_is_a_number(self):
        wanted = ("site", "patient_images")
        numeric, categorical = choose_features(SPEC, wanted, self.columns)
        assert numeric == ["patient_images"] and list(categorical) == ["site"]

    def test_an_unknown_name_gives_the_nearest(self):
        with pytest.raises(PipelineError, match=r"unknown feature 'age_year'.*'age_years'"):
            choose_features(SPEC, ("age_year",), self.columns)

    def test_text_without_a_vocabulary_is_refused(self):
        with pytest.raises(PipelineError, match="'id' holds text"):
            choose_features(SPEC, ("id",), self.columns)


@pytest.fixture(scope="module")
def rare():
    """60 rows with missing values, 10 of the rare class, and a fitted encoder."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age_years": rng.integers(20, 80, 60).astype(float),
            "sex": rng.choice(["female", "male"], 60),
            "site": rng.choice(np.array(SITES, object), 60),
        }
    )
    rows.loc[[3, 17, 52, 55], "age_years"] = np.nan
    rows.loc[[5, 51, 53, 58], "sex"] = np.nan
    rows.loc[[8, 54], "site"] = np.nan
    return rows, (np.arange(60) >= 50).astype(int), encoder().fit(rows)


class TestResample:
    """Invented rows."""

    def test_none_is_the_identity(self, rare):
        rows, classes, fitted = rare
        x, y = resample_rows(rows, classes, fitted, "none", 0)
        np.testing.assert_array_equal(x, fitted.transform(rows))
        np.testing.assert_array_equal(y, classes)

    @pytest.mark.parametrize("method", ["smotenc", "smote"])
    def test_classes_are_balanced_and_original_rows_come_first(self, rare, method):
        rows, classes, fitted = rare
        x, y = resample_rows(rows, classes, fitted, method, 0)
        assert x.dtype == np.float32 and x.shape == (100, WIDTH)
        assert np.bincount(y).tolist() == [50, 50] and y[60:].all()
        np.testing.assert_allclose(x[:60], fitted.transform(rows), atol=1e-6)
        assert ((x >= 0) & (x <= 1)).all()

    def test_smotenc_keeps_categories_whole(self, rare):
        rows, classes, fitted = rare
        x, _ = resample_rows(rows, classes, fitted, "smotenc", 0)
        assert set(np.unique(x[:, 1:])) == {0, 1}
        assert x[:, SEX].sum(axis=1).max() == 1 and x[:, SITE].sum(axis=1).max() == 1
        assert len(np.setdiff1d(x[60:, 0], x[:60, 0])) > 5  # ages in between are invented

    def test_smote_interpolates_them(self, rare):
        rows, classes, fitted = rare
        x, _ = resample_rows(rows, classes, fitted, "smote", 0)
        invented = x[60:, 1:]
        assert ((invented > 0.01) & (invented < 0.99)).any()

    @pytest.mark.parametrize("method", ["smotenc", "smote"])
    def test_the_seed_decides(self, rare, method):
        first, again, other = (resample_rows(*rare, method, seed)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("names", [("age_years",), ("sex", "site")])
    def test_numbers_alone_and_categories_alone(self, rare, names):
        rows, classes, _ = rare
        numeric, categorical = choose_features(SPEC, names, rows)
        fitted = FeatureEncoder(numeric, categorical).fit(rows)
        x, y = resample_rows(rows, classes, fitted, "smotenc", 0)
        assert np.bincount(y).tolist() == [50, 50]
        if categorical:
            assert set(np.unique(x)) == {0, 1}

    def test_two_rare_rows_are_enough(self, rare):
        rows, _, fitted = rare
        classes = (np.arange(60) >= 58).astype(int)
        _, y = resample_rows(rows, classes, fitted, "smotenc", 0)
        assert np.bincount(y).tolist() == [58, 58]

    @pytest.mark.parametrize("method", ["smotenc", "smote"])
    def test_one_rare_row_is_too_few(self, rare, method):
        rows, _, fitted = rare
        with pytest.raises(PipelineError, match=rf"resampling={method} needs 2.*rarest has 1"):
            resample_rows(rows, (np.arange(60) == 59).astype(int), fitted, method, 0)

    def test_three_classes(self, rare):
        rows, _, fitted = rare
        _, y = resample_rows(rows, np.minimum(np.arange(60) // 20, 2), fitted, "smotenc", 0)
        assert np.bincount(y).tolist() == [20, 20, 20]
        _, y = resample_rows(rows, np.digitize(np.arange(60), [40, 55]), fitted, "smotenc", 0)
        assert np.bincount(y).tolist() == [40, 40, 40]


MULTICLASS = replace(SPEC, task="multiclass", classes=("young", "middle", "old"))
FAST = {"patience": None, "batch_size": 64, "learning_rate": 0.05, "dropout": 0.0, "hidden": (16,)}


def make_model(spec=SPEC, seed=0, **changes):
    pytest.importorskip("tensorflow")
    from kaggle_pipeline.models.tabular.model import TabularModel

    config = TabularConfig(**{**FAST, "epochs": 3, **changes})
    return TabularModel(config, spec, seed=seed, jit_compile=False)


@pytest.fixture(scope="module")
def learnable(small_examples):
    """Training rows whose answer follows from age and sex; 16 of 54 are positive or so."""
    examples = small_examples()
    train = examples[examples["split"] == "train"].copy()
    old = train["age_years"].fillna(0) > train["age_years"].median()
    train["target"] = (old & (train["sex"] == "male")).astype(float)
    return train


@pytest.fixture(scope="module")
def fitted(learnable):
    """A model of the usual settings, trained; nobody's to change."""
    return make_model().fit(learnable, learnable)


def weights(model):
    return [np.array(weight) for weight in model.network_.get_weights()]


def are_equal(ones, others):
    return all(np.array_equal(a, b) for a, b in zip(ones, others, strict=True))


class TestTabularModel:
    """Fit, predict, save, load."""

    @pytest.mark.parametrize("resampling", ["smotenc", "none"])
    def test_it_overfits(self, learnable, resampling):
        model = make_model(epochs=25, resampling=resampling).fit(learnable, None)
        found = model.predict(learnable)
        assert roc_auc_score(learnable["target"], found["target"]) > 0.98

    @pytest.mark.parametrize("names", [MULTICLASS.classes, ("young", "old")])
    def test_several_classes(self, learnable, names):
        spec = replace(MULTICLASS, classes=names)
        age = learnable["age_years"].fillna(learnable["age_years"].median())
        which = pd.qcut(age, len(names), labels=False, duplicates="drop")
        train = learnable.assign(
            **{name: (which == i).astype(float) for i, name in enumerate(names)}
        )
        model = make_model(spec, epochs=30).fit(train, None)
        found = model.predict(train)
        assert list(found.columns) == list(names)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        known = learnable["age_years"].notna()
        right = found.to_numpy().argmax(axis=1) == which
        assert right[known].mean() > 0.9
        # The watched AUC is that of the answers, which a softmax ranks otherwise than its logits.
        validation = make_model(spec, epochs=2, learning_rate=0.01).fit(train, train)
        truth = train[list(names)].to_numpy(int)
        expected = roc_auc(truth, validation.predict(train).to_numpy())
        assert validation.history_["val_auc"].iloc[-1] == pytest.approx(expected, abs=1e-4)

    def test_a_saved_model_predicts_the_same_when_loaded(self, fitted, learnable, tmp_path):
        model = fitted
        model.save(tmp_path)
        loaded = make_model(seed=9).load(tmp_path)
        pd.testing.assert_frame_equal(loaded.predict(learnable), model.predict(learnable))
        assert loaded.encoder_.bounds_ == model.encoder_.bounds_
        history = pd.read_csv(tmp_path / "history.csv")
        assert history["epoch"].tolist() == [0, 1, 2]
        assert {"loss", "auc", "val_loss", "val_auc"} <= set(history)

    def test_predictions_are_joined_by_id(self, fitted, learnable):
        model = fitted
        found = model.predict(learnable)
        shuffled = learnable.sample(frac=1, random_state=1)
        again = model.predict(shuffled)
        assert list(again.index) == list(shuffled.index)
        pd.testing.assert_frame_equal(again.loc[found.index], found, rtol=1e-6)
        assert len(model.predict(learnable.iloc[:1])) == 1

    def test_the_seed_decides_every_bit_and_watched_rows_none(self, learnable):
        odd = learnable.iloc[:5].assign(age_years=500.0, site=np.nan)
        first, again, other = (
            make_model(seed=seed, dropout=0.3).fit(learnable, valid)
            for seed, valid in [(1, None), (1, odd), (2, None)]
        )
        assert are_equal(weights(first), weights(again))
        assert not are_equal(weights(first), weights(other))
        ages = learnable["age_years"]
        bounds = {"age_years": (ages.min(), ages.max())}
        assert first.encoder_.bounds_ == again.encoder_.bounds_ == bounds

    def test_patience_stops_by_the_rows_given_and_keeps_the_best_epoch(self, learnable):
        against = learnable.assign(target=1 - learnable["target"])
        options = {"epochs": 15, "patience": 2}
        model = make_model(**options).fit(learnable, against)
        history = model.history_
        best = int(history["val_auc"].idxmax())
        assert len(history) == best + 1 + 2 < 15
        auc = roc_auc_score(against["target"], model.predict(against)["target"])
        assert auc == pytest.approx(history["val_auc"].max(), abs=1e-6)

    @pytest.mark.parametrize("kept", [slice(0), 0.0, 1.0], ids=["none", "negative", "positive"])
    def test_patience_is_refused_where_the_rows_cannot_choose(self, learnable, kept):
        rows = learnable[:0] if isinstance(kept, slice) else learnable[learnable["target"] == kept]
        lack = "is not" if kept == 1.0 else "is"
        message = rf"no image that {lack} target: say tabular\.patience = null, or raise tabular\.i"
        for valid in [rows, *([None] if rows.empty else [])]:
            with pytest.raises(PipelineError, match=message):
                make_model(patience=2).fit(learnable, valid)
        make_model(epochs=1).fit(learnable, rows)  # rows that choose nothing may be any

    def test_an_auc_that_is_nan_neither_wins_nor_ends_anything(self, learnable, monkeypatch):
        from kaggle_pipeline.models.tabular.model import TabularModel

        nan = np.nan
        validation = [nan, 0.5, nan, 0.9, nan, nan, nan, 0.8, nan, 0.7, 0.95]
        said = iter([one for auc in validation for one in (0.5, auc)])  # of the learned rows first
        monkeypatch.setattr(TabularModel, "_auc", lambda *_: next(said))
        options = {"patience": 2, "resampling": "none", "dropout": 0.0}
        model = make_model(epochs=11, **options).fit(learnable, learnable)
        found = model.history_["val_auc"].to_numpy()
        np.testing.assert_array_equal(found, validation[:10])  # two that are worse, NaN not counted
        monkeypatch.undo()
        fourth = make_model(epochs=4, **{**options, "patience": None}).fit(learnable, None)
        assert are_equal(weights(model), weights(fourth))

    @pytest.mark.parametrize(("patience", "selection"), [(None, "none"), (4, "inner")])
    def test_it_says_by_which_rows_it_stops(self, patience, selection):
        assert make_model(patience=patience).selection == selection

    def test_an_unknown_feature_is_named(self, learnable):
        with pytest.raises(PipelineError, match="unknown feature 'sexx'"):
            make_model(features=("sexx",)).fit(learnable, None)


class TestMissingIndicators:
    """``tabular.missing: indicator``."""

    def test_a_column_says_what_is_missing(self):
        rows = pd.DataFrame(
            {"age_years": [20.0, np.nan], "sex": ["male", np.nan], "site": [np.nan, "torso"]}
        )
        fitted = FeatureEncoder(SPEC.numeric, SPEC.categorical, indicators=True).fit(rows)
        matrix = fitted.transform(rows)
        assert matrix.shape == (2, WIDTH + 3) == (2, fitted.width)
        np.testing.assert_array_equal(matrix[:, WIDTH:], [[0, 0, 1], [1, 1, 0]])
        np.testing.assert_array_equal(matrix[:, :WIDTH], encoder().fit(rows).transform(rows))

    @pytest.mark.parametrize("method", ["smotenc", "none"])
    def test_invented_rows_are_whole_or_missing_never_half(self, method, small_examples):
        train = small_examples(patients=40, images=6).query("split == 'train'")
        fitted = FeatureEncoder(SPEC.numeric, SPEC.categorical, indicators=True).fit(train)
        matrix, _ = resample_rows(train, train["target"].to_numpy(int), fitted, method, seed=0)
        flags = matrix[:, WIDTH:]
        assert set(np.unique(flags)) == {0, 1}
        np.testing.assert_array_equal(flags[: len(train), 0] == 1, train["age_years"].isna())
        assert (matrix[flags[:, 0] == 1, 0] == 0).all()
        for block, flag in ((SEX, 1), (SITE, 2)):
            np.testing.assert_array_equal(matrix[:, block].sum(axis=1), 1 - flags[:, flag])

    def test_the_model_keeps_them_when_it_is_saved(self, small_examples, tmp_path):
        train = small_examples(patients=20).query("split == 'train'")
        options = {"missing": "indicator", "epochs": 1, "resampling": "none"}
        model = make_model(**options).fit(train, None)
        model.save(tmp_path)
        again = make_model(**options).load(tmp_path)
        pd.testing.assert_frame_equal(again.predict(train), model.predict(train))
        blank = train.assign(age_years=0.0)
        assert not model.predict(blank).equals(model.predict(blank.assign(age_years=np.nan)))


def test_two_sigmoids_learn_two_questions(small_examples):
    rng = np.random.default_rng(0)
    train = small_examples(patients=60).query("split == 'train'")
    train = train.assign(
        a=(train["age_years"] > 45).astype(float), b=(train["sex"] == "male") * 1.0
    )
    spec = replace(SPEC, task="multilabel", classes=("a", "b"))
    shuffled = train.loc[rng.permutation(train.index)]
    found = make_model(spec, epochs=40, learning_rate=0.01).fit(shuffled, None).predict(train)
    for name in ("a", "b"):
        assert roc_auc_score(train[name], found[name]) > 0.95


class TestDenseModels:
    """Folds side by side."""

    @pytest.mark.parametrize(
        ("epochs", "patience", "count"), [(400, None, 4), (99, None, 1), (400, 5, 1)]
    )
    def test_a_process_a_fold_only_where_it_pays(self, monkeypatch, epochs, patience, count):
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        config = TabularConfig(epochs=epochs, patience=patience)
        make_model, options = parallel_folds.dense_models(config, SPEC, None, 7, jit_compile=False)
        assert options.get("processes", 1) == count
        assert make_model(1, None).seed == 8

    @pytest.mark.slow
    def test_the_files_are_those_of_one_fold_after_the_other(
        self, small_examples, small_folds, tmp_path, monkeypatch
    ):
        # A process has no part in its parent's cluster, whose port is taken.
        cluster = {"worker": ["localhost:1", "localhost:2"]}
        task = {"type": "worker", "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        examples = small_examples(patients=60, images=5)
        folds = small_folds(examples)
        config = TabularConfig(epochs=100, patience=None, hidden=(8,))
        for cores in (1, 2):
            monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
            make_model, options = parallel_folds.dense_models(
                config, SPEC, None, 7, jit_compile=False
            )
            assert options["processes"] == cores
            place = tmp_path / str(cores)
            cross_validate(make_model, examples, SPEC, folds, place, seed=0, **options)
        for fold in folds.numbers:
            for name in ("oof.csv", "history.csv"):
                one, two = (tmp_path / cores / f"fold{fold}" / name for cores in ("1", "2"))
                assert one.read_bytes() == two.read_bytes()
