"""A folder that others can take: a run's image models, card, licence and an example, nothing else.

In: a run's folder. Out: a folder for Kaggle Models or the Hugging Face hub, which ``predict``
reads as it reads the run, and whose files ``verify_run`` compares.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kaggle_pipeline.config.names import KAGGLES_OWN
from kaggle_pipeline.config.yaml_text import parse_yaml
from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, replace_folder, write_json
from kaggle_pipeline.evaluation.calibration.calibration import FILE as CALIBRATION
from kaggle_pipeline.evaluation.decision.decision import FILE as DECISION
from kaggle_pipeline.export.about import describe_export
from kaggle_pipeline.models.cross_validation import MADE_UP
from kaggle_pipeline.records.geometry import NOTE
from kaggle_pipeline.stages.ask_again import answers_of
from kaggle_pipeline.stages.made_up import FOLDER, PRECISION
from kaggle_pipeline.stages.trained import TrainedImageModels, calibration_of_photos
from kaggle_pipeline.stages.verify_contents import ABOUT, Prepared, named_in, names_of_groups

_TAKEN = ("config.yaml", NOTE, CALIBRATION, DECISION)
_KAGGLES_LICENCES = {
    "cc0-1.0": "CC0 1.0", "cc-by-4.0": "CC BY 4.0", "cc-by-nc-4.0": "CC BY-NC 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0", "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0",
    "apache-2.0": "Apache 2.0", "mit": "MIT",
}  # fmt: skip
"""Kaggle's own names of licences."""
_OTHER_LICENCE = "Other (specified in description)"
_REMEDY = "bundle the run again with --overwrite"
_EXAMPLE = """
## Example

With the package `kaggle_pipeline` installed, and this folder as `model/`:

```
python scripts/predict.py --run-dir model --images photos/
python scripts/verify_run.py --run-dir model
```
"""


