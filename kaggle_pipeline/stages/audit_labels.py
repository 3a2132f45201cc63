"""Labels that fit least, on a page to look through: out-of-fold predictions → ``audit/``.

In: a finished run. Out: ``label_suspects.csv`` and a page with the photos, beside their nearest
neighbours where the run has vectors of an encoder.
"""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.run_folders import final_stage
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.data.examples import labels_in_words, read_examples
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.evaluation.calibration.calibration import read_calibration
from kaggle_pipeline.evaluation.label_suspects import find_suspects
from kaggle_pipeline.models.embedding.nearest import Near, NearestPhotos
from kaggle_pipeline.models.embedding.vector_store import FOLDER, VectorStore
from kaggle_pipeline.models.embedding.vector_table import VectorTable
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.stages.photo_records import record_thumbnails

_SHOWN = 60


def audit_labels(
    run_dir: Path, *, stage: str | None = None, say: Callable[[str], None] = print
) -> Path:
    """Write the suspects of a run.

    Parameters
    ----------
    run_dir : pathlib.Path
    stage : str, optional
        Whose out-of-fold predictions to take; by default those of the submission's stage, else
        the first model's.
    say : callable
        Takes a line for the user.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    PipelineError
        If the run has no such predictions, or cleanlab is not installed.
    """
    run_dir = Path(run_dir)
    folder = run_dir / (stage or _final_stage(run_dir))
    if not (folder / "oof.csv").exists():
        raise PipelineError(f"{folder} has no oof.csv: train that stage first")
    config = load_experiment(folder / "config.yaml")
    spec = spec_of(config, run_dir / "prepare", None)
    examples = read_examples(run_dir / "prepare" / "examples.csv", spec)
    oof = Predictions.read(folder / "oof.csv", spec.classes).probabilities
    calibration = read_calibration(folder)
    suspects = find_suspects(examples, calibration.apply(oof) if calibration else oof, spec)
    out = run_dir / "audit"
    with atomic_path(out / "label_suspects.csv") as temporary:
        suspects.to_csv(temporary)
    shown = suspects.iloc[:_SHOWN]
    labels = labels_in_words(examples, spec)
    beside = _neighbours(run_dir, shown.index.unique(), examples, oof.index, labels)
    wanted = {*shown.index, *(one.image_id for near in beside.values() for one in near)}
    photos = record_thumbnails(run_dir, spec, wanted, config.records.swap_red_blue)
    page = _page(run_dir, folder.name, spec, suspects, len(oof), beside, photos)
    with atomic_path(out / "label_suspects.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"{len(suspects)} of {len(oof)} labels are doubtful by {folder.name}'s predictions")
    say(f"{out / 'label_suspects.html'}: the first {len(shown)}; all in {out}/label_suspects.csv")
    return out / "label_suspects.html"


def _final_stage(run_dir: Path) -> str:
    if (found := final_stage(run_dir)) is None:
        raise PipelineError(f"{run_dir} has no out-of-fold predictions: train a model first")
    return found


def _neighbours(
    run_dir: Path, ids: pd.Index, examples: pd.DataFrame, among: pd.Index, labels: pd.Series
) -> Mapping[str, list[Near]]:
    """The nearest images of other groups, by the cosine of the run's vectors; none without."""
    stores = [VectorStore(path) for path in sorted((run_dir / FOLDER).glob("*"))]
    vectors = {one.folder.name: one.read().mean(among, one.folder)
               for one in stores if one.has_vectors}  # fmt: skip
    if not vectors:
        return {}
    table = VectorTable.build(among, vectors)
    asked = VectorTable(ids, table.of(ids), table.parts)
    group = examples["group_id"]
    return NearestPhotos(table, group, labels).find(asked, other_than=group)


def _page(
    run_dir: Path,
    stage: str,
    spec: DatasetSpec,
    suspects: pd.DataFrame,
    count: int,
    beside: Mapping[str, list[Near]],
    photos: Mapping[str, bytes],
) -> str:
    words = (
        f"{len(suspects)} of {count:,} labels of {spec.heading} fit badly to the out-of-fold "
        f"predictions of {stage} (confident learning). A doubtful label is not a wrong one: rare "
        "looks and a weak model come here too. Look, ask whoever labelled them, and change labels "
        "in the raw table alone."
    )
    body: list[object] = [html.element("p", words)]
    if not photos:
        body.append(html.note("The run's records are not here, so there are no photos."))
    if not beside:
        what = "The run has no vectors of an encoder (embed), so nothing stands beside a photo."
        body.append(html.note(what))
    for name, row in suspects.iloc[:_SHOWN].iterrows():
        title = f"{name}: {row['label']}, or {row['more_likely']}?"
        said = f"probability of the label as it is: {row['fit']:.3f}"
        figures = [_figure(name, said, photos)]
        figures += [_figure(one.image_id, f"alike: {one.label}", photos)
                    for one in beside.get(name, [])]  # fmt: skip
        body += [html.element("h3", title), html.element("div", *figures, class_="photos")]
    return html.page(f"Doubtful labels: {run_dir.resolve().name}", *body)


def _figure(name: str, caption: str, photos: Mapping[str, bytes]) -> Html:
    image = Html("")
    if name in photos:
        data = base64.b64encode(photos[name]).decode()
        image = Html(f'<img class="photo" alt="" src="data:image/jpeg;base64,{data}">')
    return html.element("figure", image, html.element("figcaption", f"{name}: {caption}"))
