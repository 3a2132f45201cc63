"""The data sets: one module each with a ``SPEC``, and one line in the table below."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import MADE_UP_MARK
from kaggle_pipeline.config.table import DATASET
from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.raw_files import require_data_folder

MODULES = {
    "ham10000": "kaggle_pipeline.datasets.ham10000",
    "isic_2017": "kaggle_pipeline.datasets.isic_2017",
    "isic_2019": "kaggle_pipeline.datasets.isic_2019",
    "siim_isic_2020": "kaggle_pipeline.datasets.siim_isic_2020",
    "synthetic": "kaggle_pipeline.datasets.synthetic",
}


def get_spec(name: str) -> DatasetSpec:
    """Return the spec of the data set ``name``.

    Raises
    ------
    PipelineError
        If there is no such data set; the message names the nearest.
    """
    if name not in MODULES:
        raise PipelineError(f"unknown dataset {name!r}{nearest(name, [*MODULES, DATASET])}")
    return import_module(MODULES[name]).SPEC


def require_data(spec: DatasetSpec, data_dir: Path) -> None:
    """Stop where the raw data's folder is not there; see :func:`require_data_folder`."""
    drawn = (MADE_UP_MARK, "train.csv") if spec.made_up else ()
    require_data_folder(Path(data_dir), spec.source, drawn)


def spec_of(config: Experiment, prepared: Path | None, data_dir: Path | None) -> DatasetSpec:
    """Return the spec of an experiment's data set.

    Parameters
    ----------
    config : Experiment
    prepared : pathlib.Path or None
        The run's ``prepare/``: what was learned from a user's own table is read from there.
    data_dir : pathlib.Path or None
        Where it is learned if the run is not prepared yet.

    Raises
    ------
    PipelineError
        If there is no such data set, or a user's table has a mistake.
    """
    if config.table is None:
        spec = get_spec(config.dataset)
    else:
        from kaggle_pipeline.datasets.table import table_spec

        drop = config.examples.unreadable == "drop"
        spec = table_spec(config.table, prepared, data_dir, drop)
    places = (Path(one) for one in (prepared, data_dir) if one is not None)
    drawn = any((place / MADE_UP_MARK).exists() for place in places)
    return replace(spec, made_up=True) if drawn else spec
