"""The result of a run on one screen: its picture, its scores, and the photos behind them.

In: scores, pictures and thumbnails of the stages. Out: the first section of the report.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kaggle_pipeline.config.names import TEST_SCORE
from kaggle_pipeline.config.random_weights import random_weights_of
from kaggle_pipeline.config.run_folders import final_stage
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.gallery import FILE as GALLERY
from kaggle_pipeline.evaluation.plots import describe_score
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.report.scores import headline

STAGE_TITLES = {
    "image": "Image model",
    "embedding": "Embedding model: linear head on encoders",
    "tabular": "Tabular model: dense network",
    "boosting": "Tabular model: boosted trees",
    "forest": "Tabular model: forest",
    "logistic": "Tabular model: logistic regression",
    "blend": "Blend of the models",
    "ensemble": "Ensemble of finished scores",
}
"""What a stage is called, by its name."""
OPTIMISTIC = {
    "epoch_chosen_on_judged_rows": (
        "epoch chosen on validation rows",
        "the best epoch was chosen on the same photos that the score is measured on",
    ),
    "groups_ignored": (
        "split by photo",
        "photos of one {group} may be in both training and validation, so a model may know the "
        "{group} again instead of the disease",
    ),
}
"""Marks in ``metrics.json`` that make a score better than it would be on new patients, said in
short and at length."""
_ROWS = {
    "found": "Found: {word} photos with the highest scores",
    "false_alarm": "False alarms: other photos with the highest scores",
    "missed": "Missed: {word} photos with the lowest scores",
}


def describe_optimism(metrics: Mapping, spec: DatasetSpec) -> list[str]:
    """Return what makes a stage's scores better than they would be on new patients."""
    group = spec.group or "group"
    return [why.format(group=group) for key, (_, why) in OPTIMISTIC.items() if metrics.get(key)]


def describe_guessing(metrics: Mapping) -> str:
    """Return a sentence where the interval of a stage's AUC allows guessing, else nothing.

    Examples
    --------
    >>> describe_guessing({"oof_auc_low": 0.32, "oof_auc_high": 0.64})
    'the interval of the AUC includes 0.5, so this may be no better than guessing'
    >>> describe_guessing({"oof_auc_low": 0.61, "oof_auc_high": 0.7})
    ''
    """
    low, high = metrics.get("oof_auc_low"), metrics.get("oof_auc_high")
    if low is None or high is None or low > 0.5:
        return ""
    where = "lies below" if high < 0.5 else "includes"
    what = "worse" if high < 0.5 else "no better"
    may = "is" if high < 0.5 else "may be"
    return f"the interval of the AUC {where} 0.5, so this {may} {what} than guessing"


def results_section(
    run_dir: Path, stages: Mapping[str, Path], metrics: Mapping[str, Mapping], spec: DatasetSpec
) -> Html | None:
    """Return the result in a sentence, as a picture, as a table, and the photos behind it.

    Parameters
    ----------
    run_dir : pathlib.Path
    stages : mapping of str to pathlib.Path
        Folders of the scored stages.
    metrics : mapping of str to mapping
        ``metrics.json`` of those that are finished; None is returned where there are none.
    spec : DatasetSpec
    """
    final = final_stage(run_dir)
    if final is None or final not in metrics:
        return None
    what = "mean AUC" if len(spec.classes) > 1 else "AUC"
    explained = html.element(
        "p",
        "AUC: the chance that the model ranks a random positive photo above a random negative one; "
        "0.5 is guessing, 1 is perfect. In brackets: 95 % confidence interval, from bootstrap "
        f"samples of whole {spec.group or 'photo'}s. Out of fold: each photo is scored by a model "
        "that did not train on it.",
    )
    share = html.element(
        "p",
        "Share of the blend: how much a model moves it, its weight times the spread of its scores.",
    )
    blended = len(metrics.get("blend", {}).get("effective_shares", {})) > 1
    table = _table(stages, metrics, spec, what)
    beside = html.element("div", table, explained, share if blended else "")
    picture = _picture(final, stages[final], spec)
    parts = [
        _in_short(final, stages[final], metrics[final], spec, what),
        *_untaught(stages),
        _on_test(run_dir, spec),
        html.element("div", picture, beside, class_="result") if picture else beside,
        _photos(stages[final], spec),
    ]
    return html.join(part for part in parts if part)


def _in_short(stage: str, folder: Path, metrics: Mapping, spec: DatasetSpec, what: str) -> Html:
    """The run's result in a sentence, and what makes it too good."""
    out_of_fold, test, count = headline(folder, metrics)
    on_test = "" if test == "–" else f"; {test} on the held-out test part"
    said = html.element(
        "p",
        html.element("strong", f"{STAGE_TITLES[stage]}: {what} {out_of_fold}"),
        f" out of fold, on {count} photos{on_test}.",
    )
    why = describe_optimism(metrics, spec)
    doubts = [f"Too optimistic: {'; '.join(why)}."] if why else []
    if guessing := describe_guessing(metrics):
        doubts.append(f"{guessing[0].upper()}{guessing[1:]}.")
    if shared := metrics.get("groups_shared_with_test"):
        doubts.append(
            f"{shared:,} {spec.group}s of the test part have photos in training too: a score on "
            f"the test part is not one on new {spec.group}s. The scores out of fold are."
        )
    return html.join([said, *(html.note(one, warning=True) for one in doubts)])


