"""Photos with their metadata are answered by the very blend that was judged and submitted."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words
from helpers_predict import predict_test_part, require_the_submission

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.commit import renew

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.ci


def test_network_and_metadata_answer_as_they_were_submitted(
    demo_run, competition, tmp_path, capsys
):
    run = shutil.copytree(demo_run, tmp_path / "run")
    words = demo_words(competition / "competition", run, "blend.weights=equal")
    assert main(["make-submission", *words]) == 0
    found = predict_test_part(run, competition / "competition" / "jpeg" / "test", tmp_path)
    require_the_submission(run, found)
    said = capsys.readouterr().out
    assert "the blend (image " in said and "numbers differ" not in said
    alone = pd.read_csv(run / "image" / "test.csv", index_col="image_id")["target"]
    assert np.abs(found["melanoma"] - alone.loc[found.index]).max() > 1e-3


def test_metadata_that_no_model_reads_are_refused(demo_run, competition, tmp_path, capsys):
    run = shutil.copytree(demo_run, tmp_path / "run")
    path = run / "blend" / "blend.json"
    blend = json.loads(path.read_text())
    blend["weights"] = {"image": 1.0, **dict.fromkeys(set(blend["weights"]) - {"image"}, 0.0)}
    path.write_text(json.dumps(blend))
    renew(path.parent, path.name)
    images = competition / "competition" / "jpeg" / "test"
    words = ["--run-dir", run, "--images", images, "--metadata", tmp_path / "new.csv"]
    assert main(["predict", *map(str, words), "--out", str(tmp_path / "o.csv")]) == 2
    assert "error: --metadata: no model of" in capsys.readouterr().err
