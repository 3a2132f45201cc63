"""Weights of timm from a hub: what is fetched is what the hub promises, or nothing is kept."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from helpers_image import tiny_config

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.models.image.backbones import timm_hub
from kaggle_pipeline.models.image.backbones.timm_hub import fetch_timm
from kaggle_pipeline.models.image.backbones.timm_names import efficientnet_places
from kaggle_pipeline.models.image.network import build_body, check_backbone


class Hub:
    """What a hub on this machine has, and how often a file was fetched."""

    def __init__(self):
        self.files, self.told, self.fetched = {}, {}, 0


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers as huggingface.co does: its hash, and a way to the file elsewhere."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            name = self.path.split("/")[2] if self.path.startswith("/timm/") else None
            if name not in state.files:
                return self.send_error(404)
            content = state.files[name]
            told = {
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)), "Location": f"/cdn/{name}",
            } | state.told  # fmt: skip
            self.send_response(302)
            for key, value in told.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def do_GET(self):
            if not self.path.startswith("/cdn/"):
                return self.do_HEAD()
            state.fetched += 1
            content = state.files[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return None

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_named_by_its_hash(hub):
    hub.files["net.in1k"] = content = b"weights" * 1000
    path = fetch_timm("timm:net.in1k")
    digest = hashlib.sha256(content).hexdigest()
    assert path.name == f"timm-net.in1k-{digest[:8]}.safetensors" and path.read_bytes() == content
    assert fetch_timm("timm:net.in1k") == path and hub.fetched == 1
    path.write_bytes(b"other")
    with pytest.raises(PipelineError, match="is damaged; delete it"):
        fetch_timm("timm:net.in1k")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"X-Linked-Etag": "0" * 64}, "is not the 7,000 bytes of SHA-256 000"),
        ({"X-Linked-Size": "6999"}, "is not the 6,999 bytes"),
        ({"X-Linked-Size": "7001"}, "is not the 7,001 bytes"),
        ({"X-Linked-Etag": '"abc"'}, "tells no SHA-256"),
        ({"X-Linked-Size": str(timm_hub.LARGEST_BYTES + 1)}, "too large for weights"),
    ],
)
def test_what_is_not_as_promised_is_not_kept(hub, tmp_path, told, says):
    hub.files["net"] = b"weights" * 1000
    hub.told = told
    with pytest.raises(PipelineError, match=says):
        fetch_timm("timm:net")
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_what_the_hub_lacks_and_names_that_are_none_are_said(hub, monkeypatch):
    with pytest.raises(PipelineError, match="the hub has none"):
        fetch_timm("timm:unknown")
    with pytest.raises(PipelineError, match="names no weights of timm"):
        fetch_timm("timm:../../other/model")
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(PipelineError, match=r"HF_ENDPOINT=hf-mirror\.com is no address"):
        fetch_timm("timm:net")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PipelineError, match=r"cannot be downloaded .* with no internet name a"):
        fetch_timm("timm:net")
    with pytest.raises(PipelineError, match="PyTorch file, which MobileNetV2 cannot take"):
        check_backbone(tiny_config(backbone="MobileNetV2", weights="timm:net"))


@pytest.mark.ci
def test_a_network_takes_what_was_fetched(hub, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    source = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    rng, tensors = np.random.default_rng(0), {}
    for key, (variable, axes) in efficientnet_places(source).items():
        shape = np.empty(variable.shape).transpose(np.argsort(axes)).shape
        tensors[key] = rng.uniform(0.5, 1, shape).astype(np.float32)
    save_file(tensors, tmp_path / "made.safetensors")
    hub.files["tf_efficientnet_b0.ns_jft_in1k"] = (tmp_path / "made.safetensors").read_bytes()
    config = tiny_config(
        backbone="EfficientNetB0", backbone_options={},
        weights="timm:tf_efficientnet_b0.ns_jft_in1k",
    )  # fmt: skip
    body = build_body(config, load_published=True)
    kernel = next(layer for layer in body.layers if isinstance(layer, keras.Model)).get_layer(
        "stem_conv"
    ).kernel  # fmt: skip
    found = np.transpose(keras.ops.convert_to_numpy(kernel), (3, 2, 0, 1))
    np.testing.assert_array_equal(found, tensors["conv_stem.weight"])
