"""The linear head and its vectors: what is learned, kept and refused."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from kaggle_pipeline.config.embedding import EmbeddingConfig, EncoderConfig
from kaggle_pipeline.config.experiment import BlendConfig, Experiment
from kaggle_pipeline.config.loading import parse_experiment, to_mapping
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.embedding.encoder import VIEWS, Encoder
from kaggle_pipeline.models.embedding.linear_head import fit_head
from kaggle_pipeline.models.embedding.model import EmbeddingModel
from kaggle_pipeline.models.embedding.nearest import Near, NearestPhotos
from kaggle_pipeline.models.embedding.vector_files import read_vector_file
from kaggle_pipeline.models.embedding.vector_store import VectorStore
from kaggle_pipeline.models.embedding.vector_table import VectorTable, vector_context

IDS = pd.Index([f"i{k}" for k in range(240)], name="image_id")
CONFIG = EmbeddingConfig(encoders=(EncoderConfig("file:v.npz"),))


@pytest.fixture
def rows(binary_spec):
    """Examples of 60 patients whose vectors tell the class, and these vectors."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(240, 12))
    label = (x[:, 0] - x[:, 1] + rng.normal(size=240) > 0).astype(float)
    table = pd.DataFrame({"group_id": [f"p{k % 60}" for k in range(240)], "split": "train"}, IDS)
    spec = replace(binary_spec, numeric={}, categorical={})
    table[spec.classes[0]] = label
    return table, VectorTable.build(IDS, {"a": x.astype(np.float32)}), spec


@pytest.fixture
def binary_spec():
    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC

    return SPEC


def test_a_loaded_head_predicts_what_it_did_and_holds_no_code(rows, tmp_path):
    table, vectors, spec = rows
    model = EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table, None)
    model.save(tmp_path)
    loaded = EmbeddingModel(CONFIG, spec, vectors, seed=9).load(tmp_path)
    pd.testing.assert_frame_equal(loaded.predict(table[::-1]), model.predict(table)[::-1])
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".json"}
    other = VectorTable.build(IDS, {"b": vectors.matrix})
    with pytest.raises(PipelineError, match="trained on"):
        EmbeddingModel(CONFIG, spec, other, seed=1).load(tmp_path)
    (tmp_path / "head.npz").write_bytes(b"PK")
    with pytest.raises(PipelineError, match=r"head\.npz"):
        EmbeddingModel(CONFIG, spec, vectors, seed=1).load(tmp_path)


def test_the_head_is_sklearns_ridge_with_the_chosen_penalty(rows):
    table, vectors, spec = rows
    y = table[spec.classes[0]].to_numpy(int)
    head = fit_head(vectors.matrix, y, np.arange(240) % 60 % 4, 2)
    x = (vectors.matrix - vectors.matrix.mean(0)) / vectors.matrix.std(0)
    known = LogisticRegression(C=1 / (2 * head.penalty * 240), tol=1e-8).fit(x, y)
    np.testing.assert_allclose(head.answer(vectors.matrix), known.predict_proba(x)[:, 1], atol=1e-3)
    assert head.penalty == min(head.losses, key=head.losses.get)


def test_noise_gets_a_stronger_penalty_than_a_signal():
    rng = np.random.default_rng(0)
    x, fold = rng.normal(size=(200, 30)), np.arange(200) % 4
    signal = fit_head(x, (x[:, 0] > 0).astype(int), fold, 2)
    noise = fit_head(x, rng.integers(0, 2, 200), fold, 2)
    assert noise.penalty > signal.penalty


def test_validation_rows_teach_nothing(rows):
    table, vectors, spec = rows
    held = table.iloc[200:]
    first = EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table[:200], held)
    changed = vectors.matrix.copy()
    changed[200:] = 7.0
    other = VectorTable.build(IDS, {"a": changed})
    second = EmbeddingModel(CONFIG, spec, other, seed=1).fit(table[:200], None)
    np.testing.assert_array_equal(first.heads_[0].weights, second.heads_[0].weights)


def test_three_classes_one_of_which_a_fold_lacks(rows):
    table, vectors, spec = rows
    spec = replace(spec, task="multiclass", classes=("a", "b", "c"))
    x = vectors.matrix
    label = np.where(x[:, 0] > 0, 0, 2)
    for number, name in enumerate(spec.classes):
        table[name] = (label == number).astype(float)
    model = EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table, None)
    found = model.predict(table)
    assert (found["b"] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.to_numpy().argmax(1) == label).mean() > 0.9


