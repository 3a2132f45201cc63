"""Tests of the minibatch steps: Keras' own, whatever the number of threads."""

import itertools

import numpy as np
import pytest

from kaggle_pipeline.models.tabular import numpy_adam
from kaggle_pipeline.models.tabular.numpy_adam import NumpyAdam

COLUMNS, HIDDEN = 5, (16, 8)


def make_weights(outputs=1, hidden=HIDDEN, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [COLUMNS, *hidden, outputs]
    return [
        array.astype(np.float32)
        for a, b in itertools.pairwise(sizes)
        for array in (rng.normal(0, 0.4, (a, b)), rng.normal(0, 0.1, b))
    ]


def make_data(rows, outputs=1, softmax=False, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.random((rows, COLUMNS), np.float32)
    y = rng.integers(0, 2, (rows, outputs))
    if softmax:
        y = np.eye(outputs)[rng.integers(0, outputs, rows)]
    return x, y.astype(np.float32)


def make(weights, **changes):
    options = {
        "softmax": False,
        "dropout": 0.0,
        "batch_size": 32,
        "learning_rate": 0.01,
        "seed": 3,
        "workers": 1,
    }
    return NumpyAdam(weights, **{**options, **changes})


def keras_twin(weights, softmax, learning_rate, hidden=HIDDEN):
    """The same network in Keras, its dropout an input: what each unit is multiplied with."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    inputs = [unit := keras.Input((COLUMNS,))]
    for width in hidden:
        inputs.append(factor := keras.Input((width,)))
        unit = layers.Multiply()([layers.Dense(width, activation="relu")(unit), factor])
    last = layers.Dense(weights[-1].size, activation="softmax" if softmax else "sigmoid")
    model = keras.Model(inputs, last(unit))
    model.set_weights(weights)
    loss = "categorical_crossentropy" if softmax else "binary_crossentropy"
    model.compile(keras.optimizers.Adam(learning_rate), loss, jit_compile=False)
    return model


@pytest.mark.parametrize(
    ("outputs", "softmax", "dropout"),
    [(1, False, 0.5), (2, False, 0.0), (4, True, 0.3)],
)
def test_each_step_is_keras_own(monkeypatch, outputs, softmax, dropout):
    """Weights after every step, with the very units dropped, and a last batch that is smaller."""
    monkeypatch.setattr(numpy_adam, "_PART_ROWS", 24)
    drawn, draw = [], numpy_adam._Part._draw_kept
    monkeypatch.setattr(
        numpy_adam._Part, "_draw_kept", lambda *a: drawn.append(draw(*a).copy()) or drawn[-1]
    )
    weights, (x, y) = make_weights(outputs), make_data(100, outputs, softmax)
    model = keras_twin(weights, softmax, 0.01)
    with make(weights, softmax=softmax, dropout=dropout, batch_size=40) as ours:
        for start in [*range(0, 100, 40)] * 3:
            rows = slice(start, start + 40)
            drawn.clear()
            said = ours.run_epoch(x[rows], y[rows], shuffle=False)
            factors = [np.ones((len(said), width), np.float32) for width in HIDDEN]
            if dropout:  # a part after the other, each the layers in turn
                factors = [np.concatenate(drawn[i::2]) / (1 - dropout) for i in range(2)]
            loss = model.train_on_batch([x[rows], *factors], y[rows])
            assert ours.loss(said, y[rows]) == pytest.approx(float(loss), abs=1e-5)
            for mine, theirs in zip(ours.weights, model.get_weights(), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-5)
        assert not np.allclose(ours.weights[0], weights[0], atol=0.05)
        whole = [np.ones((100, width), np.float32) for width in HIDDEN]
        logits = ours.logits(x)
        np.testing.assert_allclose(
            numpy_adam._probabilities(logits, softmax),
            np.asarray(model.predict_on_batch([x, *whole])),
            atol=1e-5,
        )


@pytest.mark.parametrize("hidden", [(), (6, 5, 4)])
def test_any_depth_equals_keras(hidden):
    weights, (x, y) = make_weights(hidden=hidden), make_data(50)
    model = keras_twin(weights, False, 0.01, hidden)
    with make(weights, batch_size=50) as ours:
        for _ in range(3):
            ours.run_epoch(x, y, shuffle=False)
            model.train_on_batch([x, *(np.ones((50, n), np.float32) for n in hidden)], y)
        for mine, theirs in zip(ours.weights, model.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_threads_change_no_bit_and_the_seed_every_one(monkeypatch):
    monkeypatch.setattr(numpy_adam, "_PART_ROWS", 64)
    x, y = make_data(1000)

    def train(workers, seed=3):
        with make(make_weights(), dropout=0.5, batch_size=300, workers=workers, seed=seed) as ours:
            said = [ours.run_epoch(x, y) for _ in range(3)]
            return np.concatenate([*said, *(weight.reshape(-1, 1) for weight in ours.weights)])

    alone = train(1)
    np.testing.assert_array_equal(alone, train(2))
    np.testing.assert_array_equal(alone, train(5))
    assert not np.isclose(alone, train(1, seed=4)).all()


def test_every_row_is_learned_once_an_epoch_and_answered_in_its_place():
    """With a rate of next to 0 the answers on the way are those of the weights given."""
    x, y = make_data(103)
    with make(make_weights(), learning_rate=1e-12, batch_size=10) as ours:
        np.testing.assert_allclose(ours.run_epoch(x, y), ours.logits(x), atol=1e-5)
        order, *_ = np.random.SeedSequence(3).spawn(2)
        dealt = np.random.default_rng(order)
        first, second = dealt.permutation(103), dealt.permutation(103)
        assert sorted(first) == list(range(103)) and not np.array_equal(first, second)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3, 0.123456, 0.9999])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    ours = make(make_weights(), dropout=rate, batch_size=512)
    (part,) = ours._parts
    share = np.mean([part._draw_kept(0, 512).mean() for _ in range(200)])
    n = 200 * 512 * HIDDEN[0]
    assert abs(share - (1 - rate)) < 5 * (rate * (1 - rate) / n) ** 0.5 + 1e-5
    scale = ours._scale[COLUMNS * HIDDEN[0] + HIDDEN[0]]
    assert scale * (1 - rate) == pytest.approx(1, rel=1e-5 / (1 - rate))
    np.testing.assert_array_equal(ours._scale[: COLUMNS * HIDDEN[0]], 1)


def test_parts_draw_different_units():
    ours = make(make_weights(), dropout=0.5, batch_size=2000)
    first, second = (part._draw_kept(0, 512).copy() for part in ours._parts[:2])
    assert 0.4 < (first == second).mean() < 0.6


def test_losses_equal_their_formulas_far_out():
    ours = make(make_weights())
    logits = np.array([[0.0], [80.0], [-90.0]], np.float32)
    np.testing.assert_allclose(ours.loss(logits, np.ones((3, 1))), (np.log(2) + 0 + 90) / 3)
    ours = make(make_weights(3), softmax=True)
    logits = np.array([[1000.0, 0.0, 0.0]], np.float32)
    assert ours.loss(logits, np.eye(3)[[1]]) == pytest.approx(1000)
    assert np.isfinite(numpy_adam._probabilities(np.array([[-1e4], [1e4]]), False)).all()
