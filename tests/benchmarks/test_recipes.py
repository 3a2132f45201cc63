"""Tests of what measures recipes: order, going on, what a fit may see, and paired differences."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_evaluation import SPECS, make_examples, make_probabilities

from benchmarks.recipes import (
    BASELINE,
    Change,
    choose_external,
    describe_rows,
    fit_once,
    measure_recipes,
    plan_fits,
    read_changes,
    read_rows,
    score_fit,
)
from kaggle_pipeline.config.experiment import ExternalConfig
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.synthetic import generate_like

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", (ROOT / "benchmarks" / "changes").glob("*.yaml"), ids=str)
def test_the_lists_of_changes_are_experiments(path):
    for one in read_changes(path):
        load_experiment(ROOT / "configs" / path.name, one.set)


def test_the_baseline_comes_first_and_then_a_seed_of_each_at_a_time():
    changes = [Change("mixup", seeds=2), Change(BASELINE, seeds=2), Change("focal")]
    keys = [fit.key for fit in plan_fits(changes, {("mixup", 0)})]
    assert keys == [(BASELINE, 0), (BASELINE, 1), ("focal", 0), ("mixup", 1)]


@pytest.mark.parametrize(
    "content", ["{}", "[a]", "- {name: x}", "- {name: baseline}\n- {name: baseline}", "- {nam: 1}"]
)
def test_a_list_that_is_none_is_said_in_one_line(content, tmp_path):
    (tmp_path / "changes.yaml").write_text(content)
    with pytest.raises(PipelineError, match=r"changes\.yaml"):
        read_changes(tmp_path / "changes.yaml")


def test_collections_are_chosen_and_weighed_as_an_experiment_says():
    rows = pd.DataFrame({"source": ["a", "a", "b"], "row_weight": 1.0})
    assert choose_external(rows, ()).empty
    found = choose_external(rows, (ExternalConfig("a", "x", 0.3),))
    assert found["row_weight"].tolist() == [0.3, 0.3]
    with pytest.raises(PipelineError, match="c is not in the prepared run"):
        choose_external(rows, (ExternalConfig("c", "x"),))


def rows_of(task, noise):
    """Finished fits: the same predictions, with more or less noise by change."""
    spec = SPECS[task]
    examples = make_examples(spec)
    frame = make_probabilities(examples, spec)
    rng, rows = np.random.default_rng(0), []
    for name, amount in noise.items():
        for number in range(2):
            mixed = (1 - amount) * frame.to_numpy() + amount * rng.dirichlet(
                np.ones(frame.shape[1]), len(frame)
            )
            rows.append(
                {"change": name, "number": number, "seconds": 1.0, "ids": frame.index.tolist(),
                 "probabilities": mixed.tolist()}
            )  # fmt: skip
    return rows, examples, spec


def test_what_helps_is_above_the_baseline_in_pairs():
    rows, examples, spec = rows_of("multiclass", {BASELINE: 0.6, "better": 0.1, "same": 0.6})
    table = [line.split(" | ") for line in describe_rows(rows, examples, spec).split("\n")]
    by_name = {line[0].strip("| "): line for line in table[2:]}
    assert table[0][8] == "over the baseline: AUC" and by_name[BASELINE][8].strip() == "–"
    gain, low, _ = (float(one.strip("[], ")) for one in by_name["better"][8].split())
    scores = {(row["change"], row["number"]): score_fit(row, examples, spec) for row in rows}
    by_hand = np.mean([scores["better", n]["auc"][0] - scores[BASELINE, n]["auc"][0]
                       for n in range(2)])  # fmt: skip
    assert gain == pytest.approx(by_hand, abs=1e-4) and low > 0
    assert float(by_name["same"][8].split()[0]) == pytest.approx(0, abs=0.02)


def test_the_mean_of_several_networks_is_a_row_beside_their_single_ones():
    rows, examples, spec = rows_of("multiclass", {BASELINE: 0.9})
    table = [line.split(" | ") for line in describe_rows(rows, examples, spec).split("\n")]
    single, joined = table[2:]
    assert joined[0].strip("| ") == f"{BASELINE}: mean of the 2 networks"
    gain = float(joined[8].split()[0])
    assert gain == pytest.approx(float(joined[2]) - float(single[2]), abs=2e-4) and gain > 0


def test_fits_of_other_photos_are_not_compared_in_pairs():
    rows, examples, spec = rows_of("binary", {BASELINE: 0.6, "better": 0.1})
    rows[-1] |= {key: rows[-1][key][1:] for key in ("ids", "probabilities")}
    with pytest.raises(PipelineError, match="better, seed 1, scored other photos than baseline"):
        describe_rows(rows, examples, spec)


def test_an_epoch_that_rows_would_have_to_choose_is_named_before_any_fit(tmp_path):
    (tmp_path / "changes.yaml").write_text(
        "- {name: baseline}\n- {name: best, set: [image.checkpoint=best_inner]}"
    )
    config = ROOT / "configs" / "isic_2017.yaml"
    with pytest.raises(PipelineError, match=r"best: image\.checkpoint is best_inner, must be last"):
        measure_recipes(config, tmp_path / "changes.yaml", tmp_path, tmp_path / "rows.jsonl")


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    path.write_text(json.dumps({"change": BASELINE}) + '\n{"change": "mix')
    assert [row["change"] for row in read_rows(path)] == [BASELINE]


@pytest.mark.slow
def test_fits_are_written_as_they_end_and_not_done_twice(tmp_path):
    pytest.importorskip("tensorflow")
    for name in ("isic_2017", "ham10000"):
        generate_like(name, tmp_path / name, images=80, image_size_px=24, seed=1, workers=1)
    tiny = [
        "records.image_size_px=24", "records.workers=1", "image.image_size_px=24",
        "image.backbone=LeNet", "image.backbone_options={filters: 4}", "image.weights=null",
        "image.train_from=null", "image.tta=none", "image.steps_per_epoch=1", "image.epochs=1",
        "image.warmup_epochs=0", "leakage.fingerprints=false", "folds={holdout: 0.3}",
    ]  # fmt: skip
    path = ROOT / "configs" / "isic_2017.yaml"
    ham = "external=[{dataset: ham10000, data_dir: ../../ham10000/competition}]"
    config = load_experiment(path, [*tiny, ham])
    run = Run(config, tmp_path / "isic_2017/competition", tmp_path / "run", say=lambda line: None)
    prepare_data(run)
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        f"- {{name: baseline, set: ['external=[]']}}\n- {{name: ham, set: ['{ham}'], keep: true}}\n"
        "- {name: wrong, set: [image.train_from=nothing]}\n"
    )
    rows, said = tmp_path / "out" / "rows.jsonl", []
    measure_recipes(path, changes, run.run_dir, rows, device="cpu", common=tiny, say=said.append)
    done = {row["change"]: row for row in read_rows(rows)}
    assert set(done) == {BASELINE, "ham"} and any("wrong seed 0" in line for line in said)
    assert set(done["ham"]["ids"]) == set(run.folds().valid_ids(0))
    assert (tmp_path / "out" / "ham" / "fold0" / "model.weights.h5").exists()
    again = fit_once(config, run.run_dir, 0, "cpu")
    np.testing.assert_allclose(again["probabilities"], done["ham"]["probabilities"], atol=1e-5)
    measure_recipes(path, changes, run.run_dir, rows, device="cpu", common=tiny, say=said.append)
    assert len(read_rows(rows)) == 2 and said[-1].startswith("wrong")
