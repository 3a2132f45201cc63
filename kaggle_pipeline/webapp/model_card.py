"""The run's model card: what it was trained on, how well it did, what it cannot do.

In: a :class:`Service`. Out: titles and HTML; the numbers are those of the run's own report.
"""

from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.report.report import MADE_UP, collect_sections
from kaggle_pipeline.report.scores import headline
from kaggle_pipeline.webapp.html_blocks import missing_line
from kaggle_pipeline.webapp.labels import part_label, percent
from kaggle_pipeline.webapp.service import Service


def card_sections(service: Service) -> dict[str, Html]:
    """Return the card's sections by title, the first of them a summary with the limits.

    Raises
    ------
    PipelineError
        If a file of the run is damaged.
    """
    name, sections = collect_sections(service.run_dir, service.spec)
    summary = html.join([_summary(service, name), html.element("h3", "Limits"), _limits(service)])
    return {"Summary and limits": summary, **dict(sections.values())}


def _summary(service: Service, name: str) -> Html:
    distribution, models, spec = service.distribution, service.models, service.spec
    classes = ", ".join(
        f"{service.spec.class_label(one)} {percent(distribution.prevalence(one))}"
        for one in service.classes
    )
    shares = models.effective_shares
    blend = ", ".join(
        f"{part_label(one)} {weight:.2f}"
        + (f" (share of the blend {shares[one]:.0%})" if one in shares else "")
        for one, weight in models.blend.weights.items()
    )
    rows = [
        ["run", name],
        ["data set", spec.heading],
        ["further collections", _further(service) or "none"],
        ["training photos", f"{distribution.size:,} ({classes})"],
        [f"{'mean ' if len(service.classes) > 1 else ''}AUC, out of fold [95 % interval]",
         headline(models.scored_stage, read_json(models.scored_stage / "metrics.json"))[0]],
        ["folds", _folds(service)],
        ["model of photos", models.reader.described],
        ["new photos", f"{models.fit.word}, like the training photos"
         if models.fit.known else models.fit.word],
        ["weights in the blend", blend],
        ["calibration", service.calibration.method if service.calibration else "none"],
    ]  # fmt: skip
    return html.table(["", "this run"], rows)


def _folds(service: Service) -> str:
    models, count = service.models, len(service.models.folds)
    unit = service.spec.group or "image"
    by_group = models.config.folds.by == "group"
    split = f"no {unit} in two of them" if by_group else "split by photo"
    return f"{count} trained, {split}. {missing_line(service)}".strip()


def _further(service: Service) -> str:
    """Collections that the model of photos learned from beside the data set."""
    return ", ".join(service.models.reader.external)


def _limits(service: Service) -> Html:
    group, further = service.spec.group, _further(service)
    seen = f" and of {further}" if further else ""
    other = (
        "Any other kind of lesion also gets probabilities, and they mean nothing."
        if service.spec.task == "multiclass"
        else "It has learned nothing about kinds of lesion that are not in the training photos."
    )
    lines = [
        f"It was trained only on photos of the data set above{seen}. On photos from another clinic "
        "or camera, or of another type (taken without a dermatoscope, say), it may do worse; how "
        "much is not known.",
        f"It knows only the classes above. {other}",
        "Public data sets do not record skin colour and contain little dark skin, so it is not "
        "known how well it works on dark skin.",
        "The threshold and the comparison with training photos use out-of-fold predictions, each "
        "of one fold model; a new photo gets the mean of all fold models, which varies a little "
        "less.",
        "A low probability does not mean that a lesion is harmless.",
    ]
    if service.spec.made_up:
        lines.insert(0, MADE_UP)
    if group != "patient":
        lines.append("The data do not say which photos belong to the same patient, so one person "
                     "may be in two folds and the scores may be too high.")  # fmt: skip
    if not service.models.judged_as_used:
        lines.append(
            "The scores, calibration and thresholds of this run belong to a blend with equal "
            "weights, not to the blend used here: run make_submission again."
        )
    if service.calibration is None:
        lines.append("It is not calibrated: use its numbers to compare lesions, not as chances.")
    elif lacking := [one for one in service.classes if not service.is_calibrated(one)]:
        names = ", ".join(service.spec.class_label(one) for one in lacking)
        why = "; ".join(service.calibration.lacking[one] for one in lacking)
        lines.append(f"It is not calibrated for {names}: {why}.")
    if not service.models.fit.known:
        word = service.models.fit.word
        lines.append(f"It is not known how the training photos were made square; new photos are "
                     f"{word}.")  # fmt: skip
    if service.reference is None:
        lines.append("There are no training photos here: photos unlike them are not pointed out.")
    elif not service.reference.can_tell:
        few = service.reference.few
        lines.append(f"Photos unlike the training photos are not pointed out: {few}.")
    else:
        lines.append(
            f"Photos are compared with {service.reference.size:,} training photos to find those "
            "unlike them; about 1 in 20 ordinary photos is pointed out by mistake."
        )
    return html.element("ul", *(html.element("li", line) for line in lines))
