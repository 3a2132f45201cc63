"""Tests of weights from PyTorch: both kinds of file, every mistake in one, the published ones."""

import hashlib
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers_image import tiny_config

from kaggle_pipeline.core.errors import PipelineError

pytest.importorskip("tensorflow")

import keras
from keras import layers

from kaggle_pipeline.models.image.backbones import torch_weights
from kaggle_pipeline.models.image.backbones.registry import get_backbone
from kaggle_pipeline.models.image.backbones.resnets import RESNETS, build_resnet
from kaggle_pipeline.models.image.backbones.torch_weights import fetch_published, load_torch_weights
from kaggle_pipeline.models.image.network import build_body, check_backbone


def small_model(top=False):
    """A model of each sort of layer, named as ours are."""
    inputs = x = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, (3, 2), groups=2, use_bias=False, name="layer1_0_conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    if top:
        x = layers.Dense(3, name="fc")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x, name="small")


def small_state(top=False):
    """What PyTorch would have of it; every array of another shape or content."""
    rng = np.random.default_rng(0)
    state = {"layer1.0.conv1.weight": rng.normal(size=(6, 2, 3, 2))}
    for key in ("weight", "bias", "running_mean", "running_var"):
        state[f"bn1.{key}"] = rng.uniform(1, 2, 6)
    if top:
        state |= {"fc.weight": rng.normal(size=(3, 6)), "fc.bias": rng.normal(size=3)}
    return {key: value.astype(np.float32) for key, value in state.items()}


def write(path, state):
    """Write arrays and tensors as the ending of ``path`` says."""
    if path.suffix == ".safetensors":
        save_file = pytest.importorskip("safetensors.numpy").save_file
        save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, path)
    else:
        torch = pytest.importorskip("torch")
        torch.save(as_tensors(state), path)
    return path


def as_tensors(value):
    torch = pytest.importorskip("torch")
    if isinstance(value, dict):
        return {key: as_tensors(inner) for key, inner in value.items()}
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def weights(model):
    return [np.array(weight.numpy()) for weight in model.weights]


def assert_loaded(model, state):
    conv, norm = model.get_layer("layer1_0_conv1"), model.get_layer("bn1")
    wanted = state["layer1.0.conv1.weight"]
    for index in np.ndindex(wanted.shape):
        outgoing, incoming, row, column = index
        assert conv.kernel.numpy()[row, column, incoming, outgoing] == wanted[index]
    np.testing.assert_array_equal(norm.gamma, state["bn1.weight"])
    np.testing.assert_array_equal(norm.beta, state["bn1.bias"])
    np.testing.assert_array_equal(norm.moving_mean, state["bn1.running_mean"])
    np.testing.assert_array_equal(norm.moving_variance, state["bn1.running_var"])


def refused(model, path):
    """The error's one line; the model must be as it was."""
    before = weights(model)
    with pytest.raises(PipelineError) as error:
        load_torch_weights(model, path)
    for one, other in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(one, other)
    message = str(error.value)
    assert message.startswith("image.weights: ") and "\n" not in message
    assert str(path) in message
    return message


both_kinds = pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])