def _untaught(stages: Mapping[str, Path]) -> list[Html]:
    """A warning for each stage whose network had random weights."""
    doubts = [random_weights_of(folder) for folder in stages.values()]
    return [html.note(f"{one[0].upper()}{one[1:]}.", warning=True) for one in doubts if one]


def _on_test(run_dir: Path, spec: DatasetSpec) -> Html:
    """What ``score_submission.py`` found, as long as the submission is the one it scored."""
    path, submission = run_dir / TEST_SCORE, run_dir / "submission.csv"
    if not path.exists() or not submission.exists():
        return Html("")
    found = read_json(path)
    if hashlib.sha256(submission.read_bytes()).hexdigest() != found["submission_sha256"]:
        return Html("")
    labels = {name: spec.class_label(spec.submission.columns.get(name, name))
              for name in found["scores"]}  # fmt: skip
    several = len(labels) > 1
    said = "; ".join(
        f"{f'{labels[name]} ' if several else ''}{describe_score(score)} "
        f"({score['positive']:,} photos of {labels[name]})"
        for name, score in found["scores"].items()
    )
    if balanced := found.get("balanced_accuracy"):
        said += f". Balanced accuracy {describe_score(balanced)}"
    return html.element(
        "p",
        html.element("strong", f"On {found['n']:,} test photos: AUC {said}."),
        f"The labels are those of {found['truth']}; the run never saw them.",
    )


def _table(
    stages: Mapping[str, Path], metrics: Mapping[str, Mapping], spec: DatasetSpec, what: str
) -> Html:
    """A row a model; columns that would say nothing are left out."""
    columns = {f"{what}, out of fold": [], f"{what}, test part": [], "photos": [], "mark": []}
    for stage, found in metrics.items():
        mark = "too optimistic, see below" if describe_optimism(found, spec) else "–"
        for column, cell in zip(
            columns.values(), (*headline(stages[stage], found), mark), strict=True
        ):
            column.append(cell)
    shares = metrics.get("blend", {}).get("effective_shares", {})
    if len(shares) > 1:
        columns["share of the blend"] = [
            f"{shares[s]:.0%}" if s in shares else "–" for s in metrics
        ]
    known = {name: cells for name, cells in columns.items() if set(cells) != {"–"}}
    rows = zip((STAGE_TITLES[stage] for stage in metrics), *known.values(), strict=True)
    return html.table(["model", *known], rows, stack=True)


def _picture(stage: str, folder: Path, spec: DatasetSpec) -> Html:
    """ROC curves of all models; of several classes, which would be too many lines, the stage's."""
    if len(spec.classes) == 1 and (folder / "roc.png").is_file():
        alt = "ROC curves of all models, out of fold: the nearer the top left corner, the better."
        return html.picture(folder / "roc.png", alt)
    title = STAGE_TITLES[stage]
    alt = f"The result in short: ROC curves of the {title[0].lower()}{title[1:]}."
    return html.picture(folder / "class_roc.png", alt)


def _photos(folder: Path, spec: DatasetSpec) -> Html:
    """Thumbnails of photos that were found, flagged wrongly and missed, out of fold."""
    path = folder / GALLERY
    if not path.exists():
        return Html("")
    found = read_json(path)
    word = spec.class_label(found["class"])
    parts = [html.element("h3", "The photos behind the result")]
    if not found["photos"]:
        why = "There are no photo files beside the data, so none are shown."
        return html.join([*parts, html.element("p", why)])
    parts.append(
        html.element(
            "p",
            f"Scores for {word}, out of fold. Place 1 of {found['n']:,} is the most suspicious "
            f"photo. Of one {spec.group or 'photo'} there is one photo a row.",
        )
    )
    for kind, title in _ROWS.items():
        figures = [_figure(folder, one, found, spec) for one in found["photos"]
                   if one["kind"] == kind]  # fmt: skip
        if figures:
            parts.append(html.element("h4", title.format(word=word)))
            parts.append(html.element("div", *figures, class_="photos"))
    if found["passed_over"]:
        count = found["passed_over"]
        parts.append(html.element("p", f"Files missing or unreadable, passed over: {count}."))
    return html.join(parts)


def _figure(folder: Path, one: Mapping, found: Mapping, spec: DatasetSpec) -> Html:
    named = " and ".join(spec.class_label(name) for name in one["classes"])
    truth = named or f"not {spec.class_label(found['class'])}"
    score, place = f"score {one['score']:.2f}", f"place {one['place']:,}"
    alt = f"Photo of a lesion: {truth}, {score}, {place}"
    photo = html.picture_alone(folder / one["file"], alt, photos=True)
    # What is in every caption of a row is in the row's title.
    lines = [truth, score, place] if one["kind"] == "false_alarm" and named else [score, place]
    caption = html.join(lines, Html("<br>"))
    return html.element("figure", photo, html.element("figcaption", caption))
