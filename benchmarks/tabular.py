"""How long the published metadata recipe takes, beside the way a notebook writes it.

In: the competition's metadata, or made-up rows of that shape. Out: seconds of all epochs of all
folds, those of ``keras.Model.fit`` told from a few epochs of the same run, and both ways' AUC after
the same few epochs at the same batch size.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import FoldsConfig, TabularConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
from kaggle_pipeline.metrics.roc_bootstrap import auc_with_interval, roc_auc
from kaggle_pipeline.models.cross_validation import collect_folds, cross_validate

_RECIPE = CHECKOUT / "configs" / "siim_isic_2020_seed.yaml"
_NOTEBOOK_BATCH = 32  # what keras.Model.fit takes when nothing is said
_FOLDS, _SEED = 5, 2020


def measure_tabular(
    data_dir: Path | None = None,
    json_path: Path | None = None,
    epochs: int = 400,
    beside: int = 10,
    say: Callable[[str], None] = print,
    examples: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Time the published recipe over five folds and compare it with Keras' own ``fit``.

    Parameters
    ----------
    data_dir : pathlib.Path, optional
        Holds the competition's ``train.csv``; None: made-up rows of that number and shape.
    json_path : pathlib.Path, optional
        Gets the figures with the versions.
    epochs : int
        Of the recipe.
    beside : int
        Epochs after which AUCs are compared; 0 leaves that out.
    say : callable
    examples : pandas.DataFrame, optional
        Rows to use instead.

    Returns
    -------
    dict
        Ours: ``seconds`` that passed, ``cpu_seconds`` of all cores, ``epoch_seconds``. ``fit``: the
        same of an epoch by batch size, and told for the whole. ``auc`` of both ways.
    """
    if examples is None:
        raw = SPEC.read_raw(data_dir).examples if data_dir else made_up_rows()
        examples = validate_examples(raw, SPEC)
    train = split_rows(examples, "train")
    folds = make_folds(train, SPEC, FoldsConfig(k=_FOLDS), _SEED)
    config = replace(load_experiment(_RECIPE).tabular, epochs=epochs)
    say(
        f"{len(train)} rows, {int(train['target'].sum())} positive, {_FOLDS} folds x {epochs} "
        f"epochs, hidden {list(config.hidden)}, batches of {config.batch_size}, "
        f"{config.resampling}, {os.cpu_count()} cores"
    )
    answers, spent = _timed(lambda: _ours(config, train, folds))
    count = _FOLDS * epochs
    result: dict[str, Any] = {**spent, "epoch_seconds": round(spent["seconds"] / count, 4)}
    result["oof_auc"] = str(_auc(train, answers))
    say(
        f"ours: {_tell(spent, 1)}, {result['epoch_seconds']} s an epoch; "
        f"OOF AUC {result['oof_auc']}"
    )
    result["fit"] = {}
    for batch in (_NOTEBOOK_BATCH, config.batch_size):
        epoch = _fit_epoch(replace(config, batch_size=batch), train, folds)
        told = {name: round(value * count) for name, value in epoch.items()}
        result["fit"][batch] = {"epoch": epoch, "told": told}
        times = {name: round(told[name] / spent[name], 1) for name in told}
        say(
            f"keras fit, batches of {batch}: {_tell(epoch, 2)} an epoch; told for all "
            f"{_tell(told, 0)}: {times['seconds']} and {times['cpu_seconds']} times as much"
        )
    if beside:
        result["auc"] = _compare(replace(config, epochs=beside), train, folds, say)
    result |= {"rows": len(train), "epochs": epochs, "versions": versions()}
    if json_path:
        write_json(json_path, result)
    return result


def _compare(
    config: TabularConfig, train: pd.DataFrame, folds: Folds, say: Callable[[str], None]
) -> dict[str, Any]:
    """Out-of-fold AUCs of both ways after the same epochs."""
    ours = _ours(config, train, folds)
    theirs = _keras(config, train, folds).loc[ours.index]
    found = {"epochs": config.epochs, "ours": _auc(train, ours), "fit": _auc(train, theirs)}
    truth = train.loc[ours.index, "target"]
    gap = roc_auc(truth, ours) - roc_auc(truth, theirs)
    say(
        f"OOF AUC after {config.epochs} epochs in batches of {config.batch_size}: ours "
        f"{found['ours']}, keras fit {found['fit']}, {gap:+.4f}"
    )
    return {name: str(value) for name, value in found.items()} | {"gap": round(gap, 5)}


