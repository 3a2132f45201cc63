"""What only real files can show; skipped where they are not at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import (
    CalibrationConfig,
    DecisionConfig,
    FoldsConfig,
    RecordsConfig,
)
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photos import read_image
from kaggle_pipeline.data.examples import drop_incomplete, split_rows, validate_examples
from kaggle_pipeline.data.folds import make_folds
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.evaluation.labelled import join_truth
from kaggle_pipeline.leakage.audit import drop_duplicates
from kaggle_pipeline.leakage.fingerprints import fingerprint_images, fingerprint_table, known_pairs
from kaggle_pipeline.leakage.target_leakage import single_feature_table

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("KAGGLE_PIPELINE_REALDATA", _BESIDE))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}"),
]
SPEC = get_spec("siim_isic_2020")


@pytest.fixture(scope="module")
def whole():
    """The competition's whole metadata."""
    raw = SPEC.read_raw(DATA / "siim_isic_2020")
    return raw, validate_examples(raw.examples, SPEC)


def test_the_whole_metadata_reads(whole):
    _, examples = whole
    train = split_rows(examples, "train")
    assert train["target"].sum() == 584 and train["group_id"].nunique() == 2056
    missing = train[["sex", "age_years", "site"]].isna().sum().to_dict()
    assert missing == {"sex": 65, "age_years": 68, "site": 527}


def test_official_duplicates_never_cross_patients_and_are_dropped(whole):
    raw, examples = whole
    pairs = known_pairs(examples, raw.duplicate_pairs, None)
    kept, finding = drop_duplicates(examples, pairs, "drop")
    assert len(examples) - len(kept) == 425
    assert "0 of them in two groups" in finding.detail


def test_folds_balance_positives_and_sizes(whole):
    train = split_rows(whole[1], "train")
    folds = make_folds(train, SPEC, FoldsConfig(k=5), seed=2020)
    by_fold = train.groupby(folds.table["fold"])["target"]
    assert np.ptp(by_fold.sum()) <= 0.1 * train["target"].sum() / 5
    assert np.ptp(by_fold.size()) <= 0.06 * len(train) / 5


def test_deottes_groups_serve_as_folds(whole):
    train = split_rows(whole[1], "train")
    folds = make_folds(train, SPEC, FoldsConfig(k=5, column="tfrecord"), seed=0)
    assert folds.numbers == [0, 1, 2, 3, 4]
    assert len(train) - len(folds.table) == (train["tfrecord"] < 0).sum() > 0


def test_image_size_alone_is_found_to_be_a_shortcut(whole):
    train = split_rows(whole[1], "train")
    folds = make_folds(train, SPEC, FoldsConfig(k=5), seed=2020)
    auc = {row["feature"]: row["oof_auc"] for row in single_feature_table(train, SPEC, folds)}
    assert auc["width_px × height_px"] > 0.75 > auc["all declared features"] > 0.6


def test_small_competition_reads_and_hashes():
    data = DATA / "siim_mini"
    examples = validate_examples(SPEC.read_raw(data).examples, SPEC)
    paths = split_rows(examples, "test")["image_path"][:40]
    table = fingerprint_table(list(fingerprint_images(paths, data, workers=1)))
    assert table["sha256"].is_unique and table["width_px"].eq(256).all()


@pytest.mark.parametrize("path", sorted((DATA / "dicom").glob("*.dcm")), ids=lambda p: p.name)
def test_every_dicom_reads_or_is_named(path):
    pytest.importorskip("pydicom")
    try:
        image = read_image(path)
    except PipelineError as error:
        assert path.name in str(error)
    else:
        assert image.mode == "RGB" and min(image.size) >= 60


def test_dicom_colours_are_those_of_the_jpeg():
    pytest.importorskip("pydicom")
    ours = read_image(DATA / "dicom" / "ISIC_0125706.dcm")
    same = read_image(DATA / "siim_mini" / "jpeg" / "train" / "ISIC_0125706.jpg")
    means = [np.asarray(image, float).mean(axis=(0, 1)) for image in (ours, same)]
    assert np.abs(means[0] - means[1]).max() < 2


