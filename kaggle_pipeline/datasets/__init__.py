"""The data sets: one module each with a ``SPEC``, and one line in the table below."""

from importlib import import_module

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.data.spec import DatasetSpec

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
        raise PipelineError(f"unknown dataset {name!r}{nearest(name, list(MODULES))}")
    return import_module(MODULES[name]).SPEC
