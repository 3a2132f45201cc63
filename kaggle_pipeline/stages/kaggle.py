"""Kaggle from outside: build the kernels of an experiment, hand a submission in.

In: an experiment; a submission. Out: scripts in ``build/kernels``; the submission there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_pipeline.config import Experiment
from kaggle_pipeline.kagglecli import competition_of, kaggle
from kaggle_pipeline.kernel import DEFAULT, MAX_BYTES, METADATA, Build, build_kernels
from kaggle_pipeline.rundir import read_json
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.submission import check_submission, read_submission

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
    run.say(f"push them: python scripts/push_kernels.py {' '.join(map(str, folders))}")
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


def submit(
    spec: DatasetSpec,
    file: Path,
    sample: Path,
    message: str,
    say: Callable[[str], None] = print,
) -> None:
    """Check a submission against the competition's sample, then hand it in.

    Raises
    ------
    PipelineError
        If a file is missing, the check finds a fault, or Kaggle refuses.
    """
    slug = competition_of(spec, otherwise="nothing to submit to")
    tables = [read_submission(Path(path), spec) for path in (file, sample)]
    check_submission(tables[0], spec, tables[1])
    say(f"{file}: {len(tables[0])} rows, checked against {sample}")
    text = kaggle(
        "competitions", "submit", slug, "-f", str(file), "-m", message,
        accepted=lambda text: "success" in text.lower(), seconds=3600,
    )  # fmt: skip
    say(text.strip().splitlines()[-1])
    say(f"score: kaggle competitions submissions {slug}")
