"""Checks of tables that a user brings."""

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import read_own, read_table, require_probabilities


def test_probabilities_come_back_as_numbers():
    table = pd.DataFrame({"a": ["0.25", "1"], "b": [0, 0.5]}, index=["x", "y"])
    found = require_probabilities(table, "some.csv")
    assert found.to_numpy().tolist() == [[0.25, 0.0], [1.0, 0.5]]
    assert set(found.dtypes) == {np.dtype(float)} and list(found.index) == ["x", "y"]


@pytest.mark.parametrize("columns", [[], ["a"]])
def test_a_table_without_rows_or_columns_has_nothing_wrong(columns):
    assert require_probabilities(pd.DataFrame(columns=columns), "some.csv").empty


@pytest.mark.parametrize("odd", [-1e-9, 1.0000001, np.nan, np.inf, "high", None, ""])
def test_what_is_no_probability_is_named_with_its_row_and_column(odd):
    table = pd.DataFrame({"a": [0.5, 0.5], "b": pd.Series([0.5, odd], dtype=object)})
    table.index = ["x", "y"]
    with pytest.raises(PipelineError, match=r"^some\.csv: b of y is .*, not in \[0, 1\]$"):
        require_probabilities(table, "some.csv")


def test_a_row_longer_than_the_head_shifts_no_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_id,target\na,0.1,0.9\nb,0.2,0.8\n")
    for read in (read_table, lambda path: read_own(path, {"target": float}, remedy="again")):
        with pytest.raises(PipelineError, match=r"t\.csv .*more values than the head"):
            read(path)


def test_a_number_beyond_all_is_no_other_number(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1e300,1\n,\n2,3\n")
    table = read_table(path)
    assert table["a"].tolist() == [1e300, 2] and table["b"].tolist() == [1, 3]
    path.write_text("fold\n99999999999999999999\n")
    with pytest.raises(PipelineError, match=r"t\.csv is damaged \(a number is too large\).* again"):
        read_own(path, {"fold": int}, remedy="again")


@pytest.mark.parametrize(
    ("named", "there"),
    [("", "competition"), ("competition/jpeg", "competition"), ("competition", "other")],
)
def test_a_table_in_the_folder_beside_the_one_named_is_pointed_at(named, there, tmp_path):
    (tmp_path / "competition" / "jpeg").mkdir(parents=True)
    (tmp_path / there).mkdir(exist_ok=True)
    (tmp_path / there / "train.csv").write_text("id\n1\n")
    path = tmp_path / named / "train.csv"
    with pytest.raises(PipelineError, match="is missing") as refused:
        read_table(path, hint="get it with download_data")
    near = there == "competition"
    assert (f"name the folder {tmp_path / there}" in str(refused.value)) == near
    assert ("get it with" in str(refused.value)) != near


OTHERS = {
    "latin-1": ("a,ö\n1,x\n2,ü\n".encode("latin-1"), r"byte 0xf6 in line 1 is no UTF-8.*CSV UTF-8"),
    "a later line": ("a,b\n1,x\n2,ü\n".encode("cp1252"), "byte 0xfc in line 3 is no UTF-8"),
    "old Excel": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(99), "an Excel workbook: save it"),
    "new Excel": (b"PK\3\4" + bytes(99), "an Excel workbook or an archive: save it as CSV"),
    "empty": (b"", "it is empty"),
    "a column twice": (b"a, b,b\n1,2,3\n", "the head names 'b' twice: rename"),
    "a comma too many": (b"a;b\n1;2\n1;2;3\n", "line 3 has 3 values, .* 2: .*';' in quotes"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_such_table_says_where_and_what_to_do(case, tmp_path):
    content, words = OTHERS[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=words) as refused:
        read_table(path, text=["b"])
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_spreadsheets_ways_to_write_are_read_alike(encoding, between, tmp_path):
    path = tmp_path / "t.csv"
    rows = [["wo", "zahl"], ["Rücken", "1"], ["Bein", "2"]]
    path.write_bytes("\r\n".join(between.join(row) for row in rows).encode(encoding))
    table = read_table(path, ["wo", "zahl"])
    assert table["wo"].tolist() == ["Rücken", "Bein"] and table["zahl"].tolist() == [1, 2]
