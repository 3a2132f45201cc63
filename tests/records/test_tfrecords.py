"""Tests of the TFRecord schema: what is written is read back, and no damage goes unnamed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_image import make_examples, to_jpeg, write_payloads, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.records.tfrecords import (
    check_index,
    check_shard,
    count_data_items,
    count_records,
    describe_others,
    encode_record,
    index_records,
    list_shards,
    parse_id_and_image,
    read_records,
    shards_holding,
)

tf = pytest.importorskip("tensorflow")

JPEG = b"\xff\xd8 an image \xff\xd9"
MISSING = st.sampled_from([None, np.nan, pd.NA])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "group_id": st.text("IP_0123456789é", min_size=1),
            "sex": st.sampled_from(SPEC.categorical["sex"]) | MISSING,
            "age_years": st.integers(0, 120).map(float) | MISSING,
            "site": st.sampled_from(SPEC.categorical["site"]) | MISSING,
            "diagnosis": st.text(min_size=1) | MISSING,
            "target": st.sampled_from([0.0, 1.0]) | MISSING,
            "width_px": st.integers(1, 10_000) | MISSING,
            "image": st.binary(max_size=40),
        }
    ),
    max_size=6,
)


def feature(value):
    """A ``tf.train.Feature`` of whatever type the value has."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def foreign(**features):
    """A serialised record with just these features."""
    named = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def foreign_row(number, **changes):
    """A record as third parties write them: everything but the image and its name is a code."""
    codes = {
        "patient_id": 17,
        "sex": 1,
        "age_approx": 45,
        "anatom_site_general_challenge": 3,
        "diagnosis": 0,
        "target": number % 2,
        "width": 640,
        "height": 480,
    }
    names = {"image": to_jpeg((9, 9, 9)), "image_name": f"ISIC_{number:07d}".encode()}
    return foreign(**{**names, **codes, **changes})


@pytest.fixture
def shard(tmp_path):
    """Three records of one length in a file that keeps its word."""
    examples = make_examples(3).assign(sex="male")
    jpegs = dict.fromkeys(examples.index, to_jpeg((10, 20, 30)))
    return write_records(tmp_path, examples, jpegs, SPEC, shards=1)[0]


