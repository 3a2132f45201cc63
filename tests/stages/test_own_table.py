"""The whole way with a user's own table: pipeline, report, predictions, page, kernels' scripts."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from PIL import Image

pytest.importorskip("tensorflow")

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.preflight import plan
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.synthetic import generate_like

CONFIG = CHECKOUT / "configs" / "my_photos.yaml"
SMALL = (
    "records.image_size_px=32", "records.workers=1", "image.image_size_px=32", "image.tta=none",
    "image.backbone=LeNet", "image.backbone_options={filters: 4}", "image.weights=null",
    "image.backbone_layer=stage1_pool", "image.augment.dihedral=false", "image.epochs=2",
    "image.batch_size=32", "folds.k=2", "image.head_l2=0",
)  # fmt: skip
SETS = tuple(word for change in SMALL for word in ("--set", change))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A made-up collection; its new photos are labelled, and one of them is broken."""
    root = tmp_path_factory.mktemp("own")
    generate_like("table", root, images=80, image_size_px=32, seed=2, workers=1)
    place = root / "competition"
    new = pd.read_csv(place / "new.csv").merge(pd.read_csv(root / "truth.csv"), "left", "file")
    new.loc[1, "place"] = "toe"
    new.to_csv(place / "new.csv", index=False)
    (place / "photos" / new.loc[0, "file"]).write_text("no photo")
    return place


def words(drawn, run, *changes):
    return [
        "--config", str(CONFIG), "--data-dir", str(drawn), "--run-dir", str(run), *SETS,
        *(word for change in changes for word in ("--set", change)),
    ]  # fmt: skip


def prepare(drawn, run, *changes):
    return main(["prepare-data", *words(drawn, run, *changes)])


def test_a_broken_photo_stops_by_name_and_may_be_left_out(drawn, tmp_path, capsys):
    assert prepare(drawn, tmp_path, "table.images=photos") == 2
    said = capsys.readouterr().err
    assert "cannot read image" in said and "--set examples.unreadable=drop" in said
    # What a failed preparation learned does not bind the next.
    assert prepare(drawn, tmp_path, "examples.unreadable=drop", "table.positive=null") == 0
    said = capsys.readouterr().out
    assert "photos that cannot be read: 1 rows left out, 1 of them of the test part" in said
    assert "'toe' in row 3: taken as missing" in said
    examples = pd.read_csv(tmp_path / "prepare" / "examples.csv")
    assert len(examples) == 79 and {"mole", "melanoma", "keratosis"} <= set(examples)
    spec = json.loads((tmp_path / "prepare" / "spec.json").read_text())["learned"]
    assert spec["categorical"]["place"] == ["arm", "back", "face", "leg"]
    truth = pd.read_csv(tmp_path / "prepare" / "test_truth.csv")
    assert set(truth["image_id"]) == set(examples.loc[examples["split"] == "test", "image_id"])


@pytest.fixture
def with_gap(drawn, tmp_path):
    """A copy of the collection of which a training photo is gone, and that photo."""
    place = shutil.copytree(drawn, tmp_path / "data")
    gone = pd.read_csv(place / "lesions.csv").loc[3, "file"]
    (photo,) = (place / "photos").rglob(f"{gone.rpartition('/')[2].partition('.')[0]}.*")
    photo.unlink()
    return place, gone


def test_a_photo_that_is_not_there_stops_by_name_and_may_be_left_out(with_gap, tmp_path, capsys):
    place, gone = with_gap
    assert prepare(place, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"row 5: column 'file' (table.image) is '{gone}'" in said and "unreadable=drop" in said
    assert prepare(place, tmp_path / "run", "examples.unreadable=drop") == 0
    said = capsys.readouterr().out
    assert "2 rows left out, 1 of them of the test part: 1 photos are not there, 1 cannot" in said
    kept = pd.read_csv(tmp_path / "run" / "prepare" / "examples.csv")["image_id"]
    records = pd.read_csv(tmp_path / "run" / "prepare" / "records.csv")["image_id"]
    assert len(kept) == 78 and set(records) == set(kept) and gone not in set(kept)


def test_a_plan_counts_no_photo_that_is_not_there(with_gap, tmp_path, monkeypatch, capsys):
    place, gone = with_gap
    counted = []

    def stop(base, spec, examples, *more):
        counted.append(examples)
        raise PipelineError("enough")

    monkeypatch.setattr(plan, "_plan_here", stop)
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG.read_text() + "examples: {unreadable: drop}\n")
    words = ["--data-dir", str(place), "--weights", "null", "--out", str(tmp_path / "out.yaml")]
    assert main(["plan", "--config", str(config), *words]) == 2
    (examples,) = counted
    assert len(examples) == 79 and gone not in examples.index
    assert "note: 1 rows name a photo that is not there" in capsys.readouterr().out