def test_two_classes_that_exclude_each_other_are_one_question(rows, tmp_path):
    table, vectors, binary = rows
    spec = replace(binary, task="multiclass", classes=("mel", "nev"))
    yes = table[binary.classes[0]]
    table = table.assign(mel=yes, nev=1 - yes)
    model = EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table, None)
    found = model.predict(table)
    assert list(found.columns) == ["mel", "nev"]
    np.testing.assert_allclose(found.sum(axis=1), 1)
    alone = EmbeddingModel(CONFIG, binary, vectors, seed=1).fit(table, None).predict(table)
    np.testing.assert_allclose(found["mel"], alone[binary.classes[0]], atol=1e-3)
    model.save(tmp_path)
    loaded = EmbeddingModel(CONFIG, spec, vectors, seed=1).load(tmp_path)
    pd.testing.assert_frame_equal(loaded.predict(table), found)
    with pytest.raises(PipelineError, match=r"have nev = 1\.0"):
        EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table[table["nev"] == 1], None)


def test_a_missing_label_is_left_out_of_its_question_alone(rows):
    table, vectors, spec = rows
    spec = replace(spec, task="multilabel", classes=("a", "b"))
    table["a"] = (vectors.matrix[:, 0] > 0).astype(float)
    table["b"] = (vectors.matrix[:, 1] > 0).astype(float)
    table.iloc[:50, table.columns.get_loc("a")] = np.nan
    model = EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table, None)
    found = model.predict(table)
    rest = table.iloc[50:]
    assert ((found.loc[rest.index, "a"] > 0.5) == (rest["a"] == 1)).mean() > 0.9
    table["b"] = 1.0
    with pytest.raises(PipelineError, match=r"have b = 1\.0"):
        EmbeddingModel(CONFIG, spec, vectors, seed=1).fit(table, None)


def test_the_ugly_duckling_is_the_one_unlike_its_patients_others():
    vectors = np.array([[1, 0], [1, 0.1], [0.9, 0], [0, 1], [5, 5]], np.float32)
    found = vector_context(vectors, np.array(["p", "p", "p", "p", "q"]))
    others = vectors[:3].mean(axis=0)
    cosine = vectors[3] @ others / np.linalg.norm(vectors[3]) / np.linalg.norm(others)
    assert found[3, 0] == pytest.approx(1 - cosine, abs=1e-6)
    assert found[:, 0].argmax() == 3
    assert found[4].tolist() == [0, 0, 1]


def test_the_nearest_are_by_cosine_and_one_a_patient():
    vectors = np.array([[1, 0], [2, 0.1], [0, 1], [1, 1], [-1, 0]], np.float32)
    ids = pd.Index(list("abcde"), dtype=object)
    group = pd.Series(["p", "p", "q", "r", "s"], ids)
    label = pd.Series(["mole", "mole", "melanoma", "mole", "melanoma"], ids)
    table = VectorTable.build(ids, {"one": vectors, "two": vectors * 3}, group)  # with context
    nearest = NearestPhotos(table, group, label)
    new = VectorTable.build(
        pd.Index(["new"]), {"one": np.float32([[3, 0]]), "two": np.float32([[0, 1]])}
    )
    found = nearest.find(new, count=3)["new"]
    assert [one.image_id for one in found] == ["d", "b", "c"] and found[0].label == "mole"
    assert found[0].similarity == pytest.approx(np.sqrt(0.5))  # the mean of both encoders' cosines
    asked = VectorTable(ids[:1], table.of(ids[:1]), table.parts)
    others = nearest.find(asked, other_than=group)["a"]
    assert [one.image_id for one in others] == ["d", "c", "e"]
    assert nearest.find(asked)["a"][0] == Near("a", "mole", pytest.approx(1))


def test_the_nearest_are_found_without_a_second_copy_of_the_vectors():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 512)).astype(np.float32)
    vectors[1::2] = vectors[::2]  # equally near: the first in the table
    ids = pd.Index([f"i{n}" for n in range(1500)], dtype=object)
    group = pd.Series(rng.integers(0, 400, 1500).astype(str), ids)
    table = VectorTable.build(ids, {"one": vectors, "two": vectors[:, :128]})
    tracemalloc.start()
    nearest = NearestPhotos(table, group, pd.Series("mole", ids))
    asked = VectorTable(ids[:5], table.matrix[:5], table.parts)
    found = nearest.find(asked), nearest.find(asked, other_than=group)
    assert tracemalloc.get_traced_memory()[1] < table.matrix.nbytes / 2
    tracemalloc.stop()

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    alike = unit(vectors) @ unit(vectors[:5]).T + unit(vectors[:, :128]) @ unit(vectors[:5, :128]).T
    for row, name in enumerate(ids[:5]):
        order = pd.Series(alike[:, row] / 2, ids).sort_values(ascending=False, kind="stable")
        apart = order[group[order.index] != group[name]]
        for one, rows in zip(found, (order, apart), strict=True):
            best = rows[~group[rows.index].duplicated()].iloc[:4]
            assert [near.image_id for near in one[name]] == list(best.index)
            assert [near.similarity for near in one[name]] == pytest.approx(best.tolist())


