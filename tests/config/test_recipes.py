"""Every experiment in ``configs/``, shrunk, on the made-up version of its data set: all the way."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.synthetic import MADE_UP, generate_like

ROOT = Path(__file__).resolve().parents[2]
# Each costs 5 to 12 s; the others are near one of these, cli/test_main runs the demo's as it is,
# stages/ have runs of ham10000_mobilenet's and of an own table, webapp/ of isic_2017's.
MARKS = {"siim_isic_2020": pytest.mark.ci}
CONFIGS = [
    pytest.param(path, marks=MARKS.get(path.stem, pytest.mark.slow), id=path.stem)
    for path in sorted((ROOT / "configs").glob("*.yaml"))
]
# Small and short; backbone, layers, balance, networks, kind of folds and audit policy stay.
SHRUNK = (
    "records.image_size_px=32", "records.workers=1", "image.image_size_px=32",
    "image.batch_size=16", "image.epochs=1", "image.steps_per_epoch=1", "image.warmup_epochs=0",
    "image.tta=none", "image.weights=null", "tabular.epochs=2", "leakage.fingerprints=false",
)  # fmt: skip
SMALL_NETWORK = ("image.backbone=LeNet", "image.backbone_options={filters: 4}")
SMALL_ENCODER = (
    "embedding.encoders=[{source: keras:LeNet, weights: null, options: {filters: 4}, "
    "image_size_px: 32}]"
)
LIGHTER = {
    "isic_2017": (*SMALL_NETWORK, "image.train_from=stage0_pool"),
    "isic_2017_resnet": SMALL_NETWORK,
    "ham10000_mobilenet": (*SMALL_NETWORK, "image.train_from=stage0_pool"),
    "ham10000_resnet50": SMALL_NETWORK,
    "siim_isic_2020": (*SMALL_NETWORK, "image.train_from=stage0_pool"),
    "siim_isic_2020_seed": SMALL_NETWORK,
    "my_photos": (*SMALL_NETWORK, "image.backbone_layer=stage1_pool"),
    "siim_isic_2020_mlebench": (
        *SMALL_NETWORK,
        "image.train_from=stage0_pool",
        "records.source=auto",
    ),
    "siim_mini": (
        *SMALL_NETWORK,
        "image.backbone_layer=stage1_pool",
        "image.augment.dihedral=false",  # one view in place of eight
    ),
    "ham10000_blend": (*SMALL_NETWORK, "image.train_from=stage0_pool"),
    "siim_mini_external": (*SMALL_NETWORK, "image.backbone_layer=stage1_pool"),
    "siim_resnext50": SMALL_NETWORK,
}
"""Large networks take minutes to trace here; other tests build them, and ``make bench`` runs the
recipes with their own."""
_buffer = io.BytesIO()
Image.new("RGB", (1, 1)).save(_buffer, "PNG")
PIXEL = _buffer.getvalue()
SMALLEST_SIDE_PX = {"InceptionResNetV2": 75, "InceptionResNetV2Merged": 75}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """``drawn(dataset)``: the folder of its made-up version, drawn once."""
    made = {}

    def draw(dataset):
        name = dataset if dataset in MADE_UP else "siim_isic_2020"
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            generate_like(name, made[name], images=160, image_size_px=32, seed=1, workers=1)
        return made[name] / "competition"

    return draw


def shrink(config, lighter):
    changes = list(SHRUNK)
    side = SMALLEST_SIDE_PX.get(config.image.backbone)
    if side and not lighter:
        changes.append(f"image.image_size_px={side}")
    if config.folds.holdout is None and config.folds.judge is None:
        # One fit in place of five or ten; a small network shows that folds are joined.
        changes.append("folds.k=2" if config.name == "demo" else "folds={holdout: 0.4}")
    if config.embedding.encoders:  # others are downloaded
        changes.append(SMALL_ENCODER)
    changes += lighter
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.parametrize("path", CONFIGS)
def test_every_recipe_runs_on_made_up_data(path, drawn, tmp_path, capsys, monkeypatch):
    run_recipe(path, LIGHTER.get(path.stem, ()), drawn, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LIGHTER))
def test_every_recipe_runs_with_its_own_network(name, drawn, tmp_path, capsys, monkeypatch):
    run_recipe(ROOT / "configs" / f"{name}.yaml", (), drawn, tmp_path, capsys, monkeypatch)


def run_recipe(path, lighter, drawn, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorflow")
    # A fifth of the time goes into figures, which have tests of their own.
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: path.write_bytes(PIXEL))
    config = load_experiment(path)
    further = [
        {"dataset": one.dataset, "data_dir": str(drawn(one.dataset)), "weight": one.weight}
        for one in config.external
    ]
    lighter = (*lighter, f"external={json.dumps(further)}") if further else lighter
    data_dir, run_dir = drawn(config.dataset), tmp_path / "run"
    arguments = ["--config", str(path), "--data-dir", str(data_dir), "--run-dir", str(run_dir)]
    assert main(["run-pipeline", *arguments, *shrink(config, lighter)]) == 0, (
        capsys.readouterr().err
    )
    spec = spec_of(config, run_dir / "prepare", data_dir)
    folds = pd.read_csv(run_dir / "prepare" / "folds.csv").set_index("image_id")["fold"]
    labelled = set(folds.index[folds >= 0])
    for stage in (*config.blend.models, "blend"):
        oof = pd.read_csv(run_dir / stage / "oof.csv").set_index("image_id")
        assert set(oof.index) == labelled and list(oof.columns[: len(spec.classes)]) == list(
            spec.classes
        )
        evaluation = json.loads((run_dir / stage / "evaluation.json").read_text())
        assert evaluation["n"] == len(labelled) and evaluation["task"] == spec.task
    assert "no diagnosis" in (run_dir / "report.html").read_text()
    tests = pd.read_csv(run_dir / "prepare" / "examples.csv").query("split == 'test'")
    submission = run_dir / "submission.csv"
    assert submission.exists() == bool(len(tests))
    if len(tests):
        rows = pd.read_csv(submission)
        assert list(rows.columns) == [spec.submission.id_column, *spec.submission.columns]
        assert set(rows[spec.submission.id_column]) == set(tests["image_id"])
    test_is_labelled = config.folds.test_share is not None
    stage = run_dir / config.blend.models[0]
    assert (stage / "test_evaluation.json").exists() == test_is_labelled
    metrics = json.loads((stage / "metrics.json").read_text())
    by_image = config.folds.by == "image"
    assert metrics["groups_ignored"] == by_image
    evaluation = json.loads((stage / "evaluation.json").read_text())
    seen = [row for row in evaluation["subgroups"] if "seen in training" in row["feature"]]
    assert sum(row["n"] for row in seen) == (len(labelled) if by_image else 0)
