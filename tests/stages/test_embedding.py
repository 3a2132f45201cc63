"""Encoders, from photos to a submission: the whole way on made-up lesions."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers_demo import DEMO
from helpers_predict import predict_test_part, require_the_submission

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.stages.trained_embedding import TrainedHeads

pytestmark = pytest.mark.ci
LENET = "{source: keras:LeNet, weights: null, options: {filters: 4}, image_size_px: 32}"
TINY = [
    "folds.k=2", "records.image_size_px=32", "records.records_per_shard=40", "records.workers=1",
    "leakage.fingerprints=false", "examples.unreadable=stop", "leakage.duplicates=drop",
    "blend.models=[embedding,logistic]", "tabular.learners=[logistic]",
    "embedding.inner_folds=2",
]  # fmt: skip


def words(data, run, encoders, *more):
    changes = [*TINY, f"embedding.encoders=[{encoders}]"]
    sets = [word for change in changes for word in ("--set", change)]
    return [*DEMO, *sets, "--data-dir", str(data), "--run-dir", str(run), *more]


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    more = ["--set", "embedding.metadata=true", "--set", "embedding.context=true"]
    assert (
        main(["run-pipeline", *words(competition / "competition", folder / "run", LENET, *more)])
        == 0
    )
    return folder / "run"


def test_a_head_on_an_encoder_joins_the_blend(run):
    blend = json.loads((run / "blend" / "blend.json").read_text())
    assert set(blend["weights"]) == {"embedding", "logistic"}
    examples = pd.read_csv(run / "prepare" / "examples.csv", dtype={"image_id": str})
    vectors = np.load(run / "embeddings" / "keras-LeNet-32px" / "vectors.npy")
    about = json.loads((run / "embeddings" / "keras-LeNet-32px" / "encoder.json").read_text())
    assert vectors.shape == (len(examples), 1, about["width"])
    metrics = json.loads((run / "embedding" / "metrics.json").read_text())
    assert metrics["oof_auc_low"] > 0.5  # the made-up lesions can be told apart by colour alone
    assert (run / "submission.csv").exists() and "linear head" in (run / "report.html").read_text()


def test_heads_see_the_metadata_and_the_patients_other_photos(run, competition, tmp_path, capsys):
    """As they were judged and submitted; alone, a photo is answered otherwise."""
    images = competition / "competition" / "jpeg" / "test"
    found = predict_test_part(run, images, tmp_path)
    require_the_submission(run, found)
    assert {"nearest", "nearest_labels"} <= set(found)
    assert "photos come without" not in capsys.readouterr().out
    lonely = predict_test_part(run, images, tmp_path, drop=["patient_id"])
    assert "each photo is taken for its patient's only one" in capsys.readouterr().out
    assert np.abs(lonely["melanoma"] - found["melanoma"].loc[lonely.index]).max() > 1e-3


def test_models_of_all_rows_answer_as_they_were_submitted(run, competition, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    more = ["train_all=true", "blend.weights=equal", "embedding.metadata=true",
            "embedding.context=true"]  # fmt: skip
    sets = [word for change in more for word in ("--set", change)]
    changed = words(competition / "competition", copy, LENET, *sets)
    assert main(["run-pipeline", *changed, "--resume"]) == 0
    assert (copy / "embedding" / "all").is_dir() and (copy / "logistic" / "all").is_dir()
    found = predict_test_part(copy, competition / "competition" / "jpeg" / "test", tmp_path)
    require_the_submission(copy, found)
    assert "the model of all rows: it is not scored itself" in capsys.readouterr().out
    of_folds = pd.read_csv(run / "embedding" / "test.csv", index_col="image_id")["target"]
    of_all = pd.read_csv(copy / "embedding" / "test.csv", index_col="image_id")["target"]
    assert np.abs(of_all - of_folds.loc[of_all.index]).max() > 1e-3


def test_heads_on_vectors_that_are_there_need_no_records(run, competition, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    for name in ("records", "embedding", "prepare/records.csv"):
        place = copy / name
        place.unlink() if place.is_file() else shutil.rmtree(place)
    more = ["--set", "embedding.metadata=true", "--set", "embedding.context=true"]
    changed = words(competition / "competition", copy, LENET, *more)
    assert main(["train-embedding", *changed]) == 0
    assert not (copy / "records").exists() and "convert" not in capsys.readouterr().out
    for name in ("oof.csv", "records.json"):
        assert (copy / "embedding" / name).read_bytes() == (run / "embedding" / name).read_bytes()
    fit = TrainedHeads.open(copy).fit
    assert (fit.known, fit.source, fit.image_size_px) == (True, "converted", 32)
    note = copy / "embeddings" / "keras-LeNet-32px" / "records.json"
    note.write_text(note.read_text().replace('"crop"', '"stretch"'))
    renew(note.parent, note.name)
    capsys.readouterr()
    for again in ("--resume", "--overwrite"):  # which is of the folds
        assert main(["train-embedding", *changed, again]) == 2
        said = capsys.readouterr().err
        assert "records.fit = stretch, this experiment says crop" in said
        assert "run embed with --overwrite" in said
    note.write_text('{"fit": "diagonal"}')
    renew(note.parent, note.name)
    assert main(["train-embedding", *changed, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "records.json is damaged: run embed with --overwrite" in said
    assert main(["embed", *changed, "--overwrite"]) == 0
    assert main(["train-embedding", *changed, "--resume"]) == 0


def test_other_settings_of_the_records_stop_and_a_run_anew_keeps_its_vectors(
    run, competition, tmp_path, capsys
):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "records")
    more = ["--set", "embedding.metadata=true", "--set", "embedding.context=true"]
    changed = words(competition / "competition", copy, LENET, *more, "--overwrite")
    other = ["--set", "records.fit=stretch", "--set", "records.image_size_px=48"]
    for command in ("train-embedding", "run-pipeline"):
        assert main([command, *changed, *other]) == 2
        said = capsys.readouterr().err
        assert "records.fit = crop" in said and "records.image_size_px" in said
    assert main(["run-pipeline", *changed]) == 0
    assert not list((copy / "records").glob("*")) and "convert" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["export-model", "bundle"])
def test_what_takes_networks_says_that_there_is_none(command, run, tmp_path, capsys):
    more = ["--licence", "mit", "--out", str(tmp_path / "out")] * (command == "bundle")
    assert main([command, "--run-dir", str(run), *more]) == 2
    assert f"error: {run} has no network, but a linear head" in capsys.readouterr().err


def test_vectors_are_those_of_the_frozen_image_model(run, competition):
    """Photo by photo: what the image model's body says of the records."""
    from kaggle_pipeline.config.embedding import EncoderConfig
    from kaggle_pipeline.hardware.accelerator import choose_accelerator
    from kaggle_pipeline.models.embedding.registry import open_encoder
    from kaggle_pipeline.models.image.input.pipeline import decode_photo
    from kaggle_pipeline.records.tfrecords import read_records

    config = EncoderConfig("keras:LeNet", weights=None, options={"filters": 4}, image_size_px=32)
    encoder = open_encoder(config, choose_accelerator("cpu"), 8)
    shard = sorted((run / "records").glob("train*.tfrec"))[0]
    records = [record for record, _ in zip(read_records(shard), range(8), strict=False)]
    expected = encoder.encode([decode_photo(one["image"], 32) for one in records])
    folder = run / "embeddings" / "keras-LeNet-32px"
    ids = pd.read_csv(folder / "ids.csv", dtype=str)["image_id"].tolist()
    rows = [ids.index(one["image_name"]) for one in records]
    np.testing.assert_allclose(np.load(folder / "vectors.npy")[rows], expected, atol=2e-2)