def test_a_rehearsal_leaves_out_missing_photos_and_reads_none(with_gap, tmp_path):
    place, gone = with_gap
    config = load_experiment(CONFIG, [*SMALL, "examples.unreadable=drop"])
    run = Run(config, place, tmp_path / "run", say=str, fingerprints=False)
    prepare_data(run, with_records=False)
    kept = pd.read_csv(tmp_path / "run" / "prepare" / "examples.csv")["image_id"]
    assert len(kept) == 79 and gone not in set(kept)  # the broken one is in it
    assert not (tmp_path / "run" / "prepare" / "fingerprints.csv").exists()


@pytest.mark.ci
def test_a_table_that_changed_since_is_refused(drawn, tmp_path, capsys):
    place = shutil.copytree(drawn, tmp_path / "data")
    changes = ("examples.unreadable=drop",)
    assert prepare(place, tmp_path / "run", *changes) == 0
    (place / "predictions.csv").write_text("image_id,melanoma\n")
    assert prepare(place, tmp_path / "run", *changes) == 0, "no table of this run"
    with (place / "lesions.csv").open("a") as table:
        table.write("\n")
    assert prepare(place, tmp_path / "run", *changes) == 2
    assert "lesions.csv changed since" in capsys.readouterr().err


def test_a_patient_in_both_files_is_a_leak(drawn, tmp_path, capsys):
    place = shutil.copytree(drawn, tmp_path / "data")
    known = pd.read_csv(place / "lesions.csv")["patient"][0]
    new = pd.read_csv(place / "new.csv")
    new.loc[3, "patient"] = known
    new.to_csv(place / "new.csv", index=False)
    assert prepare(place, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "patient in train and test" in said and known in said and new.loc[3, "file"] in said


@pytest.mark.ci
def test_explore_draws_it(drawn, tmp_path):
    where = ["--config", str(CONFIG), "--data-dir", str(drawn), "--out", str(tmp_path)]
    (tmp_path / "copy").mkdir()
    place = shutil.copytree(drawn, tmp_path / "data")
    new = pd.read_csv(place / "new.csv")
    Image.new("RGB", (32, 32)).save(place / "photos" / new.loc[0, "file"])
    where[3] = str(place)
    assert main(["explore-data", *where]) == 0
    assert (tmp_path / "place.png").exists()


@pytest.mark.ci
def test_kernels_attach_the_data_set_that_the_table_names(drawn, tmp_path, capsys):
    build = ["build-kernels", "--owner", "me", "--out", str(tmp_path / "kernels")]
    assert main([*build, *words(drawn, tmp_path / "run")]) == 2
    assert "table.kaggle" in capsys.readouterr().err
    assert main([*build, *words(drawn, tmp_path / "run", "table.kaggle=me/lesions")]) == 0
    found = json.loads((tmp_path / "kernels" / "image" / "kernel-metadata.json").read_text())
    assert found["dataset_sources"] == ["me/lesions"] and not found["competition_sources"]


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    """All stages, a class a finding."""
    place = tmp_path_factory.mktemp("run") / "mine"
    changes = ("examples.unreadable=drop", "table.positive=null", "tabular.context=true")
    assert main(["run-pipeline", *words(drawn, place, *changes)]) == 0
    return place


@pytest.mark.ci
def test_the_pipeline_scores_and_predicts_it(run, drawn):
    submission = pd.read_csv(run / "submission.csv")
    new = pd.read_csv(drawn / "new.csv")
    assert list(submission.columns) == ["file", "keratosis", "melanoma", "mole"]
    assert set(submission["file"]) == set(new["file"][1:]), "by the user's own names"
    scored = json.loads((run / "blend" / "test_evaluation.json").read_text())
    assert scored["n"] == len(new) - 1
    page = (run / "report.html").read_text()
    assert "lesions" in page and "photos that cannot be read" in page
    assert yaml.safe_load((run / "image" / "config.yaml").read_text())["table"]["image"] == "file"


@pytest.mark.ci
def test_predict_and_the_page_need_the_run_alone(run, drawn, tmp_path, capsys):
    pytest.importorskip("pydicom")
    from kaggle_pipeline.webapp.service import Service

    away = shutil.copytree(run, tmp_path / "elsewhere")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(drawn.glob("photos/clinic B/*.jpg"))[:2]):
        shutil.copy(path, photos / f"new{number}.jpg")
    out = tmp_path / "predictions.csv"
    there = ["--run-dir", str(away), "--images", str(photos), "--out", str(out)]
    assert main(["predict", *there, "--device", "cpu"]) == 0, capsys.readouterr().err
    found = pd.read_csv(out)
    assert {"keratosis", "melanoma", "mole"} <= set(found) and len(found) == 2
    service = Service(away, "cpu")
    try:
        look = service.look("new0.jpg", (photos / "new0.jpg").read_bytes())
        known = {"age": 50, "sex": "male", "place": "arm"}
        (reading,) = service.read([look], [known])
        assert set(reading.probability.index) == {"keratosis", "melanoma", "mole"}
        assert reading.unknown == ()
    finally:
        service.close()
