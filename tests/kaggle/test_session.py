"""The generated kernels run as Kaggle runs them: read-only inputs, no network, their own folder."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers_session import Kaggle, ok

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import ExternalConfig
from kaggle_pipeline.config.loading import load_experiment, write_experiment
from kaggle_pipeline.config.names import PREPARED_BY
from kaggle_pipeline.core.deadline import Deadline
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.kaggle import session
from kaggle_pipeline.kaggle.inputs import (
    find_embedding,
    find_runs,
    find_source,
    find_weights,
    gather_run,
)
from kaggle_pipeline.kaggle.session import run_session
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.synthetic import generate_like

pytest.importorskip("tensorflow")


def emulated(test):
    """Mark a test of whole sessions: `make test-kaggle` and `make bench` run it."""
    return pytest.mark.slow(pytest.mark.emulated(test))


ROOT = Path(__file__).resolve().parents[2]
SLUG = "siim-isic-melanoma-classification"
CONFIG = ("--config", str(ROOT / "configs" / "demo.yaml"))
SMALL = (
    "name=emulated", "dataset=siim_isic_2020", "folds.k=2", "image.epochs=4",
    "image.image_size_px=32", "image.backbone_options={filters: 4}", "tabular.epochs=3",
)  # fmt: skip
SETS = tuple(word for change in SMALL for word in ("--set", change))
NOT_ON_TPU_IMAGE = "imblearn imagehash pydicom tensorboard kaggle"


@pytest.fixture(scope="module")
def records(competition, tmp_path_factory):
    """The competition as Kaggle mounts it: tables, photos and TFRecords."""
    place = tmp_path_factory.mktemp("kaggle")
    data = shutil.copytree(competition / "competition", place / "competition")
    run = place / "conversion"
    quick = ("--set", "records.workers=1", "--set", "leakage.fingerprints=false")
    words = ("--data-dir", str(data), "--run-dir", str(run), *quick)
    assert main(["prepare-data", *CONFIG, *SETS, *words]) == 0
    (run / "records" / "manifest.json").unlink()
    return Path(shutil.move(run / "records", data / "tfrecords")).parent


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    words = ["build-kernels", *CONFIG, *SETS, "--owner", "me", "--out", str(out)]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def chain(records, kernels, tmp_path_factory):
    """Image, tabular and blend, each a session of its own, in the newer and in the older layout."""
    root = tmp_path_factory.mktemp("chain")
    outputs = {}
    for name, layout in (("image", "new"), ("tabular", "old")):
        lacking = NOT_ON_TPU_IMAGE if name == "image" else ""
        kaggle = Kaggle(root / name, layout, lacking).attach("competitions", SLUG, records)
        ok(kaggle.run(kernels / name))
        outputs[name] = kaggle.working
    kaggle = Kaggle(root / "blend", "new")
    for name, output in outputs.items():
        kaggle.attach("notebooks", f"me/melanoma-{name}", output)
    said = ok(kaggle.run(kernels / "blend"))
    return {**outputs, "blend": kaggle.working, "said": said}


@emulated
def test_the_chain_gives_the_submission_that_the_pipeline_gives(chain, records, tmp_path):
    run = tmp_path / "run"
    words = ["--data-dir", str(records), "--run-dir", str(run)]
    same = ("--set", "records.source=tfrecords")
    assert main(["run-pipeline", *CONFIG, *SETS, *same, *words]) == 0
    submission = (chain["blend"] / "submission.csv").read_bytes()
    assert submission == (run / "submission.csv").read_bytes()
    assert len(pd.read_csv(chain["blend"] / "submission.csv")) > 20
    assert "no diagnosis" in chain["said"]


@emulated
def test_each_session_leaves_what_the_next_one_needs_and_no_records(chain):
    for name in ("image", "tabular", "blend"):
        state = json.loads((chain[name] / "session.json").read_text())
        assert state == {"stage": name, "state": "done", "because": None}
        assert not list(chain[name].rglob("*.tfrec"))
    assert list(chain["image"].rglob("model.weights.h5"))
    note = json.loads((chain["blend"] / "run" / "image" / "records.json").read_text())
    assert (note["source"], note["fit"]) == ("given", "stretch")
    assert not list(chain["blend"].rglob("*.h5"))  # nobody needs every model once more
    size = sum(path.stat().st_size for path in chain["image"].rglob("*") if path.is_file())
    assert size < 5_000_000


@pytest.mark.slow
def test_a_kernel_killed_at_half_its_epochs_goes_on_from_its_own_output(
    chain, records, kernels, tmp_path
):
    first = Kaggle(tmp_path / "first", "new").attach("competitions", SLUG, records)
    process = subprocess.Popen(
        first.command(kernels / "image"), cwd=first.working, env=first.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    fold = first.working / "run" / "image" / "fold1"
    try:
        while not (fold / "state-2.weights.h5").exists():
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert not (fold / "oof.csv").exists()
    second = Kaggle(tmp_path / "second", "old").attach("competitions", SLUG, records)
    second.attach("notebooks", "me/melanoma-image", first.working)
    said = ok(second.run(kernels / "image"))
    assert "goes on from" in said and "image fold 0: done already" in said
    for name in ("oof.csv", "test.csv", "fold1/history.csv"):
        whole = (chain["image"] / "run" / "image" / name).read_bytes()
        assert (second.working / "run" / "image" / name).read_bytes() == whole, name


@emulated
def test_folds_trained_by_kernels_of_their_own_are_blended(chain, kernels, tmp_path):
    kaggle = Kaggle(tmp_path, "new")
    parts = {}
    for fold in (0, 1):
        part = parts[fold] = tmp_path / f"part{fold}"
        shutil.copytree(chain["image"], part)
        shutil.rmtree(part / "run" / "image" / f"fold{1 - fold}")
        for name in ("oof.csv", "test.csv", "metrics.json"):
            (part / "run" / "image" / name).unlink()
        kaggle.attach("notebooks", f"me/melanoma-image-fold-{fold}", part)
    kaggle.attach("notebooks", "me/melanoma-tabular", chain["tabular"])
    ok(kaggle.run(kernels / "blend"))
    whole = (chain["blend"] / "submission.csv").read_bytes()
    assert (kaggle.working / "submission.csv").read_bytes() == whole
    lacking = Kaggle(tmp_path / "lacking", "new")
    lacking.attach("notebooks", "me/melanoma-image-fold-0", parts[0])
    lacking.attach("notebooks", "me/melanoma-tabular", chain["tabular"])
    done = lacking.run(kernels / "blend")
    assert done.returncode == 2
    assert "error: folds [1] of the image model are not trained" in done.stderr


def test_all_that_is_missing_is_said_in_one_line(kernels, tmp_path):
    kaggle = Kaggle(tmp_path, "new")
    done = kaggle.run(kernels / "tabular")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: attach the input competitions/{SLUG} (looked in {tmp_path / 'input'})"
    )


# ---------------------------------------------------------------- inside this process


@pytest.fixture
def packed(kernels, tmp_path):
    """What a script unpacks, for a session in this process."""
    place = tmp_path / "packed" / "kernel"
    place.mkdir(parents=True)
    settings = {
        "source": f"competitions/{SLUG}", "external": [], "folds": [0], "keep_records": False
    }  # fmt: skip
    (place / "settings.json").write_text(json.dumps(settings))
    config = (ROOT / "configs" / "demo.yaml").read_text()
    (place / "experiment.yaml").write_text(config)
    return place.parent


@pytest.mark.ci
def test_a_session_whose_time_is_up_ends_well_and_says_so(
    packed, records, tmp_path, monkeypatch, capsys
):
    kaggle = Kaggle(tmp_path / "kaggle", "new").attach("competitions", SLUG, records)
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(kaggle.root))
    left = Deadline.leaves
    monkeypatch.setattr(
        Deadline, "leaves", lambda self, seconds=0.0: left(self, seconds) and not seconds
    )
    changes = [*SMALL, "device=cpu"]
    assert run_session("image", changes, hours=1, packed=packed) == 0
    state = json.loads((kaggle.working / "session.json").read_text())
    assert state["state"] == "unfinished" and "1 of 4 epochs" in state["because"]
    assert (kaggle.working / "run" / "image" / "fold0" / "state-1.weights.h5").exists()
    said = capsys.readouterr().out
    assert "attach this output and run again" in said
    (seconds,) = re.findall(r"^first training step after (\d+) s$", said, re.MULTILINE)
    assert int(seconds) < 600
    monkeypatch.setattr(Deadline, "leaves", left)
    later = Kaggle(tmp_path / "later", "old").attach("competitions", SLUG, records)
    later.attach("notebooks", "me/melanoma-image", kaggle.working)
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(later.root))
    assert run_session("image", changes, hours=1, packed=packed) == 0
    assert json.loads((later.working / "session.json").read_text())["state"] == "done"
    history = pd.read_csv(later.working / "run" / "image" / "fold0" / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    note = json.loads((later.working / "run" / "image" / "records.json").read_text())
    assert (note["source"], note["fit"]) == ("given", "stretch")


@pytest.mark.parametrize(("said", "fit"), [("auto", "stretch"), ("crop", "crop")])
def test_a_kernel_carries_how_the_records_that_it_finds_were_made(
    packed, records, tmp_path, monkeypatch, said, fit
):
    path = packed / "kernel" / "experiment.yaml"
    write_experiment(path, load_experiment(path, [*SMALL, f"records.given_fit={said}"]))
    kaggle = Kaggle(tmp_path / "kaggle", "new").attach("competitions", SLUG, records)
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(kaggle.root))
    seen = []
    monkeypatch.setattr(session, "train_image", lambda run, folds: seen.append(prepare_data(run)))
    assert run_session("image", packed=packed) == 0
    assert [(one.source, one.fit) for one in seen] == [("given", fit)]


def test_without_internet_the_weights_have_to_be_attached(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(tmp_path))
    monkeypatch.setattr(session, "_online", lambda: False)
    changes = ["image.weights=imagenet", "image.backbone=MobileNetV2"]
    assert run_session("image", changes, packed=packed) == 2
    error = capsys.readouterr().err
    assert f"attach the input competitions/{SLUG}; a data set with the ImageNet weights" in error


def test_attached_weights_are_used(packed, records, tmp_path, monkeypatch):
    kaggle = Kaggle(tmp_path / "kaggle", "new").attach("competitions", SLUG, records)
    weights = kaggle.input / "datasets" / "me" / "w" / "mobilenet_v2_imagenet_notop.weights.h5"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(kaggle.root))
    seen = []
    monkeypatch.setattr(session, "train_image", lambda run, folds: seen.append(run.config))
    changes = [*SMALL[:3], "image.weights=imagenet", "image.backbone=MobileNetV2"]
    assert run_session("image", [*changes, "image.backbone_options={}"], packed=packed) == 0
    (config,) = seen
    assert config.image.weights == str(weights) and config.records.source == "tfrecords"


def test_weights_of_a_file_at_home_are_found_by_their_name(packed, tmp_path, monkeypatch, capsys):
    place = tmp_path / "input" / "datasets" / "me" / "lesions"
    shutil.copytree(packed, tmp_path / "input" / "competitions" / SLUG)
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(tmp_path))
    changes = [*SMALL[:3], "image.weights=/home/me/my_lenet.h5"]
    assert run_session("image", changes, packed=packed) == 2
    assert "attach a data set with the weights my_lenet.h5" in capsys.readouterr().err
    place.mkdir(parents=True)
    (place / "my_lenet.h5").write_bytes(b"")
    seen = []
    monkeypatch.setattr(session, "train_image", lambda run, folds: seen.append(run.config))
    assert run_session("image", changes, packed=packed) == 0
    assert seen[0].image.weights == str(place / "my_lenet.h5")


@pytest.mark.ci
def test_a_head_is_trained_on_vectors_that_are_attached(
    packed, records, tmp_path, monkeypatch, capsys
):
    encoder = "{source: keras:LeNet, weights: null, options: {filters: 4}, image_size_px: 32}"
    changes = [*SMALL[:3], "records.source=tfrecords", "blend.models=[embedding]",
               f"embedding.encoders=[{encoder}]", "embedding.inner_folds=2"]  # fmt: skip
    home = tmp_path / "home"
    words = ["--data-dir", str(records), "--run-dir", str(home)]
    words += [word for change in changes for word in ("--set", change)]
    assert main(["train-embedding", *CONFIG, *words]) == 0
    kaggle = Kaggle(tmp_path / "kaggle", "new").attach("competitions", SLUG, records)
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(kaggle.root))
    assert run_session("embedding", changes, packed=packed) == 2
    assert "attach a data set with the vectors embeddings/keras-LeNet-32px" in (
        capsys.readouterr().err
    )
    kaggle.attach("datasets", "me/vectors", home / "embeddings")

    def run(*_):
        raise AssertionError("an encoder is run")

    monkeypatch.setattr("kaggle_pipeline.models.embedding.registry.open_encoder", run)
    assert run_session("embedding", changes, packed=packed) == 0
    for name in ("oof.csv", "test.csv"):
        found = (kaggle.working / "run" / "embedding" / name).read_bytes()
        assert found == (home / "embedding" / name).read_bytes(), name
    name = "keras-LeNet-32px"
    assert find_embedding(kaggle.input, name) == kaggle.input / "datasets/me/vectors" / name

    blend = Kaggle(tmp_path / "blend", "new")
    blend.attach("notebooks", "me/melanoma-embedding", kaggle.working)
    assert find_embedding(blend.input, name).parent.parent.name == "run"
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(blend.root))
    assert run_session("blend", changes, packed=packed) == 0
    assert len(pd.read_csv(blend.working / "submission.csv")) > 20


def test_further_collections_are_looked_for_among_the_inputs(packed, tmp_path, monkeypatch, capsys):
    path = packed / "kernel" / "settings.json"
    source = "datasets/andrewmvd/isic-2019"
    path.write_text(json.dumps({**json.loads(path.read_text()), "external": [source]}))
    kaggle = Kaggle(tmp_path / "kaggle", "new")
    monkeypatch.setenv("KAGGLE_PIPELINE_ROOT", str(kaggle.root))
    changes = [*SMALL[:3], "external=[{dataset: isic_2019, data_dir: ../isic_2019, weight: 0.5}]"]
    assert run_session("tabular", changes, packed=packed) == 2
    assert f"attach the input competitions/{SLUG}; the input {source}" in capsys.readouterr().err
    places = [kaggle.input / "competitions" / SLUG, kaggle.input / source]
    for place in places:
        place.mkdir(parents=True)
    seen = []
    monkeypatch.setattr(session, "train_tabular", lambda run: seen.append(run))
    assert run_session("tabular", changes, packed=packed) == 0
    (run,) = seen
    assert run.config.external == (ExternalConfig("isic_2019", str(places[1]), 0.5),)
    # The blend, where nothing is mounted, goes on with what this one prepared.
    run.record_origin(run.prepared)
    asked = ExternalConfig("isic_2019", "../isic_2019", 0.5)
    at_home = replace(run, config=replace(run.config, external=(asked,)))
    at_home.require_same(run.prepared, PREPARED_BY)
    # So does a run of before, whose config has a key that means nothing any more.
    path = run.prepared / "config.yaml"
    before = path.read_text().replace("image:\n", "image:\n  shuffle_buffer_mb: 64\n", 1)
    assert before != path.read_text()
    path.write_text(before)
    at_home.require_same(run.prepared, [*PREPARED_BY, "image"])


@pytest.mark.parametrize(
    ("backbone", "file"),
    [
        ("InceptionResNetV2", "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("InceptionResNetV2Merged", "inception_resnet_v2_weights_tf_dim_ordering_notop.h5"),
        ("MobileNetV2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("MobileNetV2", "mobilenet_v2_imagenet_notop.weights.h5"),
        ("EfficientNetB4", "efficientnetb4_notop.h5"),
        ("MobileNet", "mobilenet_1_0_224_tf_no_top.h5"),
        ("MobileNetV3Large", "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"),
        ("ResNet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("resnet18", "resnet18-f37072fd.pth"),
    ],
)
def test_attached_weights_are_found_by_their_published_names(backbone, file, tmp_path):
    decoys = ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "efficientnetb4.h5",
              "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5")  # fmt: skip
    for name in (*decoys, file):
        path = tmp_path / "datasets" / "me" / "weights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert find_weights(tmp_path, backbone) == path
    path.unlink()
    assert find_weights(tmp_path, backbone) is None


def test_the_width_that_was_asked_for_is_taken(tmp_path):
    for alpha in ("0.35", "1.0"):
        name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
        (tmp_path / name).write_text("x")
    assert "_1.0_" in find_weights(tmp_path, "MobileNetV2").name
    assert "_0.35_" in find_weights(tmp_path, "MobileNetV2", 0.35).name


def test_both_layouts_are_looked_through(tmp_path):
    for place in ("competitions/new", "old", "notebooks/me/k/run", "j/run", "datasets/a/b"):
        (tmp_path / place).mkdir(parents=True)
    assert find_source(tmp_path, "competitions/new") == tmp_path / "competitions" / "new"
    assert find_source(tmp_path, "competitions/old") == tmp_path / "old"
    assert find_source(tmp_path, "datasets/a/b") == tmp_path / "datasets" / "a" / "b"
    assert find_source(tmp_path, "datasets/a/c") is None
    assert find_runs(tmp_path) == [tmp_path / "j" / "run", tmp_path / "notebooks/me/k/run"]


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_outputs_that_do_not_belong_together_are_refused(tmp_path):
    same = {"prepare/folds.csv": "1", "prepare/examples.csv": "e"}
    first = write(tmp_path / "a", {**same, "image/fold0/oof.csv": "0"})
    other = write(tmp_path / "b", {**same, "prepare/folds.csv": "2"})
    with pytest.raises(PipelineError, match=r"b prepared the data otherwise .*folds\.csv differs"):
        gather_run([first, other], tmp_path / "run")
    twice = write(tmp_path / "c", {**same, "image/fold0/oof.csv": "1"})
    with pytest.raises(PipelineError, match="fold0 was trained by two attached kernels"):
        gather_run([first, twice], tmp_path / "run2")


def test_the_model_of_all_rows_goes_on_in_the_next_session(tmp_path):
    half = write(tmp_path / "a", {"image/all/state-2.weights.h5": "s", "image/fold0/oof.csv": "0"})
    done = write(tmp_path / "b", {"image/all/test.csv": "t", "image/all/model.json": "m"})
    cases = (([half], {"state-2.weights.h5"}), ([half, done], {"test.csv", "model.json"}))
    for number, (sources, found) in enumerate(cases):
        run = tmp_path / f"run{number}"
        gather_run(sources, run)
        assert {path.name for path in (run / "image" / "all").iterdir()} == found


def test_a_fold_that_is_done_wins_over_one_that_is_half_done(tmp_path):
    half = write(
        tmp_path / "a", {"image/fold0/state-2.weights.h5": "s", "image/fold1/oof.csv": "1"}
    )
    done = write(tmp_path / "b", {"image/fold0/oof.csv": "0", "image/fold1/history.csv": "h"})
    for number, sources in enumerate(([half, done], [done, half])):
        run = tmp_path / f"run{number}"
        gather_run(sources, run)
        found = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
        assert found == {"image/fold0/oof.csv", "image/fold1/oof.csv"}


@emulated
def test_a_table_of_ones_own_goes_through_the_kernels(tmp_path):
    """Data attached as a data set; the blend has no data and takes classes and words of the run."""
    generate_like("table", tmp_path / "own", images=80, image_size_px=32, seed=2, workers=1)
    config = ["--config", str(ROOT / "configs" / "my_photos.yaml")]
    changes = (
        *SMALL[2:4], "image.backbone=LeNet", "image.image_size_px=32", "image.weights=null",
        "image.backbone_options={filters: 4}", "image.backbone_layer=stage1_pool",
        "records.image_size_px=32", "table.kaggle=me/lesions", "table.positive=null",
    )  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    built = tmp_path / "built"
    data = tmp_path / "own" / "competition"
    words = ["--owner", "me", "--out", str(built), "--data-dir", str(data)]
    assert main(["build-kernels", *config, *sets, *words]) == 0
    outputs = {}
    for name in ("image", "tabular"):
        kaggle = Kaggle(tmp_path / name, "new").attach("datasets", "me/lesions", data)
        ok(kaggle.run(built / name))
        outputs[name] = kaggle.working
    kaggle = Kaggle(tmp_path / "blend", "new")
    for name, output in outputs.items():
        kaggle.attach("notebooks", f"me/melanoma-{name}", output)
    ok(kaggle.run(built / "blend"))
    submission = pd.read_csv(kaggle.working / "submission.csv")
    assert list(submission.columns) == ["file", "keratosis", "melanoma", "mole"]
    assert set(submission["file"]) == set(pd.read_csv(data / "new.csv")["file"])
