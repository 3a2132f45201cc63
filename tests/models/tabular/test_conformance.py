"""What every learner on metadata keeps: it predicts from what it learned from, alone or not.

For the dense network with each resampling and way to treat missing values, and for each learner
beside it, with and without the patient's context.
"""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.names import LEARNERS
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
from kaggle_pipeline.data.patient_context import context_columns, patient_context
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.models.tabular import sklearn_models
from kaggle_pipeline.models.tabular.smote import resample_rows

CONTEXT = context_columns(SPEC)
SHOWN = {
    "features": SPEC.features,
    "context": (*SPEC.features, *CONTEXT),
    "numbers": (*SPEC.numeric, *CONTEXT),
    "words": tuple(SPEC.categorical),
}
WAYS = [*product(("smotenc", "smote", "none"), ("zero", "indicator"))]
DENSE = [f"{resampling} {missing}" for resampling, missing in WAYS]
ROOT = Path(__file__).resolve().parents[3]


def with_context(table):
    return table.join(patient_context(table, SPEC))


@pytest.fixture(scope="module")
def examples(small_examples):
    """Ages differ within a patient; numbers and words are missing here and there."""
    table = small_examples(patients=40, images=6)
    rng = np.random.default_rng(4)
    return with_context(table.assign(age_years=table["age_years"] + 5 * rng.integers(-3, 4, 240)))


def make(learner, features):
    """A learner by name; of the dense network the name says resampling and missing values."""
    if learner in LEARNERS:
        return sklearn_models.LearnerModel(learner, TabularConfig(), SPEC, features, seed=3)
    pytest.importorskip("tensorflow")
    from kaggle_pipeline.models.tabular.model import TabularModel

    resampling, missing = learner.split()
    config = TabularConfig(resampling=resampling, missing=missing, epochs=2, batch_size=64)
    return TabularModel(config, SPEC, features, seed=3, jit_compile=False)


class Watched:
    """Stands where a network does and keeps what it is asked."""

    def predict(self, x, **options):
        self.x = x
        return np.full((len(x), 1), 0.5, np.float32)


def learned_and_asked(learner, features, train, asked, monkeypatch):
    """Return the matrix that a learner fits to, and the one it answers for."""
    model, seen = make(learner, features), {}
    if learner in LEARNERS:
        fit, answer = sklearn_models.LEARNERS[learner]

        def watch_fit(x, y, seed):
            seen["fit"] = x
            return fit(x, y, seed)

        def watch_answer(arrays, x):
            seen["predict"] = x
            return answer(arrays, x)

        monkeypatch.setitem(sklearn_models.LEARNERS, learner, (watch_fit, watch_answer))
        model.fit(train, None).predict(asked)
        return seen["fit"], seen["predict"]
    from kaggle_pipeline.models.tabular.numpy_adam import NumpyAdam

    run = NumpyAdam.run_epoch
    monkeypatch.setattr(
        NumpyAdam, "run_epoch", lambda self, x, y: seen.update(fit=x) or run(self, x, y)
    )
    model.fit(train, None)
    model.network_ = Watched()
    model.predict(asked)
    return seen["fit"], model.network_.x


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("learner", [*DENSE, *LEARNERS])
def test_a_row_is_learned_as_it_is_asked_for(learner, shown, examples, monkeypatch):
    train = split_rows(examples, "train")
    asked = train.sample(frac=1, random_state=0)
    fitted, answered = learned_and_asked(learner, SHOWN[shown], train, asked, monkeypatch)
    order = train.index.get_indexer(asked.index)
    np.testing.assert_allclose(fitted[order], answered, atol=1e-6)
    assert fitted.min() >= 0 and fitted.max() <= 1
    if learner.startswith("smote"):
        assert len(fitted) > len(train)


@pytest.mark.parametrize("learner", [*DENSE, *LEARNERS])
def test_what_is_said_of_a_patient_is_said_whoever_else_is_asked_for(learner, examples):
    train, test = split_rows(examples, "train"), split_rows(examples, "test")
    model = make(learner, SHOWN["context"]).fit(train, test.assign(target=0.0))
    plain = test.drop(columns=CONTEXT)
    together = model.predict(test)
    for _, mine in plain.groupby("group_id"):
        alone = model.predict(with_context(mine))
        np.testing.assert_allclose(alone, together.loc[mine.index], atol=1e-6)
    turned = model.predict(with_context(plain.iloc[::-1]))
    np.testing.assert_allclose(turned.loc[test.index], together, atol=1e-6)
    # Rows that are watched, and not learned from, change nothing.
    again = make(learner, SHOWN["context"]).fit(train, None).predict(test)
    np.testing.assert_allclose(again, together, atol=1e-9)


