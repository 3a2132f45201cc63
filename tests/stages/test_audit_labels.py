"""The page of doubtful labels of a finished run."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.models.embedding.vector_store import VectorStore

pytest.importorskip("cleanlab")


def test_suspects_stand_beside_photos_of_others(demo_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    assert main(["audit-labels", "--run-dir", str(run), "--stage", "tabular"]) == 0
    assert "no vectors of an encoder" in (run / "audit" / "label_suspects.html").read_text()
    examples = pd.read_csv(run / "prepare" / "examples.csv", dtype={"image_id": str})
    array = np.random.default_rng(0).normal(size=(len(examples), 1, 8)).astype(np.float32)
    store = VectorStore(run / "embeddings" / "a")
    store.write(pd.Index(examples["image_id"]), array, {"weights_sha256": "0"})
    assert main(["audit-labels", "--run-dir", str(run)]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(run / "audit" / "label_suspects.csv", dtype={"image_id": str})
    page = (run / "audit" / "label_suspects.html").read_text()
    assert f"{len(table)} of " in said and "by blend's predictions" in said
    assert len(table) and table["fit"].between(0, 0.5).all()
    shown = re.findall(r"<figcaption>(\w+): (alike|probability)", page)
    group = examples.set_index("image_id")["group_id"]
    for name, kind in shown:
        if kind == "probability":
            mine = group[name]
        else:
            assert group[name] != mine, "a neighbour is another patient's"
    assert [kind for _, kind in shown].count("alike") == 4 * len(table)
    assert page.count("data:image/jpeg") == len(shown)
    assert not [one for one in group.unique() if one in page], "no patient is named"


def test_a_run_without_predictions_is_said_in_one_line(tmp_path, capsys):
    assert main(["audit-labels", "--run-dir", str(tmp_path)]) == 2
    assert "out-of-fold" in capsys.readouterr().err
