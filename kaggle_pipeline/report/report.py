"""One page about a run, from what lies in its folder.

In: a run's folder. Out: ``report.html``, a single file to keep or to send. It computes no score,
leaves out what is not there, and names no patient.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.loading import read_settings
from kaggle_pipeline.config.names import SCORED_STAGES
from kaggle_pipeline.config.run_folders import final_stage
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.report import html
from kaggle_pipeline.report.calibration import calibration_section
from kaggle_pipeline.report.data import data_section, leak_section
from kaggle_pipeline.report.decision import decision_section
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.report.planned import planned_section
from kaggle_pipeline.report.results import STAGE_TITLES, describe_optimism, results_section
from kaggle_pipeline.report.scores import evaluation_section

MADE_UP = (
    "This model learned from made-up lesions, which a program drew, not from photos of skin. It "
    "shows how everything works; its numbers say nothing about a real lesion."
)
"""What a page on made-up data says."""
ADVICE = "If a mole worries you, see a dermatologist."


def write_report(run_dir: Path, spec: DatasetSpec) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    The page is a function of the folder alone: the same files give the same page. It embeds its
    pictures and loads nothing.

    Parameters
    ----------
    run_dir : pathlib.Path
        With any of ``prepare/``, ``explore/``, ``image/``, ``tabular/``, ``blend/``.
    spec : DatasetSpec

    Raises
    ------
    PipelineError
        If the folder is missing or holds no stage, or a file in it is damaged.
    """
    name, sections = collect_sections(run_dir, spec)
    links = [html.element("a", title, href=f"#{key}") for key, (title, _) in sections.items()]
    body = [
        html.element("section", html.element("h2", title), section, id=key)
        for key, (title, section) in sections.items()
    ]
    title, folder = f"{spec.heading}: results of the run “{name}”", Path(run_dir).resolve().name
    if folder != name:  # several runs of one config
        title = f"{spec.heading}: results of the run “{folder}” (config “{name}”)"
    if (finished := _finished(_final_metrics(run_dir))) is not None:  # and of one folder
        title += f", {finished.day} {finished:%B %Y}"
    path = Path(run_dir) / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(
            html.page(
                title,
                html.element("p", describe_run(run_dir), class_="faint"),
                html.note(html.element("strong", f"{DISCLAIMER} {ADVICE}"), *_made_up(spec)),
                html.element("nav", *links),
                *body,
            ),
            encoding="utf-8",
        )
    renew(run_dir, path.name)
    return path


def _made_up(spec: DatasetSpec) -> list[Html]:
    return [html.element("p", MADE_UP)] if spec.made_up else []


def describe_run(run_dir: Path) -> str:
    """Return when a run was finished, and of how many photos, in a line; what is known of it."""
    found = _final_metrics(run_dir)
    told = []
    if (when := _finished(found)) is not None:
        told.append(f"Finished on {when.day} {when:%B %Y} at {when:%H:%M} UTC")
    if found:
        told.append(f"{found['n']:,} photos scored out of fold")
    return "".join(f"{one}. " for one in told)


def _final_metrics(run_dir: Path) -> Mapping:
    """What is kept of the run's final stage; empty where nothing was scored."""
    final = final_stage(run_dir)
    return read_json(Path(run_dir) / final / "metrics.json") if final else {}


def _finished(found: Mapping) -> datetime | None:
    """When a stage ended, where it is written down."""
    return datetime.fromisoformat(found["finished"]) if found.get("finished") else None


def collect_sections(run_dir: Path, spec: DatasetSpec) -> tuple[str, dict[str, tuple[str, Html]]]:
    """Return a run's name and the sections of its page: key → (title, content).

    Parameters and errors as for :func:`write_report`.
    """
    run_dir = Path(run_dir)
    stages = {name: run_dir / name for name in SCORED_STAGES if (run_dir / name).is_dir()}
    prepared = run_dir / "prepare"
    if not stages and not prepared.is_dir():
        raise PipelineError(f"{run_dir} holds no stage of a run: nothing to report")
    configs = {name: _read_config(run_dir / name) for name in ("prepare", *stages)}
    name = next((c["name"] for c in configs.values() if c.get("name")), run_dir.name)
    metrics = {
        stage: read_json(folder / "metrics.json")
        for stage, folder in stages.items()
        if (folder / "metrics.json").exists()
    }
    basis = next((config for config in configs.values() if config), {})
    sections = {
        "results": results_section(run_dir, stages, metrics, spec),
        "data": data_section(run_dir, spec),
        "leaks": leak_section(prepared),
        **{stage: _stage(stage, folder, metrics.get(stage), spec)
           for stage, folder in stages.items()},
        "plan": planned_section(run_dir, basis.get("planned") or [], metrics, STAGE_TITLES),
        "settings": _settings(configs, run_dir),
    }  # fmt: skip
    titles = {"results": "Results", "data": "Data", "leaks": "Leak audit", **STAGE_TITLES,
              "plan": "Plan and run", "settings": "Settings and versions"}  # fmt: skip
    return name, {key: (titles[key], section) for key, section in sections.items() if section}


