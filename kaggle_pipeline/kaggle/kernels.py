"""Kernels for Kaggle: the package, an experiment and a short entry in one script each.

In: the folders of ``kernels/``, an experiment, an owner. Out: a script beside each
``kernel-metadata.json``. A push uploads one source file of at most 1 MB and no second one, so the
package travels inside it.
"""

import base64
import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.names import METADATA_STAGES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, write_json
from kaggle_pipeline.data.folds import possible_folds, require_folds
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.models.image.backbones.timm_hub import SCHEME
from kaggle_pipeline.stages.run import Run

ENTRY, METADATA = "entry.py", "kernel-metadata.json"
EXPERIMENT, SETTINGS = "kernel/experiment.yaml", "kernel/settings.json"
"""Where a packed script finds what it was built for, beside the package."""
MAX_BYTES = 1_000_000
"""Of a kernel's source; Kaggle refuses more."""
_PACKAGE, _PREFLIGHT = "kaggle_pipeline/**/*.py", "configs/preflight/*.json"
_LEFT_OUT = (
    "kaggle_pipeline/webapp/*", "kaggle_pipeline/synthetic/[!_l]*", "kaggle_pipeline/kernels/*/*",
)  # fmt: skip
"""What no session needs: the page, what draws made-up collections (all but ``lesion_painter`` and
``looks``, with which a stage draws single lesions), and an installed package's copy of the
templates."""
_IMAGE = {"tpu": "image", "gpu": "image_gpu"}
_STAGE = {"image_gpu": "image", "tpu_smoke": "image"}
"""Which model a kernel is about, where its name does not say so."""
DEFAULT = "siim_isic_2020"
"""The experiment whose kernels have plain names."""
_NEEDED = ("id", "title", "code_file", "enable_internet", "competition_sources", "dataset_sources")
_SCRIPT = '''"""{title}

Made by scripts/build_kernels.py from {made_from} and the package: change those, not this.
Experiment: {experiment}, folds: {folds}. The package below, as a tar file, has the SHA-256
{digest}.
"""

import base64
import hashlib
import io
import lzma
import sys
import tarfile
import tempfile

_DIGEST = "{digest}"
_ARCHIVE = (
{archive}
)


def _unpack():
    tar = lzma.decompress(base64.b85decode("".join(_ARCHIVE)))
    if hashlib.sha256(tar).hexdigest() != _DIGEST:
        sys.exit("error: this script was changed on its way: build and push it again")
    folder = tempfile.mkdtemp(prefix="kaggle_pipeline_")
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extractall(folder, filter="data")
    sys.path.insert(0, folder)


if __name__ == "__main__":  # a process that is spawned reads this file again, and inherits the path
    _unpack()

'''


@dataclass(frozen=True)
class Build:
    """What kernels are built for.

    Attributes
    ----------
    owner : str
        Kaggle user name.
    experiment : Experiment
    gpu_experiment : Experiment
        The same as a GPU's memory allows it.
    source : str
        Kaggle's name of the data, ``competitions/<slug>`` or ``datasets/<owner>/<slug>``.
    hardware : {"tpu", "gpu"}
        Whose image kernel the blend reads.
    folds : sequence of int
        A kernel for each of these folds in place of one for all.
    weights : str or None
        A data set, ``<owner>/<slug>``, with the ImageNet weights: the internet stays off then.
    embeddings : str or None
        A data set, ``<owner>/<slug>``, with a run's ``embeddings/``, whose vectors the head reads.
    keep_records : bool
        Whether TFRecords that a kernel makes stay in its output.
    """

    owner: str
    experiment: Experiment
    gpu_experiment: Experiment
    source: str
    hardware: str = "tpu"
    folds: Sequence[int] = ()
    weights: str | None = None
    embeddings: str | None = None
    keep_records: bool = False

    def __post_init__(self) -> None:
        for what, name, pattern in (
            ("--owner", self.owner, r"[\w-]+"),
            ("--weights", self.weights or "a/b", r"[\w-]+/[\w-]+"),
            ("--embeddings", self.embeddings or "a/b", r"[\w-]+/[\w-]+"),
        ):
            if not re.fullmatch(pattern, name):
                raise PipelineError(f"{what} {name!r} is not a name that Kaggle gives")
        file = self.experiment.image.weights
        if "image" in self.stages:
            require_no_hub(file)
        if "image" in self.stages and file not in (None, "imagenet") and not self.weights:
            raise PipelineError(
                f"image.weights: {file} is a file of this machine: upload it to Kaggle as a data "
                "set and say --weights OWNER/SLUG"
            )
        if "embedding" in self.stages and not self.embeddings:
            raise PipelineError(
                f"{self.experiment.name} blends heads on vectors, which no kernel makes: upload "
                "your run's embeddings/ to Kaggle as a data set and say --embeddings OWNER/SLUG"
            )
        if self.embeddings and "embedding" not in self.stages:
            raise PipelineError(f"--embeddings: {self.experiment.name} blends no heads on vectors")
        require_folds(self.experiment.folds, self.folds)
        if self.folds and "image" not in self.stages:
            raise PipelineError(f"--fold: {self.experiment.name} blends no image model")
        if self.folds and self.experiment.train_all:
            raise PipelineError(
                "--fold: train_all trains one more model after the last fold, which no kernel of "
                "one fold does: build without --fold, or say --set train_all=false"
            )
        for one, place in zip(self.experiment.external, self.external, strict=True):
            if not place:
                raise PipelineError(f"external: {one.dataset} is not on Kaggle: build without it")

    @property
    def stages(self) -> list[str]:
        """The kernels that the blend reads, in its order: ``image``, ``embedding``, ``tabular``."""
        models = self.experiment.blend.models
        kernels = ("tabular" if name in METADATA_STAGES else name for name in models)
        return list(dict.fromkeys(kernels))

    @property
    def external(self) -> list[str]:
        """Where on Kaggle the experiment's further collections are, in its order."""
        return [get_spec(one.dataset).kaggle for one in self.experiment.external]

    @property
    def lacking(self) -> list[int]:
        """Folds that the blend reads and no kernel of this build trains."""
        if not self.folds:
            return []
        return sorted(set(possible_folds(self.experiment.folds)) - set(self.folds))


