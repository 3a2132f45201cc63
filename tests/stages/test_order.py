"""What can be refused at once is refused before any work: two faults, and the cheap one is said."""

import pytest

from kaggle_pipeline.cli.main import main
from tests.helpers_demo import demo_words


@pytest.fixture
def trained(tmp_path):
    """A run's folder in which every stage holds something, and no data beside it."""
    run_dir = tmp_path / "run"
    for stage in ("image", "tabular", "embedding", "boosting"):
        place = run_dir / stage / "fold0"
        place.mkdir(parents=True)
        (run_dir / stage / "config.yaml").write_text(
            "name: demo\ndataset: synthetic\nimage: {epochs: 77}\n"
        )
        (place / "model.json").write_text("{}")
    return run_dir


COMMANDS = {
    "run-pipeline": (),
    "train-image": (),
    "train-tabular": (),
    "train-embedding": ("embedding.encoders=[keras:MobileNetV2]",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_results_is_refused_before_the_data_are_read(
    command, trained, tmp_path, capsys
):
    words = demo_words(tmp_path / "no data", trained, *COMMANDS[command])
    assert main([command, *words]) == 2
    said = capsys.readouterr().err
    assert "already holds results" in said and "--resume" in said, said
    assert sorted(path.name for path in trained.iterdir()) == [
        "boosting", "embedding", "image", "tabular"
    ]  # fmt: skip


def test_a_learner_s_results_are_refused_before_the_first_learner_is_trained(
    trained, tmp_path, capsys
):
    words = demo_words(
        tmp_path / "no data", trained, "tabular.learners=[forest, boosting]",
        "blend.models=[forest, boosting]",
    )  # fmt: skip
    assert main(["run-pipeline", *words]) == 2
    said = capsys.readouterr().err
    assert "boosting already holds results" in said, said


@pytest.mark.parametrize("command", ["run-pipeline", "train-image"])
def test_other_settings_are_refused_before_the_data_are_read(command, trained, tmp_path, capsys):
    words = demo_words(tmp_path / "no data", trained)
    assert main([command, *words, "--resume"]) == 2
    assert "image was made with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        ("file:none.npz", "none.npz"),
        pytest.param("keras:MobileNetV2", "none.h5", marks=pytest.mark.ci),
    ],
)
def test_an_encoder_that_cannot_be_had_is_said_before_the_conversion(
    encoder, named, competition, tmp_path, capsys
):
    setting = f'{{source: "{encoder}", weights: none.h5}}'
    words = demo_words(
        competition / "competition", tmp_path / "run", f"embedding.encoders=[{setting}]"
    )
    for command in ("embed", "train-embedding", "run-pipeline"):
        of_chain = ["--set", "blend.models=[embedding]"] if command == "run-pipeline" else []
        assert main([command, *words, *of_chain]) == 2
        assert named in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_feature_that_is_not_there_is_said_before_the_photos_are_read(
    competition, tmp_path, capsys
):
    words = demo_words(
        competition / "competition", tmp_path / "run", "tabular.features=[sex, aeg_years]"
    )
    assert main(["prepare-data", *words]) == 2
    said = capsys.readouterr()
    assert "aeg_years" in said.err and "age_years" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("out", "named"),
    [("there.csv", "--overwrite"), ("folder", "is a folder"), ("there.csv/x.csv", "written to")],
)
def test_a_place_that_cannot_be_written_is_said_before_a_model_is_read(
    out, named, tmp_path, capsys
):
    (tmp_path / "there.csv").write_text("")
    (tmp_path / "folder").mkdir()
    stage = tmp_path / "run" / "image"
    (stage / "fold0").mkdir(parents=True)
    (stage / "fold0" / "model.json").write_text("{}")
    (stage / "config.yaml").write_text("name: run\ndataset: synthetic\n")
    words = ["--run-dir", str(tmp_path / "run"), "--images", str(tmp_path / "folder")]
    assert main(["predict", *words, "--out", str(tmp_path / out)]) == 2
    assert named in capsys.readouterr().err
