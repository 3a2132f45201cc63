"""Tests of other collections' rows: translated, rid of known photos, learned from, never judged."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers_image import tiny_config
from PIL import Image

from kaggle_pipeline.config.experiment import (
    ExamplesConfig,
    Experiment,
    ExternalConfig,
    FoldsConfig,
    LeakageConfig,
    RecordsConfig,
)
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL, split_rows
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.datasets.external import (
    MEANINGS,
    TRANSLATIONS,
    read_external,
    translate_labels,
)
from kaggle_pipeline.leakage.known_external import drop_known, drop_same_id
from kaggle_pipeline.models.cross_validation import cross_validate
from kaggle_pipeline.models.image.fit.training import training_rows
from kaggle_pipeline.records.convert import plan_shards
from kaggle_pipeline.records.tfrecords import list_shards, read_records
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run

SIIM = get_spec("siim_isic_2020")


@pytest.fixture(scope="module")
def places(tmp_path_factory, competition, collections):
    """The drawn competition's folder; HAM10000, ISIC 2017 and 2019 lie beside it, made up too."""
    root = shutil.copytree(collections, tmp_path_factory.mktemp("collections") / "all")
    return shutil.copytree(competition / "competition", root / "own")


def wanted(*names, **changes):
    return tuple(ExternalConfig(name, f"../{name}/competition", **changes) for name in names)


@pytest.mark.parametrize("name", list(TRANSLATIONS))
def test_every_class_and_site_of_a_collection_has_a_word_here(name):
    source, words = get_spec(name), TRANSLATIONS[name]
    assert set(words.diagnoses.values()) | {words.rest} <= set(SIIM.diagnoses.words)
    assert set(source.classes) == set(words.diagnoses) == set(MEANINGS[name].classes)
    for one, diseases in MEANINGS[name].classes.items():
        assert (words.diagnoses[one] == "melanoma") == ("melanoma" in diseases)
    sites = source.categorical.get("site", ())
    translated = words.values.get("site", {})
    assert set(translated) <= set(sites) and set(words.values) <= {"site"}
    assert {translated.get(site, site) for site in sites} <= set(SIIM.categorical["site"])


def test_rows_are_told_in_this_data_sets_words(places, spec):
    found = read_external(wanted("ham10000", "isic_2017", weight=0.5), places, spec)
    rows = found.table
    assert not found.notes  # melanoma or not is told by all of them
    ham = get_spec("ham10000").read_raw(places.parent / "ham10000/competition").examples
    ham = ham.set_index("image_id").loc[rows.index[rows["source"] == "ham10000"]]
    mine = rows.loc[ham.index]
    assert (mine["target"] == ham["mel"]).all() and 0 < mine["target"].sum() < len(mine)
    assert (mine["group_id"] == "ham10000:" + ham["group_id"]).all()
    assert (mine["diagnosis"][ham["nv"] == 1] == "nevus").all()
    assert (mine["age_years"].dropna() == ham["age_years"].dropna().astype(float)).all()
    assert mine["site"][ham["site"] == "back"].eq("torso").all() and "back" in set(ham["site"])
    skin = rows[rows["source"] == "isic_2017"]
    assert {"melanoma", "seborrheic keratosis", "nevus"} == set(skin["diagnosis"])
    assert skin["site"].isna().all()  # it tells none
    assert set(rows["split"]) == {EXTERNAL} and set(rows["row_weight"]) == {0.5}
    assert all((places / path).is_file() for path in rows["image_path"])


def test_a_photo_that_two_collections_have_is_taken_once(places, spec):
    """ISIC 2019 holds HAM10000, under the same ids, some at a smaller size and marked so."""
    table = places.parent / "isic_2019/competition/ISIC_2019_Training_GroundTruth.csv"
    ids = pd.read_csv(table)["image"]
    both = read_external(wanted("isic_2019", "ham10000"), places, spec).table
    assert set(both["source"]) == {"isic_2019"} and set(both.index) == set(ids)
    assert both["site"].notna().any() and {"squamous cell carcinoma"} <= set(both["diagnosis"])