def require_no_hub(weights: str | None) -> None:
    """Raise where ``image.weights`` names what a kernel would have to fetch from the hub."""
    if weights and weights.startswith(SCHEME):
        raise PipelineError(
            f"image.weights: a kernel fetches nothing from the Hugging Face hub, so not {weights}: "
            "download its .safetensors file first, give that as image.weights, upload it to Kaggle "
            "as a data set and say --weights OWNER/SLUG"
        )


def build_kernels(root: Path, out: Path, build: Build) -> list[Path]:
    """Write every kernel's metadata and script; the same sources give the same bytes.

    Parameters
    ----------
    root : pathlib.Path
        Holds the package; ``configs/preflight/`` and ``kernels/`` are beside it, or in it.
    out : pathlib.Path
        Gets a folder a kernel; may be ``root / "kernels"`` itself.
    build : Build

    Returns
    -------
    list of pathlib.Path
        The folders that make a submission, in the order in which they are to be pushed.

    Raises
    ------
    PipelineError
        If a template is incomplete, the data is not on Kaggle, or a script is too large for it.
    """
    if not build.source:
        how = ": say table.kaggle = owner/name of your data set there"
        raise PipelineError(
            f"the data of {build.experiment.name} is not on Kaggle"
            f"{how if build.experiment.table else ''}"
        )
    beside = _home(Path(root))
    templates = {path.parent.name: path.parent for path in beside.glob(f"kernels/*/{ENTRY}")}
    metadata = {
        name: _named_after(build.experiment.name, _read_template(folder))
        for name, folder in sorted(templates.items())
        if _STAGE.get(name, name) in (*build.stages, "blend")
    }
    image = _IMAGE[build.hardware]
    parts = {
        name: _of_folds(name, content, build.folds if name == image else ())
        for name, content in metadata.items()
    }
    every_fold = possible_folds(build.experiment.folds) if build.folds else ()
    read = {
        "image": _of_folds(image, metadata[image], every_fold) if image in metadata else {},
        **{name: parts.get(name, {}) for name in ("embedding", "tabular")},
    }
    folders = []
    for name in sorted(parts, key=lambda name: (name == "blend", name)):  # it needs the others
        for folder_name, (content, folds) in parts[name].items():
            content = _addressed(content, name, build, read)
            folder = Path(out) / folder_name
            _write_kernel(Path(root), templates[name], folder, content, build, folds)
            if name in (image, "embedding", "tabular", "blend"):
                folders.append(folder)
    return folders