@settings(max_examples=40)
@given(rows=ROWS)
def test_reading_gives_what_was_encoded(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "train00-0.tfrec"
    payloads = [
        encode_record(f"ISIC_{i}", pd.Series(row, dtype=object), row["image"], SPEC)
        for i, row in enumerate(rows)
    ]
    write_payloads(path, payloads)
    assert count_records(path) == len(rows)
    found = list(read_records(path))
    assert [record["image_name"] for record in found] == [f"ISIC_{i}" for i in range(len(rows))]
    for record, row in zip(found, rows, strict=True):
        assert record["image"] == row["image"]
        for field in SPEC.record_fields:
            wanted = row.get(field.column)
            wanted = None if pd.isna(wanted) else wanted
            assert record.get(field.name) == wanted, field.name


def test_a_missing_target_is_left_out_and_a_missing_feature_is_not():
    row = pd.Series({"target": np.nan, "age_years": np.nan, "sex": np.nan})
    stored = tf.train.Example.FromString(encode_record("a", row, b"", SPEC)).features.feature
    assert set(stored) == {"image", "image_name", "age_approx", "sex"}
    assert stored["age_approx"].int64_list.value == [-1]
    assert stored["sex"].bytes_list.value == [b""]


def test_encoding_is_deterministic():
    row = make_examples(1).iloc[0]
    assert encode_record("a", row, b"x", SPEC) == encode_record("a", row[::-1], b"x", SPEC)


def test_shards_are_listed_by_name_with_their_counts(tmp_path):
    for name in ("train01-20.tfrec", "train00-2071.tfrec", "test00-5.tfrecord", "notes.txt"):
        (tmp_path / name).touch()
    shards = list_shards(tmp_path)
    assert [(shard.path.name, shard.count) for shard in shards] == [
        ("test00-5.tfrecord", 5),
        ("train00-2071.tfrec", 2071),
        ("train01-20.tfrec", 20),
    ]
    assert count_data_items(shards) == 2096


def test_a_name_without_count_is_refused(tmp_path):
    (tmp_path / "train.tfrec").touch()
    with pytest.raises(PipelineError, match=r"train\.tfrec.*must end in its count"):
        list_shards(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(PipelineError, match=f"no .tfrec files in {tmp_path}"):
        list_shards(tmp_path)


@pytest.mark.parametrize("kept", [3, 11, 40], ids=["in a length", "in its CRC", "in a payload"])
def test_a_truncated_file_is_named(shard, kept):
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) * 2 // 3 + kept])
    with pytest.raises(PipelineError, match=rf"{shard} is truncated inside record 2"):
        count_records(shard)
    # TensorFlow itself takes a file that ends in a header for a whole one; the index must not.
    with pytest.raises(PipelineError, match=rf"{shard} is truncated inside record 2"):
        list(index_records(list_shards(shard.parent), SPEC))


def test_reading_a_record_cut_short_names_the_file(shard):
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(PipelineError, match=rf"{shard} is damaged"):
        list(read_records(shard))


def test_a_flipped_bit_is_named(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(PipelineError, match=f"{shard} is damaged"):
        list(read_records(shard))


def test_a_payload_that_is_no_example_is_named(tmp_path):
    path = write_payloads(tmp_path / "train00-2.tfrec", [foreign_row(0), b"\xff\xfe no protobuf"])
    with pytest.raises(PipelineError, match=f"{path}: record 1 is not a tf.train.Example"):
        list(read_records(path))


def test_a_name_that_lies_about_its_count_is_refused(shard):
    (honest,) = list_shards(shard.parent)
    check_shard(honest)
    liar = shard.rename(shard.with_name("train00-4.tfrec"))
    with pytest.raises(PipelineError, match=rf"{liar} holds 3 records but its name says 4"):
        list(index_records(list_shards(shard.parent), SPEC))


def test_a_file_cut_between_two_records_is_refused(shard):
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(PipelineError, match=r"train00-3\.tfrec holds 2 records"):
        check_shard(list_shards(shard.parent)[0])


def test_the_index_holds_everything_but_the_image(shard):
    index = pd.DataFrame(index_records(list_shards(shard.parent), SPEC)).set_index("image_id")
    examples = make_examples(3)
    assert list(index.index) == list(examples.index)
    assert "image" not in index and set(index["shard"]) == {"train00-3.tfrec"}
    assert index["image_sha256"].nunique() == 1  # one photo three times
    assert index["target"].tolist() == examples["target"].tolist()


@pytest.mark.parametrize("image", [b"\x89PNG", b"\xff\xd8 cut off"])
def test_an_image_that_is_no_whole_jpeg_is_named(tmp_path, image):
    path = write_payloads(
        tmp_path / "train00-2.tfrec",
        [foreign(image=JPEG, image_name=b"a"), foreign(image=image, image_name=b"b")],
    )
    with pytest.raises(PipelineError, match=f"{path}: record 1: image b is (no|a truncated) JPEG"):
        list(index_records(list_shards(tmp_path), SPEC))


@pytest.mark.parametrize("lacking", ["image", "image_name"])
def test_a_record_without_image_or_id_is_named(tmp_path, lacking):
    features = {"image": JPEG, "image_name": b"a"}
    del features[lacking]
    records = [foreign(image=JPEG, image_name=b"b"), foreign(**features)]
    path = write_payloads(tmp_path / "train00-2.tfrec", records)
    with pytest.raises(PipelineError, match=f"{path}: record 1 has no '{lacking}'"):
        list(index_records(list_shards(tmp_path), SPEC))


class TestCheckIndex:
    """The index against the examples."""

    examples = make_examples(4)

    def index(self, **changes):
        columns = {
            "image_id": self.examples.index,
            "shard": ["a", "a", "b", "b"],
            "target": [0, 1, 0, 1],
        }
        return pd.DataFrame({**columns, **changes})

    def test_agreement_passes_in_any_order(self):
        check_index(self.index().iloc[::-1], self.examples, SPEC)

    def test_further_records_and_unknown_targets_pass(self):
        test_row = self.examples.assign(target=[0.0, 1.0, 0.0, np.nan]).iloc[1:]
        check_index(self.index(target=[0, None, 0, 1]), test_row, SPEC)

    def test_an_id_twice_is_named_with_both_shards(self):
        ids = [*self.examples.index[:3], self.examples.index[0]]
        with pytest.raises(PipelineError, match=r"ISIC_0000000 is more than once.*\(a, b\)"):
            check_index(self.index(image_id=ids), self.examples, SPEC)

    def test_a_missing_example_is_named(self):
        with pytest.raises(PipelineError, match=r"no train image ISIC_0000002 \(2 missing\)"):
            check_index(self.index().iloc[:2], self.examples, SPEC)

    def test_another_target_is_named_with_both_values(self):
        with pytest.raises(PipelineError, match=r"target of image ISIC_0000001 is 0.* but 1 in"):
            check_index(self.index(target=[0, 0, 0, 1]), self.examples, SPEC)


class TestForeignRecords:
    """Files by others: codes for words, -1 for missing, more or fewer features."""

    def test_codes_are_read_and_minus_one_is_missing(self, tmp_path):
        payload = foreign_row(1, sex=-1, age_approx=-1.0, site_code=2.5)
        (record,) = read_records(write_payloads(tmp_path / "a-1.tfrec", [payload]))
        assert record["sex"] is None and record["age_approx"] is None
        assert record["patient_id"] == 17 and record["target"] == 1
        assert record["site_code"] == 2.5

    def test_an_empty_feature_is_missing(self, tmp_path):
        example = tf.train.Example.FromString(foreign_row(0))
        example.features.feature["sex"].Clear()
        example.features.feature["diagnosis"].int64_list.Clear()
        path = write_payloads(tmp_path / "a-1.tfrec", [example.SerializeToString()])
        (record,) = read_records(path)
        assert record["sex"] is None and record["diagnosis"] is None

    def test_they_are_indexed_and_checked(self, tmp_path):
        write_payloads(tmp_path / "train00-4.tfrec", [foreign_row(i) for i in range(4)])
        index = pd.DataFrame(index_records(list_shards(tmp_path), SPEC))
        check_index(index, make_examples(4), SPEC)
        flipped = make_examples(4).assign(target=[1.0, 1.0, 0.0, 1.0])
        with pytest.raises(PipelineError, match="ISIC_0000000"):
            check_index(index, flipped, SPEC)

    @pytest.mark.parametrize(
        "payload",
        [
            foreign_row(7),
            foreign(image=to_jpeg((9, 9, 9)), image_name=b"ISIC_0000007"),
            foreign_row(7, tfrecord=3, embedding=0.5, note=b"more"),
        ],
        ids=["codes", "fewer", "more"],
    )
    def test_id_and_image_are_parsed(self, payload):
        image_id, image = parse_id_and_image(SPEC)(tf.constant(payload))
        assert image_id.numpy() == b"ISIC_0000007"
        assert image.numpy() == to_jpeg((9, 9, 9))

    def test_the_id_may_have_another_name(self, tmp_path):
        spec = replace(SPEC, record_id="isic_id")
        payload = foreign(image=JPEG, isic_id=b"abc")
        assert parse_id_and_image(spec)(tf.constant(payload))[0].numpy() == b"abc"
        write_payloads(tmp_path / "a-1.tfrec", [payload])
        assert next(index_records(list_shards(tmp_path), spec))["image_id"] == "abc"


def test_shards_holding_names_each_shard_once_and_only_those_needed():
    index = pd.DataFrame(
        {
            "image_id": list("abcd"),
            "folder": "/r",
            "shard": ["train01-2.tfrec", "train01-2.tfrec", "train00-1.tfrec", "test00-1.tfrec"],
            "image_sha256": list("wxyz"),
        }
    )
    found = shards_holding(index, pd.Index(["b", "a", "c"]))
    assert found == [Path("/r/train00-1.tfrec"), Path("/r/train01-2.tfrec")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": 0.5}, "'image' as numbers"),
        ({"image": 7}, "'image' as numbers"),
        ({"image_name": 12}, "'image_name' as a number"),
        ({"image": b"\x89PNG\r\n\x1a\n" + bytes(9)}, "no JPEG but a PNG"),
        ({"image": bytes(48)}, "raw pixels"),
    ],
)
def test_a_record_of_another_kind_is_named_with_its_shard_and_number(tmp_path, changes, words):
    path = tmp_path / "train00-2.tfrec"
    write_payloads(path, [foreign_row(0), foreign_row(1, **changes)])
    with pytest.raises(PipelineError) as caught:
        list(index_records(list_shards(tmp_path), SPEC))
    line = str(caught.value)
    assert f"{path}: record 1" in line and words in line and "\n" not in line


def test_padding_after_a_jpeg_is_no_damage(tmp_path):
    padded = to_jpeg((9, 9, 9)) + bytes(5000)
    write_payloads(tmp_path / "train00-1.tfrec", [foreign_row(0, image=padded)])
    assert len(list(index_records(list_shards(tmp_path), SPEC))) == 1
    assert tf.io.decode_jpeg(padded).shape[-1] == 3  # as training decodes it


def test_a_packed_shard_says_how_to_unpack_it(tmp_path):
    path = tmp_path / "train00-1.tfrec"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        writer.write(foreign_row(0))
    with pytest.raises(PipelineError, match=r"train00-1\.tfrec holds no records: .*gzip -d"):
        list(index_records(list_shards(tmp_path), SPEC))


@pytest.mark.parametrize("ending", ["tfrec", "tfrecord", "tfrecords"])
def test_shards_are_found_among_what_lies_beside_them(tmp_path, ending):
    write_payloads(tmp_path / f"train00-1.{ending}", [foreign_row(0)])
    for name in (f"._train00-1.{ending}", f"train00-1.{ending}.md5", "info.json", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    assert [shard.path.name for shard in list_shards(tmp_path)] == [f"train00-1.{ending}"]
    assert "4 files beside the shards are not read" in describe_others(tmp_path)
    (tmp_path / f"train01-1.{ending}.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(PipelineError, match="unpack it"):
        list_shards(tmp_path)
