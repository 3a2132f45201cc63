"""Tests of the measured input pipeline: what is measured is what it says."""

import io
import json

import pytest
from PIL import Image

from benchmarks import input
from benchmarks.input import Way, make_photo, measure_input, noise_for
from benchmarks.peers import decoding_alone
from benchmarks.train import measure_prediction

pytest.importorskip("tensorflow")


def test_photos_have_their_side_and_size():
    noise = noise_for(12_000, 256)
    jpegs = [make_photo(number, 256, noise) for number in range(4)]
    assert Image.open(io.BytesIO(jpegs[0])).size == (256, 256)
    assert all(len(jpeg) == pytest.approx(12_000, rel=0.15) for jpeg in jpegs)
    assert jpegs[3] == make_photo(3, 256, noise) != jpegs[2]


def test_the_limit_decodes_every_photo():
    name, run = decoding_alone([make_photo(0, 64, 5.0), b"no jpeg"], threads=1)
    assert name.startswith("decoding alone (")
    with pytest.raises((ValueError, OSError)):
        run()


def test_rounds_are_dealt_out_and_the_first_is_left_out(monkeypatch):
    order = []
    ways = {
        name: Way(lambda name=name: order.append(name), passes)
        for name, passes in (("limit", 1), ("ours", 4))
    }
    clock = iter(range(100))
    monkeypatch.setattr(input.time, "perf_counter", lambda: next(clock))
    seconds = input._interleaved(ways, rounds=2)
    assert order == ["limit", "ours"] * 3
    assert seconds == {"limit": [1, 1], "ours": [1 / 4, 1 / 4]}


@pytest.mark.slow
def test_every_way_has_a_rate_and_a_ratio_to_the_limit(tmp_path, capsys):
    found = measure_input(tmp_path, tmp_path / "input.json", photos=16, rounds=1)
    limit = next(iter(found["rates"]))
    assert found["ratios"][limit] == 1 and len(found["rates"]) >= 7
    assert json.loads((tmp_path / "input.json").read_text())["ratios"] == found["ratios"]
    said = capsys.readouterr().out  # the second reading would be empty
    assert all(way in said for way in found["rates"])


@pytest.mark.slow
def test_one_pass_answers_as_a_pass_a_view_does(tmp_path):
    found = measure_prediction(tmp_path, photos=20, rounds=1, backbone="LeNet", side=64)
    assert found["largest_difference"] < 1e-5 and found["ratio"] > 0