def _auc(train: pd.DataFrame, answers: pd.Series) -> Any:
    rows = train.loc[answers.index]
    return auc_with_interval(rows["target"], answers.to_numpy(), rows["group_id"], seed=_SEED)


def _ours(config: TabularConfig, train: pd.DataFrame, folds: Folds) -> pd.Series:
    """Cross-validate as ``scripts/train_tabular.py`` does."""
    from kaggle_pipeline.models.tabular.parallel_folds import dense_models

    make_model, side_by_side = dense_models(config, SPEC, None, _SEED, jit_compile=False)
    with TemporaryDirectory() as folder:
        place = Path(folder)
        cross_validate(make_model, train, SPEC, folds, place, seed=_SEED, **side_by_side)
        oof, _ = collect_folds(folds, SPEC, train, place)
    return oof.table["target"]


def _keras(config: TabularConfig, train: pd.DataFrame, folds: Folds) -> pd.Series:
    parts = []
    for fold in folds.numbers:
        learn, labelled = train.loc[folds.train_ids(fold)], train.loc[folds.valid_ids(fold)]
        parts.append(pd.Series(_by_fit(config, learn, labelled, _SEED + fold), labelled.index))
    return pd.concat(parts)


def _by_fit(
    config: TabularConfig, learn: pd.DataFrame, labelled: pd.DataFrame, seed: int
) -> np.ndarray:
    network, x, y, encode = _notebook(config, learn, seed)
    network.fit(x, y, batch_size=config.batch_size, epochs=config.epochs, verbose=0)
    return network.predict(encode(labelled), batch_size=8192, verbose=0)[:, 0]


def _fit_epoch(config: TabularConfig, train: pd.DataFrame, folds: Folds) -> dict[str, float]:
    """Time one epoch of ``fit`` on the first fold, the quicker of two after a first."""
    network, x, y, _ = _notebook(config, train.loc[folds.train_ids(0)], _SEED)
    network.fit(x[:4096], y[:4096], batch_size=config.batch_size, verbose=0)  # compiles
    runs = [
        _timed(lambda: network.fit(x, y, batch_size=config.batch_size, verbose=0))[1]
        for _ in range(2)
    ]
    return min(runs, key=lambda spent: spent["seconds"])


def _timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what ``work`` does, and its time: passed, and of all cores, which other jobs on the
    machine lengthen less."""
    started, used = time.perf_counter(), _cores_seconds()
    done = work()
    seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": _cores_seconds() - used}
    return done, {name: round(value, 3) for name, value in seconds.items()}


def _cores_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _tell(spent: dict[str, float], digits: int) -> str:
    return f"{spent['seconds']:.{digits}f} s ({spent['cpu_seconds']:.{digits}f} s of the cores)"


def _notebook(config: TabularConfig, learn: pd.DataFrame, seed: int) -> tuple[Any, ...]:
    """Network, rows and answers as a notebook has them before ``fit``, and the encoder."""
    import keras

    from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
    from kaggle_pipeline.models.tabular.network import build_network
    from kaggle_pipeline.models.tabular.smote import resample_rows

    encoder = FeatureEncoder(*choose_features(SPEC, None, learn)).fit(learn)
    classes = learn["target"].to_numpy(int)
    x, y = resample_rows(learn, classes, encoder, config.resampling, seed)
    keras.utils.set_random_seed(seed)
    network = build_network(x.shape[1], 1, "sigmoid", config.hidden, config.dropout)
    network.compile(
        keras.optimizers.Adam(config.learning_rate), "binary_crossentropy", jit_compile=False
    )
    return network, x, y[:, None].astype(np.float32), encoder.transform


def made_up_rows(rows: int = 33_126, patients: int = 2_056, seed: int = 0) -> pd.DataFrame:
    """Return training rows in the competition's shape: 1.8 % positive, more with age."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, patients, rows)
    age = 5.0 * rng.integers(3, 18, patients)[patient]
    target = rng.random(rows) < 0.018 * (age / 50) ** 1.5
    table = pd.DataFrame(
        {
            "image_id": [f"ISIC_{number:07d}" for number in range(rows)],
            "group_id": [f"IP_{number:07d}" for number in patient],
            "split": "train",
            "target": target.astype(float),
            "age_years": age,
        }
    )
    for name, words in SPEC.categorical.items():
        table[name] = rng.choice(np.array(words, object), rows)
    return table
