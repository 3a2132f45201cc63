"""The page reads runs of heads on frozen encoders: alone, and blended with a network."""

import re
import shutil
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words
from helpers_webapp import CONFIGS, ROOT, TINY

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.embedding.vector_store import VectorStore
from kaggle_pipeline.synthetic import generate_like

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.ci
LENET = "{source: keras:LeNet, weights: null, options: {filters: 4}, image_size_px: 32}"
HEADS = (f"embedding.encoders=[{LENET}]", "embedding.inner_folds=2",
         "blend.models=[image,embedding]", "blend.weights=equal", "blend.space=mean")  # fmt: skip


def test_a_patient_is_read_as_the_blend_with_heads_was_submitted(
    demo_run, competition, tmp_path, capsys
):
    """The heads see what they were scored with: metadata and the patient's other photos."""
    run, data = shutil.copytree(demo_run, tmp_path / "run"), competition / "competition"
    more = ("embedding.metadata=true", "embedding.context=true")
    words = demo_words(data, run, *HEADS, *more)
    assert main(["train-embedding", *words]) == 0 and main(["make-submission", *words]) == 0
    from kaggle_pipeline.webapp.html_blocks import reading_block
    from kaggle_pipeline.webapp.service import Service

    examples = pd.read_csv(run / "prepare" / "examples.csv", dtype={"image_id": str})
    patients = [rows for _, rows in examples[examples["split"] == "test"].groupby("group_id")]
    mine = min((rows for rows in patients if len(rows) > 1), key=len).set_index("image_id")
    service = Service(run, "cpu")
    try:
        assert set(service.models.features) == set(service.spec.features)
        looks = [service.look(f"{name}.jpg", (data / path).read_bytes())
                 for name, path in mine["image_path"].items()]  # fmt: skip
        facts = [row.dropna().to_dict() for _, row in mine[list(service.spec.features)].iterrows()]
        readings = service.read(looks, facts)
        for stage in ("image", "embedding"):
            known = pd.read_csv(run / stage / "test.csv", index_col="image_id")
            said = [reading.parts[stage]["target"] for reading in readings]
            np.testing.assert_allclose(said, known.loc[mine.index, "target"], atol=1e-4)
        for reading in readings:
            assert reading.low["target"] <= reading.probability["target"] <= reading.high["target"]
            assert reading.look.answer.heat is not None and len(reading.look.answer.nearest) == 4
        shown = reading_block(service, readings[0], "target", 0.9)
        assert f"{len(mine)} photos are read together" in shown
        assert "Here is only one" not in shown and "Nothing is known" not in shown
        (alone,) = service.read(looks[:1], [{}])
        shown = reading_block(service, alone, "target", 0.9)
        assert abs(alone.parts["embedding"]["target"] - said[0]) > 1e-4
        assert "Not given: age in years" in shown
        doubted = shown.partition("This result is less reliable.")[2].partition("</div>")[0]
        assert "Here is only one" in doubted and "Nothing is known of the patient" in doubted
    finally:
        service.close()

    shutil.rmtree(run / "image")
    predict = ["predict", "--run-dir", str(run), "--images", str(data / "jpeg" / "test")]
    assert main([*predict, "--out", str(tmp_path / "out.csv")]) == 0
    lines = capsys.readouterr().out
    assert "uncalibrated: calibration and decision were measured with metadata and the" in lines
    assert list(pd.read_csv(tmp_path / "out.csv").columns)[:2] == ["image_id", "melanoma"]
    assert not {"melanoma_calibrated", "decision"} & set(pd.read_csv(tmp_path / "out.csv"))


