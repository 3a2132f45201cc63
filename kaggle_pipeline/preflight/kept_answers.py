"""Answers of a TPU's compiler that are kept, since a compilation takes minutes and gigabytes.

In: an experiment, a topology. Out: what :func:`~kaggle_pipeline.preflight.estimate.preflight` said
of the same step, and where that is kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.preflight.compiler import resolve_topology
from kaggle_pipeline.preflight.estimate import step_settings

SHIPPED = HOME / "configs" / "preflight"
"""Holds what ``preflight --json`` wrote, an answer a file."""
_KEYS = {
    "settings", "topology", "versions", "fits", "largest_batch_per_replica", "batch_per_replica",
    "global_batch", "floor_step_seconds", "peak_hbm_gib", "hbm_gib",
}  # fmt: skip
"""Without which an answer is none."""
_COMPILERS = ("keras", "jax", "jaxlib", "libtpu")


class KeptAnswers:
    """Answers in a file of one's own, and those that come with this package.

    Parameters
    ----------
    path : pathlib.Path
        Where new answers are kept: a list of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def find(self, config: Experiment, spec: DatasetSpec, topology: str) -> dict[str, Any] | None:
        """Return the answer of the same step, with ``kept_in``; None where none is known.

        Where the compiler is installed, an answer of other versions is none. Elsewhere it is the
        best there is.
        """
        wanted, topology = step_settings(config, spec), resolve_topology(topology)
        here = _compilers(versions())
        for path, one in self._known():
            same = one["settings"] == wanted and one["topology"] == topology
            if same and ("libtpu" not in here or _compilers(one["versions"]) == here):
                return {**one, "kept_in": str(path)}
        return None

    def keep(self, answer: Mapping[str, Any]) -> None:
        """Add an answer to the file."""
        what = ("settings", "topology")
        others = [one for one in self._own() if any(one[key] != answer[key] for key in what)]
        write_json(self._path, [*others, dict(answer)])

    def _known(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        yield from ((self._path, one) for one in self._own())
        for path in sorted(SHIPPED.glob("*.json")):
            yield from ((path, one) for one in _answers([read_json(path)]))

    def _own(self) -> list[dict[str, Any]]:
        return _answers(read_json(self._path)) if self._path.exists() else []


def describe_compiler(answer: Mapping[str, Any]) -> str:
    """Return the versions that an answer is of."""
    return ", ".join(f"{name} {one}" for name, one in _compilers(answer["versions"]).items())


def _answers(found: Any) -> list[dict[str, Any]]:
    """What of a file's content are answers; an earlier version or a person may have left others."""
    return [
        one for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and one.keys() >= _KEYS and isinstance(one["versions"], dict)
    ]  # fmt: skip


def _compilers(found: Mapping[str, str]) -> dict[str, str]:
    return {name: found[name] for name in _COMPILERS if name in found}
