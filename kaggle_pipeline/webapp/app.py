"""The page itself: Streamlit's part, which asks and shows and computes nothing.

In: ``--run-dir R`` (Streamlit runs this file anew for every visitor's every change). Out: three
pages: one lesion, a patient, the run.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import Number
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html
from kaggle_pipeline.webapp.html_blocks import disclaimer, reading_block, report_name, report_page
from kaggle_pipeline.webapp.html_figures import STYLE, block
from kaggle_pipeline.webapp.model_card import card_sections
from kaggle_pipeline.webapp.patient_blocks import patient_block
from kaggle_pipeline.webapp.patient_table import patient_csv
from kaggle_pipeline.webapp.service import Look, Service, compare
from kaggle_pipeline.webapp.shared_service import shared_service
from kaggle_pipeline.webapp.upload import MAX_FILE_MIB, MAX_FILES, plain_name

_PAGE_STYLE = """
.stMainBlockContainer { max-width: 76rem; padding-top: 1.5rem; padding-bottom: 4rem; }
.stAppHeader { pointer-events: none; background: transparent; }
@media (max-width: 640px) { .stMainBlockContainer h1 { font-size: 1.6rem; padding: .2rem 0; } }
@media (min-width: 800px) {
  .st-key-sheet { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 2fr);
                  grid-template-rows: auto 1fr; column-gap: 3rem; }
  .st-key-sheet > :has(> .st-key-result) { grid-column: 2; grid-row: 1 / 3; }
}
"""


def main(arguments: Sequence[str]) -> None:
    """Show the page that the visitor chose."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--show-training-photos", action="store_true")
    given = parser.parse_args(arguments)
    service = shared_service(given.run_dir, given.show_training_photos)
    st.set_page_config("Lesion reader", page_icon="🔍", layout="wide")
    st.html(f"<style>{STYLE}{_PAGE_STYLE}</style>")
    pages = {"One lesion": _lesion, "A patient": _patient, "This run": _run}
    pages = [
        st.Page(
            partial(show, service), title=title, url_path=title.lower().replace(" ", "-"),
            default=show is _lesion,
        )
        for title, show in pages.items()
    ]  # fmt: skip
    chosen = st.navigation(pages, position="hidden")
    # Streamlit's own menu hides behind a sign on a phone, and covers the page after a choice.
    with st.container(key="menu", horizontal=True):
        for page in pages:
            st.page_link(page, label=page.title, width="content")
    chosen.run()


# ---------------------------------------------------------------------------- one lesion


def _lesion(service: Service) -> None:
    st.title("One lesion")
    st.html(block(disclaimer(service.spec)))
    photo, shown, about = _sheet()
    with photo:
        file = _one_file()
    with about:
        metadata = _metadata(service, "lesion")
        name, sensitivity = _wishes(service, "lesion")
        wanted = service.has_training_photos and st.toggle(
            "Show the nearest training photos", key="lesion_beside"
        )
    with shown:
        if file is None:
            _hint("Choose or take a photo. The result appears here.")
            _keep([])
            return
        looks, refused = _look_at(service, [file])
        _tell(refused)
        if looks:
            reading = service.read(looks, [metadata])[0]
            beside = service.training_photos(reading) if wanted else {}
            piece = reading_block(service, reading, name, sensitivity, beside)
            st.html(html.join([html.element("h2", looks[0].name, class_="kp"), piece]))
            what = f"Reading of {looks[0].name}"
            _download_report(service, what, f"reading_{Path(looks[0].name).stem}", piece)


def _one_file() -> Any:
    label = f"Photo of the lesion (JPEG, PNG, DICOM and others, at most {MAX_FILE_MIB} MiB)"
    # The camera asks for leave as soon as it is shown, so it is not shown unasked.
    if st.toggle("Use the camera", key="camera"):
        return st.camera_input("Photo of the lesion")
    # Of any ending: what a file holds decides, and many DICOM files have none.
    return st.file_uploader(label, key="lesion_file")


def _metadata(service: Service, key: str) -> dict[str, object]:
    """Ask for the features that the run's models use; all are optional."""
    wanted = service.models.features
    if not wanted:
        st.caption("This run uses nothing but photos.")
        return {}
    st.caption("About the patient (optional):")
    found: dict[str, object] = {}
    for name in wanted:
        label = service.spec.feature_label(name).capitalize()
        if name in service.spec.numeric:
            found[name] = _number(label, service.spec.numeric[name], f"{key}_{name}")
        else:
            found[name] = _choose(label, service.spec.categorical[name], f"{key}_{name}")
    return found


def _number(label: str, number: Number, key: str) -> float | None:
    given = {"min_value": number.least, "max_value": number.greatest, "step": number.step}
    given = {name: value for name, value in given.items() if value is not None}
    if any(isinstance(value, float) for value in given.values()):  # Streamlit mixes no types
        given = {name: float(value) for name, value in given.items()}
    # "%g": 70, not 70.00.
    return st.number_input(
        label, value=None, placeholder="not given", key=key, format="%g", **given
    )


def _choose(label: str, words: Sequence[str], key: str) -> str | None:
    return st.selectbox(label, words, index=None, placeholder="not given", key=key)