def test_files_of_three_kinds_give_the_same_vectors(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    ids = ["a", "b", "c", "d"]
    np.savez(tmp_path / "v.npz", image_id=np.array(ids), embeddings=x)
    table = pd.DataFrame(x, columns=["x", "y", "z"])
    table.insert(0, "image_name", ids)
    table.to_csv(tmp_path / "v.csv", index=False)
    pytest.importorskip("pyarrow")
    lists = pd.DataFrame({"id": ids, "vector": list(x)})
    lists.to_parquet(tmp_path / "v.parquet")
    for name in ("v.npz", "v.csv", "v.parquet"):
        found, digest = read_vector_file(tmp_path / name, pd.Index(["c", "a"]), "image_name")
        np.testing.assert_array_equal(found[:, 0], x[[2, 0]])
        assert len(digest) == 16


def test_a_file_that_cannot_be_right_is_said_in_one_line(tmp_path):
    path, wanted = tmp_path / "v.csv", pd.Index(["a", "b"])
    for content, named in {
        "image_id,x\na,1\n": "no vector of b",
        "image_id,x\na,1\nb,\n": "vector of b holds NaN",
        "image_id,x\na,1\nb,2\nb,2\n": "lists b more than once",
        "image_id,x\na,1\nb,red\n": "'x' holds text",
        "x,y\n1,2\n": "no column of ids",
    }.items():
        path.write_text(content)
        with pytest.raises(PipelineError, match=named) as error:
            read_vector_file(path, wanted, "image_name")
        assert str(path) in str(error.value)
    np.savez(tmp_path / "v.npz", image_id=np.array(["a", "b"]), v=np.zeros((3, 2)))
    with pytest.raises(PipelineError, match="2 ids"):
        read_vector_file(tmp_path / "v.npz", wanted, "image_name")
    np.savez(tmp_path / "v.npz", image_id=np.array(["a", "b"], object), v=np.zeros((2, 2)))
    with pytest.raises(PipelineError, match="as text"):
        read_vector_file(tmp_path / "v.npz", wanted, "image_name")
    pytest.importorskip("pyarrow")
    lists = pd.DataFrame({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]})
    lists.to_parquet(tmp_path / "v.parquet")
    with pytest.raises(PipelineError, match="b has 2 numbers, that of a 1"):
        read_vector_file(tmp_path / "v.parquet", wanted, "image_name")


def test_blocks_are_gone_on_with_and_joined_by_id(tmp_path):
    store, about = VectorStore(tmp_path / "e"), {"weights_sha256": "w", "library": "keras"}
    store.write_block("one", pd.Index(["a", "b"]), np.ones((2, 1, 3), np.float16), about)
    assert store.has_block("one") and not store.finished
    with pytest.raises(PipelineError, match="of weights w, now they are v"):
        VectorStore(tmp_path / "e").require_same_weights({"weights_sha256": "v"})
    store.write_block("two", pd.Index(["c"]), np.zeros((1, 1, 3), np.float16), about)
    store.join_blocks(["one", "two"], pd.Index(["c", "a", "b"]), about)
    found = store.read()
    assert found.array.dtype == np.float16 and found.about["images"] == 3
    assert found.mean(pd.Index(["b", "c"]), "e").tolist() == [[1, 1, 1], [0, 0, 0]]
    with pytest.raises(PipelineError, match="no vector of z"):
        found.mean(pd.Index(["z"]), "e")
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "encoder.json", "ids.csv", "vectors.npy", "written.json",
    ]  # fmt: skip


def test_views_are_all_eight_and_a_nan_stops():
    photo = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    encoder = Encoder(None, lambda x: x.reshape(len(x), -1), VIEWS["dihedral"], {"library": "l"})
    found = encoder.encode(photo)
    assert found.shape == (1, 8, 12)
    assert len({tuple(view) for view in found[0]}) == 8
    with pytest.raises(PipelineError, match="NaN"):
        encoder.encode(photo * np.nan)


def test_a_word_stands_for_an_encoder_and_settings_come_back():
    content = {
        "name": "n", "dataset": "siim_isic_2020", "blend": {"models": ["embedding"]},
        "embedding": {"encoders": ["keras:MobileNetV2", {"source": "file:a/b.npz", "name": "b"}]},
    }  # fmt: skip
    config = parse_experiment(content)
    assert [one.folder for one in config.embedding.encoders] == ["keras-MobileNetV2", "b"]
    assert parse_experiment(to_mapping(config)) == config
    with pytest.raises(PipelineError, match=r"embedding\.encoders"):
        Experiment("n", "siim_isic_2020", blend=BlendConfig(models=("embedding",)))
    for wrong in ("MobileNetV2", "keras:", "torchvision:resnet18"):
        with pytest.raises(PipelineError, match=r"encoders\.source"):
            EncoderConfig(wrong)
    with pytest.raises(PipelineError, match="different names"):
        EmbeddingConfig(encoders=(EncoderConfig("keras:LeNet"), EncoderConfig("keras:LeNet")))
