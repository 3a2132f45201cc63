"""Tests of the metadata that come with new photos: names, joins by photo, what is said."""

from dataclasses import replace

import numpy as np
import pytest

from kaggle_pipeline.config.table import TableConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_folder import list_photos
from kaggle_pipeline.data.spec import AGE_YEARS, Number
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.datasets.new_photos import read_metadata

SPEC = get_spec("siim_isic_2020")
HEAD = "image_id,patient_id,age_years,sex,site\n"


@pytest.fixture
def read(tmp_path):
    """``read(text)``: the metadata of three photos by a CSV of this text, and what was said."""
    folder = tmp_path / "photos"
    for name in ("a.jpg", "x/b.png", "y/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    photos = list_photos(folder)

    def read(text, spec=SPEC, table=None):
        path, said = tmp_path / "new.csv", []
        path.write_text(text)
        return read_metadata(path, photos, spec, table, said.append), said

    return read


ROWS = HEAD + "y/b.png,P2,,,\na,P1,45 years,Male,torso\nx/b.png,P1,-1,unknown,the moon\nz,P9,,,\n"


def test_rows_are_joined_by_photo_and_what_is_lost_is_said(read):
    found, said = read(ROWS)
    assert list(found.index) == ["a", "x/b.png", "y/b.png"] and found.index.name == "image_id"
    assert found["group_id"].tolist() == ["P1", "P1", "P2"]
    np.testing.assert_array_equal(found["age_years"], [45, np.nan, np.nan])
    assert found["sex"].fillna("").tolist() == ["male", "", ""]
    assert found["site"].fillna("").tolist() == ["torso", "", ""]
    assert "1 rows are of photos that are not in" in said[0]
    assert "1 rows have a 'site' that the run does not know, such as 'the moon' in row 4" in said[1]
    assert "it knows" in said[1] and "torso" in said[1] and len(said) == 2


def test_what_has_no_column_is_unknown_and_each_photo_its_own_patient(read):
    found, said = read("image_name;sex\na;female\nx/b;male\ny/b;\n")
    assert found["group_id"].tolist() == list(found.index)
    assert found[["age_years", "site"]].isna().all(axis=None)
    assert "no column 'patient_id': each photo is taken for its patient's only one" in said[0]
    assert [line.rpartition("column ")[2] for line in said[1:]] == [
        "'age_years': unknown for every photo", "'site': unknown for every photo"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image_id", "photo", "has no column image_id or image_name or image, which names the"),
        ("age_years", "age_year", "has no column 'age_years', but 'age_year': rename it"),
        ("patient_id", "patient", "has no column 'patient_id', but 'patient': rename it"),
        ("45 years", "450", "row 3: column 'age_years' is '450', expected a number from 0 to 120"),
        ("45 years", "old", "row 3: column 'age_years' is 'old', expected a number"),
        (
            "45 years",
            "45 months",
            "row 3: column 'age_years' is '45 months', in 'months', but the training rows are in "
            "'years': write all in one unit",
        ),
        ("a,P1", "a,", "row 3: column 'patient_id' is empty: every row needs its patient"),
        ("z,P9", "a,P9", "row 5: column 'image_id' is 'a', a photo that an earlier row names"),
        ("z,P9", "b,P9", "row 5: column 'image_id' is 'b', and "),
        ("y/b.png,P2,,,\n", "", "has no row whose 'image_id' is 'y/b.png': add it, with empty"),
        ("y/b.png,", ",", "row 2: column 'image_id' is empty: every row names its photo"),
    ],
)
def test_a_mistake_names_the_row_and_what_to_do(read, old, new, words):
    assert old in ROWS
    with pytest.raises(PipelineError, match=r"^.*new\.csv") as told:
        read(ROWS.replace(old, new, 1))
    assert words in str(told.value) and "table." not in str(told.value)


def test_a_file_that_tells_nothing_is_refused(read):
    with pytest.raises(PipelineError, match="no column that this run knows: patient_id, age_years"):
        read("image_id,remark\na,1\n")
    with pytest.raises(PipelineError, match=r"no such photo: is --images right\?"):
        read(HEAD + "q,P1,,,\n")


@pytest.mark.parametrize(
    ("dataset", "head"),
    [
        ("siim_isic_2020", "image_name,patient_id,sex,age_approx,anatom_site_general_challenge"),
        ("ham10000", "image_id,lesion_id,sex,age,localization"),
        ("isic_2019", "image,lesion_id,sex,age_approx,anatom_site_general"),
    ],
)
def test_published_tables_are_read_as_they_are(read, dataset, head):
    site = get_spec(dataset).categorical["site"][0]
    rows = f"{head}\na,G1,male,45,{site}\nx/b,G1,unknown,,{site}\ny/b,G2,female,70,\n"
    found, said = read(rows, get_spec(dataset))
    assert said == [] and found["group_id"].tolist() == ["G1", "G1", "G2"]
    np.testing.assert_array_equal(found["age_years"], [45, np.nan, 70])
    assert found["sex"].fillna("").tolist() == ["male", "", "female"]
    assert found["site"].fillna("").tolist() == [site, site, ""]


def test_the_runs_own_name_is_meant_where_the_published_one_is_there_too(read):
    found, _ = read(HEAD.replace("\n", ",age_approx\n") + "a,P,40,,,1\nx/b,P,,,,2\ny/b,P,,,,3\n")
    np.testing.assert_array_equal(found["age_years"], [40, np.nan, np.nan])


def test_numbers_in_another_unit_than_the_training_rows_are_refused(read, spec):
    table = TableConfig("my.csv", image="file", target="bad", numeric=("size",))
    own = replace(spec, numeric={"size": Number(unit="mm")}, categorical={})
    rows = "file,size\na,4 mm\nx/b,\ny/b,7\n"
    found, _ = read(rows, own, table)
    np.testing.assert_array_equal(found["size"], [4, np.nan, 7])
    wish = r"new\.csv row 2: column 'size' is '0.4 cm', in 'cm', but the training rows are in 'mm'"
    with pytest.raises(PipelineError, match=wish):
        read(rows.replace("4 mm", "0.4 cm"), own, table)


def test_an_own_table_keeps_its_own_names(read, spec):
    table = TableConfig("my.csv", image="file", target="bad", group="who", numeric=("age",))
    own = replace(spec, numeric={"age": AGE_YEARS}, categorical={"skin": ("dark", "fair")})
    found, said = read("file,who,age,skin\na,1,50,FAIR\nx/b,2,,dark\ny/b,2,,\n", own, table)
    assert found["group_id"].tolist() == ["1", "2", "2"] and not said
    assert found["skin"].fillna("").tolist() == ["fair", "dark", ""]
    assert list(found.columns) == ["group_id", "age", "skin"]
    np.testing.assert_array_equal(found["age"], [50, np.nan, np.nan])
