"""Tests of the data sets: one conformance test over all of them, odd raw files, the made-up one."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.datasets import MODULES, get_spec, siim_isic_2020
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.synthetic import generate_like
from kaggle_pipeline.synthetic.siim_isic_2020 import describe
from kaggle_pipeline.synthetic.siim_isic_2020 import generate as draw

# ---------------------------------------------------------------------------- conformance

SPLITS_OF = {"ham10000": {"train"}, "isic_2019": {"train"}}
WITH_SAMPLE = {"siim_isic_2020", "synthetic"}
FIRST_TABLE = {
    "isic_2017": "ISIC-2017_Training_Part3_GroundTruth.csv",
    "ham10000": "HAM10000_metadata.csv",
    "isic_2019": "ISIC_2019_Training_GroundTruth.csv",
}


@pytest.fixture(params=list(MODULES))
def each_spec(request):
    return get_spec(request.param)


@pytest.fixture(scope="module")
def made_up(collections, competition):
    """Data set to a small raw folder in its own layout."""
    folders = dict.fromkeys(("siim_isic_2020", "synthetic"), competition)
    folders |= {name: collections / name for name in ("isic_2017", "isic_2019", "ham10000")}
    return {name: folder / "competition" for name, folder in folders.items()}


@pytest.fixture
def raw_folder(each_spec, made_up):
    return made_up[each_spec.id]


@pytest.fixture
def raw_and_examples(each_spec, raw_folder):
    """What a data set reads from a small raw tree, before and after validation."""
    raw = each_spec.read_raw(raw_folder)
    return raw, validate_examples(raw.examples, each_spec)


def test_spec_is_consistent(each_spec):
    spec = each_spec
    assert MODULES[spec.id].endswith(f".{spec.id}")
    assert spec.task in ("binary", "multilabel", "multiclass")
    assert (len(spec.classes) == 1) == (spec.task == "binary")
    assert (
        len(set(spec.features)) == len(spec.features) == len(spec.numeric) + len(spec.categorical)
    )
    for vocabulary in spec.categorical.values():
        assert len(set(vocabulary)) == len(vocabulary) >= 2
    assert set(spec.submission.columns.values()) == set(spec.classes)
    assert not {*spec.classes, *spec.acquisition, "group_id"} & set(spec.features)
    names = [field.name for field in spec.record_fields]
    assert len(set(names)) == len(names)
    assert set(spec.features) | set(spec.classes) <= {field.column for field in spec.record_fields}
    assert spec.source


def test_examples_hold_what_the_spec_declares(each_spec, raw_and_examples):
    _, table = raw_and_examples
    assert table.index.is_unique
    for column in (*each_spec.classes, *each_spec.numeric):
        assert table[column].dtype == float
    for column, vocabulary in each_spec.categorical.items():
        assert set(table[column].dropna()) <= set(vocabulary)
        assert table[column].nunique() > 1
    for column in each_spec.features:
        assert 0 < table[column].isna().mean() < 0.5
    assert set(table["split"]) == SPLITS_OF.get(each_spec.id, {"train", "test"})
    assert table["group_id"].notna().all()


def test_splits_share_no_group_and_train_has_every_class(each_spec, raw_and_examples):
    _, table = raw_and_examples
    train, test = split_rows(table, "train"), split_rows(table, "test")
    if each_spec.group is not None:
        assert not set(train["group_id"]) & set(test["group_id"])
        assert train["group_id"].nunique() < len(train)
    else:
        assert (table["group_id"] == table.index).all()
    for column in each_spec.classes:
        assert set(train[column]) == {0, 1}
    if each_spec.task == "multiclass":
        assert (train[list(each_spec.classes)].sum(axis=1) == 1).all()
    assert test[list(each_spec.classes)].isna().all(axis=None)


def test_sample_and_duplicates_speak_of_the_examples(each_spec, raw_and_examples):
    raw, table = raw_and_examples
    if each_spec.id not in WITH_SAMPLE:
        assert raw.sample_submission is None
        assert raw.duplicate_pairs is None
        return
    layout = each_spec.submission
    assert list(raw.sample_submission.columns) == [layout.id_column, *layout.columns]
    assert set(raw.sample_submission[layout.id_column]) == set(split_rows(table, "test").index)
    assert len(raw.duplicate_pairs) >= 1
    assert raw.duplicate_pairs.isin(split_rows(table, "train").index).all(axis=None)


def test_every_image_is_there(each_spec, raw_and_examples, raw_folder):
    _, table = raw_and_examples
    for image_id, path in table["image_path"].items():
        file = raw_folder / path
        assert file.stem == image_id
        assert file.is_file()


def test_data_folder_that_is_empty_says_how_to_get_the_data(each_spec, tmp_path):
    with pytest.raises(PipelineError) as caught:
        each_spec.read_raw(tmp_path)
    assert str(tmp_path / FIRST_TABLE.get(each_spec.id, "train.csv")) in str(caught.value)
    assert each_spec.source in str(caught.value)


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(PipelineError, match="'sythetic'; did you mean 'synthetic'"):
        get_spec("sythetic")


# ---------------------------------------------------------------------------- raw variants

TRAIN = pd.DataFrame(
    {
        "image_name": ["I1", "I2", "I3"],
        "patient_id": ["P1", "P1", "P2"],
        "sex": ["male", "male", "female"],
        "age_approx": [45.0, 50.0, 70.0],
        "anatom_site_general_challenge": ["torso", "head/neck", "palms/soles"],
        "target": [0, 1, 0],
    }
)
TEST = pd.DataFrame(
    {
        "image_name": ["I4"],
        "patient_id": ["P3"],
        "sex": ["male"],
        "age_approx": [30.0],
        "anatom_site_general_challenge": ["torso"],
    }
)


def write_raw(folder, train=TRAIN, test=TEST, **others):
    for name, table in {"train": train, "test": test, **others}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def read(folder, spec):
    return validate_examples(spec.read_raw(folder).examples, spec)


def refusal(folder, spec):
    with pytest.raises(PipelineError) as caught:
        read(folder, spec)
    return str(caught.value)


def test_tables_alone_are_enough(tmp_path, spec):
    raw = spec.read_raw(write_raw(tmp_path))
    assert raw.sample_submission is None
    assert raw.duplicate_pairs is None
    table = validate_examples(raw.examples, spec)
    assert list(table.index) == ["I1", "I2", "I3", "I4"]
    assert table["image_path"].isna().all()


def test_columns_of_the_resplit_versions_are_read(tmp_path, spec):
    train = TRAIN.assign(tfrecord=[0, 0, -1], width=[6000, 1024, 640], height=[4000, 768, 480])
    table = read(write_raw(tmp_path, train), spec)
    assert table["width_px"].tolist()[:3] == [6000, 1024, 640]
    assert table["height_px"].tolist()[:3] == [4000, 768, 480]
    assert table["tfrecord"].tolist()[:3] == [0, 0, -1]
    assert table.loc["I4", ["width_px", "tfrecord"]].isna().all()


def test_sizes_beside_the_tables_are_joined_by_name(tmp_path, spec):
    sizes = pd.DataFrame(
        {"image_name": ["I3", "I1", "I2"], "width": [3, 1, 2], "height": 9, "tfrecord": [2, 0, 0]}
    )
    table = read(write_raw(tmp_path, train_image_sizes=sizes), spec)
    assert table["width_px"].tolist()[:3] == [1, 2, 3]
    assert table["tfrecord"].tolist()[:3] == [0, 0, 2]


def test_sizes_in_the_table_itself_come_first(tmp_path, spec):
    sizes = pd.DataFrame({"image_name": ["I1"], "width": [9], "height": [9]})
    train = TRAIN.assign(width=[1, 2, 3], height=5)
    table = read(write_raw(tmp_path, train, train_image_sizes=sizes), spec)
    assert table["width_px"].tolist()[:3] == [1, 2, 3]


def test_sizes_that_list_an_image_twice_are_refused(tmp_path, spec):
    sizes = pd.DataFrame({"image_name": ["I1", "I1"], "width": [1, 2], "height": [1, 2]})
    assert "train_image_sizes.csv" in refusal(write_raw(tmp_path, train_image_sizes=sizes), spec)


def test_sizes_that_lack_an_image_are_refused(tmp_path, spec):
    """Their ids end in .jpg, say: no size would be known, without a word."""
    sizes = pd.DataFrame({"image_name": ["I1.jpg", "I2", "I3.jpg"], "width": 1, "height": 2})
    said = refusal(write_raw(tmp_path, train_image_sizes=sizes), spec)
    assert "train_image_sizes.csv has no row for 2 of 3 images, such as I1; its first" in said
    assert "I1.jpg" in said


@pytest.mark.parametrize(
    ("dataset", "name", "column"),
    [("isic_2017", "ISIC-2017_Training_Data_metadata.csv", "image_id"),
     ("isic_2019", "ISIC_2019_Training_Metadata.csv", "image")],
)  # fmt: skip
def test_metadata_whose_ids_are_written_otherwise_is_refused(tmp_path, dataset, name, column):
    generate_like(dataset, tmp_path, images=60, image_size_px=16, seed=0, workers=1)
    (path,) = tmp_path.rglob(name)
    table = pd.read_csv(path, dtype=str)
    first = table[column].iloc[0]
    table.assign(**{column: table[column] + ".jpg"}).to_csv(path, index=False)
    with pytest.raises(PipelineError, match=rf"no row for \d+ of \d+ images.*{first}\.jpg") as said:
        get_spec(dataset).read_raw(tmp_path / "competition")
    assert name in str(said.value)


@pytest.mark.parametrize("unknown", ["unknown", "-1", -1, "", "nan", None])
@pytest.mark.parametrize("column", ["sex", "anatom_site_general_challenge", "age_approx"])
def test_every_spelling_of_missing_is_missing(tmp_path, spec, column, unknown):
    train = TRAIN.astype({column: object})
    train.loc[1, column] = unknown
    table = read(write_raw(tmp_path, train), spec)
    name = {"sex": "sex", "age_approx": "age_years"}.get(column, "site")
    assert table[name].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize("unknown", ["unknown", -1, None])
@pytest.mark.parametrize("column", ["sex", "anatom_site_general_challenge", "age_approx"])
def test_a_column_that_is_missing_in_all_test_rows(tmp_path, spec, column, unknown):
    table = read(write_raw(tmp_path, test=TEST.assign(**{column: unknown})), spec)
    name = {"sex": "sex", "age_approx": "age_years"}.get(column, "site")
    assert table[name].isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "column",
    ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "target"],
)
def test_missing_column_names_file_and_column(tmp_path, spec, column):
    message = refusal(write_raw(tmp_path, TRAIN.drop(columns=column)), spec)
    assert str(tmp_path / "train.csv") in message
    assert repr(column) in message


def test_missing_column_of_the_test_table_is_named(tmp_path, spec):
    message = refusal(write_raw(tmp_path, test=TEST.drop(columns="sex")), spec)
    assert str(tmp_path / "test.csv") in message
    assert "'sex'" in message


@pytest.mark.parametrize(
    "content",
    [b"", b'image_name,target\n"I1', b"image_name\nI1,1,2\nI2,1,2,3,4\n", b"\xff\xd8\xff\xe0\x00"],
    ids=["empty", "open quote", "ragged", "binary"],
)
@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_file_that_is_no_csv_is_named_in_one_line(tmp_path, spec, name, content):
    write_raw(tmp_path, sample_submission=pd.DataFrame({"image_name": ["I4"], "target": [0]}))
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, spec)
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_ids_that_look_like_numbers_stay_text(tmp_path, spec):
    train = TRAIN.assign(image_name=["001", "1e3", "12"], patient_id=["07", "07", "7"])
    table = read(write_raw(tmp_path, train), spec)
    assert list(table.index[:3]) == ["001", "1e3", "12"]
    assert table["group_id"].tolist()[:3] == ["07", "07", "7"]


def test_image_in_train_and_test_is_refused(tmp_path, spec):
    message = refusal(write_raw(tmp_path, test=TEST.assign(image_name="I2")), spec)
    assert "I2 is listed more than once" in message


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_by_split_and_jpeg_before_dicom(tmp_path, spec):
    write_raw(tmp_path)
    touch(tmp_path, "train/I1.dcm", "jpeg/train/I1.jpg", "train/I2.dcm", "test/I4.dcm")
    touch(tmp_path, "jpeg/test/I3.jpg", "jpeg/train/I3.txt", "jpeg/train/other.jpg")
    paths = read(tmp_path, spec)["image_path"]
    assert paths.dropna().to_dict() == {
        "I1": "jpeg/train/I1.jpg",
        "I2": "train/I2.dcm",
        "I4": "test/I4.dcm",
    }


def test_jpeg_comes_before_dicom_in_the_same_folder(tmp_path, spec):
    write_raw(tmp_path)
    touch(tmp_path, "train/I1.dcm", "train/I1.jpg")
    assert read(tmp_path, spec).loc["I1", "image_path"] == "train/I1.jpg"


@pytest.mark.parametrize(
    "table", ["HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"]
)
@pytest.mark.parametrize("folder", ["HAM10000_images_part_1", "ham10000_images_part_1", "images"])
def test_ham10000_is_read_as_its_copies_name_it(tmp_path, table, folder):
    rows = {
        "lesion_id": ["L1", "L2"], "image_id": ["I1", "I2"], "dx": ["mel", "nv"],
        "dx_type": "histo", "age": [50.0, 60.0], "sex": ["male", "female"],
        "localization": ["back", "face"],
    }  # fmt: skip
    separator = "\t" if table.endswith(".tab") else ","
    pd.DataFrame(rows).to_csv(tmp_path / table, index=False, sep=separator)
    touch(tmp_path, f"{folder}/I1.jpg", f"{folder}/I2.jpg", f"{folder}/._I1.jpg")
    raw = get_spec("ham10000").read_raw(tmp_path)
    assert raw.examples["image_path"].tolist() == [f"{folder}/I1.jpg", f"{folder}/I2.jpg"]
    assert "skipped 1 hidden" in raw.notes[0]


def test_photos_that_no_row_names_are_said(tmp_path, spec):
    write_raw(tmp_path)
    touch(tmp_path, "jpeg/train/I1.jpg", "jpeg/train/other.jpg", "train/I1.dcm")
    assert [
        "1 photos of no row of train.csv, such as other.jpg" in x
        for x in spec.read_raw(tmp_path).notes
    ] == [True]
    (tmp_path / "jpeg/train/I1.jpg").unlink()
    (tmp_path / "train/I1.dcm").unlink()
    said = refusal(tmp_path, spec)
    assert "1 photos, none named as in" in said and "such as other" in said and "I1" in said


# ---------------------------------------------------------------------------- the made-up one


def generate(folder, seed=1, **changes):
    options = {"patients": 5, "image_size_px": 24, "mean_images": 2, "workers": 1, **changes}
    draw(folder, seed=seed, **options)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    one = generate(tmp_path / "one")
    assert generate(tmp_path / "two", workers=2) == one
    other = generate(tmp_path / "other", seed=2)
    assert other["competition/train.csv"] != one["competition/train.csv"]


def test_progress_counts_every_image(tmp_path):
    counts = []
    files = generate(tmp_path, progress=counts.append)
    assert sum(counts) == sum(name.endswith(".jpg") for name in files)


def test_a_competition_is_not_written_over(tmp_path):
    before = generate(tmp_path)
    with pytest.raises(PipelineError, match="competition exists already"):
        generate(tmp_path, seed=2)
    after = {name: (tmp_path / name).read_bytes() for name in before}
    assert after == before


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="--patients 3"):
        generate(tmp_path, patients=3)


def test_truth_is_kept_apart(competition):
    folder = competition / "competition"
    truth = pd.read_csv(competition / "truth.csv")
    test = pd.read_csv(folder / "test.csv")
    assert set(truth["image_name"]) == set(test["image_name"])
    assert list(test.columns) == [
        "image_name",
        "patient_id",
        "sex",
        "age_approx",
        "anatom_site_general_challenge",
    ]
    assert set(truth["target"]) == {0, 1}
    assert not list(folder.rglob("*truth*"))
    assert (pd.read_csv(folder / "sample_submission.csv")["target"] == 0).all()


def test_images_are_square_photos_of_the_size_asked_for(competition):
    paths = sorted((competition / "competition" / "jpeg").rglob("*.jpg"))
    assert len(paths) > 80
    for path in paths[:5]:
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "JPEG")


def test_duplicates_are_listed_look_alike_and_differ_in_bytes(competition):
    folder = competition / "competition"
    pairs = pd.read_csv(folder / "ISIC_2020_Training_Duplicates.csv")
    train = pd.read_csv(folder / "train.csv").set_index("image_name")
    assert len(pairs) >= 1
    for first, second in pairs.to_numpy():
        assert train.loc[first, "patient_id"] == train.loc[second, "patient_id"]
        files = [folder / "jpeg" / "train" / f"{name}.jpg" for name in (first, second)]
        assert files[0].read_bytes() != files[1].read_bytes()
        one, two = (np.asarray(Image.open(file), float) for file in files)
        assert np.abs(one - two).mean() < 6


@pytest.fixture(scope="module")
def described():
    """Table, morphology vectors and skins of 400 patients, none drawn."""
    table, morphologies, skins = describe(400, 0, 0.25, 6.0)
    return table, np.array([astuple(one) for one in morphologies]), skins


def test_description_has_what_the_real_set_has(described):
    table, _, skins = described
    assert table["image_name"].is_unique
    assert set(skins) == set(table["patient_id"])
    for column in ("sex", "age_approx", "site"):
        assert 0 < table[column].isna().mean() < 0.05
    assert set(table["site"].dropna()) == set(siim_isic_2020.SITES)
    assert table["age_approx"].dropna().between(10, 95).all()
    assert 0.03 < table["target"].mean() < 0.3
    assert table["repeated"].any()
    assert (table.loc[table["repeated"], "split"] == "train").all()
    patients = table.groupby("patient_id")["split"].agg(["nunique", "first"])
    assert (patients["nunique"] == 1).all()
    assert (patients["first"] == "test").mean() == 0.25


def grouped_auc(values, table):
    """AUC of a logistic regression that is judged on other patients than it learnt from."""
    model = LogisticRegression(max_iter=1000)
    folds = GroupKFold(4)
    found = cross_val_predict(
        model, values, table["target"], groups=table["patient_id"], cv=folds, method="predict_proba"
    )
    return roc_auc(table["target"], found[:, 1])


def test_morphology_and_metadata_each_help_and_neither_settles_it(described):
    table, looks, _ = described
    age = table["age_approx"].fillna(50)
    metadata = np.column_stack([age, table["sex"] == "male", pd.get_dummies(table["site"])])
    metadata = (metadata - metadata.mean(axis=0)) / metadata.std(axis=0)
    image = grouped_auc(looks, table)
    tabular = grouped_auc(metadata, table)
    both = grouped_auc(np.hstack([looks, metadata]), table)
    assert 0.6 < tabular < 0.9
    assert 0.7 < image < 0.97
    assert both > max(image, tabular) + 0.01
    assert both < 0.995
