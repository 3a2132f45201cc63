"""Tests of the patient's context: by hand, within a patient only, whatever the order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.patient_context import (
    SCORE_COLUMNS,
    context_columns,
    embedding_outliers,
    patient_context,
    require_patients,
    score_context,
)
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.datasets.synthetic import SPEC


@pytest.fixture
def examples():
    return pd.DataFrame(
        {
            "group_id": ["a", "a", "a", "b", "c", "c"],
            "age_years": [40.0, 40.0, 55.0, 30.0, np.nan, np.nan],
            "sex": ["male"] * 3 + ["female"] + [np.nan] * 2,
            "site": ["torso", "torso", "head/neck", "torso", np.nan, "torso"],
        },
        index=[f"i{k}" for k in range(6)],
    )


def test_numbers_by_hand(examples, spec):
    found = patient_context(examples, spec)
    assert list(found.columns) == context_columns(spec)
    assert found["patient_images"].tolist() == [3, 3, 3, 1, 2, 2]
    assert found["patient_alike"].tolist() == [2, 2, 1, 1, 1, 1]
    assert found["patient_age_years_span"].tolist()[:4] == [15, 15, 15, 0]
    assert found["patient_age_years_offset"].tolist()[:4] == [-5, -5, 10, 0]
    assert found["patient_age_years_same"].tolist() == [2, 2, 1, 1, 2, 2]
    assert found["patient_age_years_kinds"].tolist() == [2, 2, 2, 1, 0, 0]
    assert found["patient_site_share"].round(2).tolist() == [0.67, 0.67, 0.33, 1.0, 0.5, 0.5]
    assert found["patient_site_torso"].round(2).tolist() == [0.67, 0.67, 0.67, 1.0, 0.5, 0.5]
    assert found["patient_sex_kinds"].tolist() == [1, 1, 1, 1, 0, 0]


def test_no_patient_tells_anything_of_another(small_examples, spec):
    examples = small_examples(patients=8, images=4)
    one = examples[examples["group_id"] == "IP_0000003"]
    alone = patient_context(one, spec)
    pd.testing.assert_frame_equal(patient_context(examples, spec).loc[one.index], alone)


def test_the_order_of_rows_changes_nothing(small_examples, spec):
    examples = small_examples()
    shuffled = examples.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        patient_context(shuffled, spec).loc[examples.index], patient_context(examples, spec)
    )


def test_the_target_is_not_looked_at(small_examples, spec):
    examples = small_examples()
    other = examples.assign(target=1 - examples["target"])
    pd.testing.assert_frame_equal(patient_context(examples, spec), patient_context(other, spec))


@pytest.mark.parametrize(
    ("dataset", "known"), [("ham10000", "the lesion"), ("isic_2017", "nothing")]
)
def test_without_patients_it_is_not_applicable(dataset, known):
    with pytest.raises(PipelineError, match=f"{dataset} tells {known} of an image .* not applic"):
        require_patients(get_spec(dataset), "tabular.context")


def test_scores_by_hand():
    scores = pd.Series([0.2, 0.2, 0.8, 0.6, np.nan], index=list("vwxyz"))
    found = score_context(scores, pd.Series(list("aaabb"), index=scores.index), spread=0.5)
    assert list(found.columns) == list(SCORE_COLUMNS)
    assert found["median_gap"].round(6).tolist()[:4] == [0, 0, 0.6, 0]
    assert found["place"].tolist()[:4] == [3, 3, 1, 1]
    assert found["gap"].round(6).tolist()[:4] == [0.6, 0.6, 0, 0]
    assert found.loc["y", "z"] == 0
    # The mean of a's is 0.4, their spread 0.2828; a tenth of 0.5 is added to it.
    assert found["z"].round(3).tolist()[:3] == [-0.601, -0.601, 1.202]
    assert found.loc["z", ["median_gap", "z", "rank", "place", "gap"]].isna().all()


@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.2])
def test_equal_scores_and_one_alone_do_not_stand_out(spread):
    scores = pd.Series([0.7, 0.7, 0.7, 0.1], dtype=float)
    found = score_context(scores, pd.Series(list("aaab")), spread)
    np.testing.assert_allclose(found["z"], 0, atol=1e-6)


NUMBERS = st.integers(0, 18).map(lambda number: 5.0 * number) | st.just(np.nan)
WORDS = [st.sampled_from(words) | st.just(np.nan) for words in SPEC.categorical.values()]
TABLES = st.lists(
    st.tuples(st.sampled_from("abcd"), NUMBERS, *WORDS, st.floats(0, 1, width=32)),
    min_size=1,
    max_size=16,
).map(lambda rows: pd.DataFrame(rows, columns=["group_id", *SPEC.features, "score"]))


@settings(max_examples=40, deadline=None)
@given(table=TABLES, seed=st.integers(0, 99))
def test_context_is_the_patients_own_whoever_else_is_in_the_table(table, seed):
    def context(rows):
        beside = score_context(rows["score"], rows["group_id"], spread=0.2)
        return patient_context(rows, SPEC).join(beside)

    whole = context(table)
    shuffled = table.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(context(shuffled).loc[table.index], whole, atol=1e-12)
    for _, mine in table.groupby("group_id"):
        pd.testing.assert_frame_equal(context(mine), whole.loc[mine.index], atol=1e-12)
    strangers = table.assign(group_id="e", score=1 - table["score"])
    strangers.index += len(table)
    more = context(pd.concat([strangers, table]))
    pd.testing.assert_frame_equal(more.loc[table.index], whole, atol=1e-12)


def test_the_odd_one_of_a_patient_stands_out():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 8))
    embeddings[7] += 8  # of the first patient
    embeddings[20:] += 50  # another patient, who looks otherwise altogether
    patient = ["a"] * 20 + ["b"] * 18 + ["c"] * 2
    factors = embedding_outliers(embeddings, patient)
    assert factors.argmax() == 7 and factors[7] > 2
    assert np.all(factors[20:38] < 1.6) and factors[38:].tolist() == [1, 1]
    same = embedding_outliers(np.ones((5, 3)), ["a"] * 5)
    assert np.isfinite(same).all()
