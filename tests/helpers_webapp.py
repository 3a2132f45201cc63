"""A small run to serve, of any data set: prepared for real, its networks as they were drawn."""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment, write_experiment
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.evaluation.evaluate import evaluate
from kaggle_pipeline.evaluation.plots import write_evaluation
from kaggle_pipeline.stages.calibrate import calibrate_stage
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.synthetic import generate_like

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {"synthetic": "demo", "ham10000": "ham10000_lenet", "isic_2017": "isic_2017"}
TINY = (
    "records.image_size_px=32", "records.workers=1", "image.image_size_px=32",
    "image.backbone=LeNet", "image.backbone_options={filters: 4}", "image.weights=null",
    "image.train_from=null", "image.seeds=1", "image.tta=flips",
    "leakage.fingerprints=false", "external=[]",
)  # fmt: skip


def make_run(dataset, root, data_dir=None, *, records=True, more=()):
    """Return a run's folder in ``root``, of networks that nobody has trained.

    ``synthetic`` has two folds and a blend with a logistic regression that is fitted and calibrated
    for real; the others have the folds of their config and the image model alone. ``more`` are
    further changes of the config.
    """
    if data_dir is None:
        generate_like(dataset, root, images=60, image_size_px=40, seed=3, workers=1)
        data_dir = root / "competition"
    several = ("folds={k: 2}",) if dataset == "synthetic" else ("folds={holdout: 0.3}",)
    config = load_experiment(
        ROOT / "configs" / f"{CONFIGS[dataset]}.yaml", [*TINY, *several, *more]
    )
    run = Run(config, data_dir, root / "run", say=lambda line: None)
    prepare_data(run, with_records=records)
    places = [run.run_dir / "image" / f"fold{fold}" for fold in run.folds().numbers]
    for fold, place in enumerate(places):
        _draw_network(run, place, seed=fold)
    _judge(run, "image")
    if dataset == "synthetic":
        _fit_logistic(run)
        weights = {"image": 0.5, "logistic": 0.5}
        write_json(run.run_dir / "blend" / "blend.json",
                   {"space": "logit", "weights": weights, "knots": {}})  # fmt: skip
        oof = _judge(run, "blend")
        place, examples = run.run_dir / "blend", run.examples()
        calibrate_stage(place, oof, None, examples, None, run.spec, config)
    return run.run_dir


def _draw_network(run, place, seed):
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator("cpu")
    import keras

    from kaggle_pipeline.models.composite import SeedEnsemble
    from kaggle_pipeline.models.image.model import ImageModel
    from kaggle_pipeline.models.image.network import build_network

    def draw(seed, folder):
        keras.utils.set_random_seed(seed)
        model = ImageModel(run.config.image, run.spec, lambda ids: [], device, folder, seed=seed)
        model.network_ = build_network(run.config.image, run.spec)
        model.encoder_ = None
        folder.mkdir(parents=True)
        model.save(folder)
        return model

    if run.config.image.seeds == 1:
        draw(seed, place)
    else:
        SeedEnsemble(draw, seed, run.config.image.seeds, place).save(place)


def _fit_logistic(run):
    from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel

    examples, folds = run.examples(), run.folds()
    for fold in folds.numbers:
        place = run.run_dir / "logistic" / f"fold{fold}"
        place.mkdir(parents=True)
        model = LearnerModel("logistic", run.config.tabular, run.spec, run.spec.features, seed=0)
        model.fit(examples.loc[folds.train_ids(fold)], None).save(place)
    write_experiment(run.run_dir / "logistic" / "config.yaml", run.config)


def _judge(run, stage):
    """Write what a judged stage leaves, for answers that know a little of the truth."""
    folder, spec, examples = run.run_dir / stage, run.spec, run.examples()
    labelled = run.folds().validated
    truth = examples.loc[labelled.index, list(spec.classes)]
    rng = np.random.default_rng(4)
    values = rng.random(truth.shape) + 0.5 * truth.to_numpy()
    values /= values.sum(axis=1, keepdims=True) if spec.task == "multiclass" else 1.5
    oof = Predictions.build(pd.DataFrame(values, truth.index, truth.columns), 0, "oof")
    oof.write(folder / "oof.csv")
    found = evaluate(examples, oof.probabilities, spec, seed=0, n_replicates=30)
    write_evaluation(folder, found)
    auc = found["scores"]["auc"]
    write_json(
        folder / "metrics.json",
        {"oof_auc": auc["value"], "oof_auc_low": auc["low"], "oof_auc_high": auc["high"],
         "n": len(truth), "seconds": 1.0},
    )  # fmt: skip
    write_experiment(folder / "config.yaml", run.config)
    write_json(folder / "versions.json", versions())
    return oof