@pytest.mark.parametrize("dataset", ["synthetic", "ham10000", "isic_2017"])
def test_heads_alone_are_read_beside_the_nearest_training_photos(
    dataset, request, tmp_path, capsys
):
    run, out = tmp_path / "run", tmp_path / "out.csv"
    if dataset == "synthetic":
        data = request.getfixturevalue("competition") / "competition"
    else:
        generate_like(dataset, tmp_path, images=60, image_size_px=40, seed=3, workers=1)
        data = tmp_path / "competition"
    folds = "folds={k: 2}" if dataset == "synthetic" else "folds={holdout: 0.3}"
    changes = (*TINY, folds, f"embedding.encoders=[{LENET}]", "embedding.inner_folds=2",
               "blend.models=[embedding]", "blend.weights=equal", "blend.space=mean")  # fmt: skip
    words = ["--config", str(ROOT / "configs" / f"{CONFIGS[dataset]}.yaml")]
    words += [word for change in changes for word in ("--set", change)]
    words += ["--data-dir", str(data), "--run-dir", str(run)]
    assert main(["train-embedding", *words]) == 0 and main(["make-submission", *words]) == 0

    examples = pd.read_csv(run / "prepare" / "examples.csv", dtype=str).set_index("image_id")
    known = examples[examples["split"] == "train"]
    paths = [data / one for one in known["image_path"].iloc[:3]]
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(paths):
        shutil.copyfile(path, tmp_path / "photos" / f"new{number}.jpg")
    predict = ["predict", "--run-dir", str(run), "--images", str(tmp_path / "photos")]
    assert main([*predict, "--out", str(out)]) == 0
    assert "4 nearest training photos" in capsys.readouterr().out
    table = pd.read_csv(out, index_col="image_id")
    near = table["nearest"].str.split("; ")
    assert [one[0] for one in near] == list(known.index[:3]), "a photo is its own nearest"
    assert all(known.loc[one, "group_id"].is_unique and len(one) == 4 for one in near)

    from kaggle_pipeline.webapp.html_blocks import reading_block, report_page
    from kaggle_pipeline.webapp.model_card import card_sections
    from kaggle_pipeline.webapp.patient_blocks import patient_block
    from kaggle_pipeline.webapp.service import Service, compare

    closed = Service(run, "cpu")
    closed.close()
    assert not closed.has_training_photos, "they are shown where it is asked for"
    shutil.rmtree(run / "webapp")
    with pytest.MonkeyPatch.context() as patch:
        read, times = VectorStore.read, []
        patch.setattr(VectorStore, "read", lambda one: times.append(one) or read(one))
        service, spec = Service(run, "cpu", print, show_training_photos=True), None
    assert len(times) == 1, "the training vectors are read once"
    try:
        spec, name = service.spec, service.spec.main_class
        assert service.models.photo_stage == "embedding" and service.reference.size > 10
        looks = [service.look(path.name, path.read_bytes()) for path in paths]
        readings = service.read(looks, [{}] * 3)
        for reading, label, row in zip(readings, table["nearest_labels"], near.index, strict=True):
            column = name if len(spec.classes) > 1 else spec.class_label(name)
            said = reading.parts["embedding"][name]
            np.testing.assert_allclose(said, table.loc[row, column], atol=1e-5)
            nearest = reading.look.answer.nearest
            assert "; ".join(one.label for one in nearest) == label
            assert nearest[0].similarity == pytest.approx(1, abs=1e-4)
            words = reading_block(service, reading, name, 0.9)
            assert "Nearest training photos" in words and nearest[1].label in words
            assert "Heat map" not in words and "network" not in words and words.count("<img") == 1
            photos = service.training_photos(reading)
            assert set(photos) == {one.image_id for one in nearest} and service.has_training_photos
            assert service.training_photos(reading) is photos, "shards are read once"
            words = reading_block(service, reading, name, 0.9, photos)
            assert words.count("<img") == 5
            page = report_page(service, "Reading", datetime(2026, 3, 5), words)
            assert "linear head on frozen encoders: keras:LeNet" in page
            assert not [one for one in {*known["group_id"], *known.index} if one in page]
        piece = patient_block(service, readings, compare(service, readings, name), name, 0.9)
        assert piece.count("Nearest training photos: ") == 3 and "Grad-CAM" not in piece
        assert "frozen encoders" in next(iter(card_sections(service).values()))
    finally:
        service.close()

    shutil.rmtree(run / "records")
    for path in (run / "embeddings").glob("*/vectors.npy"):
        path.unlink()
    lines = []
    service = Service(run, "cpu", lines.append, show_training_photos=True)
    service.close()
    reading = service.read([service.look("a.jpg", paths[0].read_bytes())], [{}])[0]
    assert "vectors are not in this run" in reading_block(service, reading, name, 0.9)
    assert not service.has_training_photos


def test_an_encoder_that_is_not_at_hand_is_said_in_one_line(demo_run, competition, tmp_path):
    run, data = shutil.copytree(demo_run, tmp_path / "run"), competition / "competition"
    assert main(["train-embedding", *demo_words(data, run, *HEADS)]) == 0
    shutil.rmtree(run / "image")
    shutil.rmtree(run / "blend")
    from kaggle_pipeline.webapp.models import RunModels

    def missing(*_):
        raise PipelineError("timm:a needs PyTorch: pip install '.[encoders]'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kaggle_pipeline.models.embedding.registry.open_encoder", missing)
        with pytest.raises(PipelineError, match=re.escape(f"{run} reads photos with an encoder")):
            RunModels(run, "cpu")
