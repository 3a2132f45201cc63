"""Tests of the made-up ISIC 2017 and HAM10000: their layouts, and that they can be learnt from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.folds import make_folds
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.synthetic import MADE_UP, generate_like, ham10000, isic_2017, isic_2019
from kaggle_pipeline.synthetic import table as own_table
from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin, draw_lesion
from kaggle_pipeline.synthetic.looks import counts
from kaggle_pipeline.synthetic.writer import Drawing, draw_all

IMAGES = 300
LAST_TABLE = {
    "isic_2017": isic_2017.LAST_TABLE,
    "ham10000": ham10000.LAST_TABLE,
    "isic_2019": isic_2019.LAST_TABLE,
    "table": own_table.LAST_TABLE,
    "siim_isic_2020": "train.csv",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """``drawn(name)``: a folder with 300 drawn images at 32 px, each drawn once."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            generate_like(name, folders[name], images=IMAGES, image_size_px=32, seed=0)
        return folders[name]

    return folder


def read(folder, name):
    spec = get_spec(name)
    return validate_examples(spec.read_raw(folder / "competition").examples, spec)


# ---------------------------------------------------------------------------- all of them


def generate(folder, name, seed=1, images=60, size_px=16, **options):
    generate_like(name, folder, images=images, image_size_px=size_px, seed=seed, **options)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", MADE_UP)
def test_same_seed_gives_the_same_bytes(tmp_path, name):
    counted = []
    one = generate(tmp_path / "one", name, progress=counted.append)
    assert generate(tmp_path / "two", name) == one
    assert sum(counted) == sum(file.endswith(".jpg") for file in one)
    table = f"competition/{LAST_TABLE[name]}"
    other = generate(tmp_path / "other", name, seed=2)
    assert other[table] != one[table]
    assert not {file for file in other if file.endswith(".jpg")} & set(one)


@pytest.mark.parametrize("name", MADE_UP)
def test_a_finished_folder_is_not_written_over_and_a_broken_off_one_is_mended(tmp_path, name):
    before = generate(tmp_path, name)
    with pytest.raises(PipelineError, match="competition exists already"):
        generate(tmp_path, name, seed=2)
    (tmp_path / "competition" / LAST_TABLE[name]).unlink()
    assert generate(tmp_path, name) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 59}, "--images 59: at least 60"),
        ({"size_px": 15}, "--image-size-px 15: at least 16"),
        ({"seed": -1}, "--seed -1"),
    ],
)
@pytest.mark.parametrize("name", ["isic_2017", "ham10000"])
def test_numbers_that_are_too_small_are_refused(tmp_path, name, change, message):
    with pytest.raises(PipelineError, match=message):
        generate(tmp_path, name, **change)
    assert not list(tmp_path.iterdir())


def test_unknown_set_names_the_nearest(tmp_path):
    with pytest.raises(PipelineError, match="'ham1000'; did you mean 'ham10000'"):
        generate(tmp_path, "ham1000")


def test_patients_give_about_the_images_asked_for(tmp_path):
    files = generate(tmp_path, "siim_isic_2020", images=80)
    assert 50 < sum(file.endswith(".jpg") for file in files) < 110


def test_counts_leave_the_rest_to_the_first():
    shares = {"nv": 0.9, "mel": 0.09, "df": 0.01}
    assert counts(shares, 100, least=5) == {"nv": 86, "mel": 9, "df": 5}


def test_a_drawing_is_turned_cropped_and_compressed(tmp_path):
    looks, skin = Morphology(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), Skin(0.2, 0.3, 0.2, 0.5)
    paths = [tmp_path / "deep" / "one.jpg", tmp_path / "two.jpg"]
    plain = Drawing(paths[0], looks, skin, size_px=64, seed=(4, 2))
    wide = Drawing(paths[1], looks, skin, 64, (4, 2), quality=95, height_px=48, quarter_turns=1)
    draw_all([plain, wide], workers=1, progress=lambda done: None)
    expected, _ = draw_lesion(looks, skin, 64, np.random.default_rng([4, 2, 1]))
    one, two = (np.asarray(Image.open(path), float) for path in paths)
    assert np.abs(one - expected).mean() < 4
    assert np.abs(two - np.rot90(expected)[8:56]).mean() < 4