def _wishes(service: Service, key: str) -> tuple[str, float]:
    """Which class to explain, and how sensitive the threshold is to be."""
    name = service.spec.main_class
    if len(service.classes) > 1:
        start = service.classes.index(name)
        name = st.selectbox(
            "Class to explain",
            service.classes,
            start,
            format_func=service.spec.class_label,
            key=f"{key}_class",
        )
    wanted = service.distribution.sensitivities(name)
    sensitivity = st.radio(
        f"Of 100 {service.spec.class_label(name)} photos, how many should be flagged?",
        wanted, len(wanted) // 2, format_func=lambda share: f"{100 * share:g}", horizontal=True,
        key=f"{key}_sensitivity_{name}",
        help="The sensitivity. The more are to be found, the more other photos are flagged too.",
    )  # fmt: skip
    return name, sensitivity


# ---------------------------------------------------------------------------- a patient


def _patient(service: Service) -> None:
    st.title("A patient")
    st.html(block(disclaimer(service.spec)))
    photos, shown, about = _sheet()
    with photos:
        files = st.file_uploader(
            f"Photos of one patient’s lesions (at most {MAX_FILES})",
            accept_multiple_files=True,
            key="patient_files",
        )
    with about:
        metadata = _metadata(service, "patient")
        name, sensitivity = _wishes(service, "patient")
    with shown:
        if not files:
            _hint("Choose several photos of one patient. Each is compared with the others.")
            _keep([])
            return
        refused = []
        if len(files) > MAX_FILES:
            refused.append(
                f"Only the first {MAX_FILES} of {len(files)} photos are used: that is the limit"
            )
        looks, failed = _look_at(service, files[:MAX_FILES])
        _tell(refused + failed)
        if not looks:
            return
        readings = service.read(looks, _by_lesion(service, looks, metadata))
        table = compare(service, readings, name)
        piece = patient_block(service, readings, table, name, sensitivity)
        with st.container(horizontal=True):
            what = f"patient_{len(looks)}_lesions"
            _download_report(service, "A patient’s lesions", what, piece)
            now = datetime.now().astimezone()
            st.download_button(
                "Table (CSV)", patient_csv(readings, table, name),
                report_name(service, what, now, ".csv"), "text/csv",
                on_click="ignore",
            )  # fmt: skip
        st.html(piece)


def _by_lesion(
    service: Service, looks: Sequence[Look], metadata: dict[str, object]
) -> list[dict[str, object]]:
    """The patient's metadata for every lesion, with a site of its own where one is chosen."""
    found = [dict(metadata) for _ in looks]
    for name in service.spec.lesion_features:
        if name not in service.models.features:
            continue
        with st.expander(
            f"{service.spec.feature_label(name).capitalize()} of each lesion, if they differ"
        ):
            columns = st.columns(3)
            words = service.spec.categorical[name]
            for number, look in enumerate(looks):
                with columns[number % 3]:
                    chosen = _choose(look.name, words, f"{name}_{look.digest}")
                found[number] |= {name: chosen} if chosen else {}
    return found


# ---------------------------------------------------------------------------- the run


def _run(service: Service) -> None:
    st.title("This run")
    st.html(block(disclaimer(service.spec)))
    for number, (title, section) in enumerate(card_sections(service).items()):
        with st.expander(title, expanded=number < 2):
            st.html(block(section, class_="full"))


# ---------------------------------------------------------------------------- common


def _sheet() -> tuple[Any, Any, Any]:
    """Places for the photo, the result and the form.

    The result is last, so that a phone, which shows them below each other, asks before it answers;
    on a wide screen it takes a column of its own beside the two others.
    """
    with st.container(key="sheet"):
        photo, about = st.container(key="photo"), st.container(key="about")
        return photo, st.container(key="result"), about


def _look_at(service: Service, files: Sequence[Any]) -> tuple[list[Look], list[str]]:
    """Looks at the files that can be read, and a sentence for each of the others.

    The same photo twice is looked at once: it would be its own like among the patient's lesions.
    What was looked at is kept for this visitor, in memory, as long as the file is chosen; at once,
    so that a click, which begins anew, throws no work away.
    """
    known: dict[str, Look] = st.session_state.setdefault("looks", {})
    looks, refused, names = [], [], {}
    bar = st.progress(0.0, "Reading …") if len(files) > 1 else None
    for number, file in enumerate(files):
        content = file.getvalue()
        digest, name = hashlib.sha256(content).hexdigest(), plain_name(file.name)
        if digest in names:
            refused.append(f"{name} is the same file as {names[digest]}: it counts once")
            continue
        names[digest] = name
        try:
            if digest not in known:
                known[digest] = service.look(file.name, content)
            looks.append(replace(known[digest], name=name))
        except PipelineError as error:
            refused.append(str(error))
        # One file must not end the page for the others, whatever a decoder makes of it.
        except Exception as error:
            kind = type(error).__name__
            refused.append(f"{name} could not be read: {kind} inside the program")
        if bar:
            bar.progress((number + 1) / len(files), f"{number + 1} of {len(files)} photos read")
    if bar:
        bar.empty()
    _keep(looks)
    return looks, refused


def _keep(looks: Sequence[Look]) -> None:
    """Forget all other photos of this visitor."""
    st.session_state["looks"] = {look.digest: look for look in looks}


def _tell(refused: Sequence[str]) -> None:
    if refused:
        lines = [html.element("p", one) for one in refused]
        note = html.element("div", *lines, class_="note warning", role="alert")
        st.html(block(note))


def _hint(words: str) -> None:
    st.html(block(html.element("div", words, class_="note plain")))


def _download_report(service: Service, title: str, what: str, piece: Html) -> None:
    now = datetime.now().astimezone()
    st.download_button(
        "Report to print (HTML)", report_page(service, title, now, piece),
        report_name(service, what, now), "text/html", on_click="ignore",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
