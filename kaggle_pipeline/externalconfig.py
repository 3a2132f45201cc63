"""Settings of photos from other collections, to learn from beside an experiment's own.

In: values. Out: frozen sections of an :class:`~kaggle_pipeline.config.Experiment`.
"""

from dataclasses import dataclass

from kaggle_pipeline.configchecks import require


@dataclass(frozen=True)
class ExternalConfig:
    """One further collection: rows that the image model learns from and nothing is judged by."""

    dataset: str
    """Such as ``ham10000``."""
    data_dir: str
    """Its folder, relative to the experiment's own data folder, or an absolute path."""
    weight: float = 1.0
    """Of each of its rows beside one of the experiment's own."""

    def __post_init__(self) -> None:
        require(0 < self.weight <= 10, "external.weight", self.weight, "in (0, 10]")