PLAIN = Morphology(0.2, 0.2, 0.0, 0.5, 0.3, 0.0, 0.0)
BARE_SKIN = Skin(0.2, 0.3, 0.0, 0.0)


@pytest.mark.parametrize("change", [{"blood": 1.0}, {"scar": 1.0}, {"blood": 0.5, "scar": 0.5}])
def test_blood_and_scar_leave_outline_and_chance_alone(change):
    states, masks = [], []
    for looks in (PLAIN, replace(PLAIN, **change)):
        rng = np.random.default_rng(3)
        masks.append(draw_lesion(looks, BARE_SKIN, 64, rng)[1])
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]
    np.testing.assert_array_equal(*masks)


def test_blood_reddens_and_a_scar_lightens_the_middle():
    def middle(**change):
        images = [
            draw_lesion(replace(PLAIN, **change), BARE_SKIN, 64, np.random.default_rng(seed))
            for seed in range(4)
        ]
        return np.mean([image[28:36, 28:36].mean(axis=(0, 1)) for image, _ in images], axis=0)

    redness = [red - green for red, green, _ in (middle(blood=b) for b in (0.0, 0.5, 1.0))]
    assert redness[0] + 10 < redness[1] < redness[2] - 10
    lightness = [middle(scar=scar).mean() for scar in (0.0, 0.5, 1.0)]
    assert lightness[0] + 10 < lightness[1] < lightness[2] - 10


# ---------------------------------------------------------------------------- ISIC 2017


def test_isic_2017_has_the_layout_of_the_challenge(drawn):
    folder = drawn("isic_2017") / "competition"
    for split in ("Training", "Validation", "Test_v2"):
        metadata = pd.read_csv(folder / f"ISIC-2017_{split}_Data_metadata.csv")
        assert list(metadata) == ["image_id", "age_approximate", "sex"]
        photos = {path.stem for path in (folder / f"ISIC-2017_{split}_Data").glob("*.jpg")}
        assert photos == set(metadata["image_id"])
        for column in ("age_approximate", "sex"):
            assert "unknown" in set(metadata[column])
        if split != "Test_v2":
            truth = (folder / f"ISIC-2017_{split}_Part3_GroundTruth.csv").read_text()
            rows = truth.splitlines()
            assert rows[0] == "image_id,melanoma,seborrheic_keratosis"
            assert {row.split(",", 1)[1] for row in rows[1:]} == {"0.0,0.0", "1.0,0.0", "0.0,1.0"}


def test_isic_2017_keeps_the_truth_of_the_test_part_apart(drawn):
    folder = drawn("isic_2017")
    truth = pd.read_csv(folder / "truth.csv")
    assert list(truth) == ["image_id", "melanoma", "seborrheic_keratosis"]
    test = split_rows(read(folder, "isic_2017"), "test")
    assert set(truth["image_id"]) == set(test.index)
    assert set(truth["melanoma"]) == set(truth["seborrheic_keratosis"]) == {0.0, 1.0}
    assert not list((folder / "competition").glob("*Test*GroundTruth*"))
    assert not list((folder / "competition").rglob("*truth.csv"))


def test_isic_2017_splits_and_marks_the_validation_part(drawn):
    table = read(drawn("isic_2017"), "isic_2017")
    assert len(table) == IMAGES
    assert table["split"].value_counts().to_dict() == {"train": 249, "test": 51}
    assert table["official_validation"].sum() == 30