def test_third_party_records_read_and_their_swap_is_undone():
    from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches
    from kaggle_pipeline.records.geometry import given_fit
    from kaggle_pipeline.records.tfrecords import check_shard, index_records, list_shards

    shards = list_shards(DATA / "tfrecords_third_party")
    for shard in shards:
        check_shard(shard)
    fit = given_fit(DATA / "tfrecords_third_party", RecordsConfig(), SPEC)
    assert (fit.fit, fit.image_size_px) == ("stretch", 512)
    index = pd.DataFrame(index_records(shards, SPEC)).set_index("image_id")
    assert len(index) == 100 and set(index["sex"].dropna()) <= {0, 1}  # -1 would be unknown
    photo = DATA / "siim_mini" / "jpeg" / "train" / "ISIC_0147869.jpg"
    truth = np.asarray(read_image(photo), float).mean(axis=(0, 1))
    found = {}
    for order in ("rgb", "bgr"):
        config = RecordsConfig(channel_order=order)
        swap = config.channel_order == "bgr"
        source = Source(SPEC, [shard.path for shard in shards], 128, swap)
        batch = next(iter(prediction_batches(source, ["ISIC_0147869"], 1)))
        found[order] = batch["image"].numpy()[0].astype(float).mean(axis=(0, 1))
    assert np.abs(found["bgr"] - truth).max() < 3
    assert np.abs(found["rgb"] - truth).max() > 20


def test_ham10000_is_read_whole():
    spec = get_spec("ham10000")
    examples = validate_examples(spec.read_raw(DATA / "ham10000").examples, spec)
    assert len(examples) == 10_015 and examples["group_id"].nunique() == 7_470
    assert examples["image_path"].notna().all()
    counts = examples[list(spec.classes)].sum().astype(int).to_dict()
    assert counts == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115
    }  # fmt: skip
    missing = examples[["age_years", "sex", "site"]].isna().sum().to_dict()
    assert missing == {"age_years": 57, "sex": 57, "site": 234}
    assert len(drop_incomplete(examples, spec)) < len(examples) - 234


@pytest.mark.ci
def test_a_holdout_of_ham10000_has_the_nearest_number_of_lesions_of_every_diagnosis():
    spec = get_spec("ham10000")
    examples = validate_examples(spec.read_raw(DATA / "ham10000").examples, spec)
    drawn = set()
    for seed in range(5):
        ids = make_folds(examples, spec, FoldsConfig(holdout=0.15), seed).valid_ids(0)
        for name in spec.classes:
            lesions = examples.loc[examples[name] > 0, "group_id"]
            labelled = lesions[lesions.index.isin(ids)].nunique()
            assert labelled == round(0.15 * lesions.nunique())
        assert len(ids) == pytest.approx(0.15 * len(examples), rel=0.02)
        drawn.add(tuple(ids))
    assert len(drawn) == 5


def test_isic_2017_is_read_whole():
    spec = get_spec("isic_2017")
    examples = validate_examples(spec.read_raw(DATA / "isic_2017").examples, spec)
    assert examples["image_path"].notna().all()
    official = examples["official_validation"].astype(bool)
    train = examples[(examples["split"] == "train") & ~official]
    assert len(train) == 2_000 and official.sum() == 150
    assert (examples["split"] == "test").sum() == 600
    assert train[list(spec.classes)].sum().to_list() == [374, 254]
    assert (train[list(spec.classes)].sum(axis=1) == 0).sum() == 1_372
    assert train["age_years"].isna().sum() == 256
    folds = make_folds(
        examples[examples["split"] == "train"], spec, FoldsConfig(judge="official_validation"), 0
    )
    assert set(folds.valid_ids(0)) == set(examples.index[official])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "before"), [("gao_b1", 0.005), ("ap1", 0.05), ("ap2", 0.18), ("ap3", 0.13)]
)
def test_public_scores_are_calibrated_for_patients_nothing_was_learned_from(whole, model, before):
    path = DATA / "siim_isic_2020" / "public_models_oof.csv"
    scores = pd.read_csv(path).set_index("image_name")[[model]].dropna()
    frame = scores.set_axis(["target"], axis=1).rename_axis("image_id")
    truth = whole[1].loc[frame.index, ["target"]]
    found = Calibration.fit(
        frame, truth, whole[1]["group_id"], SPEC, CalibrationConfig(), seed=2020, n_replicates=100
    )
    told = found.study["scores"]
    assert found.method == "temperature"
    assert told["temperature"]["ece"]["high"] < 0.004 < before < told["none"]["ece"]["low"]
    assert found.study["change"]["log_loss"]["high"] < 0
    assert found.study["change"]["auc"]["low"] > -0.003
    assert told["isotonic"]["auc"]["value"] < told["temperature"]["auc"]["value"]  # ties
    labelled = join_truth(whole[1], frame, SPEC, 2020, 100, None)
    decision = Decision.fit(labelled, found, DecisionConfig(), seed=2020)
    for one in decision.thresholds["target"]:
        reached = one["nested"]["sensitivity"]
        assert reached["low"] < one["sensitivity"] < reached["high"]