class TestLoading:
    """What fits is read."""

    @both_kinds
    @pytest.mark.parametrize("top", [False, True])
    def test_each_array_is_where_it_belongs(self, tmp_path, ending, top):
        state = small_state(top)
        model = small_model(top)
        load_torch_weights(model, write(tmp_path / f"small{ending}", state))
        assert_loaded(model, state)
        if top:
            np.testing.assert_array_equal(model.get_layer("fc").kernel, state["fc.weight"].T)
            np.testing.assert_array_equal(model.get_layer("fc").bias, state["fc.bias"])

    @both_kinds
    def test_the_top_the_counters_and_a_prefix_do_not_matter(self, tmp_path, ending):
        state = small_state(top=True) | {"bn1.num_batches_tracked": np.array(7)}
        wrapped = {f"module.{key}": value for key, value in state.items()}
        model = small_model()
        load_torch_weights(model, write(tmp_path / f"small{ending}", wrapped))
        assert_loaded(model, state)

    @pytest.mark.parametrize("name", ["state_dict", "model"])
    def test_a_checkpoint_holds_it_among_other_things(self, tmp_path, name):
        checkpoint = {"epoch": 3, name: small_state(), "optimizer": {"lr": 0.1}}
        model = small_model()
        load_torch_weights(model, write(tmp_path / "small.pth", checkpoint))
        assert_loaded(model, small_state())

    @pytest.mark.parametrize("ending", [".safetensors", ".pth"])
    @pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
    def test_other_precisions_become_float32(self, tmp_path, ending, kind):
        torch = pytest.importorskip("torch")
        tensors = {k: v.to(getattr(torch, kind)) for k, v in as_tensors(small_state()).items()}
        path = tmp_path / f"small{ending}"
        if ending == ".pth":
            torch.save(tensors, path)
        else:
            pytest.importorskip("safetensors.torch").save_file(tensors, path)
        model = small_model()
        load_torch_weights(model, path)
        assert_loaded(model, {key: value.float().numpy() for key, value in tensors.items()})


