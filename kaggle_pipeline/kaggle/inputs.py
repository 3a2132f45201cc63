"""What is attached to a Kaggle session: data, weights, other kernels' outputs.

In: ``/kaggle/input`` in either of its two layouts: ``competitions/<slug>``,
``datasets/<owner>/<slug>``, ``notebooks/<owner>/<slug>``, or ``<slug>`` alone as it used to be.
Out: paths, and a run folder gathered from what several kernels left.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kaggle_pipeline.config.names import MODEL_STAGES, WEIGHTS_OF
from kaggle_pipeline.core.commit import narrow
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.record import RECORD, is_done, read_record
from kaggle_pipeline.models.cross_validation import ALL_ROWS, LAST
from kaggle_pipeline.models.embedding.vector_store import FOLDER, VectorStore

RUN = "run"
"""Folder of a run in a kernel's output."""
_KINDS = {
    ".h5": r"(?!v\d).*notop(v2)?",
    ".pth": "([0-9a-f]{8})?",
    ".safetensors": "([0-9a-f]{8})?",
}
"""What follows a backbone's name in the name of its weights file."""
_RESULTS = (".csv", ".json", ".yaml")
_DEEPEST = 6
"""Folders from an input to its files: a model's are at owner/model/framework/variation/version."""


def find_source(inputs: Path, source: str) -> Path | None:
    """Return where ``competitions/<slug>`` or ``datasets/<owner>/<slug>`` is mounted, or None."""
    for place in (Path(inputs) / source, Path(inputs) / source.rpartition("/")[2]):
        if place.is_dir():
            return place
    return None


def find_runs(inputs: Path) -> list[Path]:
    """Return the run folders in attached kernels' outputs, in the order of their names."""
    patterns = (f"notebooks/*/*/{RUN}", f"*/{RUN}")
    return sorted(path for pattern in patterns for path in Path(inputs).glob(pattern))


def find_weights(inputs: Path, backbone: str, alpha: float = 1.0) -> Path | None:
    """Return an attached file with the published weights of a backbone, without its top.

    Keras calls them ``inception_resnet_v2_weights_tf_…_notop.h5``, ``efficientnetb4_notop.h5``,
    ``mobilenet_v2_…_1.0_224_no_top.h5`` (the width ``alpha`` in it), torchvision
    ``resnet18-f37072fd.pth``: the backbone's name, then what kind of file it is.
    """
    name = _plain(WEIGHTS_OF.get(backbone, backbone))
    found = []
    for path in _files(Path(inputs)):
        stem = _plain(path.stem.removesuffix(".weights")).removeprefix("weights")
        rest = _KINDS.get(path.suffix)
        if rest and re.fullmatch(re.escape(name) + rest, stem):
            found.append((_plain(str(float(alpha))) not in stem, path))
    return min(found)[1] if found else None


def find_file(inputs: Path, name: str) -> Path | None:
    """Return an attached file of this name, which no competition holds; None if there is none."""
    return next((path for path in _files(Path(inputs)) if path.name == name), None)


def find_embedding(inputs: Path, name: str) -> Path | None:
    """Return an attached ``embeddings/<name>`` with all its vectors, or None.

    It lies in another kernel's run, or anywhere in a data set under that name.
    """
    places = [run / FOLDER / name for run in find_runs(inputs)]
    places += [path.parent for path in _files(Path(inputs)) if path.parent.name == name]
    return next((place for place in places if VectorStore(place).has_vectors), None)


def gather_embedding(place: Path, run_dir: Path) -> None:
    """Copy a folder of vectors into a run's; what is there already stays."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        _copy_file(path, run_dir / FOLDER / place.name / path.relative_to(place))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _files(inputs: Path) -> Iterator[Path]:
    """Files of attached data sets and models; competitions hold too many, and no weights."""
    for folder, folders, files in os.walk(inputs):
        depth = len(Path(folder).relative_to(inputs).parts)
        if depth >= _DEEPEST or "train.csv" in files:
            folders.clear()
        folders[:] = sorted(name for name in folders if name not in ("competitions", RUN))
        for name in sorted(files):
            yield Path(folder) / name


def gather_run(sources: Sequence[Path], run_dir: Path, *, with_weights: bool = True) -> None:
    """Copy what attached kernels left of a run into one folder, each fold from one of them.

    Parameters
    ----------
    sources : sequence of pathlib.Path
        Run folders: of one kernel's earlier version, or of several that trained a part each.
    run_dir : pathlib.Path
        What is there already stays.
    with_weights : bool
        False: predictions and tables alone, for a blend.

    Raises
    ------
    PipelineError
        If two of them divided the images into other folds, or both finished the same fold.
    """
    for source in sources:
        _copy_preparation(source, run_dir)
        for stage in MODEL_STAGES:
            fresh = not (run_dir / stage).is_dir()
            for path in [*sorted((source / stage).glob("fold*")), source / stage / ALL_ROWS]:
                _copy_fold(path, run_dir / stage / path.name, with_weights)
            for path in sorted((source / stage).glob("*.*")):
                if path.name != RECORD:
                    _copy_file(path, run_dir / stage / path.name)
            record = read_record(source / stage)
            if fresh and record is not None:  # it is that of its own source's files
                narrow(run_dir / stage, record)


def _copy_preparation(source: Path, run_dir: Path) -> None:
    fresh = not (run_dir / "prepare").is_dir()
    for path in sorted(path for path in (source / "prepare").rglob("*") if path.is_file()):
        target = run_dir / path.relative_to(source)
        if path.name == RECORD and not fresh:
            continue
        decides = path.name in ("folds.csv", "examples.csv")
        if decides and target.exists() and target.read_bytes() != path.read_bytes():
            raise PipelineError(
                f"{source} prepared the data otherwise than the kernel attached before it "
                f"({path.name} differs): attach kernels of one build only"
            )
        _copy_file(path, target)


def _copy_fold(fold: Path, target: Path, with_weights: bool) -> None:
    last = "test.csv" if fold.name == ALL_ROWS else LAST
    if is_done(target, last) and is_done(fold, last):
        if (target / last).read_bytes() != (fold / last).read_bytes():
            raise PipelineError(f"{fold} was trained by two attached kernels: attach one of them")
        return
    if target.exists():
        if not is_done(fold, last):
            return
        shutil.rmtree(target)  # half done elsewhere, done here
    for path in sorted(path for path in fold.rglob("*") if path.is_file()):
        if with_weights or path.suffix in _RESULTS:
            _copy_file(path, target / path.relative_to(fold))
    record = read_record(fold)
    if record is not None:
        narrow(target, record)


def _copy_file(path: Path, target: Path) -> None:
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)  # the input's read-only mode stays behind