def test_what_cannot_be_an_external_collection_is_said(places, spec):
    for one, config, message in (
        (spec, ExternalConfig("siim_isic_2020", "../x"), "cannot be translated; know ham10000"),
        (spec, ExternalConfig("ham10000", "../none"), "no folder .*none: get it from"),
        (get_spec("ham10000"), wanted("ham10000")[0], "'ham10000' cannot be translated; know is"),
        (replace(spec, id="moles"), wanted("ham10000")[0], "the classes of moles stand for; known"),
    ):
        with pytest.raises(PipelineError, match=message):
            read_external([config], places, one)
    with pytest.raises(PipelineError, match=r"external\.weight is 0, must be in \(0, 10\]"):
        ExternalConfig("ham10000", "x", weight=0)


def labels_of(name, *classes):
    """A row for each class of a collection, ``""`` for none of them."""
    every = get_spec(name).classes
    rows = [[float(one == column) for column in every] for one in classes]
    return pd.DataFrame(rows, list(classes), list(every))


NAN = float("nan")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("ham10000", "isic_2017", {"mel": (1, 0), "nv": (0, 0), "bkl": (0, NAN), "df": (0, 0)}),
        ("isic_2019", "isic_2017", {"MEL": (1, 0), "BKL": (0, NAN), "SCC": (0, 0)}),
        ("isic_2017", "siim_isic_2020", {"melanoma": (1,), "seborrheic_keratosis": (0,), "": (0,)}),
        ("isic_2017", "ham10000", {
            "melanoma": (1, 0, 0, 0, 0, 0, 0), "seborrheic_keratosis": (0, 0, 0, 0, 1, 0, 0),
            "": (0, 1, 0, 0, 0, 0, 0),
        }),
        ("isic_2019", "ham10000", {
            "AK": (0, 0, 0, 1, 0, 0, 0), "BKL": (0, 0, 0, 0, 1, 0, 0),
            "SCC": (0, 0, 0, NAN, 0, 0, 0),  # Bowen's disease is akiec there, the others nothing
        }),
    ],
)  # fmt: skip
def test_what_a_collection_cannot_tell_is_missing_and_not_no(source, target, expected):
    spec = get_spec(target)
    found = pd.DataFrame(translate_labels(labels_of(source, *expected), source, spec))
    np.testing.assert_array_equal(found.to_numpy(), np.array(list(expected.values()), float))
    assert list(found.columns) == list(spec.classes)


def test_every_class_stands_for_diseases_of_its_own():
    for name, meaning in MEANINGS.items():
        assert set(meaning.classes) == set(get_spec(name).classes)
        every = [disease for one in (*meaning.classes.values(), meaning.rest) for disease in one]
        assert len(every) == len(set(every)), name


def test_rows_that_teach_a_task_nothing_are_left_out_and_counted(places):
    told = pd.read_csv(places.parent / "isic_2019/competition/ISIC_2019_Training_GroundTruth.csv")
    found = read_external(wanted("isic_2019"), places, get_spec("ham10000"))
    lost = int(told["SCC"].sum())
    assert lost and len(found.table) == len(told) - lost
    assert found.notes == [f"isic_2019: {lost} photos are of no class of ham10000: left out"]
    found = read_external(wanted("ham10000"), places, get_spec("isic_2017"))
    missing = found.table["seborrheic_keratosis"].isna()
    ham = get_spec("ham10000").read_raw(places.parent / "ham10000/competition").examples
    assert missing.sum() == ham["bkl"].sum() > 0 and found.table["melanoma"].notna().all()
    assert f"does not tell seborrheic_keratosis for {missing.sum()} of 90" in found.notes[0]


def hashes(rows):
    """Fingerprints far from each other: id -> (bytes, perceptual hash)."""
    codes = np.random.default_rng(0).integers(0, 2**63, len(rows))
    table = {"sha256": [f"{code:064x}" for code in codes], "phash": [f"{c:016x}" for c in codes]}
    return pd.DataFrame(table, index=rows)