def test_superpixels_are_label_maps_and_not_taken_for_photos(drawn):
    folder = drawn("isic_2017")
    maps = sorted((folder / "competition").rglob("*_superpixels.png"))
    assert {path.parent.name for path in maps} == {
        f"ISIC-2017_{split}_Data" for split in ("Training", "Validation", "Test_v2")
    }
    with Image.open(maps[0]) as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
        red, green, blue = np.moveaxis(np.asarray(image, int), -1, 0)
    labels = red + (green << 8) + (blue << 16)
    assert set(labels.ravel()) == set(range(64))
    assert not {path.stem for path in maps} & set(read(folder, "isic_2017").index)
    assert read(folder, "isic_2017")["image_path"].str.endswith(".jpg").all()


# ---------------------------------------------------------------------------- HAM10000


def test_ham10000_has_the_layout_of_the_set(drawn):
    folder = drawn("ham10000") / "competition"
    table = pd.read_csv(folder / "HAM10000_metadata.csv")
    wanted = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert list(table) == wanted
    assert not (folder.parent / "truth.csv").exists()
    assert table["image_id"].is_unique
    parts = [folder / f"HAM10000_images_part{part}" for part in (1, 2)]
    photos = [{path.stem for path in part.glob("*.jpg")} for part in parts]
    assert [len(names) for names in photos] == [IMAGES // 2, IMAGES // 2]
    assert set.union(*photos) == set(table["image_id"])
    assert max(photos[0]) < min(photos[1])
    assert {"unknown", "female", "male"} == set(table["sex"])
    assert "unknown" in set(table["localization"])
    assert table["age"].isna().any()
    assert (table.loc[table["dx_type"] == "follow_up", "dx"] == "nv").all()
    with Image.open(next(parts[0].glob("*.jpg"))) as image:
        assert (image.size, image.mode, image.format) == ((43, 32), "RGB", "JPEG")


def test_ham10000_lesions_share_what_is_said_of_them(drawn):
    table = pd.read_csv(drawn("ham10000") / "competition" / "HAM10000_metadata.csv")
    lesions = table.groupby("lesion_id")
    photos = lesions.size()
    assert (photos == 2).sum() > 20
    assert (photos >= 3).any()
    assert (photos == 1).mean() > 0.6
    for column in ("dx", "dx_type", "age", "sex", "localization"):
        assert (lesions[column].nunique(dropna=False) == 1).all()


@pytest.mark.parametrize("images", [60, 1000])
def test_ham10000_has_every_diagnosis_often_enough_for_five_folds(images):
    table, _ = ham10000.describe(images, seed=3)
    lesions = table.drop_duplicates("lesion_id")["dx"].value_counts()
    assert set(lesions.index) == set(get_spec("ham10000").classes)
    assert lesions.min() >= 5
    assert lesions.idxmax() == "nv"


def test_ham10000_lesions_stay_in_one_fold(drawn):
    spec = get_spec("ham10000")
    table = read(drawn("ham10000"), "ham10000")
    folds = make_folds(table, spec, FoldsConfig(k=3), 0).table["fold"].reindex(table.index)
    assert (folds.groupby(table["group_id"]).nunique() == 1).all()
    for name in spec.classes:
        assert set(folds[table[name] == 1]) == {0, 1, 2}


def test_a_further_photo_is_the_same_lesion_seen_otherwise(drawn):
    folder = drawn("ham10000")
    table, looks = ham10000.describe(IMAGES, seed=0)
    paths = read(folder, "ham10000")["image_path"]
    differences = []
    for _, photos in table.groupby("lesion_id"):
        if len(photos) == 1:
            assert photos["quarter_turns"].tolist() == [0]
            continue
        one, two = (looks[name][0] for name in photos["image_id"][:2])
        assert one.diameter != two.diameter
        assert (one.asymmetry, one.blood, one.veil) == (two.asymmetry, two.blood, two.veil)
        files = [folder / "competition" / paths[name] for name in photos["image_id"][:2]]
        pixels = [np.asarray(Image.open(file), float) for file in files]
        differences.append(np.abs(pixels[0] - pixels[1]).mean())
    assert min(differences) > 3


# ---------------------------------------------------------------------------- learnability


def colours_and_texture(path):
    """Mean and spread of the colours in the middle, their step to the rim, fine contrast."""
    with Image.open(path) as image:
        pixels = np.asarray(image.resize((32, 32)), float) / 255
    middle, rim = pixels[8:24, 8:24].reshape(-1, 3), np.vstack([pixels[:4], pixels[-4:]])
    core, grey = pixels[12:20, 12:20].reshape(-1, 3), pixels.mean(axis=2)
    mean, around = middle.mean(axis=0), rim.reshape(-1, 3).mean(axis=0)
    contrast = np.abs(np.diff(grey, axis=0)).mean()
    return np.r_[mean, mean - around, middle.std(axis=0), core.mean(axis=0), contrast]


def mean_auc(values, truth, groups):
    """Mean one-against-the-rest AUC of a logistic regression, groups kept together."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=3000, C=0.3, class_weight="balanced")
    )
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(model, values, truth, groups=groups, cv=folds, method="predict_proba")
    names = np.unique(truth)
    return np.mean([roc_auc(truth == name, found[:, i]) for i, name in enumerate(names)])


@pytest.mark.parametrize("name", ["isic_2017", "ham10000"])
def test_images_can_be_learnt_from_but_do_not_settle_it(drawn, name):
    spec, folder = get_spec(name), drawn(name) / "competition"
    train = split_rows(read(drawn(name), name), "train")
    values = np.array([colours_and_texture(folder / path) for path in train["image_path"]])
    truth = train[list(spec.classes)].to_numpy() @ np.arange(1, len(spec.classes) + 1)
    found = mean_auc(values, truth, train["group_id"])
    assert 0.7 < found < 0.93
    shuffled = np.random.default_rng(0).permutation(truth)
    assert abs(mean_auc(values, shuffled, train["group_id"]) - 0.5) < 0.1


@pytest.mark.parametrize("name", ["isic_2017", "ham10000"])
def test_metadata_helps_a_little(tmp_path, name):
    """Judged on 3,000 people, none drawn, so that chance does not decide."""
    if name == "ham10000":
        table, _ = ham10000.describe(3000, seed=1)
        table = table.drop_duplicates("lesion_id")
        values = pd.get_dummies(table[["sex", "localization"]])
        age, truth = table["age"], table["dx"]
    else:
        table, _ = isic_2017.describe(3000, seed=1)
        values = pd.get_dummies(table["sex"])
        age, truth = table["age_approximate"], table["diagnosis"]
    age = pd.to_numeric(age, errors="coerce").fillna(55)
    found = mean_auc(values.assign(age=age).to_numpy(float), truth.to_numpy(), table.index)
    assert 0.55 < found < 0.8


def test_isic_2017_metadata_inside_the_photo_folders_is_found(tmp_path):
    """The archive's zip files hold each part's table beside its photos."""
    generate_like("isic_2017", tmp_path, images=60, image_size_px=16, seed=0, workers=1)
    root = tmp_path / "competition"
    before = get_spec("isic_2017").read_raw(root).examples
    for table in root.glob("*_metadata.csv"):
        table.rename(root / table.name.removesuffix("_metadata.csv") / table.name)
    pd.testing.assert_frame_equal(get_spec("isic_2017").read_raw(root).examples, before)


@pytest.mark.parametrize("images", [100, 200, 600])
def test_a_small_made_up_ham10000_has_every_class_in_every_part(images):
    table, _ = ham10000.describe(images, seed=0)
    spec = get_spec("ham10000")
    classes = {name: (table["dx"] == name).to_numpy(float) for name in spec.classes}
    rows = pd.DataFrame({"group_id": table["lesion_id"].to_numpy(), **classes}, table["image_id"])
    for by in ("group", "image"):
        test = make_folds(rows, spec, FoldsConfig(holdout=0.15, by=by), 2020).validated.index
        rest = rows.drop(test)
        valid = make_folds(rest, spec, FoldsConfig(holdout=0.1, by=by), 2020).validated.index
        for part in (test, valid, rest.index.difference(valid)):
            assert (rows.loc[part, list(spec.classes)].sum() > 0).all()
