"""Mistyped options, commands, configs, settings and values: one line with what may be meant."""

import pytest

from kaggle_pipeline.cli.main import main

MEANT = {
    "run-pipeline --data-dri x": "--data-dir",
    "run-pipeline --data_dir=x": "--data-dir",
    "run-pipeline --sett image.epochs=3": "--set",
    "run-pipeline -resume": "--resume",
    "train-image --flod 1": "--fold",
    "plan --data-dir . --dataset ham10000 --weights imagnet": "imagenet",
    "plan --data-dir . --tabel mine.yaml": "--table",
    "predict --run-dir runs/x --imgaes photos": "--images",  # before the one that is required
    "--versoin": "--version",
    "run-pipelin": "run-pipeline",
    "run_pipeline": "run-pipeline",
    "run-pipeline configs/demo.yaml": "--config configs/demo.yaml",
    "run-pipeline --config dmeo": "demo?",
    "run-pipeline --config demo --set image.epochs 3": "--set image.epochs=3?",
    "run-pipeline --config demo --set image.epocs=3": "image.epochs",
    "run-pipeline --config demo --set imge.epochs=3": "image",
    "run-pipeline --config demo --set image.tta=dihedrl": "dihedral",
    "run-pipeline --config demo --set dataset=ham1000": "ham10000",
    "run-pipeline --config demo --set blend.models=[imge]": "image",
    "run-pipeline --config demo --set tabular.learners=[forst]": "forest",
    "run-pipeline --config demo --set ensemble.models=[imge]": "image",
    "run-pipeline --config demo --set ensemble.use=[score]": "scores",
    "run-pipeline --config demo --set embedding.encoders=[kears:ResNet50]": "keras:ResNet50",
}
NO_HINT = {
    "plan --data-dir . --table lesions.csv": "configs/my_photos.yaml",
    "plan --data-dir . --config lesions.csv": "configs/my_photos.yaml",
    "run-pipeline --zzz": "--zzz",
    "run-pipeline junk": "junk",
    "run-pipeline --config demo --set image.epochs = 3": "--set KEY=VALUE",
    "run-pipeline --config demo --set image.epochs=3 seed=1": "--set KEY=VALUE",
}
"""And what the line names all the same."""


def said(words, capsys):
    """The one line of a command that ends with exit code 2."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    line = capsys.readouterr().err
    assert code == 2 and line.count("\n") == 1 and line.startswith("error: "), line
    return line


@pytest.mark.parametrize(("words", "meant"), MEANT.items(), ids=list(MEANT))
def test_the_one_that_may_be_meant_is_named(words, meant, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = said(words.split(), capsys)
    assert f"did you mean {meant}" in line.replace("'", "")


@pytest.mark.parametrize(("words", "named"), NO_HINT.items(), ids=list(NO_HINT))
def test_what_is_like_nothing_is_named_alone(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = said(words.split(), capsys)
    assert named in line and "did you mean" not in line


@pytest.mark.parametrize(
    "words",
    [
        ["prepare-data", "--beam", "--runner=DirectRunner --direct_num_workers=2"],
        ["prepare-data", "--beam=--runner=DirectRunner"],
        ["run-pipeline", "--resum"],  # argparse takes what is no other option's beginning
        ["run-pipeline", "--max-hours", "1"],
        ["submit", "--message", "- better"],
    ],
    ids=" ".join,
)
def test_a_value_is_not_taken_for_an_option(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = said(words, capsys)
    assert "unknown option" not in line and "unrecognized" not in line