def test_planted_copies_are_dropped_by_id_list_bytes_and_look(small_examples):
    own = small_examples()
    rows = pd.DataFrame(
        {"source": ["ham10000"] * 6 + ["isic_2017"] * 2},
        index=[own.index[-1], *["listed", "bytes", "look", "twin", "alone", "copy", "free"]],
    )
    rows["group_id"] = rows["source"] + ":" + rows.index
    photos = hashes(own.index.append(rows.index[1:]))
    photos.loc["bytes", "sha256"] = photos["sha256"].iloc[3]
    near = int(photos["phash"].iloc[4], 16) ^ 0b11
    photos.loc["look", "phash"] = f"{near:016x}"
    photos.loc["twin", "phash"] = photos.loc["alone", "phash"]  # alike within one collection
    photos.loc["copy", "sha256"] = photos.loc["alone", "sha256"]
    official = pd.DataFrame({"a": ["listed"], "b": [own.index[7]]})
    rest, finding = drop_known(rows, own, official, photos, 2)
    assert list(rest.index) == ["twin", "alone", "free"] and finding.status == "ok"
    told = "5 dropped (1 by id, 0 by lesion, 3 by the official list or bytes, 1 by a look"
    assert told in finding.detail
    assert "of the data set's own photos they show 3 train, 1 test" in finding.detail
    assert "look" in drop_known(rows, own, official, photos, 1)[0].index
    for seen in (None, photos.loc[rows.index[1:]]):  # own photos in TFRecords: never hashed
        rest, finding = drop_known(rows, own, official, seen, 2)
        assert finding.status == "note" and "not all photos could be hashed" in finding.detail
        assert not {"listed", own.index[-1]} & set(rest.index)


def test_another_photo_of_a_lesion_that_is_scored_is_not_learned_from(small_examples):
    """HAM10000 without a part of its photos, beside ISIC 2019, which has them all."""
    own = small_examples()
    lesion = own["group_id"].iloc[0]
    groups = [f"isic_2019:{lesion}", "isic_2019:another"]
    rows = pd.DataFrame({"source": "isic_2019", "group_id": groups}, index=["sibling", "free"])
    rest, finding = drop_known(rows, own, None, hashes(own.index.append(rows.index)), 2)
    assert list(rest.index) == ["free"] and "1 by lesion" in finding.detail


def test_a_photo_that_the_data_set_holds_smaller_is_not_learned_from(small_examples):
    """ISIC 2019 writes "_downsampled" behind the archive's id; another collection does not."""
    own = small_examples()
    own = own.set_axis([f"{one}_downsampled" for one in own.index])
    ids = [own.index[0].removesuffix("_downsampled"), own.index[-1], "free"]
    rows = pd.DataFrame({"source": "isic_2017"}, index=ids)
    rows["group_id"] = rows["source"] + ":" + rows.index
    assert list(drop_same_id(rows, own).index) == ["free"]
    rest, finding = drop_known(rows, own, None, None, 2)
    assert list(rest.index) == ["free"] and "2 dropped (2 by id" in finding.detail
    assert "of the data set's own photos they show 1 train, 1 test" in finding.detail


class Witness:
    """A model that writes down what it was shown."""

    selection, inner_share = "inner", 0.3

    def __init__(self, seen):
        self.seen = seen

    def fit(self, train, valid):
        self.seen.append((set(train.index), set(valid.index)))
        return self

    def predict(self, examples):
        self.seen.append(set(examples.index))
        return pd.DataFrame({"target": 0.5}, index=examples.index)

    def save(self, folder):
        (folder / "model.json").write_text("{}")


