"""Tests of the data set ``table``: a user's columns become a spec, examples, one-line errors."""

import json

import pandas as pd
import pytest
from PIL import Image

from kaggle_pipeline.config.loading import parse_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.examples import validate_examples
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.datasets.table import SPEC_FILE, table_spec, write_learned
from kaggle_pipeline.models.composite import OneModelPerClass

ROWS = pd.DataFrame(
    {
        "file": ["a\\one.jpg", "./two.JPG", "b/three", "four.png", "a/five.jpg", "six.jpg"],
        "who": ["P1", "P1", "P2", "P3", "P4", "P4"],
        "finding": ["mole", "Melanoma", "mole", "keratosis", "melanoma", "Mole"],
        "age": ["45", "50 years", "", "unknown", " 61.0", "-1"],
        "place": ["arm", "Arm", "leg", "", "leg", "arm"],
        "note": ["x", "", "y", "z", "", "w"],
    }
)
SECTION = {
    "train": "my.csv", "image": "file", "images": "photos", "target": "finding", "group": "who",
    "numeric": ["age"], "categorical": ["place"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A data folder with six photos in sub-folders and files beside them that are none."""
    photos = ("a/one.jpg", "two.JPG", "b/three.jpg", "four.png", "a/five.jpg", "six.jpg", "new.jpg")
    for number, name in enumerate(photos):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(path)
    (tmp_path / "photos" / "._two.JPG").write_bytes(b"resource fork")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path


def experiment(**changes):
    content = {"name": "mine", "dataset": "table", "table": {**SECTION, **changes}}
    return parse_experiment(content)


def read(folder, rows=ROWS, test=None, **changes):
    """Spec and raw data of a table that is written first."""
    rows.to_csv(folder / "my.csv", index=False)
    if isinstance(test, str):
        changes["test"] = test
    elif test is not None:
        test.to_csv(folder / "new.csv", index=False)
        changes["test"] = "new.csv"
    spec = spec_of(experiment(**changes), None, folder)
    return spec, spec.read_raw(folder)


def test_words_become_classes_and_vocabularies(folder):
    spec, raw = read(folder)
    assert spec.task == "multiclass"
    assert spec.classes == ("keratosis", "Melanoma", "mole"), "the commonest spelling counts"
    table = validate_examples(raw.examples, spec)
    names = ["a/one.jpg", "two.JPG", "b/three", "four.png", "a/five.jpg", "six.jpg"]
    assert list(table.index) == names, "a photo is called what the user calls it"
    assert table["age"].tolist()[:2] == [45, 50] and table["age"].isna().sum() == 3
    assert spec.categorical == {"place": ("arm", "leg")}
    assert table["place"].tolist()[:3] == ["arm", "arm", "leg"] and pd.isna(
        table.loc["four.png", "place"]
    )
    assert table["group_id"].tolist() == ROWS["who"].tolist()
    assert table.loc["b/three", "image_path"] == "photos/b/three.jpg"
    assert (folder / table.loc["two.JPG", "image_path"]).is_file()
    assert table["note"].tolist()[0] == "x", "further columns stay for the audit"
    assert "finding" not in table
    assert spec.lesion_features == ("place",), "P4 has two places"
    assert "skipped" in raw.notes[0] and "notes.txt" in raw.notes[0]


def test_a_word_that_counts_makes_a_binary_question(folder):
    spec, raw = read(folder, positive="melanoma")
    assert (spec.task, spec.classes) == ("binary", ("melanoma",))
    assert raw.examples["melanoma"].tolist() == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("word", ["unknown", "?", "-", "None"])
def test_a_word_that_says_that_nothing_is_known_is_no_negative(folder, word):
    labels = ["mole", "melanoma", word, "mole", "melanoma", word]
    shown = "empty" if word == "None" else f"'{word}'".replace("?", r"\?")  # pandas reads None so
    wish = rf"row 4: column 'finding' \(table.target\) is {shown}: .* needs a label \(2 such rows\)"
    with pytest.raises(PipelineError, match=rf"my\.csv {wish}"):
        read(folder, ROWS.assign(finding=labels), positive="melanoma")
    flags = [{"mole": "0", "melanoma": "1"}.get(one, one) for one in labels]
    with pytest.raises(PipelineError, match=wish):  # no third class
        read(folder, ROWS.assign(finding=flags))
    if word != "None":
        spec, _ = read(folder, ROWS.assign(finding=labels))
        assert len(spec.classes) == 3, "without a positive word every word is a class"


@pytest.mark.parametrize("word", ["unknown", "?"])
def test_a_test_part_of_unknown_labels_is_not_scored(folder, word):
    test = NEW.assign(age=33, finding=["mole", word])
    _, raw = read(folder, test=test, positive="melanoma", images=None)
    assert raw.test_truth is None and "1 of 2 test rows have a label" in raw.notes[-1]
    labels = test.assign(finding=[0, word])
    _, raw = read(folder, ROWS.assign(finding=[0, 1] * 3), labels, images=None)
    assert raw.test_truth is None and "1 of 2 test rows have a label" in raw.notes[-1]


@pytest.mark.parametrize("words", [(0, 1), ("no", "Yes"), ("0.0", "1.0"), ("FALSE", "True")])
def test_zero_and_one_are_read_as_people_write_them(folder, words):
    labels = [words[i % 2] for i in range(6)]
    spec, raw = read(folder, ROWS.assign(finding=labels))
    assert (spec.task, spec.classes) == ("binary", ("finding",))
    assert raw.examples["finding"].tolist() == [0, 1] * 3


def test_several_columns_are_labels_and_one_each_are_classes(folder):
    flags = ROWS.assign(mel=[1, 0, 0, 0, 1, 0], nv=[0, 1, 0, 0, 1, 1])
    spec, _ = read(folder, flags, target=["mel", "nv"])
    assert (spec.task, spec.classes) == ("multilabel", ("mel", "nv"))
    spec, raw = read(folder, flags.assign(nv=1 - flags["mel"]), target=["mel", "nv"])
    assert spec.task == "multiclass"
    assert (raw.examples[["mel", "nv"]].sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("columns", "classes"),
    [
        (["../../evil", "/tmp/evil"], (".._.._evil", "_tmp_evil")),
        (["..", "a b (c)"], ("__", "a b (c)")),
        (["../evil"], (".._evil",)),
        (["Malignant?"], ("Malignant",)),
    ],
)
def test_a_class_is_no_path_that_leads_out_of_its_folder(folder, columns, classes):
    flags = {name: [1, 1, 0, 0, 1, 0][number:] + [0, 1][:number] for number, name in
             enumerate(columns)}  # fmt: skip
    target = columns if len(columns) > 1 else columns[0]
    spec, raw = read(folder, ROWS.assign(**flags), target=target)
    assert spec.classes == classes
    table = validate_examples(raw.examples, spec)
    assert table[list(classes)].to_numpy().T.tolist() == list(flags.values())
    made = []
    OneModelPerClass(lambda _, place: made.append(place), spec, folder / "fold0")
    assert [place.resolve().parent for place in made] == [folder / "fold0"] * len(classes)


def test_without_groups_the_spec_names_none(folder):
    spec, raw = read(folder, group=None)
    assert spec.group is None
    table = validate_examples(raw.examples, spec)
    assert (table["group_id"] == table.index).all()


def test_words_that_only_the_test_has_are_missing_and_counted(folder):
    test = pd.DataFrame({"file": ["new"], "who": ["P9"], "age": [33], "place": ["toe"]})
    spec, raw = read(folder, test=test)
    row = validate_examples(raw.examples, spec).loc["new"]
    assert row["split"] == "test" and pd.isna(row["place"]) and row["age"] == 33
    assert row[list(spec.classes)].isna().all() and raw.test_truth is None
    (note,) = (one for one in raw.notes if "place" in one)
    assert "new.csv" in note and "1 rows" in note and "'toe'" in note and "row 2" in note


def test_a_labelled_test_is_kept_apart(folder):
    test = pd.DataFrame(
        {"file": ["new"], "who": ["P9"], "age": [33], "place": ["leg"], "finding": ["MOLE"]}
    )
    spec, raw = read(folder, test=test)
    assert raw.examples.set_index("image_id").loc["new", list(spec.classes)].isna().all()
    assert raw.test_truth.loc["new"].to_dict() == {
        name: float(name.lower() == "mole") for name in spec.classes
    }


def test_a_column_may_say_which_rows_are_test(folder):
    part = ["Train", "train", "training", "test", "train", "train"]
    labels = ["mole", "melanoma", "mole", None, "melanoma", "mole"]
    _, raw = read(folder, ROWS.assign(part=part, finding=labels), split="part", positive="melanoma")
    assert raw.examples["split"].tolist() == ["train"] * 5 + ["test"]
    assert raw.examples["image_id"].tolist()[-1] == "four.png"
    assert raw.tables == [folder / "my.csv"]


def test_parquet_and_semicolons_are_read_as_the_same(folder):
    pytest.importorskip("pyarrow")
    _, raw = read(folder)
    ROWS.to_parquet(folder / "my.parquet")
    ROWS.to_csv(folder / "german.csv", sep=";", index=False)
    for name in ("my.parquet", "german.csv"):
        spec = spec_of(experiment(train=name), None, folder)
        again = spec.read_raw(folder)
        columns = ["image_id", "group_id", "age", "place", *spec.classes]
        pd.testing.assert_frame_equal(
            again.examples[columns], raw.examples[columns], check_dtype=False
        )


def test_parquet_gives_numbers_as_a_file_of_text_would(folder):
    pytest.importorskip("pyarrow")
    rows = ROWS.assign(who=[1.0, 1, 2, 3, 4, 4], finding=[1, 0, 0, 1, 0, 1], age=[1.5] * 6)
    rows.to_parquet(folder / "my.parquet")
    raw = spec_of(experiment(train="my.parquet"), None, folder).read_raw(folder)
    assert raw.examples["group_id"].tolist() == ["1", "1", "2", "3", "4", "4"]
    assert raw.examples["age"].tolist() == [1.5] * 6
    rows.assign(place=None).to_parquet(folder / "my.parquet")
    with pytest.raises(PipelineError, match=r"column 'place' .* holds no value that is known"):
        spec_of(experiment(train="my.parquet"), None, folder)


def test_parquet_without_a_reader_is_one_line(folder, monkeypatch):
    def absent(path):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(PipelineError, match=r"my\.parquet: pip install '\.\[parquet\]'"):
        spec_of(experiment(train="my.parquet"), None, folder)


def test_bands_and_ranges_are_learned(folder):
    rows = ROWS.assign(size=["1 mm", "2 mm", "3 mm", "4", "5 mm", "6 mm"])
    spec, _ = read(folder, rows, numeric=["age", "size"])
    assert spec.numeric["age"].greatest == 120
    assert spec.numeric["size"].greatest is None
    assert spec.numeric["size"].bands == (2.7, 4.3)


MM = [f"{n} mm" for n in range(1, 7)]
NEW = pd.DataFrame({"file": ["new", "newer"], "who": ["P8", "P9"], "place": ["arm", "leg"]})


@pytest.mark.parametrize(("trained", "sizes"), [
    (MM, ["7 mm", "8 MM."]), (MM, ["7", "8 mm"]), (MM, ["7", ""]), (list("123456"), ["7 cm", "8"]),
])  # fmt: skip
def test_numbers_of_one_unit_or_of_none_go_together(folder, trained, sizes):
    rows = ROWS.assign(size=trained)
    spec, raw = read(folder, rows, NEW.assign(size=sizes), numeric=["size"], images=None)
    assert spec.numeric["size"].unit == ("mm" if trained == MM else "")
    assert raw.examples["size"].tolist()[-2] == 7


@pytest.mark.parametrize("words", ["45 years", "45 y", "45 Jahre"])
def test_all_words_for_years_are_one_unit(folder, words):
    _, raw = read(folder, test=NEW.iloc[:1].assign(age=words))
    assert raw.examples["age"].tolist()[-1] == 45


def test_a_test_part_in_another_unit_stops_by_row_and_both_units(folder):
    rows = ROWS.assign(size=MM)
    wish = (
        r"row 3: column 'size' \(table.numeric\) is '0.8 cm', in 'cm', but the training rows are "
        "in 'mm'"
    )
    with pytest.raises(PipelineError, match=rf"new\.csv {wish}"):
        read(folder, rows, NEW.assign(size=["7", "0.8 cm"]), numeric=["size"], images=None)
    parts = ROWS.assign(part=["train", "test", *["train"] * 4], size=[*MM[:1], "0.8 cm", *MM[2:]])
    with pytest.raises(PipelineError, match=rf"my\.csv {wish}"):
        read(folder, parts, numeric=["size"], split="part")


def test_a_run_keeps_its_units_and_one_that_knows_none_refuses_none(folder):
    section = experiment(numeric=["size"], test="new.csv", images=None).table
    ROWS.assign(size=MM).to_csv(folder / "my.csv", index=False)
    NEW.assign(size=["0.7 cm", ""]).to_csv(folder / "new.csv", index=False)
    write_learned(section, folder, folder)
    kept = read_json(folder / SPEC_FILE)
    assert table_spec(section, folder, None, False).numeric["size"].unit == "mm"
    del kept["learned"]["numeric"]["size"]["unit"]  # as an earlier version wrote it
    (folder / SPEC_FILE).write_text(json.dumps(kept))
    spec = table_spec(section, folder, None, False)
    assert spec.read_raw(folder).examples["size"].tolist()[-2] == 0.7


def test_the_weights_of_rows_are_read(folder):
    _, raw = read(folder, ROWS.assign(w=["1", "2", "0.5", "1", "1", "1"]), weight="w")
    assert raw.examples["row_weight"].tolist() == [1, 2, 0.5, 1, 1, 1]


def test_whole_paths_are_cut_to_what_lies_below_the_photos_folder(folder, tmp_path):
    names = [
        f"{folder}/photos/a/one.jpg", "C:\\Users\\me\\photos\\two.JPG", "../photos/b/three.jpg",
        "\\\\server\\share\\four.png", "a/five.jpg", "/gone/away.jpg",
    ]  # fmt: skip
    rows = ROWS.assign(file=names)
    rows.to_csv(folder / "my.csv", index=False)
    spec = table_spec(experiment().table, None, folder, drop=True)
    found = validate_examples(spec.read_raw(folder).examples, spec)
    ids = ["a/one.jpg", "two.JPG", "b/three.jpg", "four.png", "a/five.jpg", "train row 7"]
    assert found.index.tolist() == ids and found["image_path"].notna().sum() == 5
    again = ROWS.assign(file=[*names[:4], f"{folder}/photos/a/one.jpg", "two.JPG"])
    with pytest.raises(PipelineError, match=r"row 6: .*as in an earlier row"):
        read(folder, again)
    with pytest.raises(PipelineError, match=r"row 2: .*expected an id"):
        read(folder, rows, images=None)


def test_rows_without_a_photo_have_an_id_each_until_they_are_left_out(folder):
    lost = ["/old/p1/IMG_1.jpg", "/old/p2/IMG_1.jpg", "C:\\x\\.hid.jpg", "../IMG_1.jpg", "p/.a.jpg"]
    rows = ROWS.assign(file=["a/one.jpg", *lost])
    test = ROWS.iloc[:2].assign(file=["/old/p3/IMG_1.jpg", "new.jpg"])
    rows.to_csv(folder / "my.csv", index=False)
    test.to_csv(folder / "new.csv", index=False)
    spec = table_spec(experiment(test="new.csv").table, None, folder, drop=True)
    found = validate_examples(spec.read_raw(folder).examples, spec)
    assert found.index[found["image_path"].notna()].tolist() == ["a/one.jpg", "new.jpg"]
    gone = found.index[found["image_path"].isna()]
    assert gone.tolist() == [f"train row {n}" for n in range(3, 8)] + ["test row 2"]


@pytest.mark.parametrize("cell", ["/", "../..", "./", ".", "C:\\", "D:", "a/.."])
@pytest.mark.parametrize("images", ["photos", None])
def test_a_cell_that_names_no_file_is_told_with_its_row(folder, cell, images):
    ROWS.assign(file=[*ROWS["file"][:5], cell]).to_csv(folder / "my.csv", index=False)
    spec = table_spec(experiment(images=images).table, None, folder, drop=True)
    with pytest.raises(PipelineError, match=r"my\.csv row 7: column 'file'.* names no photo"):
        spec.read_raw(folder)


def test_an_id_that_no_line_can_show_is_told_with_its_row(folder):
    with pytest.raises(PipelineError, match=r"my\.csv row 3: column 'file' .*'\.two'"):
        read(folder, ROWS.assign(file=["one", ".two", *"abcd"]), images=None)


def test_a_mistyped_table_names_the_one_beside_it(folder):
    (folder / "photo.jpg").touch()
    (folder / "lesions_train.xlsx").write_bytes(b"PK\3\4")
    for name, meant in (("lesion_train.csv", "lesions_train.xlsx"), ("zebra.csv", "")):
        hint = f"did you mean '{meant}'" if meant else "say --data-dir"
        with pytest.raises(PipelineError, match=rf"{name} is missing: {hint}"):
            read(folder, train=name)
    with pytest.raises(PipelineError, match=r"my_2\.csv is missing: leave table\.test out"):
        read(folder, test="my_2.csv")  # the training rows are not meant
    for ending in (".parquet", ".tsv", ".csv"):
        (folder / f"lesions_train{ending}").touch()
        with pytest.raises(PipelineError, match=rf"did you mean 'lesions_train\{ending}'"):
            read(folder, train="lesion_train.csv")  # in the format that is rather read


WRONG = {
    "no such column": ({"target": "findng"}, {}, "table.target: .*my.csv has no column 'findng'; "
                       "did you mean 'finding'"),
    "one value": ({}, {"finding": "mole"},
                  r"column 'finding' \(table.target\) holds 'mole' in every"),
    "two words": ({}, {"finding": ["a", "b"] * 3}, "'a', 'b': say which .* table.positive"),
    "no label": ({}, {"finding": ["a", "b", "c", None, "a", None]},
                 r"my.csv row 5: column 'finding' \(table.target\) is empty.*\(2 such rows\)"),
    "positive that is none": ({"positive": "melanom"}, {},
                              "table.positive is 'melanom'.*'Melanoma'"),
    "a number of no sense": ({}, {"finding": ["0", "1", "0.4", "0", "1", "1"]},
                             r"row 4: .*'finding'.* is '0.4'"),
    "an age in words": ({}, {"age": ["45", "old", "1", "2", "3", "4"]},
                        r"row 3: column 'age'.*'old'"),
    "an age of 999": ({}, {"age": ["45", "50", "1", "2", "3", "999"]},
                      r"row 7: .*'age'.*'999'.*120"),
    "two units": ({}, {"age": ["45 years", "6 months", "1", "2", "3", "9"]},
                  r"row 3: .*'6 months', but others are in 'years'"),
    "thousands": ({}, {"age": ["45", "1,234", "1", "2", "3", "9"]}, r"row 3: .*'1,234'"),
    "no patient": ({}, {"who": ["P1", None, "P2", "unknown", "P3", "P4"]},
                   r"row 3: column 'who' \(table.group\) is empty.* its patient \(2"),
    "no photo": ({}, {"file": [*ROWS["file"][:4], "gone.jpg", "six.jpg"]},
                 r"row 6: column 'file' \(table.image\) is 'gone.jpg'.*photos.*unreadable=drop"),
    "no such folder": ({"images": "photso"}, {},
                       "table.images .*photso: no such folder; did you mean .*photos"),
    "no photo at all": ({}, {"file": list("uvwxyz")}, "row 2: .*'u'.*is table.images right"),
    "the same row": ({}, {"file": [*ROWS["file"][:5], "a/one.jpg"]},
                     r"row 7: .*'a/one.jpg'.*earlier"),
    "the same photo": ({}, {"file": [*ROWS["file"][:5], "one"]}, "row 7: .*'one', a photo that"),
    "all unknown": ({}, {"place": "?"}, r"column 'place' \(table.categorical\) holds no value"),
    "a weight of none": ({"weight": "note"}, {"note": ["1", "0", "1", "1", "1", "1"]},
                         r"row 3: column 'note' \(table.weight\) is '0'"),
    "a strange split": ({"split": "note"}, {"note": ["train", "valid"] * 3},
                        r"row 3: column 'note' \(table.split\) is 'valid'"),
    "no train": ({"split": "note"}, {"note": "test"}, "column 'note'.*no row as train"),
    "our own name": ({"numeric": ["width_px"]}, {"width_px": "3"}, "table.numeric: .*'width_px'"),
    "a class of a feature's name": ({}, {"finding": ["age", "b", "c", "age", "b", "c"]},
                                    "table.target: .*'age'"),
    "a class of a column of predictions": ({}, {"finding": ["fold", "b", "c"] * 2},
                                           "table.target: .*'fold'"),
    "a number beyond all": ({}, {"age": ["45", "1e999", "1", "2", "3", "9"]},
                            r"row 3: column 'age'.*'1e999'.*a number"),
    "no number": ({}, {"age": ["", "unknown"] * 3}, r"column 'age' \(table.numeric\) holds no"),
    "the same path": ({"images": None}, {"file": [*ROWS["file"][:4], "a\\five", "a/five"]},
                      r"row 7: .*'a/five'.*earlier"),
    "labels of one name": ({"target": ["a/b", "a:b"]}, {"a/b": [0, 1] * 3, "a:b": [0, 1] * 3},
                           r"column 'a/b' \(table.target\) and another differ only"),
    "no rows": ({}, None, "my.csv has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_that_names_file_row_and_column(folder, case):
    section, columns, message = WRONG[case]
    rows = ROWS.iloc[:0] if columns is None else ROWS.assign(**columns)
    with pytest.raises(PipelineError, match=message) as caught:
        read(folder, rows, **section)
    assert "\n" not in str(caught.value)


def test_a_category_of_a_name_each_is_refused(folder):
    rows = pd.concat([ROWS.assign(place=f"street {number}") for number in range(120)])
    with pytest.raises(PipelineError, match=r"'place'.* holds 120 different words"):
        read(folder, rows)


def test_a_photo_that_two_may_be_is_named_with_its_row(folder):
    Image.new("RGB", (8, 8)).save(folder / "photos" / "b" / "one.jpg")
    with pytest.raises(PipelineError, match=r"row 2: .*'one'.*(a/one.jpg or b|b/one.jpg or a)"):
        read(folder, ROWS.assign(file=["one", *ROWS["file"][1:]]))


def test_what_was_learned_is_read_back_and_needs_no_data(folder, tmp_path):
    spec, _ = read(folder)
    prepared = tmp_path / "prepare"
    write_learned(experiment().table, folder, prepared)
    assert set(read_json(prepared / SPEC_FILE)) == {"table", "learned"}
    again = spec_of(experiment(), prepared, None)
    for name in ("classes", "task", "numeric", "categorical", "lesion_features", "record_fields"):
        assert getattr(again, name) == getattr(spec, name)
    with pytest.raises(PipelineError, match=r"spec\.json is missing"):
        spec_of(experiment(), tmp_path / "nowhere", None)


@pytest.mark.parametrize("content", ["{}", "[]", '{"learned": {}}', '{"learned": null}'])
def test_a_damaged_file_of_what_was_learned_is_named(tmp_path, content):
    (tmp_path / SPEC_FILE).write_text(content)
    with pytest.raises(PipelineError, match=r"spec\.json is damaged .*--overwrite"):
        spec_of(experiment(), tmp_path, None)


def test_a_table_that_changed_its_section_is_learned_anew(folder, tmp_path):
    read(folder)
    write_learned(experiment().table, folder, tmp_path / "prepare")
    other = spec_of(experiment(positive="melanoma"), tmp_path / "prepare", folder)
    assert other.task == "binary"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"dataset": "table"}, "table"),
        ({"dataset": "ham10000", "table": SECTION}, "table"),
        ({"dataset": "table", "table": {**SECTION, "train": "/my.csv"}}, "table.train"),
        ({"dataset": "table", "table": {**SECTION, "images": "../photos"}}, "table.images"),
        ({"dataset": "table", "table": {**SECTION, "group": "age"}}, "table.numeric"),
        ({"dataset": "table", "table": {**SECTION, "test": "t.csv", "split": "s"}}, "table.split"),
        ({"dataset": "table", "table": {**SECTION, "target": ["a"], "positive": "b"}},
         "table.positive"),
        ({"dataset": "table", "table": {**SECTION, "target": []}}, "table.target"),
        ({"dataset": "table", "table": {**SECTION, "kaggle": "mine"}}, "table.kaggle"),
    ],
)  # fmt: skip
def test_a_section_of_no_sense_names_its_key(content, key):
    with pytest.raises(PipelineError, match=f"^{key} "):
        parse_experiment({"name": "mine", **content})


def test_dropping_photos_needs_them_read():
    with pytest.raises(PipelineError, match=r"^examples.unreadable "):
        parse_experiment(
            {"name": "x", "dataset": "ham10000", "examples": {"unreadable": "drop"},
             "leakage": {"fingerprints": False}}
        )  # fmt: skip
