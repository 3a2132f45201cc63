"""Tests of folds: each image judged once, no group split, positives spread, seeds kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.folds import TRAIN_ONLY, Folds, make_folds, set_test_aside
from kaggle_pipeline.datasets.synthetic import SPEC


def training_rows(groups, targets):
    ids = pd.Index([f"ISIC_{i:03d}" for i in range(len(groups))], name="image_id")
    names = [f"IP_{g:03d}" for g in groups]
    return pd.DataFrame({"group_id": names, "target": np.asarray(targets, float)}, ids)


@pytest.fixture
def train(small_examples):
    return split_rows(small_examples(patients=80, images=5), "train")


@st.composite
def tables(draw):
    """Training rows of k to 25 patients, each with one to six images, and a k."""
    k = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(1, 6), min_size=k, max_size=25))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n = len(groups)
    targets = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    order = draw(st.permutations(range(n)))
    return training_rows(groups[order], np.array(targets)[order]), k


@given(case=tables(), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_image_is_judged_once_and_no_group_is_split(case, seed):
    train, k = case
    folds = make_folds(train, SPEC, FoldsConfig(k=k), seed)
    assert folds.numbers == list(range(k))
    labelled = np.concatenate([folds.valid_ids(fold) for fold in folds.numbers])
    assert sorted(labelled) == sorted(train.index)
    for fold in folds.numbers:
        learn, judge = folds.train_ids(fold), folds.valid_ids(fold)
        assert len(learn) + len(judge) == len(train)
        assert not set(train.loc[learn, "group_id"]) & set(train.loc[judge, "group_id"])


CLASSES = ("a", "b", "c", "d")
SEEDS = st.integers(0, 2**32 - 1001)


def random_rows(kind, seed):
    """A spec, and training rows of 2 to 60 groups of one to five images; no class is common.

    ``one``: each group is of one of several classes; ``mixed``: each image is; ``labels``: any.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, rng.integers(2, 61))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if kind == "binary":
        return SPEC, training_rows(groups, rng.random(len(groups)) < rng.uniform(0, 0.6))
    odds = rng.choice([0, 0.1, 0.3, 1], 4)
    if kind == "labels":
        held = rng.random((len(groups), 4)) < odds
    else:
        of = rng.choice(4, len(groups), p=(odds + 0.1) / (odds + 0.1).sum())
        held = np.eye(4)[of[groups] if kind == "one" else of]
    spec = replace(SPEC, task="multilabel" if kind == "labels" else "multiclass", classes=CLASSES)
    rows = training_rows(groups, np.zeros(len(groups)))
    return spec, rows.assign(**dict(zip(CLASSES, held.T.astype(float), strict=True)))


def groups_by_class(train, spec):
    """Ids of the groups that have an image of each class, or of none of them; rarest first."""
    images = train[list(spec.classes)]
    images = images.assign(none=1 - images.max(axis=1)).groupby(train["group_id"]).max()
    found = [set(images.index[images[name] > 0]) for name in images]
    return sorted(filter(None, found), key=len)


def nearest(count, share):
    """The whole numbers of ``count`` groups that a holdout may have: one or, at a half, two."""
    if count == 1:
        return {0}
    near = {int(np.ceil(count * share - 0.5)), int(np.floor(count * share + 0.5))}
    return {min(max(one, 1), count - 1) for one in near}


@pytest.mark.parametrize("kind", ["binary", "one", "mixed", "labels"])
@given(table=SEEDS, seed=SEEDS, share=st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.35, 0.5, 0.9]))
@settings(max_examples=100, deadline=None)
def test_a_holdout_has_the_nearest_number_of_groups_of_each_class(kind, table, seed, share):
    spec, train = random_rows(kind, table)
    folds = make_folds(train, spec, FoldsConfig(holdout=share), seed)
    labelled, learned = (
        set(train.loc[ids, "group_id"]) for ids in (folds.valid_ids(0), folds.train_ids(0))
    )
    assert labelled and learned and not labelled & learned
    rarest, *further = groups_by_class(train, spec)
    if max(map(len, [rarest, *further])) == 1:  # each the only one of its class
        return
    assert len(rarest & labelled) in nearest(len(rarest), share)
    for groups in further:
        if kind in ("binary", "one"):
            assert len(groups & labelled) in nearest(len(groups), share)
        else:  # groups of several classes cannot always do right by all of them
            assert min(abs(len(groups & labelled) - n) for n in nearest(len(groups), share)) <= 2


