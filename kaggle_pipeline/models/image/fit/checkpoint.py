"""Every epoch's state, whole on disk: a fit that is killed goes on after its last whole epoch.

In: a Keras fit. Out: ``history.csv``, ``best.weights.h5`` where it is wanted, and
``state-<epoch>.weights.h5`` (weights and optimizer) of the last two epochs. Where the optimizer
averages weights, the best weights are averages, those of a state are not.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, write_json
from kaggle_pipeline.core.room import require_room
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.models.image.fit.weight_averaging import averaged_weights
from kaggle_pipeline.models.weights_file import save_weights, weights_bytes

_HISTORY, _BEGUN = "history.csv", "begun.json"


class EpochKeeper(keras.callbacks.Callback):
    """Keeps every epoch's state whole on disk: history, best weights, weights with optimizer.

    Parameters
    ----------
    folder : pathlib.Path
    keep_best : bool
        Whether the epoch of the best ``val_auc`` is wanted instead of the last; the last is kept
        too where every one is NaN.
    seed : int
        Of the dropout layers.
    keep_state : bool
        Whether a stopped fit is worth going on with; false for one of seconds.
    deadline : Deadline
        The fit stops before it, with the last whole epoch on disk.
    begun_with : mapping, optional
        What a resumed fit must agree in, such as the global batch.
    all_min : callable, optional
        Least of all processes' numbers, where several train together.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_best: bool,
        seed: int,
        keep_state: bool = True,
        deadline: Deadline | None = None,
        begun_with: Mapping[str, Any] | None = None,
        all_min: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__()
        self._deadline = deadline or Deadline.after(None)
        self._begun_with = dict(begun_with or {})
        self._together = all_min is not None
        self._all_min = all_min or int
        self._begun = time.monotonic()
        self._folder = folder
        self._keep_best = keep_best
        self._seed = seed
        self._keep_state = keep_state
        self._network: keras.Model | None = None
        self.history = pd.DataFrame()

    def resume(self, network: keras.Model) -> int:
        """Load the newest state that every process can read; return the epoch to go on with.

        From here on it is this network whose states are written, also where a model around it is
        fitted.

        Raises
        ------
        PipelineError
            If the fit was begun with another global batch, number of steps or optimizer, whose
            schedule and moments would mean something else here; or if the workers have no state in
            common.
        """
        self._network = network
        network.optimizer.build(network.trainable_variables)
        if self._keep_state:  # two are kept while a third is written
            needed = 3 * weights_bytes(network)
            require_room(self._folder, needed, "a fold's weights, with those to go on from,")
        self._require_same(network)
        variables = [*network.weights, *network.optimizer.variables]
        fresh = [keras.ops.convert_to_numpy(variable) for variable in variables]
        readable = self._load_before(network, None)
        agreed = self._all_min(readable)
        if agreed < readable and self._load_before(network, agreed) < agreed:
            raise PipelineError(
                f"{self._folder} has no state of epoch {agreed}, from which the other workers go "
                "on: start all of them anew with --overwrite"
            )
        for epoch, path in self._states():  # of a trajectory that is given up
            if epoch > agreed:
                path.unlink()
        if agreed == 0:
            for variable, value in zip(variables, fresh, strict=True):  # half-read ones too
                variable.assign(value)
            return 0
        remedy = f"delete {self._folder} and say --resume, which trains that fold anew"
        history = read_own(self._folder / _HISTORY, {"epoch": int}, remedy=remedy)
        self.history = history[history["epoch"] < agreed]
        return agreed

    def _require_same(self, network: keras.Model) -> None:
        now = {**self._begun_with, "optimizer": type(network.optimizer).__name__}
        path = self._folder / _BEGUN
        before = read_json(path) if path.exists() and self._states() else now
        for key, value in now.items():
            old = before.get(key)  # earlier versions wrote fewer
            if old != value:
                raise PipelineError(
                    f"{self._folder} was begun with {key} = {old}, here it is {value}: go on where "
                    "it was begun, or start anew with --overwrite"
                )
        if self._keep_state:
            write_json(path, now)

    def _load_before(self, network: keras.Model, limit: int | None) -> int:
        """Load the newest readable state, of epoch ``limit`` at most; return its epoch, else 0."""
        for epoch, path in sorted(self._states(), reverse=True):
            if limit is not None and epoch > limit:
                continue
            try:
                network.load_weights(path)
            except (OSError, KeyError, ValueError):  # half-written: take the one before
                continue
            return epoch
        return 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Seed every dropout by the epoch: Keras keeps its state in no weights file."""
        self._begun = time.monotonic()
        states = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
        for number, state in enumerate(states):
            state.assign([self._seed + number, 1000 * epoch])

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop within an epoch that the deadline cuts; together with others only between two."""
        if not self._together:
            self._deadline.check("the epoch's end")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write history, then best weights, then state: a kill in between loses this epoch only."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = pd.DataFrame([{"epoch": epoch, **(logs or {}), "learning_rate": rate}])
        is_best = self._keep_best and self._beats(row)
        self.history = pd.concat([self.history, row], ignore_index=True)
        with atomic_path(self._folder / _HISTORY) as temporary:
            self.history.to_csv(temporary, index=False)
        if is_best:
            best = self._folder / "best.weights.h5"
            with averaged_weights(self.model):
                save_weights(self._saved, best)
        if not self._keep_state:
            return
        older = self._states()
        save_weights(self._saved, self._folder / f"state-{epoch + 1}.weights.h5")
        for _, path in sorted(older)[:-1]:  # the one before stays, in case this one is damaged
            path.unlink()
        if epoch + 1 < self.params["epochs"]:
            needed = time.monotonic() - self._begun
            if not self._all_min(int(self._deadline.leaves(needed))):
                raise OutOfTime(f"{epoch + 1} of {self.params['epochs']} epochs are done and saved")

    def restore_best(self, network: keras.Model) -> None:
        """Load the best epoch's weights where they were asked for."""
        if self._keep_best and (self._folder / "best.weights.h5").exists():
            network.load_weights(self._folder / "best.weights.h5")

    @staticmethod
    def forget(folder: Path) -> None:
        """Delete what only an interrupted fit needs."""
        halves = folder.glob(".[0-9]*.*")  # what a kill left of a file that was being written
        states = folder.glob("state-*.weights.h5")
        for path in (*halves, *states, folder / "best.weights.h5", folder / _BEGUN):
            path.unlink(missing_ok=True)

    @property
    def _saved(self) -> keras.Model:
        return self._network or self.model

    def _beats(self, row: pd.DataFrame) -> bool:
        """Whether the epoch's AUC is above all before; one that is NaN is above none."""
        best = -np.inf if self.history.empty else self.history["val_auc"].fillna(-np.inf).max()
        return bool(row["val_auc"].iloc[0] > best)

    def _states(self) -> list[tuple[int, Path]]:
        paths = self._folder.glob("state-*.weights.h5")
        return [(int(path.name.split(".")[0].removeprefix("state-")), path) for path in paths]
