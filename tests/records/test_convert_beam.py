"""Tests of the conversion by Apache Beam: the files that ``convert`` writes, byte for byte."""

import sys

import numpy as np
import pytest
from helpers_image import make_examples, to_jpeg

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.records import convert_beam
from kaggle_pipeline.records.convert import convert, digest_rows, open_conversion
from kaggle_pipeline.records.convert_beam import convert_by_beam, make_shard

CONFIG = RecordsConfig(image_size_px=32, records_per_shard=4, workers=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten training and three test photos, their table, and what ``convert`` makes of them."""
    pytest.importorskip("tensorflow")
    root = tmp_path_factory.mktemp("photos")
    table = make_examples(13)
    table.loc[table.index[10:], ["split", "target"]] = ["test", np.nan]
    (root / "jpeg").mkdir()
    for number, path in enumerate(table["image_path"]):
        (root / "jpeg" / path).write_bytes(to_jpeg(np.full((32, 40, 3), 10 + 15 * number)))
    convert(table, SPEC, root / "jpeg", root / "records", CONFIG)
    return table, root / "jpeg", contents(root / "records")


def contents(folder):
    """All files but the record of when they were written."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "written.json"}


def run_here(beam, todo, given, options):
    """In place of a runner: the same work, last shard first."""
    for shard in reversed(todo):
        make_shard(shard, *given)


@pytest.fixture
def no_runner(monkeypatch):
    """Beam's part done in this process."""
    monkeypatch.setattr(convert_beam, "import_beam", lambda: None)
    monkeypatch.setattr(convert_beam, "_run", run_here)


def test_workers_write_what_convert_writes(photos, tmp_path, no_runner):
    table, folder, expected = photos
    assert convert_by_beam(table, SPEC, folder, tmp_path / "out", CONFIG) == 13
    assert contents(tmp_path / "out") == expected
    assert convert_by_beam(table, SPEC, folder, tmp_path / "out", CONFIG) == 0


def test_a_stopped_pipeline_goes_on(photos, tmp_path, no_runner, monkeypatch):
    table, folder, expected = photos
    out = tmp_path / "out"
    plan, _ = open_conversion(table, SPEC, out, CONFIG)
    for name, rows in plan[3:5]:  # two shards made, then the driver was killed
        make_shard((name, rows, digest_rows(rows, folder)), folder, out, SPEC, CONFIG)
    (out / f".{plan[0][0]}.json").write_text('{"error": "of a photo that is whole by now"}')
    assert convert_by_beam(table, SPEC, folder, out, CONFIG) == 13 - sum(
        len(rows) for _, rows in plan[3:5]
    )
    assert contents(out) == expected


def test_an_unreadable_photo_is_named_and_the_other_shards_kept(photos, tmp_path, no_runner):
    table, folder, expected = photos
    copy = tmp_path / "jpeg"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    bad = copy / table["image_path"].iloc[3]
    bad.write_bytes(b"no photo")
    out = tmp_path / "out"
    with pytest.raises(PipelineError, match=f"cannot read image {bad}"):
        convert_by_beam(table, SPEC, copy, out, CONFIG)
    assert len(contents(out)) == len(expected) - 1
    bad.write_bytes((folder / bad.name).read_bytes())
    assert 0 < convert_by_beam(table, SPEC, copy, out, CONFIG) <= 3
    found, shards = contents(out), {name for name in expected if name != "manifest.json"}
    assert {name: found[name] for name in shards} == {name: expected[name] for name in shards}


def test_without_beam_one_line_says_what_to_install(monkeypatch, capsys, competition, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    words = ["--data-dir", str(competition / "competition"), "--run-dir", str(tmp_path / "run")]
    assert main(["prepare-data", *words, "--beam"]) == 2
    assert "pip install apache-beam" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_beam_itself_writes_the_same(photos, tmp_path):
    pytest.importorskip("apache_beam")
    table, folder, expected = photos
    assert convert_by_beam(table, SPEC, folder, tmp_path / "out", CONFIG) == 13
    assert contents(tmp_path / "out") == expected
    in_one = ["--runner=FnApiRunner", "--direct_num_workers=1"]
    assert convert_by_beam(table, SPEC, folder, tmp_path / "one", CONFIG, in_one) == 13
    assert contents(tmp_path / "one") == expected
    with pytest.raises(PipelineError, match="Apache Beam: "):
        convert_by_beam(table, SPEC, folder, tmp_path / "no", CONFIG, ["--runner=NoSuchRunner"])