def test_a_file_of_vectors_needs_no_photo(run, competition, tmp_path, capsys):
    made = run / "embeddings" / "keras-LeNet-32px"
    ids = pd.read_csv(made / "ids.csv", dtype=str)["image_id"].to_numpy(str)
    vectors = np.load(made / "vectors.npy")[:, 0]
    np.savez(tmp_path / "v.npz", image_id=ids[::-1], vectors=vectors[::-1])
    source = f"'file:{tmp_path / 'v.npz'}'"
    assert main(["embed", *words(competition / "competition", tmp_path / "run", source)]) == 0
    assert not (tmp_path / "run" / "records").exists()
    found = np.load(tmp_path / "run" / "embeddings" / "file-v" / "vectors.npy")
    np.testing.assert_array_equal(found[:, 0], vectors)
    np.savez(tmp_path / "v.npz", image_id=ids[1:], vectors=vectors[1:])
    capsys.readouterr()
    assert (
        main(
            ["embed", *words(competition / "competition", tmp_path / "run", source, "--overwrite")]
        )
        == 2
    )
    assert f"no vector of {ids[0]} (1 missing)" in capsys.readouterr().err


def test_other_settings_under_the_same_name_are_refused(run, competition, capsys):
    other = LENET.replace("filters: 4", "filters: 8")
    assert main(["embed", *words(competition / "competition", run, other)]) == 2
    assert "was made with options" in capsys.readouterr().err


def test_predict_takes_new_photos_through_the_runs_encoders(competition, tmp_path, capsys):
    data, run, out = competition / "competition", tmp_path / "run", tmp_path / "new.csv"
    assert main(["train-embedding", *words(data, run, LENET)]) == 0
    doubt = "embedding model: keras:LeNet has random weights"
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"note: {doubt}")  # and again below the scores:
    assert sum(doubt in line for line in said) == 2
    predict = ["predict", "--run-dir", str(run), "--images", str(data / "jpeg" / "test")]
    assert main([*predict, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "embedding model only" in said and doubt in said
    found = pd.read_csv(out, index_col="image_id")
    known = pd.read_csv(run / "embedding" / "test.csv", index_col="image_id")
    ids = found.index.intersection(known.index)
    assert len(ids) == len(known) > 20
    np.testing.assert_allclose(found.loc[ids, "melanoma"], known.loc[ids, "target"], atol=1e-5)
    assert found["melanoma_calibrated"].between(0, 1).all() and "decision" in found
    assert main(["verify-run", "--run-dir", str(run)]) == 0
    assert "models of embedding say of 4 made-up photos" in capsys.readouterr().out

    def missing(*_):
        raise PipelineError("python has no package 'encoders'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kaggle_pipeline.models.embedding.registry.open_encoder", missing)
        assert main(["verify-run", "--run-dir", str(run)]) == 0
    assert "embedding not asked again: python has no package" in capsys.readouterr().out
    about = run / "embeddings" / "keras-LeNet-32px" / "encoder.json"
    about.write_text(about.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    assert main(["verify-run", "--run-dir", str(run), "--accept-changes"]) == 0
    capsys.readouterr()
    assert main(["verify-run", "--run-dir", str(run)]) == 2
    assert "is of weights 0" in capsys.readouterr().out
    assert main([*predict, "--out", str(out), "--overwrite"]) == 2
    assert "is of weights 0" in capsys.readouterr().err
