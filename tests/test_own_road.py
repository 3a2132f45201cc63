"""A user's whole road with a folder of photos and a table: plan, run, predictions, page, Kaggle.

``pytest -s -m slow tests/test_own_road.py`` shows it as a session at a console.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers_session import Kaggle, ok

from kaggle_pipeline.config.names import CHECKOUT

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
HAM = Path(os.environ.get("KAGGLE_PIPELINE_REALDATA", _BESIDE)) / "ham10000"
WEIGHTS = HAM.parent / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.realdata,
    pytest.mark.skipif(not HAM.is_dir(), reason=f"no real data in {HAM}"),
]
WORDS = {"mel": "Melanom", "nv": "Nävus", "bkl": "Keratose"}
SEX = {"male": "Mann", "female": "Frau", "unknown": "unbekannt"}
CONFIG = """\
name: praxis
dataset: table
table:
  train: Befunde.csv
  images: Fotos
  image: Datei
  target: Befund
  positive: Melanom
  group: Patient
  numeric: [Alter]
  categorical: [Geschlecht, Stelle]
"""


def collect(place):
    """Write 300 photos as a practice keeps them: 3 cannot be read; 4 more are new."""
    table = pd.read_csv(HAM / "HAM10000_metadata.csv")
    table = table[table["dx"].isin(WORDS)]
    parts = [
        table[table["dx"] == kind].sample(count, random_state=1)
        for kind, count in (("mel", 80), ("nv", 160), ("bkl", 64))
    ]
    table = pd.concat(parts).sample(frac=1, random_state=1).reset_index(drop=True)
    draw, rows = random.Random(1), []
    (place / "neu").mkdir(parents=True)
    patients = {
        lesion: f"Pat. {number:04d}" for number, lesion in enumerate(table["lesion_id"].unique())
    }
    for number, row in table.iterrows():
        (source,) = HAM.glob(f"HAM10000_images_part?/{row['image_id']}.jpg")
        if number >= 300:
            shutil.copy(source, place / "neu" / f"DSC_{number}.jpg")
            continue
        folder = place / "Fotos" / draw.choice(["2019/Frühjahr", "2019/Herbst", "Dr. Müller", "."])
        folder.mkdir(parents=True, exist_ok=True)
        name = f"IMG {number:04d}.JPG"
        shutil.copy(source, folder / name)
        (folder / name).chmod(0o644)
        age = f"{row['age']:.0f} Jahre" if row["age"] == row["age"] else "unbekannt"
        path = (folder / name).relative_to(place / "Fotos").as_posix()
        rows.append({
            "Datei": draw.choice([path, name, name.removesuffix(".JPG")]),
            "Patient": patients[row["lesion_id"]],
            "Befund": WORDS[row["dx"]], "Alter": age, "Geschlecht": SEX[row["sex"]],
            "Stelle": row["localization"], "Notiz": "",
        })  # fmt: skip
    whole = sorted((place / "Fotos").rglob("*.JPG"))
    whole[7].write_bytes(b"")
    whole[70].write_bytes(whole[70].read_bytes()[:2000])
    whole[170].write_text("<html>404</html>")
    pd.DataFrame(rows).to_csv(place / "Befunde.csv", sep=";", index=False, encoding="utf-8-sig")
    (place / "praxis.yaml").write_text(CONFIG, encoding="utf-8")


@pytest.fixture(scope="module")
def practice(tmp_path_factory):
    place = tmp_path_factory.mktemp("practice")
    collect(place)
    return place


def command(place, words, expected=0):
    """Run a script as a user does, who stands in the checkout; return all that it said."""
    shown = words.replace(str(place), "…")
    print(f"\n$ python scripts/{shown}")
    script, *rest = words.split()
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts" / script), *rest], cwd=CHECKOUT, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    print(done.stdout.replace(str(place), "…"))
    assert done.returncode == expected, done.stdout[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(practice):
    """Plan and run; the photos that cannot be read are named first, then left out."""
    mine, out, place = practice / "praxis.yaml", practice / "geplant.yaml", practice / "lauf"
    data = f"--data-dir {practice}"
    plan = f"plan.py --table {mine} {data} --hours 0.2 --weights {WEIGHTS} --out {out}"
    said = command(practice, plan, expected=2)
    assert "Befunde.csv row " in said and "'unbekannt'" in said and "leave the cell empty" in said
    table = practice / "Befunde.csv"  # the user mends it
    table.write_text(table.read_text("utf-8-sig").replace("unbekannt;", ";"), "utf-8-sig")
    command(practice, plan)
    pipeline = f"run_pipeline.py --config {out} {data} --run-dir {place}"
    said = command(practice, pipeline, expected=2)
    assert "(3 of 300 photos)" in said and "--set examples.unreadable=drop" in said
    said = command(practice, f"{pipeline} --set examples.unreadable=drop")
    assert "3 rows left out" in said and "report.html" in said
    return place


def test_the_plan_is_a_config_with_reasons_and_the_report_compares(run, practice):
    text = (practice / "geplant.yaml").read_text()
    planned = yaml.safe_load(text)
    assert planned["dataset"] == "table" and text.count("  # ") >= 10
    stages = [one["stage"] for one in planned["planned"]]
    assert stages == ["prepare", "records", "explore", "image", "logistic", "blend"]
    assert all((run / stage / "took.json").exists() for stage in stages)
    page = (run / "report.html").read_text()
    assert "Plan and run" in page and "Melanom" in page and "Pat. 0" not in page, (
        "no patient is named"
    )
    scores = json.loads((run / "blend" / "metrics.json").read_text())
    assert scores["n"] <= 297 and scores["oof_auc"] > 0.6, "better than chance"


def test_new_photos_are_predicted_and_the_page_reads_one(run, practice):
    pytest.importorskip("streamlit")
    pytest.importorskip("pydicom")
    from benchmarks.page import Visitor, await_health

    out = practice / "vorhersagen.csv"
    command(practice, f"predict.py --run-dir {run} --images {practice / 'neu'} --out {out}")
    found = pd.read_csv(out)
    print(found.to_string())
    assert len(found) == 4 and found["Melanom"].between(0, 1).all()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"\n$ python scripts/serve.py --run-dir {run} --port {port}".replace(str(practice), "…"))
    words = [CHECKOUT / "scripts" / "serve.py", "--run-dir", run, "--port", port]
    server = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        await_health(f"http://127.0.0.1:{port}", server)
        with Visitor(f"127.0.0.1:{port}") as visitor:
            photo = sorted((practice / "neu").iterdir())[0]
            said = visitor.read(photo.name, photo.read_bytes())
    finally:
        server.terminate()
        server.wait()
    assert "Melanom" in said and photo.name in said


def test_the_plan_runs_in_kaggles_kernels(run, practice, tmp_path):
    """The data attached as one data set, the weights as another; sessions have no network."""
    data, weights, built = tmp_path / "data", tmp_path / "weights", tmp_path / "built"
    data.mkdir()
    weights.mkdir()
    shutil.copy(practice / "Befunde.csv", data)
    shutil.copytree(practice / "Fotos", data / "Fotos")
    shutil.copy(WEIGHTS, weights)
    build = f"build_kernels.py --config {practice / 'geplant.yaml'} --data-dir {data} --out {built}"
    build += " --owner me --set table.kaggle=me/praxis --set examples.unreadable=drop"
    build += " --set image.epochs=1 --set folds.k=2 --set folds.holdout=null"
    said = command(practice, build, expected=2)
    assert "image.weights" in said and "--weights OWNER/SLUG" in said
    command(practice, f"{build} --weights me/mobilenet")
    outputs = {}
    for name in ("image", "tabular"):
        kaggle = Kaggle(tmp_path / name, "new").attach("datasets", "me/praxis", data)
        if name == "image":
            kaggle.attach("datasets", "me/mobilenet", weights)
        print(f"\n$ # Kaggle, kernel {name}\n{ok(kaggle.run(built / name))[-1500:]}")
        outputs[name] = kaggle.working
    kaggle = Kaggle(tmp_path / "blend", "new")
    for name, output in outputs.items():
        kaggle.attach("notebooks", f"me/melanoma-{name}", output)
    said = ok(kaggle.run(built / "blend"))
    print(f"\n$ # Kaggle, kernel blend\n{said[-1500:]}")
    assert "blend weights: image" in said
    assert len(pd.read_csv(kaggle.working / "run" / "blend" / "oof.csv")) >= 290