def test_every_fold_learns_from_them_and_none_is_judged_or_watched(tmp_path, spec, small_examples):
    own = small_examples()
    outside = own.iloc[:5].assign(split=EXTERNAL).set_axis([f"X{i}" for i in range(5)])
    folds = make_folds(split_rows(own, "train"), spec, FoldsConfig(k=3), 0)
    seen = []
    examples = pd.concat([own, outside])
    cross_validate(lambda fold, place: Witness(seen), examples, spec, folds, tmp_path, seed=0)
    fits = [one for one in seen if isinstance(one, tuple)]
    assert len(fits) == 3
    for learned, validation in fits:
        assert set(outside.index) <= learned and not set(outside.index) & validation
    for predicted in seen:
        assert isinstance(predicted, tuple) or not set(outside.index) & predicted


def test_their_weight_counts_in_the_loss(spec, small_examples):
    own = split_rows(small_examples(), "train")
    lighter = np.where(np.arange(len(own)) < 4, 0.25, np.nan)
    plain = training_rows(own.assign(row_weight=lighter), tiny_config(class_weights=False), spec, 0)
    np.testing.assert_allclose(plain.weights, np.nan_to_num(lighter, nan=1.0))
    # Balanced by what rows weigh, not by how many there are.
    rows = training_rows(own.assign(row_weight=lighter), tiny_config(), spec, 0)
    positive = own["target"].to_numpy() == 1
    assert rows.weights[positive].sum() == pytest.approx(rows.weights[~positive].sum(), rel=1e-5)
    both = rows.weights[positive] / np.nan_to_num(lighter, nan=1.0)[positive]
    np.testing.assert_allclose(both, both[0], rtol=1e-5)


def test_prepare_keeps_them_out_of_the_folds_and_in_the_records(places, spec, tmp_path):
    lines = []
    config = Experiment(
        name="x", dataset="synthetic", external=wanted("ham10000"),
        leakage=LeakageConfig(duplicates="drop"), records=RecordsConfig(image_size_px=32),
    )  # fmt: skip
    run = Run(config, places, tmp_path / "run", say=lines.append)
    prepare_data(run, with_records=False)
    examples, folds = run.examples(), Folds.read(run.prepared / "folds.csv")
    outside = split_rows(examples, EXTERNAL)
    assert len(outside) == 90 and not set(outside.index) & set(folds.table.index)
    assert any("external photos that this data set has too: 0 dropped" in line for line in lines)
    stems = {name.split("0")[0] for name, _ in plan_shards(examples, config.records)}
    assert stems == {"train", "test", EXTERNAL}
    assert any("not checkable  patients of external photos" in line for line in lines)
    elsewhere = replace(config, external=(replace(config.external[0], data_dir="/mounted/ham"),))
    prepare_data(replace(run, config=elsewhere), with_records=False)  # where it lies does not count
    other = replace(config, external=wanted("ham10000", weight=0.1))
    with pytest.raises(PipelineError, match="external"):
        prepare_data(replace(run, config=other), with_records=False)


def test_their_missing_photos_stop_or_are_left_out_as_ones_own_are(places, spec, tmp_path):
    ham = shutil.copytree(places.parent / "ham10000/competition", tmp_path / "ham")
    photos = sorted(ham.rglob("*.jpg"))
    photos[0].unlink()
    external = (ExternalConfig("ham10000", str(ham)),)
    with pytest.raises(PipelineError, match=rf"{photos[0].stem} .*unreadable=drop"):
        read_external(external, places, spec)
    lines = []
    config = Experiment(
        name="x", dataset="synthetic", external=external, leakage=LeakageConfig(duplicates="drop"),
        examples=ExamplesConfig(unreadable="drop"), records=RecordsConfig(workers=1),
    )  # fmt: skip
    run = Run(config, places, tmp_path / "run", say=lines.append)
    prepare_data(run, with_records=False)
    assert any("1 rows left out, 0 of them of the test part: 1 photos" in line for line in lines)
    outside = split_rows(run.examples(), EXTERNAL)
    assert len(outside) == 89 and outside["image_path"].notna().all()
    for photo in photos[1:]:
        photo.unlink()
    with pytest.raises(PipelineError, match=r"have none\): add them") as caught:
        read_external(external, places, spec, drop=True)
    assert "unreadable" not in str(caught.value)