@pytest.mark.parametrize("kind", ["binary", "one"])
@given(table=SEEDS, seed=SEEDS, k=st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_folds_have_as_many_groups_of_each_class_but_for_one(kind, table, seed, k):
    spec, train = random_rows(kind, table)
    if train["group_id"].nunique() < k:
        return
    folds = make_folds(train, spec, FoldsConfig(k=k), seed)
    for groups in groups_by_class(train, spec):
        parts = [len(groups & set(train.loc[folds.valid_ids(f), "group_id"])) for f in range(k)]
        assert set(parts) <= {len(groups) // k, -(-len(groups) // k)}


@pytest.mark.parametrize(("patients", "positive", "right"), [(30, 4, 1), (200, 12, 2)])
@pytest.mark.parametrize("first", [0, 1])
def test_the_seed_decides_which_rare_groups_are_held_out_and_not_how_many(
    patients, positive, right, first
):
    targets = np.zeros(patients)
    targets[np.arange(positive) * 2 + 1 - first] = 1
    train, drawn = training_rows(np.arange(patients), targets), []
    for seed in range(200):
        ids = make_folds(train, SPEC, FoldsConfig(holdout=0.15), seed).valid_ids(0)
        assert train.loc[ids, "target"].sum() == right
        assert abs(len(ids) - 0.15 * patients) <= 1
        drawn += [one for one in ids if train.loc[one, "target"]]
    # Each of them as often as the others, but for chance.
    expected = 200 * right / positive
    counts = pd.Series(drawn).value_counts()
    assert len(counts) == positive
    assert counts.between(expected - 4 * expected**0.5, expected + 4 * expected**0.5).all()


def test_the_seed_decides_which_folds_have_one_more():
    train = training_rows(np.arange(50), np.arange(50) < 7)
    more = set()
    for seed in range(40):
        fold = make_folds(train, SPEC, FoldsConfig(k=5), seed).table["fold"]
        counts = train.groupby(fold)["target"].sum()
        assert sorted(counts) == [1, 1, 1, 2, 2]
        more.add(tuple(counts.index[counts == 2]))
    assert len(more) == 10


@pytest.mark.parametrize("share", [0.1, 0.15, 0.35])
def test_a_holdout_has_about_that_share_of_the_rows_and_of_the_positive_ones(share):
    rng = np.random.default_rng(0)
    sizes = rng.geometric(0.06, 400)  # as patients of the competition: many images of a few
    groups = np.repeat(np.arange(400), sizes)
    train = training_rows(groups, rng.random(len(groups)) < 0.03)
    rows, positive = [], []
    for seed in range(20):
        ids = make_folds(train, SPEC, FoldsConfig(holdout=share), seed).valid_ids(0)
        rows.append(len(ids) / len(train))
        positive.append(train.loc[ids, "target"].sum() / train["target"].sum())
    assert np.abs(np.array(rows) - share).max() < 0.02
    assert np.mean(rows) == pytest.approx(share, abs=0.005)
    assert np.mean(positive) == pytest.approx(share, abs=0.01)


def test_positives_and_sizes_are_balanced(train, spec):
    folds = make_folds(train, spec, FoldsConfig(k=5), 0)
    joined = train.assign(fold=folds.table["fold"]).groupby("fold")
    positives, sizes, groups = (
        joined["target"].sum(),
        joined.size(),
        joined["group_id"].nunique(),
    )
    assert groups.max() - groups.min() <= 3
    assert sizes.max() <= 1.3 * sizes.min()
    assert positives.max() <= 2 * positives.min()


def test_every_class_of_a_multiclass_data_set_is_spread(spec):
    rng = np.random.default_rng(0)
    spec = replace(spec, task="multiclass", classes=("nevus", "melanoma", "rare"))
    kind = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
    train = training_rows(np.arange(300) // 2, np.zeros(300)).drop(columns="target")
    train[list(spec.classes)] = np.eye(3)[kind]
    folds = make_folds(train, spec, FoldsConfig(k=5), 0)
    counts = train.groupby(folds.table["fold"])[list(spec.classes)].sum()
    assert (counts.max() <= 1.8 * counts.min()).all()
    assert counts["rare"].min() >= 3


def test_same_seed_same_folds_and_another_seed_others(train, spec):
    config = FoldsConfig(k=4)
    one, two, other = (make_folds(train, spec, config, seed).table for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert (one["fold"] != other["fold"]).any()


def test_order_of_the_rows_does_not_matter(train, spec):
    config = FoldsConfig(k=4)
    shuffled = train.sample(frac=1, random_state=3)
    one, two = (make_folds(rows, spec, config, 1).table for rows in (train, shuffled))
    pd.testing.assert_frame_equal(one, two.loc[one.index])


def test_fewer_groups_than_folds_are_refused(spec):
    train = training_rows([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    with pytest.raises(PipelineError, match="3 patients cannot fill 4 folds"):
        make_folds(train, spec, FoldsConfig(k=4), 0)
    with pytest.raises(PipelineError, match="1 patients cannot fill 2 folds"):
        make_folds(train.iloc[:2], spec, FoldsConfig(holdout=0.2), 0)
    assert make_folds(train, spec, FoldsConfig(k=3), 0).numbers == [0, 1, 2]


def test_data_without_groups_are_divided_image_by_image(spec):
    spec = replace(spec, group=None)
    train = training_rows(np.arange(50), np.arange(50) % 5 == 0)
    folds = make_folds(train, spec, FoldsConfig(k=5), 0)
    assert folds.table["fold"].value_counts().tolist() == [10] * 5
    positives = train.groupby(folds.table["fold"])["target"].sum()
    assert positives.tolist() == [2] * 5
    with pytest.raises(PipelineError, match="photos cannot fill"):
        make_folds(train.iloc[:3], spec, FoldsConfig(k=5), 0)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.3, 0.4, 0.7])
def test_holdout_judges_about_that_share_of_the_groups_once(train, spec, share):
    folds = make_folds(train, spec, FoldsConfig(holdout=share), 0)
    assert folds.numbers == [0]
    labelled, rest = folds.valid_ids(0), folds.train_ids(0)
    assert len(labelled) + len(rest) == len(train)
    groups = train.loc[labelled, "group_id"].nunique()
    assert groups / train["group_id"].nunique() == pytest.approx(share, abs=0.06)
    assert not set(train.loc[labelled, "group_id"]) & set(train.loc[rest, "group_id"])
    assert set(folds.table.loc[rest, "fold"]) == {TRAIN_ONLY}
    assert list(folds.validated.index) == list(labelled)


def test_given_column_is_taken_modulo_k_and_negatives_are_left_out(spec):
    train = training_rows([0, 0, 1, 2, 3, 4], [0, 1, 0, 0, 1, 0])
    train["tfrecord"] = [0, 0, 4, 7, -1, 5]
    folds = make_folds(train, spec, FoldsConfig(k=3, column="tfrecord"), 0)
    assert folds.table["fold"].to_dict() == {
        "ISIC_000": 0,
        "ISIC_001": 0,
        "ISIC_002": 1,
        "ISIC_003": 1,
        "ISIC_005": 2,
    }
    for fold in folds.numbers:
        assert "ISIC_004" not in folds.train_ids(fold)


def test_given_column_that_splits_a_group_is_refused(spec):
    train = training_rows([0, 0, 1], [0, 1, 0]).assign(tfrecord=[0, 1, 2])
    with pytest.raises(PipelineError, match=r"ISIC_000.*\[0, 1\]"):
        make_folds(train, spec, FoldsConfig(k=5, column="tfrecord"), 0)


def test_missing_column_is_named_with_the_nearest(spec):
    train = training_rows([0, 1], [0, 1]).assign(tfrecord=[0, 1])
    with pytest.raises(PipelineError, match=r"'tfrecords'.*did you mean 'tfrecord'"):
        make_folds(train, spec, FoldsConfig(k=2, column="tfrecords"), 0)


@pytest.mark.parametrize("odd", [np.nan, "first"])
def test_column_that_is_no_number_names_the_image(spec, odd):
    train = training_rows([0, 1, 2], [0, 1, 0]).assign(tfrecord=pd.Series([0, odd, 1]).to_numpy())
    with pytest.raises(PipelineError, match="ISIC_001"):
        make_folds(train, spec, FoldsConfig(k=2, column="tfrecord"), 0)


@pytest.mark.parametrize("values", [[-1, -1, -1], [1, 3, 5], [-1, 0, -1]])
def test_column_that_makes_fewer_than_two_folds_is_refused(spec, values):
    train = training_rows([0, 1, 2], [0, 1, 0]).assign(tfrecord=values)
    with pytest.raises(PipelineError, match="tfrecord"):
        make_folds(train, spec, FoldsConfig(k=2, column="tfrecord"), 0)


def fold_table(groups, folds, ids=None):
    ids = pd.Index(ids or [f"ISIC_{i}" for i in range(len(groups))], name="image_id")
    return pd.DataFrame({"group_id": groups, "fold": folds}, ids)


def test_constructor_refuses_a_split_group():
    told = r"1 group is in more than one fold: that of image ISIC_1, .*\[0, 2\]"
    with pytest.raises(PipelineError, match=told) as error:
        Folds(fold_table(["IP_0", "IP_1", "IP_1"], [0, 0, 2]))
    assert "IP_1" not in str(error.value), "a group may be a patient"


def test_constructor_refuses_a_group_that_is_half_train_only():
    with pytest.raises(PipelineError, match="image ISIC_0"):
        Folds(fold_table(["IP_1", "IP_1"], [TRAIN_ONLY, 0]))


def test_constructor_refuses_an_id_listed_twice():
    with pytest.raises(PipelineError, match="image A more than once"):
        Folds(fold_table(["IP_0", "IP_0"], [0, 0], ["A", "A"]))


def test_train_only_rows_are_learnt_from_and_never_judged():
    folds = Folds(fold_table(["a", "b", "c"], [0, 1, TRAIN_ONLY]))
    assert folds.numbers == [0, 1]
    assert all("ISIC_2" in folds.train_ids(fold) for fold in folds.numbers)
    assert list(folds.validated.index) == ["ISIC_0", "ISIC_1"]


def test_file_round_trip(train, spec, tmp_path):
    folds = make_folds(train, spec, FoldsConfig(k=4), 0)
    folds.write(tmp_path / "folds.csv")
    pd.testing.assert_frame_equal(Folds.read(tmp_path / "folds.csv").table, folds.table)


def test_file_keeps_ids_that_look_like_numbers(tmp_path):
    Folds(fold_table(["007", "8"], [0, 1], ["01", "1e3"])).write(tmp_path / "folds.csv")
    table = Folds.read(tmp_path / "folds.csv").table
    assert list(table.index) == ["01", "1e3"]
    assert list(table["group_id"]) == ["007", "8"]


def test_file_that_was_changed_to_split_a_group_is_refused(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("image_id,group_id,fold\na,IP_1,0\nb,IP_1,1\n")
    with pytest.raises(PipelineError, match="image a,"):
        Folds.read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"folds\.csv is missing"):
        Folds.read(tmp_path / "folds.csv")


# ------------------------------------------------------------------ other ways to divide


def test_judge_takes_the_marked_rows_and_trains_on_the_others(train):
    marked = train.assign(official=np.arange(len(train)) % 7 == 0)
    # Whole patients, as no fold may split one.
    marked["official"] = marked.groupby("group_id")["official"].transform("first")
    folds = make_folds(marked, SPEC, FoldsConfig(judge="official"), seed=0)
    assert folds.numbers == [0]
    assert set(folds.valid_ids(0)) == set(marked.index[marked["official"]])
    assert set(folds.train_ids(0)) == set(marked.index[~marked["official"]])


@pytest.mark.parametrize(
    ("column", "words"), [("oficial", "did you mean 'official'"), ("same", "the same for all")]
)
def test_judge_by_a_column_that_says_nothing_is_refused(train, column, words):
    rows = train.assign(official=True, same=True)
    with pytest.raises(PipelineError, match=words):
        make_folds(rows, SPEC, FoldsConfig(judge=column), seed=0)


def test_by_image_splits_groups_and_by_group_does_not(train):
    def split_groups(by):
        folds = make_folds(train, SPEC, FoldsConfig(holdout=0.2, by=by), seed=0)
        labelled, learned = (
            set(train.loc[ids, "group_id"]) for ids in (folds.valid_ids(0), folds.train_ids(0))
        )
        return len(labelled & learned)

    assert split_groups("group") == 0 and split_groups("image") > 10


def test_a_test_part_is_set_aside_by_group_with_its_labels_apart(train):
    config = FoldsConfig(test_share=0.2)
    examples, truth = set_test_aside(train.assign(split="train"), SPEC, config, seed=3)
    test, rest = split_rows(examples, "test"), split_rows(examples, "train")
    assert not set(test["group_id"]) & set(rest["group_id"])
    assert len(test) == pytest.approx(len(train) / 5, rel=0.25)
    assert test["target"].isna().all() and rest["target"].notna().all()
    assert list(truth.index) == list(test.index)
    assert (truth["target"] == train.loc[test.index, "target"]).all() and truth["target"].sum() > 0
    again, _ = set_test_aside(train.assign(split="train"), SPEC, config, seed=3)
    pd.testing.assert_frame_equal(again, examples)


def test_a_second_test_part_is_refused(small_examples):
    with pytest.raises(PipelineError, match="has a test part of its own"):
        set_test_aside(small_examples(), SPEC, FoldsConfig(test_share=0.2), seed=0)


@pytest.mark.parametrize(
    ("settings_", "key"),
    [
        ({"holdout": 0.2, "judge": "a"}, "folds.judge"),
        ({"holdout": 0.2, "column": "a"}, "folds.column"),
        ({"column": "a", "judge": "b"}, "folds.judge"),
        ({"test_share": 0.9}, "folds.test_share"),
    ],
)
def test_two_ways_to_divide_at_once_are_refused(settings_, key):
    with pytest.raises(PipelineError, match=key):
        FoldsConfig(**settings_)
