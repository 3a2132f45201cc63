"""What fewer bits cost: the AUC of a run's quantised networks, out of fold, beside the run's own.

In: a run whose records are at hand. Out: a line. Each fold's network is scored on rows that it did
not learn from, as the run's own AUC is.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kaggle_pipeline.data.examples import read_examples
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, bootstrap_weights, score_of
from kaggle_pipeline.records.tfrecords import read_index, read_records, shards_holding
from kaggle_pipeline.stages.trained import TrainedImageModels

if TYPE_CHECKING:
    from kaggle_pipeline.export.formats import Format
    from kaggle_pipeline.hardware.accelerator import Accelerator

_OF_A_CLASS = 150
"""Rows of each class that are scored at most, and as many of none."""
_REPLICATES = 1000
_SQUARES_BYTES = 64 * 2**20
"""Of photos in memory at once: 300 of 1024 px would be 1 GB."""


def quantization_cost(
    trained: TrainedImageModels, run_dir: Path, chosen: "Format", quantize: str,
    device: "Accelerator",
) -> str:  # fmt: skip
    """Return the AUC's change with its interval, paired, in words; or why it is not known."""
    if trained.of_all:
        return (
            "what fewer bits cost in AUC is not known: the model learned from all labelled photos, "
            "so none is left to score it on"
        )
    if trained.config.image.metadata:
        return (
            "what fewer bits cost in AUC is not known: the run was scored with metadata, and the "
            "exported network has none"
        )
    index = read_index(run_dir)
    if index is None or not all(Path(one).is_dir() for one in index["folder"].unique()):
        return "what fewer bits cost in AUC is not known: the run's records are not here"
    from kaggle_pipeline.export.network import serving_network

    spec, seed = trained.spec, trained.config.seed
    classes = list(spec.classes)
    oof = Predictions.read(trained.stage / "oof.csv", spec.classes).table
    examples = read_examples(Path(run_dir) / "prepare" / "examples.csv", spec)
    rows = _some(examples.loc[oof.index], classes, seed)
    own, quantised = oof.loc[rows.index, classes], pd.DataFrame(np.nan, rows.index, classes)
    with tempfile.TemporaryDirectory() as scratch:
        for fold in trained.folds:
            ids = rows.index[(oof.loc[rows.index, "fold"] == fold).to_numpy()]
            if not len(ids):
                continue
            model = trained.load(fold, device, lambda ids: [], Path(scratch) / "features")
            side = trained.config.image.image_size_px
            network = serving_network([model], spec, None, None, side)
            path = Path(scratch) / f"fold{fold}{chosen.ending}"
            chosen.write(network, {}, path, quantize)
            run = chosen.open(path)
            for names, squares in _squares(trained, index, ids):
                quantised.loc[names] = run(squares)["score"]
    lacking = quantised.index[quantised.isna().any(axis=1)]
    if len(lacking):
        return (
            f"what fewer bits cost in AUC is not known: the records lack {lacking[0]}"
            f"{f' ({len(lacking)} such)' if lacking[1:].size else ''}"
        )
    weights = bootstrap_weights(rows["group_id"], _REPLICATES, seed)
    truth = rows[classes].to_numpy(int)
    own_auc, their_auc = (
        MeanAuc(truth, one.to_numpy(float)).each(weights) for one in (own, quantised)
    )
    change = score_of(their_auc - own_auc)
    if change is None:
        return "what fewer bits cost in AUC is not known: a class has too few photos"
    return (
        f"{quantize}, views {trained.config.image.tta}: AUC {change.value:+.4f} "
        f"[{change.low:+.4f}, {change.high:+.4f}] from the run's own on {len(rows)} photos, out of "
        "fold, in pairs"
    )


def _some(rows: pd.DataFrame, classes: list[str], seed: int) -> pd.DataFrame:
    """Rows of every class; both AUCs are of the same ones."""
    kinds = rows[classes].astype(str).agg("".join, axis=1)
    shuffled = kinds.sample(frac=1, random_state=seed)
    return rows.loc[shuffled.groupby(shuffled).head(_OF_A_CLASS).sort_index().index]


def _squares(
    trained: TrainedImageModels, index: pd.DataFrame, ids: pd.Index
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Some photos of ``ids`` after the other as the network sees them, and their ids."""
    from kaggle_pipeline.models.image.input.pipeline import decode_photo

    side = trained.config.image.image_size_px
    order = slice(None, None, -1 if trained.config.records.swap_red_blue else 1)
    most = max(1, _SQUARES_BYTES // (3 * side**2))
    wanted, found = set(ids), {}
    for shard in shards_holding(index, ids):
        for record in read_records(shard):
            if (name := record[trained.spec.record_id]) in wanted:
                found[name] = decode_photo(record["image"], side)[..., order]
            if len(found) == most:
                yield list(found), np.stack(list(found.values()))
                found.clear()
    if found:
        yield list(found), np.stack(list(found.values()))