def bundle(
    run_dir: Path,
    out: Path,
    *,
    licence: str,
    licence_file: Path | None = None,
    kaggle: str | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the bundle.

    What is copied is named, so that nothing else can be in it: settings, weights, calibration and
    decision of the image stage; a few made-up lesions and the models' answers to them. No table of
    the data set, no prediction or photo of it.

    Parameters
    ----------
    run_dir : pathlib.Path
        With a trained ``image/``.
    out : pathlib.Path
        Folder to make.
    licence : str
        SPDX name, such as ``cc-by-nc-4.0``: the weights are under that of the photos, too.
    licence_file : pathlib.Path, optional
        Its text, copied as ``LICENSE``.
    kaggle : str, optional
        ``owner/model/variation``: adds what ``kaggle models`` needs.
    overwrite : bool
        Whether ``out`` may be there already, if it is a bundle.
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If the run has no trained image model, learned from a table of the user's own, or ``out``
        is there already.
    """
    trained, out = TrainedImageModels.open(run_dir), Path(out)
    if trained.config.table is not None:
        raise PipelineError(
            f"{run_dir} learned from a table of your own: its columns stay private, "
            "so it is not bundled; export_model makes one file of its networks"
        )
    if licence_file is not None and not Path(licence_file).is_file():
        raise PipelineError(f"--licence-file {licence_file} does not exist")
    if out.exists() and not overwrite:
        raise PipelineError(f"{out} exists: say --overwrite, or another --out")
    if out.exists() and not (out / ABOUT).is_file():
        raise PipelineError(f"--out {out} is there and is no bundle: name another")
    if kaggle is not None and not re.fullmatch(r"[\w-]+(/[\w-]+){2}", kaggle):
        raise PipelineError(f"--kaggle {kaggle}: say OWNER/MODEL/VARIATION")
    folds = [] if trained.of_all else list(trained.folds)  # predict takes the model of all rows
    calibration, decision, why = calibration_of_photos(trained)
    about = describe_export(
        trained.stage, trained.config, trained.spec, trained.fit, folds, calibration, decision,
        why=why,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as beside:
        made = Path(beside) / "made"
        for path in _to_copy(trained):
            place = made / path.relative_to(Path(run_dir))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        _forget_places(made)
        _keep_answers(trained, made / "image")
        front = yaml.safe_dump({"license": licence, "library_name": "keras"})
        card = f"---\n{front}---\n\n{about['card']}{_EXAMPLE}"
        (made / "README.md").write_text(card, encoding="utf-8")
        (made / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if licence_file is not None:
            shutil.copyfile(licence_file, made / "LICENSE")
        if kaggle is not None:
            _write_for_kaggle(made, kaggle, licence, about["card"])
        _require_no_names(made, Path(run_dir))
        begin(made, _REMEDY)
        commit(made, without=KAGGLES_OWN)
        replace_folder(made, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"{out}: {size / 1e6:.1f} MB, {licence}; verify_run compares its files")
    return out


def _keep_answers(trained: TrainedImageModels, stage: Path) -> None:
    """Copy the made-up photos and each model's answers; ask now where the run kept none."""
    kept = [trained.stage / FOLDER, *(one / MADE_UP for one in trained.places.values())]
    if not all(path.exists() for path in kept):
        for place, said in answers_of(trained, stage).items():
            said.write(stage / place.relative_to(trained.stage) / MADE_UP)
        return
    shutil.copytree(kept[0], stage / FOLDER)
    of_earlier = not (trained.stage / PRECISION).exists()
    for path in kept[1:] if of_earlier else [*kept[1:], trained.stage / PRECISION]:
        shutil.copyfile(path, stage / path.relative_to(trained.stage))


def _require_no_names(made: Path, run_dir: Path) -> None:
    """Stop where a file names a photo or a patient of the run, as its card's text might."""
    prepared = Prepared.read(run_dir)
    if prepared is None:
        return
    photos = {one for one in prepared.examples.index if not one.isdecimal()}
    for path, found in named_in(made, photos | names_of_groups(prepared.examples)[0]):
        raise PipelineError(
            f"{path.relative_to(made)} would name {len(found)} of the run's photos, patients or "
            "lesions: nothing was written"
        )


def _to_copy(trained: TrainedImageModels) -> list[Path]:
    stage = trained.stage
    found = [stage / name for name in _TAKEN if (stage / name).exists()]
    for place in trained.places.values():  # one model, or folders of several
        found += sorted([*place.rglob(SAVED), *place.rglob("model.weights.h5")])
    return found


def _write_for_kaggle(made: Path, address: str, licence: str, card: str) -> None:
    """Write what Kaggle's command line reads of a model, and of this variation of it."""
    owner, model, variation = address.split("/")
    title = model.replace("-", " ")
    write_json(
        made / KAGGLES_OWN[0],
        {"ownerSlug": owner, "slug": model, "title": title, "isPrivate": True, "description": card},
    )
    write_json(
        made / KAGGLES_OWN[1],
        {
            "ownerSlug": owner, "modelSlug": model, "instanceSlug": variation,
            "framework": "keras", "overview": title, "usage": _EXAMPLE.strip(),
            "licenseName": _KAGGLES_LICENCES.get(licence.lower(), _OTHER_LICENCE),
            "fineTunable": True, "trainingData": [],
        },
    )  # fmt: skip


def _forget_places(made: Path) -> None:
    """Keep the names of weights' files, not the folders of the machine they lay on."""

    def short(settings: dict[str, Any]) -> None:
        image = settings.get("image")
        if isinstance(image, dict) and image.get("weights"):
            image["weights"] = Path(image["weights"]).name

    config = made / "image" / "config.yaml"
    settings = parse_yaml(config.read_text(encoding="utf-8"))
    short(settings)
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    for path in made.rglob(SAVED):
        settings = json.loads(path.read_text(encoding="utf-8"))
        short(settings)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