class TestMistakes:
    """Each is one line that names file and key; nothing is assigned."""

    @both_kinds
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"bn1.bias": None},
                r"lacks bn1\.bias \(it holds bn1\.running_mean\); give a file of small",
            ),
            ({"bn1.bias": None, "bn1.weight": None}, r"lacks bn1\.weight and 1 more"),
            ({"bn2.bias": np.ones(6)}, r"has bn2\.bias, which small has not"),
            ({"fc2.bias": np.ones(6), "fb": np.ones(1)}, r"has fb and 1 more, which small"),
            ({"bn1.bias": np.ones(5)}, r"bn1\.bias of shape \(5,\); it must be \(6,\)"),
            (
                {"layer1.0.conv1.weight": np.ones((3, 2, 2, 6))},
                r"conv1\.weight of shape \(3, 2, 2, 6\); it must be \(6, 2, 3, 2\)",
            ),
            ({"bn1.weight": np.full(6, np.nan)}, r"bn1\.weight with values that are not finite"),
            ({"bn1.bias": np.full(6, 1e300)}, r"bn1\.bias with values that are not finite"),
            ({"bn1.running_var": np.full(6, -1.0)}, r"bn1\.running_var with a variance below zero"),
            (
                {"bn1.running_mean": np.ones(6, np.int64)},
                r"running_mean of (torch\.)?int64, not of",
            ),
        ],
    )
    def test_keys_shapes_and_values(self, tmp_path, ending, changes, said):
        state = {k: v for k, v in (small_state() | changes).items() if v is not None}
        path = write(tmp_path / f"small{ending}", state)
        message = refused(small_model(), path)
        assert re.search(said, message), message

    @both_kinds
    @pytest.mark.parametrize("share", [0, 0.5, 0.95])
    def test_a_truncated_file(self, tmp_path, ending, share):
        path = write(tmp_path / f"small{ending}", small_state())
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        assert "is damaged or no" in refused(small_model(), path)

    @both_kinds
    def test_a_file_of_something_else(self, tmp_path, ending):
        if ending != ".safetensors":
            pytest.importorskip("torch")
        path = tmp_path / f"small{ending}"
        path.write_text("<html>404</html>")
        assert "is damaged or no" in refused(small_model(), path)

    def test_code_in_a_file_is_never_run(self, tmp_path):
        torch = pytest.importorskip("torch")
        marker = tmp_path / "ran"

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        path = tmp_path / "trap.pth"
        torch.save(as_tensors(small_state()) | {"trap": Trap()}, path)
        message = refused(small_model(), path)
        assert "mkdir" in message and "state_dict() alone" in message
        assert "weights_only" not in message  # PyTorch's own words advise to run it
        assert not marker.exists()
        torch.load(path, weights_only=False)
        assert marker.exists()  # so the trap was a real one

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ([1, 2], "holds a list, not a state dict"),
            ({"epoch": 3, "net": small_state()}, "has epoch, a int and no tensor"),
            ({}, r"lacks layer1\.0\.conv1\.weight and 4 more \(it is empty\)"),
        ],
    )
    def test_tensors_in_the_wrong_place(self, tmp_path, content, said):
        message = refused(small_model(), write(tmp_path / "odd.pth", content))
        assert re.search(said, message), message

    @pytest.mark.parametrize(
        ("ending", "package"), [(".safetensors", "safetensors"), (".pth", "torch")]
    )
    def test_a_missing_package(self, tmp_path, monkeypatch, ending, package):
        path = write(tmp_path / f"small{ending}", small_state())
        monkeypatch.setitem(sys.modules, package, None)
        message = refused(small_model(), path)
        assert f"pip install {package}" in message
        assert (".safetensors elsewhere" in message) == (package == "torch")

    def test_a_missing_file_and_an_unknown_ending(self, tmp_path):
        assert "does not exist" in refused(small_model(), tmp_path / "nowhere.pth")
        path = tmp_path / "small.ckpt"
        path.write_bytes(b"")
        assert "must end with .safetensors, .pth, .pt" in refused(small_model(), path)

    def test_a_network_that_no_pytorch_file_fits(self, tmp_path):
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, name="depth")])
        path = write(tmp_path / "small.pth", small_state())
        with pytest.raises(PipelineError, match="has the layer depth, which no residual network"):
            load_torch_weights(model, path)

    def test_a_file_of_another_depth(self, tmp_path):
        """Its first 0.6 million weights would fit."""
        pytest.importorskip("torch")
        from helpers_torch import Twin

        path = write(tmp_path / "resnet34.pth", dict(Twin("resnet34").state_dict()))
        message = refused(build_resnet("resnet18", (32, 32, 3)), path)
        assert re.search(r"has layer1\.2\.\S+ and \d+ more, which resnet18 has not", message)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A PyTorch of our own: ``resnet18`` is there, and what was asked of Keras is noted."""
    pytest.importorskip("torch")
    from helpers_torch import random_twin

    path = write(tmp_path / "resnet18.pth", dict(random_twin("resnet18").state_dict()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    asked = []

    def get_file(fname, origin, **options):
        asked.append((fname, origin))
        return str(path)

    url = f"https://download.pytorch.org/models/resnet18-{digest[:8]}.pth"
    monkeypatch.setitem(RESNETS, "resnet18", replace(RESNETS["resnet18"], url=url))
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    return path, url, asked


class TestPublished:
    """torchvision's files; nothing is downloaded here."""

    def test_the_addresses_are_torchvisions(self):
        names = [
            kind.url.removeprefix("https://download.pytorch.org/models/")
            for kind in RESNETS.values()
        ]
        assert names == [
            "resnet18-f37072fd.pth",
            "resnet34-b627a593.pth",
            "resnet50-0676ba61.pth",
            "resnet101-63fe2227.pth",
            "resnet152-394f9c45.pth",
            "resnext50_32x4d-7cdf4587.pth",
        ]

    def test_a_file_whose_digest_fits_its_name_is_taken(self, site):
        path, url, asked = site
        assert fetch_published("resnet18") == path
        assert asked == [(url.rpartition("/")[2], url)]

    def test_a_damaged_file_is_named(self, site):
        path, url, _ = site
        path.write_bytes(path.read_bytes() + b"!")
        wanted = url[-12:-4]
        with pytest.raises(PipelineError, match=rf"{path} is damaged.*not {wanted}; delete it"):
            fetch_published("resnet18")

    def test_no_network_is_one_line(self, monkeypatch):
        pytest.importorskip("torch")

        def get_file(*_, **__):
            raise Exception("URL fetch failure on ...\nmore")

        monkeypatch.setattr(keras.utils, "get_file", get_file)
        with pytest.raises(PipelineError) as error:
            build_body(tiny_resnet(weights="imagenet"), load_published=True)
        message = str(error.value)
        assert "resnet18-f37072fd.pth cannot be downloaded (URL fetch failure on ...)" in message
        assert "put the path" in message and "image.weights" in message and "\n" not in message

    def test_without_torch_nothing_is_downloaded(self, site, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(PipelineError, match="pip install torch"):
            fetch_published("resnet18")
        assert not site[2]

    def test_an_unknown_network_gives_the_nearest(self):
        with pytest.raises(PipelineError, match=r"no 'resnet19'.*mean 'resnet18'"):
            fetch_published("resnet19")


def tiny_resnet(**changes):
    return tiny_config(backbone="resnet18", backbone_options={}, **changes)


class TestExperiment:
    """``image.weights`` of an experiment."""

    def assert_twins(self, body):
        """Bytes in, and the same scaling, features and pooling as PyTorch's."""
        import torch
        from helpers_torch import random_twin

        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        scaled = (images / 255 - mean) / deviation
        tensor = torch.from_numpy(np.moveaxis(scaled, -1, 1).astype(np.float32))
        wanted = random_twin("resnet18").features(tensor).mean((2, 3)).detach().numpy()
        assert np.ptp(wanted, axis=0).max() > 0.1
        np.testing.assert_allclose(body(images), wanted, atol=1e-4)

    def test_imagenet_is_torchvisions_file(self, site):
        self.assert_twins(build_body(tiny_resnet(weights="imagenet"), load_published=True))

    def test_a_file_of_ones_own(self, site):
        config = tiny_resnet(weights=str(site[0]))
        check_backbone(config)
        self.assert_twins(build_body(config, load_published=True))
        assert not site[2]  # nothing was downloaded

    def test_the_check_downloads_what_the_first_fold_would(self, site):
        check_backbone(tiny_resnet(weights="imagenet"))
        assert site[2]

    def test_nothing_is_read_where_a_trained_run_will_be_loaded(self, site):
        for weights in ("imagenet", str(site[0])):
            body = build_body(tiny_resnet(weights=weights), load_published=False)
            gamma = body.get_layer("resnet18").get_layer("bn1").gamma
            np.testing.assert_array_equal(gamma, 1)
        assert not site[2]

    @pytest.mark.parametrize("name", ["LeNet", "ResNet50"])
    @pytest.mark.parametrize("ending", [".pth", ".safetensors"])
    def test_other_backbones_take_no_pytorch_file(self, tmp_path, name, ending):
        path = tmp_path / f"small{ending}"
        path.write_bytes(b"")
        config = tiny_config(backbone=name, backbone_options={}, weights=str(path))
        for check in (check_backbone, lambda c: build_body(c, load_published=True)):
            with pytest.raises(PipelineError, match=rf"{path} is a PyTorch file, which {name}"):
                check(config)

    @pytest.mark.parametrize("weights", ["imagenet", "file"])
    def test_a_missing_package_is_told_before_anything_is_built(
        self, tmp_path, monkeypatch, weights
    ):
        path = tmp_path / "small.pth"
        path.write_bytes(b"")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(PipelineError, match="pip install torch"):
            check_backbone(tiny_resnet(weights=weights if weights == "imagenet" else str(path)))

    def test_a_backbone_builds_with_no_other_weights(self):
        with pytest.raises(PipelineError, match="resnet18 has imagenet's weights, not 'places'"):
            get_backbone("resnet18").build(input_shape=(32, 32, 3), weights="places")


def test_a_pytorch_that_runs_what_it_reads_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_weights.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch_weights.importlib.metadata, "version", lambda name: "2.5.1+cpu")
    with pytest.raises(PipelineError, match=r"PyTorch 2\.5 .*CVE-2025-32434.*torch>=2\.6"):
        torch_weights.check_library(tmp_path / "resnet18.pth")
    torch_weights.check_library(tmp_path / "resnet18.safetensors")
    monkeypatch.setattr(torch_weights.importlib.metadata, "version", lambda name: "2.13.0")
    torch_weights.check_library(tmp_path / "resnet18.pth")
