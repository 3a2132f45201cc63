"""What people bring: tables, labels, shards and names as they come; one line, or it works."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DEMO = (
    "--config", str(ROOT / "configs" / "demo.yaml"), "--set", "folds.k=2",
    "--set", "leakage.duplicates=keep",
)  # fmt: skip


@pytest.fixture
def tables(competition, tmp_path):
    """The competition's tables without its photos, which a test may spoil."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (competition / "competition").glob("*.csv"):
        shutil.copy(path, folder)
    return folder


def prepare(tables, *more):
    places = ("--data-dir", str(tables), "--run-dir", str(tables.parent / "run"))
    return main(["prepare-data", *DEMO, *places, "--set", "blend.models=[tabular]", *more])


def error_line(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    found = [line for line in lines if line.startswith("error: ")]
    assert len(found) == 1 and "Traceback" not in "".join(lines)
    return found[0]


def write(path, change=lambda table: table, **options):
    table = change(pd.read_csv(path))
    table.to_csv(path, **{"index": False, **options})


# ---------------------------------------------------------------------------- tables that work

ROWS = "\n".join


def lines(change):
    def spoil(path):
        path.write_text(ROWS(change(path.read_text().splitlines())) + "\n")

    return spoil


SPELLINGS = {
    "plain": lambda path: None,
    "rows of commas below": lines(lambda x: [*x, "," * x[0].count(","), "," * x[0].count(",")]),
    "rows of blanks and commas": lines(lambda x: [*x, " ," * x[0].count(",") + " "]),
    "a row of commas between": lines(lambda x: [*x[:5], "," * x[0].count(","), *x[5:]]),
    "blank lines": lines(lambda x: [*x[:3], "", *x[3:], "", ""]),
    "an index column": lambda path: write(path, index=True),
    "a literal Unnamed: 0": lambda path: write(path, lambda t: t.assign(**{"Unnamed: 0": 1})),
    "two index columns": lambda path: [write(path, index=True), write(path, index=True)],
    "a comma at each line's end": lines(lambda x: [line + "," for line in x]),
    "semicolons": lambda path: write(path, sep=";"),
    "tabs": lambda path: write(path, sep="\t"),
    "UTF-16": lambda path: write(path, encoding="utf-16"),
    "UTF-16 and tabs": lambda path: write(path, encoding="utf-16", sep="\t"),
    "a byte order mark": lambda path: write(path, encoding="utf-8-sig"),
    "Windows' line ends": lambda path: write(path, lineterminator="\r\n"),
    "quotes everywhere": lambda path: write(path, quoting=1),
    "blanks around names": lambda path: write(path, lambda t: t.rename(columns="  {} ".format)),
    "blanks before values": lines(lambda x: [line.replace(",", ", ") for line in x]),
    "ids that end in .jpg": lambda path: write(
        path, lambda t: t.assign(image_name=t["image_name"] + ".jpg")
    ),
    "ids with blanks": lambda path: write(
        path, lambda t: t.assign(image_name="IMG " + t["image_name"] + " (1)")
    ),
    "ids with umlauts": lambda path: write(
        path, lambda t: t.assign(image_name="Mü+" + t["image_name"])
    ),
    "ids below folders": lambda path: write(
        path, lambda t: t.assign(image_name="a/" + t["image_name"])
    ),
    "targets as true and false": lambda path: write(
        path, lambda t: t.assign(target=t["target"].astype(bool))
    ),
    "targets as 1.0 and 0.0": lambda path: write(
        path, lambda t: t.assign(target=t["target"].astype(float))
    ),
    "other order of columns": lambda path: write(path, lambda t: t[t.columns[::-1]]),
    "other order of rows": lambda path: write(path, lambda t: t.sample(frac=1, random_state=0)),
    "further columns": lambda path: write(path, lambda t: t.assign(notes='a, "b"\nc', n=7)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_table_is_taken_as_what_it_means(tables, spelling):
    before = pd.read_csv(tables / "train.csv")
    SPELLINGS[spelling](tables / "train.csv")
    assert prepare(tables) == 0
    found = pd.read_csv(tables.parent / "run" / "prepare" / "examples.csv")
    train = found[found["split"] == "train"]
    assert len(train) == len(before) and train["target"].sum() == before["target"].sum()
    assert train["sex"].isna().sum() == before["sex"].isna().sum()


# ---------------------------------------------------------------------------- tables that stop


def put(content):
    return lambda path: path.write_bytes(content)


def set_column(name, value, row=3):
    def change(table):
        table[name] = table[name].astype(object)
        table.loc[row, name] = value
        return table

    return lambda path: write(path, change)


STOPS = {
    "empty": (put(b""), ["train.csv", "CSV"]),
    "a head alone": (lines(lambda x: x[:1]), ["train.csv", "no rows"]),
    "commas alone": (lines(lambda x: [x[0], "," * x[0].count(",")]), ["train.csv", "no rows"]),
    "an Excel workbook": (put(b"PK\3\4" + bytes(99)), ["train.csv", "Excel", "save it as CSV"]),
    "packed": (put(b"\x1f\x8b\x08" + bytes(99)), ["train.csv", "unpack"]),
    "a login page": (put(b"<!DOCTYPE html><html>"), ["train.csv", "web page"]),
    "a Git LFS pointer": (put(b"version https://git-lfs.github.com/spec/v1\n"), ["git lfs pull"]),
    "a photo": (put(b"\xff\xd8\xff\xe0" + bytes(range(256))), ["train.csv", "CSV"]),
    "latin-1": (lambda p: write(p, lambda t: t.assign(n="ü"), encoding="latin-1"), ["train.csv"]),
    "capitals": (lambda p: write(p, lambda t: t.rename(columns=str.upper)), ["'IMAGE_NAME'"]),
    "a column gone": (lambda p: write(p, lambda t: t.drop(columns="sex")), ["'sex'"]),
    "too many values": (lines(lambda x: [*x, x[-1] + ",1,2,3"]), ["train.csv", "line"]),
    "an id twice": (lines(lambda x: [*x, x[1]]), ["more than once"]),
    "an id missing": (set_column("image_name", None), ["image id"]),
    "an id of two lines": (set_column("image_name", "a\nb"), ["a\\nb"]),
    "an id of another folder": (set_column("image_name", "../b"), ["../b"]),
    "a patient missing": (set_column("patient_id", None), ["group_id", "patient"]),
    "a target in words": (set_column("target", "malignant"), ["'malignant'", "0 or 1"]),
    "a target of 2": (set_column("target", 2), ["target", "0 or 1"]),
    "a target missing": (set_column("target", None), ["target", "nan"]),
    "an age in words": (set_column("age_approx", "forty"), ["'forty'", "a number"]),
    "an endless age": (set_column("age_approx", "inf"), ["inf", "a number"]),
    "a sex of its own": (set_column("sex", "m"), ["'m'", "female, male"]),
    "a site of its own": (set_column("anatom_site_general_challenge", "knee"), ["'knee'"]),
    "no positive": (lambda p: write(p, lambda t: t.assign(target=0)), ["none of", "target"]),
    "no negative": (lambda p: write(p, lambda t: t.assign(target=1)), ["all of", "target"]),
    "all positives of one patient": (
        lambda p: write(p, lambda t: t.assign(target=(t.patient_id == t.patient_id[0]) * 1)),
        ["of 1 patient", "fold"],
    ),
    "one positive": (
        lambda p: write(p, lambda t: t.assign(target=(t.index == 0) * 1)), ["target", "fold"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", STOPS)
def test_a_table_that_cannot_be_used_stops_in_one_line_and_goes_on_once_mended(
    tables, capsys, fault
):
    path = tables / "train.csv"
    whole = path.read_bytes()
    spoil, words = STOPS[fault]
    spoil(path)
    assert prepare(tables) == 2
    line = error_line(capsys)
    assert all(word in line for word in words), line
    path.write_bytes(whole)
    assert prepare(tables) == 0  # the same command


SAMPLES = {
    "other ids": lambda t: t.assign(image_name=t["image_name"] + "x"),
    "ids that end in .jpg": lambda t: t.assign(image_name=t["image_name"] + ".jpg"),
    "fewer rows": lambda t: t.iloc[2:],
    "a row twice": lambda t: pd.concat([t, t.head(1)]),
    "a row too many": lambda t: pd.concat([t, t.head(1).assign(image_name="I_0")]),
}


@pytest.mark.parametrize("fault", SAMPLES)
def test_a_sample_of_other_images_than_the_tests_stops_before_training(tables, capsys, fault):
    write(tables / "sample_submission.csv", SAMPLES[fault])
    assert prepare(tables) == 2
    assert "sample submission" in error_line(capsys)
    (tables / "sample_submission.csv").unlink()
    assert prepare(tables) == 0


LEARNERS = ("dense", "boosting", "forest", "logistic")


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_class_of_one_patient_stops_every_learner_before_training(tables, capsys, learner):
    stage = "tabular" if learner == "dense" else learner
    path = tables / "train.csv"
    whole = path.read_bytes()
    write(path, lambda t: t.assign(target=(t.patient_id == t.patient_id[0]) * 1))
    more = ("--set", f"tabular.learners=[{learner}]", "--set", f"blend.models=[{stage}]",
            "--set", "tabular.resampling=none")  # fmt: skip
    assert prepare(tables, *more) == 2
    line = error_line(capsys)
    assert "of 1 patient" in line and "fold" in line
    path.write_bytes(whole)
    assert prepare(tables, *more) == 0


def test_only_tables_that_were_read_bind_a_run(tables, capsys):
    (tables / "notes.csv").write_text("a\n1\n")
    assert prepare(tables) == 0
    (tables / "notes.csv").write_text("a\n2\n")
    (tables / "more.csv").write_text("b\n")
    (tables / "photos").mkdir()
    (tables / "photos" / "list.csv").write_text("c\n")
    assert prepare(tables) == 0
    names = pd.read_csv(tables / "train.csv")["image_name"]
    sizes = pd.DataFrame({"image_name": names, "width": 9, "height": 9})
    sizes.to_csv(tables / "train_image_sizes.csv", index=False)  # which would be read
    assert prepare(tables) == 2
    assert "train_image_sizes.csv came or went" in error_line(capsys)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid", b"<html>"])
def test_weights_that_are_another_file_stop_prepare(tables, capsys, content):
    path = tables / "w.weights.h5"
    path.write_bytes(content)
    more = ("--set", f"image.weights={path}", "--set", "blend.models=[image,tabular]")
    assert prepare(tables, *more) == 2
    assert "w.weights.h5" in error_line(capsys)


# ---------------------------------------------------------------------------- photos that lack


@pytest.fixture
def whole(competition, tmp_path):
    """The competition's folder, which a test may spoil, and its photo of a test row."""
    folder = shutil.copytree(competition / "competition", tmp_path / "data")
    return folder, folder / "jpeg" / "test" / f"{pd.read_csv(folder / 'test.csv').iat[4, 0]}.jpg"


DROP = ("--set", "examples.unreadable=drop")
STOP = ("--set", "examples.unreadable=stop", "--set", "records.workers=1")


@pytest.mark.parametrize("broken", [False, True])
def test_a_photo_of_the_sample_that_lacks_stops_before_training(whole, capsys, broken):
    folder, photo = whole
    photo.write_text("no photo") if broken else photo.unlink()
    for more in (STOP, (*STOP, *DROP)):
        assert prepare(folder, *more) == 2
        line = error_line(capsys)
        assert photo.stem in line and "every photo that the sample lists" in line
        assert "unreadable" not in line, "which would only be found out after training"
    (folder / "sample_submission.csv").unlink()
    assert prepare(folder, *STOP) == 2
    assert "unreadable=drop" in error_line(capsys)
    assert prepare(folder, *STOP, *DROP) == 0
    assert photo.stem not in (folder.parent / "run" / "prepare" / "examples.csv").read_text()


def test_records_of_images_that_are_nowhere_name_the_setting(tables, capsys):
    assert prepare(tables, "--set", "records.source=images", *DROP) == 2
    line = error_line(capsys)
    assert "records.source" in line and "unreadable" not in line
    assert prepare(tables, "--set", "records.source=auto", *DROP) == 0