_OTHER_PROCESS = """
import json, sys
import pandas as pd
from pathlib import Path
from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel
from kaggle_pipeline.models.tabular.model import TabularModel

root = Path(sys.argv[1])
rows = pd.read_csv(root / "rows.csv", index_col="image_id", float_precision="round_trip")
for place in sorted(path for path in root.iterdir() if path.is_dir()):
    config = TabularConfig(**json.loads((place / "config.json").read_text()))
    if place.name.startswith("smote") or place.name.startswith("none"):
        model = TabularModel(config, SPEC, seed=0, jit_compile=False)
    else:
        model = LearnerModel(place.name, config, SPEC, SPEC.features, seed=0)
    model.load(place).predict(rows).to_csv(place / "answers.csv")
"""


@pytest.mark.ci
def test_what_is_saved_predicts_the_same_in_another_process(examples, tmp_path):
    train = split_rows(examples, "train")
    said = {}
    for learner in (*DENSE, *LEARNERS):
        place = tmp_path / learner
        place.mkdir()
        model = make(learner, SHOWN["context"]).fit(train, None)
        model.save(place)
        config = to_mapping(model.config)
        (place / "config.json").write_text(json.dumps(config))
        said[learner] = model.predict(examples)
    examples.to_csv(tmp_path / "rows.csv", index_label="image_id")
    subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)],
        check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    for learner, wanted in said.items():
        found = pd.read_csv(tmp_path / learner / "answers.csv", index_col="image_id")
        limit = 1e-9 if learner in LEARNERS else 1e-6
        np.testing.assert_allclose(found.loc[wanted.index], wanted, atol=limit, err_msg=learner)


VALUES = st.floats(-50, 50, width=32) | st.just(np.nan)
ROWS = st.lists(
    st.tuples(VALUES, VALUES, *(st.sampled_from([*w, np.nan]) for w in SPEC.categorical.values())),
    min_size=12,
    max_size=30,
).map(lambda rows: pd.DataFrame(rows, columns=["age_years", "offset", *SPEC.categorical]))


@settings(max_examples=40)
@given(table=ROWS, method=st.sampled_from(["smotenc", "smote", "none"]), flags=st.booleans())
def test_originals_are_encoded_and_invented_rows_lie_in_between(table, method, flags):
    numeric, categorical = choose_features(SPEC, tuple(table.columns), table)
    encoder = FeatureEncoder(numeric, categorical, indicators=flags).fit(table)
    classes = (np.arange(len(table)) % 4 == 0).astype(int)
    x, _ = resample_rows(table, classes, encoder, method, seed=0)
    np.testing.assert_allclose(x[: len(table)], encoder.transform(table), atol=1e-6)
    rare = x[: len(table)][classes == 1]
    assert (x[len(table) :] >= rare.min(axis=0) - 1e-6).all()
    assert (x[len(table) :] <= rare.max(axis=0) + 1e-6).all()
    if method == "smotenc":
        assert set(np.unique(x[:, 2:])) <= {0, 1}


def test_the_unit_of_a_number_decides_no_neighbour():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age_years": rng.normal(50, 15, 90), "share": rng.random(90)})
    for name, words in SPEC.categorical.items():
        table[name] = rng.choice(np.array(words, object), 90)
    classes, found = (np.arange(90) < 20).astype(int), []
    for factor in (1.0, 365.25):
        rows = table.assign(age_years=table["age_years"] * factor)
        encoder = FeatureEncoder(["age_years", "share"], SPEC.categorical).fit(rows)
        found.append(resample_rows(rows, classes, encoder, "smotenc", seed=1)[0])
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("learner", [*DENSE, *LEARNERS])
def test_a_word_that_no_training_row_has_is_as_good_as_none(learner, examples):
    """Nothing was learned of it, whether it is known that it is missing or not."""
    train = split_rows(examples, "train").assign(sex="male", age_years=50.0)
    rows = train.assign(sex="female", age_years=55.0)
    model = make(learner, SPEC.features).fit(train, None)
    found = [model.predict(rows.assign(sex=sex, age_years=age))
             for sex, age in (("female", 55.0), (np.nan, np.nan))]  # fmt: skip
    np.testing.assert_allclose(*found, atol=1e-6)


def test_logistic_keeps_its_intercept_where_a_column_never_varied():
    rng = np.random.default_rng(0)
    n = 2000
    sites = np.array(SPEC.categorical["site"], object)
    train = pd.DataFrame(
        {"age_years": rng.integers(4, 16, n) * 5.0, "sex": "male", "site": rng.choice(sites, n)}
    )
    train["target"] = (rng.random(n) < 0.04).astype(float)
    model = make("logistic", SPEC.features).fit(train, None)
    for sex in ("female", np.nan):
        other = model.predict(train.assign(sex=sex))
        np.testing.assert_allclose(other, model.predict(train), atol=1e-9)