def _read_template(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing") from None
    except ValueError as error:
        raise PipelineError(f"{path} is not valid JSON ({error})") from None
    for key in _NEEDED:
        if key not in content:
            raise PipelineError(f"{path} lacks {key!r}")
    return content


def _named_after(experiment: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Put the experiment into title and id, so that no kernel of another one is replaced."""
    if experiment == DEFAULT:
        return metadata
    words = re.sub(r"[^a-z0-9]+", " ", experiment.lower()).strip()
    (first, title), (owner, _, slug) = (
        metadata["title"].split(" ", 1),
        metadata["id"].partition("/"),
    )
    first_of_slug, _, rest = slug.partition("-")
    name = f"{first_of_slug}-{words.replace(' ', '-')}-{rest}"
    return {**metadata, "title": f"{first} {words} {title}", "id": f"{owner}/{name}"}


def _of_folds(
    name: str, metadata: dict[str, Any], folds: Sequence[int]
) -> dict[str, tuple[dict[str, Any], Sequence[int]]]:
    """Return metadata and folds of a kernel, or of one a fold, by the names of their folders."""
    if not folds:
        return {name: (metadata, ())}
    return {
        f"{name}_fold{fold}": (
            {
                **metadata,
                "title": f"{metadata['title']} fold {fold}",
                "id": f"{metadata['id']}-fold-{fold}",
            },
            (fold,),
        )
        for fold in folds
    }


def _addressed(
    content: dict[str, Any], name: str, build: Build, read: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Fill in owner, data and the kernels that are read."""

    def own(identity: str) -> str:
        return f"{build.owner}/{identity.partition('/')[2]}"

    kind, _, slug = build.source.partition("/")
    data: dict[str, list[str]] = {"competition_sources": [], "dataset_sources": []}
    if content["competition_sources"] or content["dataset_sources"]:
        data[f"{kind.removesuffix('s')}_sources"] = [slug]
        data["dataset_sources"] += [source.partition("/")[2] for source in build.external]
    if build.weights and name.startswith("image"):
        data["dataset_sources"] = [*data["dataset_sources"], build.weights]
        content = {**content, "enable_internet": False}
    if name == "embedding":
        data["dataset_sources"] = [*data["dataset_sources"], build.embeddings]
    sources = []
    if name == "blend":
        sources = [own(one["id"]) for stage in build.stages for one, _ in read[stage].values()]
    return {**content, **data, "id": own(content["id"]), "kernel_sources": sources}


def _write_kernel(
    root: Path,
    template: Path,
    folder: Path,
    metadata: dict[str, Any],
    build: Build,
    folds: Sequence[int],
) -> None:
    settings = {
        "source": build.source,
        "external": build.external,
        "folds": list(folds) or None,
        "keep_records": build.keep_records,
    }
    chosen = build.gpu_experiment if metadata.get("enable_gpu") else build.experiment
    experiment = yaml.safe_dump(to_mapping(chosen), sort_keys=False)
    further = {EXPERIMENT: experiment, SETTINGS: json.dumps(settings, indent=2) + "\n"}
    archive = _archive(root, further)
    # Base 85 of RFC 1924 has neither quotes nor backslashes.
    text = base64.b85encode(lzma.compress(archive, preset=9)).decode()
    lines = [f'    "{text[i : i + 96]}"' for i in range(0, len(text), 96)]
    made_from = f"kernels/{template.name}/{ENTRY}"
    script = _SCRIPT.format(
        title=metadata["title"], made_from=made_from, experiment=chosen.name,
        folds=", ".join(map(str, folds)) or "all", digest=hashlib.sha256(archive).hexdigest(),
        archive="\n".join(lines),
    )  # fmt: skip
    content = (script + (template / ENTRY).read_text(encoding="utf-8")).encode()
    if len(content) > MAX_BYTES:
        raise PipelineError(
            f"{metadata['code_file']} would have {len(content)} bytes; Kaggle takes {MAX_BYTES}"
        )
    write_json(folder / METADATA, metadata)
    with atomic_path(folder / Path(metadata["code_file"]).name) as temporary:
        temporary.write_bytes(content)


def _home(root: Path) -> Path:
    """Where configs and kernels are: beside the package, in an installed one within it."""
    packed = root / "kaggle_pipeline"
    return packed if (packed / "kernels").is_dir() else root


def _archive(root: Path, further: dict[str, str]) -> bytes:
    """Package, predictions and further files as a tar without times and owners."""
    files = {
        path.relative_to(place).as_posix(): path.read_bytes()
        for place, pattern in ((root, _PACKAGE), (_home(root), _PREFLIGHT))
        for path in place.glob(pattern)
        if not any(path.relative_to(place).match(left) for left in _LEFT_OUT)
    }
    files |= {name: text.encode() for name, text in further.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


_OUT = Path("build") / "kernels"
_GPU_SIDE_PX = 512
"""Of the images on a T4, whose 16 GiB do not hold 16 of 1024 px beside an InceptionResNetV2."""


def build(
    run: Run, root: Path, out: Path | None, overrides: Sequence[str], **wishes: Any
) -> list[Path]:
    """Build every kernel for the run's experiment; ``wishes`` are those of :class:`Build`.

    ``out`` is by default ``build/kernels``, or of another experiment than the default one its name
    below that.
    """
    out = out or (_OUT if run.config.name == DEFAULT else _OUT / run.config.name)
    found = Build(
        experiment=run.config,
        gpu_experiment=fit_gpu(run.config, overrides),
        source=run.spec.kaggle,
        **wishes,
    )
    folders = build_kernels(root, out, found)
    for folder in folders:
        size = (folder / read_json(folder / METADATA)["code_file"]).stat().st_size
        run.say(f"{folder}: {size} of {MAX_BYTES} bytes that Kaggle takes")
    if found.lacking:
        others = "".join(f" --fold {fold}" for fold in found.lacking)
        run.say(f"{folders.pop()} reads all folds: build (with{others}) and push the others first")
    return folders


def fit_gpu(config: Experiment, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment with images as large as a T4 takes, unless a size was asked for."""
    asked = any(change.startswith("image.image_size_px=") for change in overrides)
    image = config.image
    if asked or max((image.image_size_px, *(image.fold_sizes_px or ()))) <= _GPU_SIDE_PX:
        return config
    sizes = image.fold_sizes_px and tuple(min(side, _GPU_SIDE_PX) for side in image.fold_sizes_px)
    side = min(image.image_size_px, _GPU_SIDE_PX)
    return replace(config, image=replace(image, image_size_px=side, fold_sizes_px=sizes))
