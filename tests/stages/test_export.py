"""Tests of a run that leaves as one file: read by others' runtimes, it says what predict says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kaggle_pipeline.cli.main import main

pytest.importorskip("tensorflow")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
READERS = {
    "onnx": ("read_onnx.py", ("onnxruntime", "tf2onnx")),
    "litert": ("read_litert.py", ("ai_edge_litert",)),
}


def export(run, out, *words):
    return main(["export-model", "--run-dir", str(run), "--out", str(out), *words])


@pytest.fixture(scope="module")
def predicted(demo_run, tmp_path_factory):
    """Photos of several shapes, and what predict says of them."""
    folder = tmp_path_factory.mktemp("export") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate([(32, 32), (90, 60), (200, 170)]):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"photo{number}.jpg")
    out = folder.parent / "predicted.csv"
    words = ["--run-dir", str(demo_run), "--images", str(folder), "--out", str(out)]
    assert main(["predict", *words]) == 0
    return folder, pd.read_csv(out, index_col="image_id")


@pytest.mark.ci
def test_a_file_is_compared_and_says_what_it_is(demo_run, tmp_path, capsys):
    out = tmp_path / "run"
    words = ("--format", "saved_model")
    assert export(demo_run, out, *words, "--views", "none") == 0
    said = capsys.readouterr().out
    assert "views none, not flips" in said
    assert "20 photos: scores differ by" in said and " ms a photo" in said
    assert [one.name for one in tmp_path.iterdir()] == [out.name], "nothing is left beside it"
    about = json.loads((out / "assets.extra" / "about.json").read_text())
    assert about["labels"] == ["melanoma"] and about["views"] == "none"
    assert "are of the run itself, with views flips" in about["card"]
    assert about["made_up"] and "made-up lesions" in about["card"]
    assert "IP_" not in json.dumps(about), "no patient is named"
    assert export(demo_run, out, *words) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.ci
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_the_reader_in_the_docs_says_what_predict_says(demo_run, predicted, tmp_path, name, capsys):
    script, packages = READERS[name]
    for package in packages:
        pytest.importorskip(package)
    photos, expected = predicted
    out = tmp_path / f"run.{name}"
    assert export(demo_run, out, "--format", name, "--images", str(photos)) == 0
    assert "no decision other than predict's" in capsys.readouterr().out
    files = sorted(map(str, photos.iterdir()))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(out), *files],
        capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines() if ".jpg" in line]
    for line, (photo, row) in zip(lines, expected.iterrows(), strict=True):
        path, _, probability, *decided = line
        assert Path(path).stem == photo and " ".join(decided) == row["decision"]
        assert abs(float(probability) - row["melanoma_calibrated"]) < 1e-4


@pytest.mark.ci
def test_a_card_claims_nothing_that_was_measured_with_metadata(demo_run):
    from kaggle_pipeline.export.about import describe_export
    from kaggle_pipeline.stages.trained import TrainedImageModels

    trained = TrainedImageModels.open(demo_run)
    what = (trained.stage, trained.config, trained.spec, trained.fit, [0, 1], None, None)
    about = describe_export(*what, own_views="dihedral", why="measured with metadata")
    assert "Measured with more than the photo" in about["card"]
    assert "The AUC is of the run itself" in about["card"]
    whole = describe_export(*what, own_views="dihedral")["card"]
    assert "Measured with more" not in whole and "AUC, calibration and decision are" in whole


def test_a_file_that_answers_otherwise_is_not_written(demo_run, tmp_path, capsys, monkeypatch):
    from kaggle_pipeline.export import formats

    one = formats.FORMATS["saved_model"]

    def damaged(network, about, path, quantize):
        layer = network.get_layer("fold1").get_layer("head")
        layer.set_weights([weight + 0.01 for weight in layer.get_weights()])
        one.write(network, about, path, quantize)

    wrong = formats.Format("", (), damaged, one.open)
    monkeypatch.setitem(formats.FORMATS, "saved_model", wrong)
    out = tmp_path / "new" / "run"
    assert export(demo_run, out, "--format", "saved_model") == 2
    assert "away from predict's" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_what_is_larger_than_a_format_holds_is_refused_before_the_work(
    demo_run, tmp_path, capsys, monkeypatch, quantize
):
    from kaggle_pipeline.export import formats

    def forbidden(*_):
        raise AssertionError("it has begun")

    size = sum(one.stat().st_size for one in (demo_run / "image").rglob("model.weights.h5"))
    small = formats.Format(".tflite", (), forbidden, forbidden, size // 8)
    monkeypatch.setitem(formats.FORMATS, "litert", small)
    words = ("--format", "litert", "--quantize", quantize)
    assert export(demo_run, tmp_path / "out", *words) == 2
    said = capsys.readouterr()
    assert "saved_model" in said.err and "image" in said.err and "drawn" not in said.out
    assert not list(tmp_path.iterdir())


def test_few_photos_are_in_memory_at_once(demo_run, monkeypatch):
    from kaggle_pipeline.records.tfrecords import read_index
    from kaggle_pipeline.stages import quantization_cost
    from kaggle_pipeline.stages.trained import TrainedImageModels

    trained, index = TrainedImageModels.open(demo_run), read_index(demo_run)
    ids = pd.read_csv(demo_run / "image" / "oof.csv", index_col="image_id").index[:7]
    squares = dict(zip(*next(quantization_cost._squares(trained, index, ids)), strict=True))
    assert set(squares) == set(ids)
    monkeypatch.setattr(quantization_cost, "_SQUARES_BYTES", 3 * next(iter(squares.values())).size)
    parts = list(quantization_cost._squares(trained, index, ids))
    assert [len(names) for names, _ in parts] == [3, 3, 1]
    for names, found in parts:
        np.testing.assert_array_equal(found, [squares[name] for name in names])


def test_a_photo_that_the_records_lack_is_no_score(demo_run, monkeypatch):
    from kaggle_pipeline.export.formats import FORMATS
    from kaggle_pipeline.hardware.accelerator import choose_accelerator
    from kaggle_pipeline.stages import quantization_cost
    from kaggle_pipeline.stages.trained import TrainedImageModels

    def lacking(trained, index, ids):
        yield list(ids[1:]), np.zeros((len(ids) - 1, 1, 1, 3), np.uint8)

    def open_it(_):
        return lambda squares: {"score": np.full((len(squares), 1), 0.5)}

    monkeypatch.setattr(quantization_cost, "_squares", lacking)
    chosen = replace(FORMATS["litert"], write=lambda *_: None, open=open_it)
    said = quantization_cost.quantization_cost(
        TrainedImageModels.open(demo_run), demo_run, chosen, "int8", choose_accelerator("cpu")
    )
    assert "is not known: the records lack ISIC_" in said and "(2 such)" in said


def test_the_cost_of_fewer_bits_is_not_mixed_with_that_of_no_metadata(demo_run, monkeypatch):
    from kaggle_pipeline.export.formats import FORMATS
    from kaggle_pipeline.hardware.accelerator import choose_accelerator
    from kaggle_pipeline.stages import quantization_cost
    from kaggle_pipeline.stages.trained import TrainedImageModels

    trained = TrainedImageModels.open(demo_run)
    image = replace(trained.config.image, metadata=True)
    trained = replace(trained, config=replace(trained.config, image=image))
    monkeypatch.setattr(quantization_cost, "_squares", lambda *_: pytest.fail("it has begun"))
    said = quantization_cost.quantization_cost(
        trained, demo_run, FORMATS["litert"], "int8", choose_accelerator("cpu")
    )
    assert "is not known" in said and "metadata" in said and "AUC +" not in said


@pytest.mark.parametrize("format", ["onnx", "saved_model"])
def test_a_folder_that_is_no_export_is_never_replaced(demo_run, tmp_path, capsys, format):
    kept = tmp_path / "photos" / "photo.jpg"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    assert export(demo_run, kept.parent, "--format", format, "--overwrite") == 2
    assert str(kept.parent) in capsys.readouterr().err and kept.read_bytes() == b"mine"


def test_what_cannot_be_exported_is_said_in_one_line(demo_run, tmp_path, capsys):
    out = tmp_path / "a.onnx"
    assert export(demo_run, __file__ + "/a", "--format", "saved_model") == 2
    assert "no folder that can be written to" in capsys.readouterr().err
    assert export(demo_run, __file__, "--format", "saved_model", "--overwrite") == 2
    assert "no SavedModel" in capsys.readouterr().err
    assert export(demo_run, out, "--quantize", "int8") == 2
    assert "--format litert" in capsys.readouterr().err
    assert export(tmp_path, out) == 2
    assert str(tmp_path) in capsys.readouterr().err
