"""Tests of the leak audit: every planted leak is found and named, clean data passes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from kaggle_pipeline.config.experiment import LeakageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.leakage.audit import (
    audit_groups,
    audit_leakage,
    check_features,
    drop_duplicates,
)
from kaggle_pipeline.leakage.fingerprints import (
    equal_pairs,
    fingerprint_images,
    fingerprint_table,
    known_pairs,
    near_pairs,
)
from kaggle_pipeline.leakage.target_leakage import single_feature_table

NO_PAIRS = pd.DataFrame({"first": [], "second": []}, dtype=object)


@pytest.fixture
def examples(small_examples):
    return small_examples(patients=40, images=5)


@pytest.fixture
def audit(spec, small_folds):
    """``audit(examples, **changes)``: the report on examples, clean but for what was changed."""

    def run(examples, *, pairs=NO_PAIRS, fingerprints=None, features=None, folds=None, **changes):
        used = changes.pop("spec", spec)
        groups_split = changes.pop("groups_split", False)
        return audit_leakage(
            examples,
            used,
            folds or small_folds(examples),
            pairs,
            fingerprints,
            used.features if features is None else features,
            LeakageConfig(**changes),
            groups_split=groups_split,
        )

    return run


def finding(report, words):
    """The one finding whose check holds these words."""
    (found,) = [one for one in report.findings if words in one.check]
    return found


def make_pairs(*pairs):
    return pd.DataFrame(pairs, columns=["first", "second"], dtype=object)


def refusal(call, *arguments):
    with pytest.raises(PipelineError) as caught:
        call(*arguments)
    return str(caught.value)


def train_ids(examples, *, same_group):
    """Two training ids of one patient, or of two."""
    train = split_rows(examples, "train")
    other = train["group_id"] == train["group_id"].iloc[0]
    return train.index[0], train.index[1] if same_group else train.index[~other][0]


# ---------------------------------------------------------------------------- clean data


def test_clean_data_pass_and_say_so(audit, examples):
    report = audit(examples)
    report.stop_on_leak()
    assert {one.status for one in report.findings} <= {"ok", "note", "not checkable"}
    for words in ("patient in train and test", "patient in two folds", "same photo in two folds"):
        assert finding(report, words).status == "ok"


def test_report_is_plain_json(audit, examples):
    content = json.loads(json.dumps(audit(examples).to_mapping(), allow_nan=False))
    assert set(content) == {"findings", "shared_groups", "single_features"}
    assert content["findings"][0]["check"] == "patient in train and test"


def test_shared_groups_are_counted(audit, examples, small_folds):
    folds = small_folds(examples)
    shared = audit(examples, folds=folds).shared_groups
    assert set(shared) == {"fold 0", "fold 1", "fold 2", "test"}
    for one, row in shared.items():
        for other, count in row.items():
            assert (count > 0) == (one == other)
    assert shared["test"]["test"] == split_rows(examples, "test")["group_id"].nunique()
    fold = examples.loc[folds.valid_ids(1), "group_id"]
    assert shared["fold 1"]["fold 1"] == fold.nunique()


# ---------------------------------------------------------------------------- groups


@pytest.fixture
def patient_in_both(examples):
    """Examples whose first training patient owns a test image, and that patient."""
    patient = split_rows(examples, "train")["group_id"].iloc[0]
    examples.loc[split_rows(examples, "test").index[0], "group_id"] = patient
    return examples, patient


def test_patient_in_train_and_test_stops_at_once(patient_in_both, spec):
    examples, patient = patient_in_both
    report = audit_groups(examples, spec)
    line = refusal(report.stop_on_leak)
    assert f"patient {patient} is in train and in test" in line and "same part" in line
    assert report.shared_groups["train"]["test"] == 1


def test_patient_in_train_and_test_is_in_the_report(patient_in_both, audit):
    examples, patient = patient_in_both
    report = audit(examples)
    found = finding(report, "patient in train and test")
    assert (found.status, found.rows) == ("leak", [patient])
    assert patient in refusal(report.stop_on_leak)
    assert max(count for part, count in report.shared_groups["test"].items() if part != "test") == 1


def test_patient_in_two_folds_is_found_even_if_the_fold_table_hides_it(audit, examples):
    # A fold table that was made with other group ids, each image its own.
    train = split_rows(examples, "train")
    table = pd.DataFrame({"group_id": train.index, "fold": np.arange(len(train)) % 3}, train.index)
    report = audit(examples, folds=Folds(table))
    found = finding(report, "patient in two folds")
    assert found.status == "leak"
    assert train["group_id"].iloc[0] in found.rows
    assert "is in two folds" in refusal(report.stop_on_leak)


def test_a_split_by_image_that_was_asked_for_is_noted_and_does_not_stop(audit, patient_in_both):
    examples, _ = patient_in_both
    train = split_rows(examples, "train")
    table = pd.DataFrame({"group_id": train.index, "fold": np.arange(len(train)) % 3}, train.index)
    report = audit(examples, folds=Folds(table), groups_split=True)
    for words in ("patient in train and test", "patient in two folds"):
        found = finding(report, words)
        assert found.status == "note" and "optimistic" in found.detail and found.rows
    report.stop_on_leak()


def test_without_groups_nothing_is_called_passed(audit, examples, spec):
    examples["group_id"] = examples.index
    report = audit(examples, spec=replace(spec, group=None))
    groups = [one for one in report.findings if "group in" in one.check]
    assert [one.status for one in groups] == ["not checkable"] * 2
    assert report.shared_groups == {}
    report.stop_on_leak()


# ---------------------------------------------------------------------------- features


def test_feature_that_is_the_target_stops(audit, examples, spec):
    features = [*spec.features, "target"]
    assert "target is the target" in refusal(check_features, examples, spec, features)
    assert "target is the target" in refusal(audit(examples, features=features).stop_on_leak)


def test_feature_known_in_train_only_stops(examples, spec):
    features = [*spec.features, "diagnosis"]
    message = refusal(check_features, examples, spec, features)
    assert "diagnosis" in message
    assert "known in train only" in message
    assert "settles the target" in message


def plant(examples, values):
    """Add a column ``planted``; ``values`` gets the true targets, drawn for test rows too."""
    rng = np.random.default_rng(0)
    truth = examples["target"].fillna(pd.Series(rng.random(len(examples)) < 0.2, examples.index))
    return examples.assign(planted=values(truth.to_numpy(float), rng))


GIVEAWAYS = {
    "a copy under another name": lambda truth, rng: np.where(truth == 1, "malignant", "benign"),
    "two values for each class": lambda truth, rng: 2 * truth + rng.integers(0, 2, len(truth)),
    "known for positives only": lambda truth, rng: np.where(truth == 1, "thick", None),
    "missing for positives only": lambda truth, rng: np.where(truth == 1, np.nan, 3.0),
    "known for positives only, all different": lambda truth, rng: np.where(
        truth == 1, rng.random(len(truth)), np.nan
    ),
    "a score that separates": lambda truth, rng: truth + 0.9 * rng.random(len(truth)),
}


@pytest.mark.parametrize("name", GIVEAWAYS)
def test_feature_that_settles_the_target_stops(examples, spec, name):
    planted = plant(examples, GIVEAWAYS[name])
    message = refusal(check_features, planted, spec, [*spec.features, "planted"])
    assert "column planted settles the target" in message


@pytest.mark.parametrize(
    "values",
    [
        lambda truth, rng: rng.random(len(truth)),
        lambda truth, rng: rng.choice(["a", "b", "c"], len(truth)),
        lambda truth, rng: truth + rng.normal(0, 1, len(truth)),
        lambda truth, rng: np.arange(len(truth)),
        lambda truth, rng: np.full(len(truth), "same"),
    ],
    ids=["noise", "categories", "a fair feature", "a counter", "a constant"],
)
def test_honest_feature_passes(examples, spec, values):
    check_features(plant(examples, values), spec, [*spec.features, "planted"])


def test_giveaway_that_no_model_uses_is_noted_and_does_not_stop(audit, examples):
    report = audit(examples)
    found = finding(report, "columns that give the target away")
    assert found.status == "note"
    assert "diagnosis" in found.detail
    assert "not used" in found.detail
    report.stop_on_leak()


# ---------------------------------------------------------------------------- duplicates


def test_known_pairs_keep_only_pairs_that_are_here(examples):
    one, two = train_ids(examples, same_group=False)
    official = make_pairs((one, two), (one, "GONE"), (two, two))
    pairs = known_pairs(examples, official, None)
    assert pairs.to_numpy().tolist() == [[one, two]]
    assert known_pairs(examples, None, None).empty


def test_official_pairs_are_dropped(examples):
    one, two = train_ids(examples, same_group=False)
    kept, found = drop_duplicates(examples, make_pairs((one, two)), "drop")
    assert set(examples.index) - set(kept.index) == {two}
    assert found.status == "note"
    assert found.rows == [two]


def test_one_photo_of_every_set_of_copies_stays(examples):
    a, b, c = examples.index[:3]
    kept, _ = drop_duplicates(examples, make_pairs((a, b), (a, c), (b, c)), "drop")
    assert set(examples.index) - set(kept.index) == {b, c}


def test_a_pair_known_both_officially_and_by_bytes_leaves_one_photo(examples):
    one, two = train_ids(examples, same_group=False)
    prints = pd.DataFrame({"sha256": ["same", "same"]}, index=[one, two])
    # The official list may name the pair the other way round.
    pairs = known_pairs(examples, make_pairs((two, one)), prints)
    kept, found = drop_duplicates(examples, pairs, "drop")
    assert len({one, two} & set(kept.index)) == 1
    assert "1 training photos dropped" in found.detail


def test_same_photo_of_two_patients_stops_and_says_how_to_go_on(examples, audit):
    one, two = train_ids(examples, same_group=False)
    kept, found = drop_duplicates(examples, make_pairs((one, two)), "stop")
    assert len(kept) == len(examples)
    assert found.status == "leak"
    for words in (one, two, "leakage.duplicates=drop"):
        assert words in found.detail


def test_same_photo_twice_of_one_patient_is_noted(examples):
    pair = make_pairs(train_ids(examples, same_group=True))
    kept, found = drop_duplicates(examples, pair, "stop")
    assert len(kept) == len(examples)
    assert found.status == "note"
    assert "0 of them in two groups" in found.detail


def test_keep_keeps_and_notes(examples):
    kept, found = drop_duplicates(
        examples, make_pairs(train_ids(examples, same_group=False)), "keep"
    )
    assert len(kept) == len(examples)
    assert found.status == "note"


def test_no_pair_is_ok(examples):
    kept, found = drop_duplicates(examples, NO_PAIRS, "stop")
    assert kept is examples
    assert found.status == "ok"


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_photo_in_train_and_test_the_training_copy_is_dropped(examples, audit, turned):
    one, two = split_rows(examples, "train").index[0], split_rows(examples, "test").index[0]
    pairs = make_pairs((two, one) if turned else (one, two))
    kept, found = drop_duplicates(examples, pairs, "drop")
    assert set(examples.index) - set(kept.index) == {one}
    assert found.status == "note" and "1 with a test photo" in found.detail
    after = audit(kept, pairs=pairs, duplicates="drop")
    assert finding(after, "same photo in train and test").status == "ok"


@pytest.mark.parametrize(("policy", "status"), [("stop", "leak"), ("keep", "note")])
@pytest.mark.parametrize("turned", [False, True])
def test_same_photo_in_train_and_test(examples, audit, policy, status, turned):
    one, two = split_rows(examples, "train").index[0], split_rows(examples, "test").index[0]
    pairs = make_pairs((two, one) if turned else (one, two))
    kept, _ = drop_duplicates(examples, pairs, policy)
    assert len(kept) == len(examples)  # dropping a test row is not ours to do
    found = finding(audit(examples, pairs=pairs, duplicates=policy), "same photo in train and test")
    assert found.status == status
    assert one in found.detail
    assert two in found.detail


@pytest.mark.parametrize(
    ("policy", "status"), [("stop", "leak"), ("drop", "leak"), ("keep", "note")]
)
def test_same_photo_in_two_folds(examples, audit, small_folds, policy, status):
    folds = small_folds(examples)
    one, two = folds.valid_ids(0)[0], folds.valid_ids(1)[0]
    report = audit(examples, pairs=make_pairs((one, two)), folds=folds, duplicates=policy)
    found = finding(report, "same photo in two folds")
    assert found.status == status
    assert one in found.detail
    assert two in found.detail


def test_same_photo_in_one_fold_is_ok(examples, audit, small_folds):
    folds = small_folds(examples)
    report = audit(examples, pairs=make_pairs(tuple(folds.valid_ids(0)[:2])), folds=folds)
    assert finding(report, "same photo in two folds").status == "ok"


def test_same_photo_train_only_and_judged_is_a_leak(examples, audit, small_folds):
    folds = small_folds(examples)
    one, two = folds.valid_ids(0)[0], folds.valid_ids(1)[0]
    with_extra = Folds(folds.table.assign(fold=folds.table["fold"].replace(1, -1)))
    report = audit(examples, pairs=make_pairs((one, two)), folds=with_extra)
    assert finding(report, "same photo in two folds").status == "leak"


# ---------------------------------------------------------------------------- fingerprints


def smooth_photo(seed, side=64):
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))


@pytest.fixture
def photos(tmp_path):
    """Five files: b is a byte for byte, c is a compressed anew, d and e are others."""
    for name, seed in (("a", 0), ("d", 1), ("e", 2)):
        smooth_photo(seed).save(tmp_path / f"{name}.jpg", quality=92)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    Image.open(tmp_path / "a.jpg").save(tmp_path / "c.jpg", quality=70)
    return pd.Series({name: f"{name}.jpg" for name in "abcde"}), tmp_path


def test_fingerprints_find_equal_bytes_and_recompression(photos):
    paths, folder = photos
    table = fingerprint_table(list(fingerprint_images(paths, folder, workers=1)))
    assert list(table.index) == list("abcde")
    assert table["width_px"].tolist() == [64] * 5
    assert equal_pairs(table).to_numpy().tolist() == [["a", "b"]]
    near = {tuple(pair) for pair in near_pairs(table, 2).to_numpy()}
    assert {("a", "b"), ("a", "c"), ("b", "c")} == near


def test_fingerprints_do_not_depend_on_the_number_of_workers(photos):
    paths, folder = photos
    one, two = (list(fingerprint_images(paths, folder, workers=n)) for n in (1, 2))
    assert one == two


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_broken_photo_is_named(photos, damage):
    paths, folder = photos
    broken = folder / "d.jpg"
    if damage == "truncated":
        broken.write_bytes(broken.read_bytes()[:500])
    else:
        broken.unlink()
    with pytest.raises(PipelineError) as caught:
        list(fingerprint_images(paths, folder, workers=1))
    assert str(broken) in str(caught.value)


def test_official_duplicates_of_the_synthetic_set_are_near(competition, spec):
    folder = competition / "competition"
    raw = spec.read_raw(folder)
    examples = validate_examples(raw.examples, spec)
    pairs = raw.duplicate_pairs.set_axis(["first", "second"], axis=1)
    ids = [*pairs["first"], *pairs["second"], *examples.index[:20]]
    paths = examples.loc[list(dict.fromkeys(ids)), "image_path"]
    table = fingerprint_table(list(fingerprint_images(paths, folder, workers=1)))
    assert equal_pairs(table).empty  # compressed anew: no byte comparison finds them
    near = {frozenset(pair) for pair in near_pairs(table, 4).to_numpy()}
    assert {frozenset(pair) for pair in pairs.to_numpy()} <= near


@pytest.mark.parametrize("bits", [0, 2, 8])
def test_near_pairs_are_those_of_a_plain_double_loop(bits):
    # More rows than a block of 256, hashes that differ from a few ancestors in some bits.
    rng = np.random.default_rng(bits)
    ancestors = [int(code) for code in rng.integers(0, 2**63, 40)]
    codes = []
    for _ in range(300):
        code = ancestors[rng.integers(40)]
        for bit in rng.integers(0, 64, rng.integers(0, 5)):
            code ^= 1 << int(bit)
        codes.append(code)
    table = pd.DataFrame(
        {"phash": [f"{code:016x}" for code in codes]}, [f"i{n}" for n in range(300)]
    )
    expected = {
        (f"i{i}", f"i{j}")
        for j in range(300)
        for i in range(j)
        if (codes[i] ^ codes[j]).bit_count() <= bits
    }
    found = [tuple(pair) for pair in near_pairs(table, bits).to_numpy()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert expected


def prints_of(examples, **same):
    """Fingerprints of all examples, all far apart but for the hashes given by id."""
    rng = np.random.default_rng(0)
    hashes = [f"{int(code):016x}" for code in rng.integers(0, 2**63, len(examples))]
    table = pd.DataFrame({"phash": hashes, "sha256": hashes}, index=examples.index)
    for image_id, code in same.items():
        table.loc[image_id, "phash"] = code
    return table


def test_near_photos_of_two_patients_are_noted(examples, audit):
    one, two = train_ids(examples, same_group=False)
    prints = prints_of(examples, **{one: "00000000000000f0", two: "00000000000000f1"})
    found = finding(audit(examples, fingerprints=prints), "near-equal photos")
    assert found.status == "note"
    assert one in found.detail
    assert two in found.detail
    strict = finding(audit(examples, fingerprints=prints, near_bits=0), "near-equal photos")
    assert strict.status == "ok"


def test_near_photos_of_one_patient_are_ok(examples, audit):
    one, two = train_ids(examples, same_group=True)
    prints = prints_of(examples, **{one: "00000000000000f0", two: "00000000000000f0"})
    assert finding(audit(examples, fingerprints=prints), "near-equal photos").status == "ok"


def test_without_images_near_photos_are_not_checkable(examples, audit):
    found = finding(audit(examples), "near-equal photos")
    assert (found.status, found.detail) == ("not checkable", "photos were not read")


# ---------------------------------------------------------------------------- shortcuts


@pytest.fixture
def with_size(examples):
    """Photos of positives come from another camera."""
    rng = np.random.default_rng(0)
    positive = examples["target"].fillna(0).to_numpy() == 1
    width = np.where(positive & (rng.random(len(examples)) < 0.9), 1024, 6000)
    return examples.assign(width_px=width, height_px=1000)


def test_shortcut_planted_in_the_width_is_found(with_size, spec, small_folds):
    rows = single_feature_table(with_size, spec, small_folds(with_size))
    by_name = {row["feature"]: row for row in rows}
    assert by_name["width_px"]["oof_auc"] > 0.85
    assert by_name["width_px"]["acquisition"]
    assert by_name["width_px × height_px"]["oof_auc"] > 0.85
    assert by_name["height_px"]["oof_auc"] == 0.5
    assert not by_name["age_years"]["acquisition"]
    assert {*spec.features, "all declared features"} <= set(by_name)
    assert [row["oof_auc"] for row in rows] == sorted(
        (row["oof_auc"] for row in rows), reverse=True
    )


def test_shortcut_is_noted_and_called_used_where_it_is(with_size, audit, spec):
    found = finding(audit(with_size), "only reflect acquisition")
    assert found.status == "note"
    assert "width_px (AUC 0." in found.detail
    assert "not used" in found.detail
    used = audit(with_size, features=[*spec.features, "width_px"])
    assert "a model USES them" in finding(used, "only reflect acquisition").detail


def test_size_that_says_nothing_is_ok(examples, audit):
    rng = np.random.default_rng(0)
    sizes = examples.assign(width_px=rng.choice([640, 1024, 6000], len(examples)), height_px=480)
    assert finding(audit(sizes), "only reflect acquisition").status == "ok"


def test_unknown_size_is_not_checkable(examples, audit):
    assert finding(audit(examples), "only reflect acquisition").status == "not checkable"


def test_noise_alone_reaches_nothing(examples, spec, small_folds):
    rng = np.random.default_rng(0)
    noise = examples.assign(age_years=rng.random(len(examples)))
    rows = single_feature_table(noise, spec, small_folds(noise))
    age = next(row for row in rows if row["feature"] == "age_years")
    assert abs(age["oof_auc"] - 0.5) < 0.12


def test_shortcut_is_not_called_absent_where_nothing_could_be_judged(with_size, audit, small_folds):
    # All positives in one fold: no fold can be learnt for or judged.
    folds = small_folds(with_size)
    train = split_rows(with_size, "train")
    holds = train.groupby("group_id")["target"].max()
    fold = train["group_id"].map(holds).map({1.0: 0, 0.0: 1})
    found = finding(
        audit(with_size, folds=Folds(folds.table.assign(fold=fold))), "only reflect acquisition"
    )
    assert found.status == "not checkable"
