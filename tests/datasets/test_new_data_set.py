"""A new data set is a module, a line and its made-up version: this very file is such a module."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.data.spec import DatasetSpec, Number, RawData, RecordField, SubmissionFormat
from kaggle_pipeline.datasets import MODULES, get_spec
from kaggle_pipeline.synthetic import MADE_UP

COLOURS = ("brown", "pink", "skin")


def read_raw(data_dir):
    """One table for training and test, photos beside it."""
    raw = pd.read_csv(data_dir / "warts.csv", dtype={"photo": str, "patient": str})
    names = {"photo": "image_id", "patient": "group_id", "part": "split", "size": "size_mm"}
    table = raw.rename(columns=names)
    table["image_path"] = [f"photos/{name}.jpg" for name in table["image_id"]]
    sample = table.loc[table["split"] == "test", ["image_id"]].assign(viral=0.5)
    return RawData(table, sample.rename(columns={"image_id": "photo"}))


SPEC = DatasetSpec(
    id="warts",
    group="patient",
    task="binary",
    classes=("viral",),
    numeric={"size_mm": Number(0.5, 30.0, step=0.5, bands=(2.5, 6))},
    categorical={"colour": COLOURS},
    lesion_features=("colour",),
    record_fields=(
        RecordField("patient", "group_id", "bytes"),
        RecordField("colour", "colour", "bytes"),
        RecordField("viral", "viral", "int"),
    ),
    submission=SubmissionFormat("photo", {"viral": "viral"}),
    read_raw=read_raw,
    source="it is made up",
)


def generate_images(out_dir, *, images, image_size_px, seed, workers=None, progress=None):
    """Write ``competition/`` with a table and photos; viral ones are larger and rarely brown."""
    rng = np.random.default_rng(seed)
    viral = rng.random(images) < 0.4
    patient = rng.integers(0, images // 3, images)
    table = pd.DataFrame(
        {
            "photo": [f"w{number:04d}" for number in range(images)],
            "patient": [f"P{number}" for number in patient],
            "part": np.where(patient < images // 12, "test", "train"),
            "size": np.round(np.clip(rng.normal(3 + 3 * viral, 1.5), 0.5, 30), 1),
            "colour": np.where(viral & (rng.random(images) < 0.8), "pink", "brown"),
        }
    )
    table["viral"] = np.where(table["part"] == "test", np.nan, viral)
    folder = out_dir / "competition" / "photos"
    folder.mkdir(parents=True)
    for name in table["photo"]:
        pixels = rng.integers(0, 256, (image_size_px, image_size_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    table.to_csv(folder.parent / "warts.csv", index=False)


@pytest.fixture
def warts(monkeypatch):
    """The two lines that a new data set takes."""
    monkeypatch.setitem(MODULES, "warts", __name__)
    monkeypatch.setitem(MADE_UP, "warts", __name__)


def test_it_goes_the_whole_way_by_its_module_and_two_lines(warts, tmp_path, capsys):
    pytest.importorskip("tensorflow")
    assert get_spec("warts") is SPEC
    made, run = tmp_path / "made", tmp_path / "run"
    size = ["--images", "150", "--image-size-px", "32"]
    assert main(["make-synthetic", "--dataset", "warts", "--out", str(made), *size]) == 0
    config = tmp_path / "warts.yaml"
    config.write_text(
        "name: warts\ndataset: warts\nfolds: {k: 2}\nrecords: {image_size_px: 32, workers: 1}\n"
        "tabular: {hidden: [4], epochs: 2, learners: [dense, logistic], context: true}\n"
        "blend: {models: [tabular, logistic]}\n"
    )
    where = ["--config", str(config), "--data-dir", str(made / "competition")]
    assert main(["explore-data", *where, "--out", str(tmp_path / "pictures")]) == 0
    for command in ("prepare-data", "train-tabular", "make-submission"):
        assert main([command, *where, "--run-dir", str(run)]) == 0, capsys.readouterr().err
    assert (run / "prepare" / "records.csv").exists()
    assert (tmp_path / "pictures" / "size_mm.png").exists()
    examples = pd.read_csv(run / "prepare" / "examples.csv").set_index("image_id")
    tests = examples.index[examples["split"] == "test"]
    submission = pd.read_csv(run / "submission.csv")
    assert list(submission.columns) == ["photo", "viral"]
    assert set(submission["photo"]) == set(tests)
    found = json.loads((run / "blend" / "evaluation.json").read_text())
    assert found["scores"]["auc"]["value"] > 0.8
    named = {(one["feature"], one["value"]) for one in found["subgroups"]}
    assert {("size_mm", "under 2.5"), ("size_mm", "2.5 to under 6"), ("colour", "pink")} <= named
    assert "no diagnosis" in (run / "report.html").read_text()
