"""Answers of a TPU's compiler that are kept, since a compilation takes minutes and gigabytes.

In: an experiment, a topology. Out: what :func:`~kaggle_pipeline.preflight.estimate.preflight` said
of the same step, and where that is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.spec import DatasetSpec

SHIPPED = HOME / "configs" / "preflight" / "plans.json"
_OTHER = ("epochs", "learning_rate", "warmup_epochs", "tta_views", "cache_mb", "seeds",
          "inner_share", "class_weight_power", "steps_per_epoch")  # fmt: skip
"""Settings of the image model that decide numbers in the step, or around it, but not the step."""
_COMPILERS = ("keras", "jax", "jaxlib", "libtpu")


class KeptAnswers:
    """Answers in a file of one's own, and those that come with this package.

    Parameters
    ----------
    path : pathlib.Path
        Where new answers are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def find(self, config: Experiment, spec: DatasetSpec, topology: str) -> dict[str, Any] | None:
        """Return the answer of the same step, with ``kept_in``; None where none is known.

        Where the compiler is installed, an answer of other versions is none. Elsewhere it is the
        best there is.
        """
        wanted, here = _step(config, spec, topology), _compilers(versions())
        for path in (self._path, SHIPPED):
            for one in read_json(path) if path.exists() else ():
                same = one["step"] == wanted
                if same and ("libtpu" not in here or _compilers(one["answer"]["versions"]) == here):
                    return {**one["answer"], "kept_in": str(path)}
        return None

    def keep(
        self, config: Experiment, spec: DatasetSpec, topology: str, answer: Mapping[str, Any]
    ) -> None:
        """Add an answer to the file."""
        known = read_json(self._path) if self._path.exists() else []
        step = _step(config, spec, topology)
        others = [one for one in known if one["step"] != step]
        write_json(self._path, [*others, {"step": step, "answer": dict(answer)}])


def describe_compiler(answer: Mapping[str, Any]) -> str:
    """Return the versions that an answer is of."""
    return ", ".join(f"{name} {one}" for name, one in _compilers(answer["versions"]).items())


def _step(config: Experiment, spec: DatasetSpec, topology: str) -> dict[str, Any]:
    """What decides the compiled step."""
    image = {k: v for k, v in to_mapping(config)["image"].items() if k not in _OTHER}
    image["weights"] = config.image.weights is not None  # some networks scale their input then
    return {"topology": topology, "classes": len(spec.classes), "task": spec.task, "image": image}


def _compilers(found: Mapping[str, str]) -> dict[str, str]:
    return {name: found[name] for name in _COMPILERS if name in found}