def _read_config(folder: Path) -> dict:
    """Resolved config of a stage, empty where there is none."""
    path = folder / "config.yaml"
    return read_settings(path) if path.exists() else {}


# ---------------------------------------------------------------------------- a stage


def _stage(stage: str, folder: Path, metrics: Mapping | None, spec: DatasetSpec) -> Html:
    if metrics is None:
        return html.element("p", "Not finished: there are no scores yet.")
    title, parts = STAGE_TITLES[stage], []
    why = describe_optimism(metrics, spec)
    if why:
        parts.append(
            html.note(
                html.element("strong", "Too optimistic: "), f"{'; '.join(why)}.", warning=True
            )
        )
    facts = []
    if metrics.get("seconds") is not None:
        facts.append(f"Took {metrics['seconds']:,.0f} s.")
    if metrics.get("weights"):
        why = f" ({metrics['weights_why']})" if metrics.get("weights_why") else ""
        facts.append(f"Weights: {_flat_text(metrics['weights'])}{why}.")
    if len(metrics.get("effective_shares", {})) > 1:
        shares = ", ".join(f"{name} {x:.0%}" for name, x in metrics["effective_shares"].items())
        facts.append(
            f"Effective shares: {shares}. A share is a weight times the spread (standard "
            "deviation) of that model’s scores in the blend’s space: a model whose scores lie far "
            "apart moves the blend more than its weight says."
        )
    if metrics.get("tested_on_all_rows"):
        facts.append(
            "Test predictions come from a further model, trained on all labelled rows. It is not "
            "judged itself: the scores out of fold, calibration and decision are those of the "
            "folds’ models."
        )
    parts += [html.element("p", " ".join(facts))] if facts else []
    parts.append(html.element("h3", "Out of fold"))
    ignored = bool(metrics.get("groups_ignored"))
    parts.append(html.element("p", _how_out_of_fold(spec, ignored)))
    parts.append(evaluation_section(folder, "", title, spec, metrics))
    if (folder / "test_evaluation.json").exists():
        parts.append(html.element("h3", "Held-out test part"))
        parts.append(
            html.element(
                "p",
                "These photos were set aside before anything was trained or chosen. Their labels "
                "were used only for the scores below.",
            )
        )
        parts.append(evaluation_section(folder, "test_", title, spec, None))
    parts.append(calibration_section(folder, title, spec) or "")
    parts.append(decision_section(folder, title, spec) or "")
    curves = html.picture(
        folder / "learning_curves.png", f"{title}: loss and scores by epoch, a line a fold."
    )
    if curves:
        parts += [html.element("h3", "Training"), curves]
    return html.join(parts)


def _how_out_of_fold(spec: DatasetSpec, groups_ignored: bool) -> str:
    if groups_ignored:
        return (
            "Every photo is scored by a model that was trained without it, but perhaps with other "
            f"photos of the same {spec.group or 'group'}."
        )
    if spec.group is None:
        return (
            "Every photo is scored by a model that was trained without it. The data names no "
            "patients, so photos of one person may be in both training and validation."
        )
    return (
        "Every photo is scored by a model that was trained without any photo of the same "
        f"{spec.group}."
    )


# ---------------------------------------------------------------------------- settings


def _settings(configs: Mapping[str, dict], run_dir: Path) -> Html | None:
    parts = []
    basis = next((config for config in configs.values() if config), {})
    plain = {key: value for key, value in _flatten(basis).items()
             if "." not in key and key != "planned"}  # fmt: skip
    if plain:
        parts.append(html.table(["setting", "value"], plain.items()))
    for stage, config in configs.items():
        section = {"prepare": ("examples", "folds", "leakage", "records")}.get(
            stage, (stage, "calibration", "decision")
        )
        shown = _flatten({key: config[key] for key in section if key in config})
        if shown:
            title = f"Settings of {STAGE_TITLES.get(stage, 'the preparation').lower()}"
            parts.append(html.details(title, html.table(["setting", "value"], shown.items())))
    for stage in configs:
        path = run_dir / stage / "versions.json"
        if path.exists():
            title = f"Versions at {STAGE_TITLES.get(stage, 'the preparation').lower()}"
            rows = read_json(path).items()
            parts.append(html.details(title, html.table(["package", "version"], rows)))
    return html.join(parts) if parts else None


def _flatten(content: Mapping, before: str = "") -> dict[str, object]:
    """Dotted keys and plain values."""
    flat = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = "–" if value in (None, {}, []) else value
    return flat


def _flat_text(content: Mapping) -> str:
    items = _flatten(content).items()
    return ", ".join(
        f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in items
    )