def test_a_shared_id_and_a_changed_table_are_noticed(places, spec, tmp_path):
    ham = tmp_path / "ham"
    shutil.copytree(places.parent / "ham10000/competition", ham)
    own = pd.read_csv(places / "train.csv")["image_name"][3]
    path = ham / "HAM10000_metadata.csv"
    table = pd.read_csv(path)
    shared = table.loc[5, "image_id"]
    for photo in ham.rglob(f"{shared}.jpg"):
        photo.rename(photo.with_name(f"{own}.jpg"))
    table.replace({"image_id": {shared: own}}).to_csv(path, index=False)
    # The names of the copy on Kaggle.
    (ham / "HAM10000_images_part1").rename(ham / "HAM10000_images_part_1")
    lines = []
    external = (ExternalConfig("ham10000", str(ham)),)
    config = Experiment(name="x", dataset="synthetic", external=external)
    run = Run(config, places, tmp_path / "run", say=lines.append)
    prepare_data(run, with_records=False)
    assert any("1 dropped (1 by id, 0 by lesion, 0 by the official list" in line for line in lines)
    assert run.examples().loc[own, "split"] == "train"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(PipelineError, match=r"HAM10000_metadata\.csv changed"):
        prepare_data(run, with_records=False)


@pytest.mark.ci
def test_own_records_and_converted_photos_of_others_are_read_together(places, spec, tmp_path):
    """Kaggle's way: the competition's TFRecords, and photos of a further collection."""
    records = RecordsConfig(image_size_px=32, workers=1)
    made = Run(
        Experiment(name="x", dataset="synthetic", records=records), places, tmp_path / "made"
    )
    prepare_data(replace(made, say=lambda line: None))
    data = tmp_path / "data"
    shutil.copytree(places, data, ignore=shutil.ignore_patterns("jpeg"))
    (made.run_dir / "records").rename(data / "tfrecords")
    external = (ExternalConfig("ham10000", str(places.parent / "ham10000/competition")),)
    config = replace(made.config, external=external)
    lines = []
    run = Run(config, data, tmp_path / "run", say=lines.append)
    prepare_data(run)
    assert any("not all photos could be hashed" in line for line in lines)
    index = pd.read_csv(run.prepared / "records.csv")
    assert index["folder"].nunique() == 2 and set(run.examples().index) <= set(index["image_id"])
    of_others = index[index["shard"].str.startswith(EXTERNAL)]
    assert len(of_others) == 90
    prepare_data(run)  # a second time the index is used again
    # Theirs are made square as those beside them were.
    changed = tmp_path / "ham"
    shutil.copytree(places.parent / "ham10000/competition", changed)
    wide = of_others["image_id"].iloc[0]
    stripes = np.repeat([[[0] * 3, [255] * 3, [0] * 3]], 32, axis=0).repeat(32, axis=1)
    for path in changed.rglob(f"{wide}.jpg"):
        Image.fromarray(stripes.astype(np.uint8)).save(path, quality=95)
    (data / "tfrecords" / "manifest.json").unlink()
    external = (ExternalConfig("ham10000", str(changed)),)
    for said, edge in (("crop", 255), ("stretch", 0)):
        settings = replace(records, given_fit=said)
        again = replace(config, external=external, records=settings)
        run = Run(again, data, tmp_path / said, say=lines.append)
        assert prepare_data(run).fit == said
        shards = [one.path for one in list_shards(run.run_dir / "records")]
        (jpeg,) = (
            record["image"] for path in shards for record in read_records(path)
            if record["image_name"] == wide
        )  # fmt: skip
        seen = np.asarray(Image.open(io.BytesIO(jpeg)))
        assert seen.shape == (32, 32, 3)
        assert abs(seen[:, :3].mean() - edge) < 40 and seen[:, 14:18].mean() > 215
    with pytest.raises(PipelineError, match="rgb with external"):
        replace(config, records=RecordsConfig(channel_order="bgr"))
