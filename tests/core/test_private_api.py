"""The inside of other packages is as this package takes it to be: one test for each function.

A failure here names what a new release of that package changed.
"""

import argparse
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from kaggle_pipeline.core import private_api
from kaggle_pipeline.core.errors import PipelineError

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(300, 3))


def test_an_argument_parsers_options_are_those_of_its_groups_too():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-dir", "-r")
    parser.add_mutually_exclusive_group().add_argument("--resume", action="store_true")
    known = private_api.option_strings(parser)
    assert set(known) == {"-h", "--help", "--run-dir", "-r", "--resume"}


def compiled_network():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    network.compile(
        keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5), "mse", metrics=["mae"]
    )
    return network


def test_a_keras_optimizers_averages_are_the_means_of_the_steps():
    network = compiled_network()
    batch = np.ones((2, 2)), np.full((2, 1), 9.0)
    network.train_on_batch(*batch)
    before = [np.array(one) for one in private_api.averaged_variables(network.optimizer)]
    network.train_on_batch(*batch)
    after = private_api.averaged_variables(network.optimizer)
    assert [one.shape for one in after] == [one.shape for one in network.trainable_variables]
    for mean, old, new in zip(after, before, network.get_weights(), strict=True):
        np.testing.assert_allclose(mean, 0.5 * old + 0.5 * new, rtol=1e-6)


def test_a_keras_adams_moments_are_those_of_one_variables_gradients():
    keras = pytest.importorskip("keras")
    optimizer = keras.optimizers.Adam(beta_1=0.5, beta_2=0.75)
    variables = [keras.Variable(np.zeros(size, "float32")) for size in (2, 3)]
    optimizer.apply([np.full(2, 4.0, "float32"), np.full(3, 8.0, "float32")], variables)
    gradients, squares = private_api.adam_moments(optimizer, variables[1])
    np.testing.assert_allclose(gradients, np.full(3, 4.0))
    np.testing.assert_allclose(squares, np.full(3, 16.0))


def test_the_calls_within_a_keras_network_are_its_own_alone():
    keras = pytest.importorskip("keras")
    inputs = keras.Input((2,))
    shared = keras.layers.Dense(2)
    middle = shared(inputs)
    network = keras.Model(inputs, shared(middle))
    keras.Model(inputs, keras.layers.ReLU()(shared(inputs)))  # another one that shares the layer
    calls = private_api.calls_within(network)
    assert [call.operation for call in calls].count(shared) == 2 and len(calls) == 3
    assert any(
        call.input_tensors[0] is middle and call.output_tensors[0] is network.output
        for call in calls
        if call.operation is shared
    )


def test_all_layers_of_a_keras_network_are_those_within_its_layers_too():
    keras = pytest.importorskip("keras")
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    outer = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1)])
    found = private_api.all_layers(outer)
    assert found[0] is outer
    assert {id(inner), id(inner.layers[0]), id(outer.layers[-1])} <= {id(one) for one in found}


def test_a_keras_networks_variables_are_made_without_a_step():
    network, fitted = compiled_network(), compiled_network()
    before = network.get_weights()
    batch = np.zeros((1, 2), "float32"), np.zeros((1, 1), "float32")
    private_api.make_all_variables(network, batch)
    fitted.train_on_batch(*batch)
    for name in ("metrics_variables", "trainable_variables"):
        shapes = [[one.shape for one in getattr(net, name)] for net in (network, fitted)]
        assert shapes[0] == shapes[1] and shapes[0], name
    assert len(network.optimizer.variables) == len(fitted.optimizer.variables)
    for old, now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("outputs", [1, 3])
def test_scikit_learns_boosting_is_its_baseline_and_its_trees(outputs):
    answers = (X[:, 0] * max(outputs, 2)).astype(int)
    model = HistGradientBoostingClassifier(max_iter=1, max_leaf_nodes=2, random_state=0)
    model.fit(X, answers)
    (trees,) = private_api.boosting_nodes(model)
    baseline = private_api.boosting_baseline(model)
    assert len(trees) == len(baseline) == outputs
    raw = model.decision_function(X).reshape(len(X), -1)
    for output, nodes in enumerate(trees):
        root = nodes[0]
        left = X[:, root["feature_idx"]] <= root["num_threshold"]
        value = np.where(left, nodes[root["left"]]["value"], nodes[root["right"]]["value"])
        assert not root["is_leaf"] and nodes["is_leaf"][1:].all()
        np.testing.assert_allclose(baseline[output] + value, raw[:, output], atol=1e-9)


def test_tensorflow_says_which_devices_it_has_a_kernel_for():
    pytest.importorskip("tensorflow")
    assert "CPU" in private_api.devices_with_kernel("MatMul")
    assert private_api.devices_with_kernel("DecodeJpeg") == {"CPU"}


@pytest.mark.ci
def test_jax_compiles_a_serialised_module_for_a_topologys_device():
    pytest.importorskip("libtpu")
    code = """
        from kaggle_pipeline.preflight.compiler import describe_topology, prepare_environment
        prepare_environment("jax")
        import jax, numpy as np
        from kaggle_pipeline.core.private_api import hlo_compiler
        lowered = jax.jit(lambda x: x @ x).lower(np.ones((256, 256), "float32"))
        module = lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()
        compiled = hlo_compiler(module, describe_topology("v5e-1").devices[0])()
        memory = compiled.get_compiled_memory_stats()
        print(compiled.cost_analysis()["flops"], memory.argument_size_in_bytes)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    flops, argument = map(float, done.stdout.split())
    assert flops == pytest.approx(2 * 256**3, rel=0.01) and argument == 256 * 256 * 4


def test_uploads_of_the_greatest_size_stay_in_memory(monkeypatch):
    parsers = pytest.importorskip("starlette.formparsers")
    assert hasattr(parsers.MultiPartParser, "spool_max_size")  # before it is set
    monkeypatch.setattr(parsers.MultiPartParser, "spool_max_size", 1)
    private_api.keep_uploads_in_memory(7)
    assert parsers.MultiPartParser.spool_max_size == 7
    monkeypatch.setattr(parsers, "MultiPartParser", type("Renamed", (), {}))
    with pytest.raises(PipelineError, match="puts uploads on disk"):
        private_api.keep_uploads_in_memory(7)


@pytest.mark.ci
def test_streamlit_serves_a_page_from_this_process(tmp_path):
    pytest.importorskip("streamlit")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = tmp_path / "page.py"
    page.write_text("import streamlit, sys\nstreamlit.write(sys.argv)\n")
    code = f"""
        from pathlib import Path
        from kaggle_pipeline.core.private_api import run_streamlit, upload_bytes
        class Before:
            def __init__(self, app, word):
                self.app, self.word = app, word
            async def __call__(self, scope, receive, send):
                if scope.get("path") != "/before":
                    return await self.app(scope, receive, send)
                body = f"{{self.word}} {{upload_bytes()}}".encode()
                await send({{"type": "http.response.start", "status": 200, "headers": []}})
                await send({{"type": "http.response.body", "body": body}})
        settings = {{"server_address": "127.0.0.1", "server_port": {port},
                     "server_headless": True}}
        run_streamlit(Path({str(page)!r}), ["--run-dir", "x"], settings, Before, word="kept")
    """
    server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                health = urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/_stcore/health", timeout=2
                )
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        assert health.read() == b"ok"
        before = urllib.request.urlopen(f"http://127.0.0.1:{port}/before", timeout=120)
        assert before.read() == b"kept 0"
    finally:
        server.terminate()
        server.wait(120)
