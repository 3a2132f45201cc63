"""Tests of the residual networks: published sizes, and one by one against a PyTorch twin."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from kaggle_pipeline.core.errors import PipelineError

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from kaggle_pipeline.models.image.backbones.resnets import RESNETS, build_resnet  # noqa: E402
from kaggle_pipeline.models.image.backbones.torch_weights import load_torch_weights  # noqa: E402

PUBLISHED = {  # torchvision's documentation, `num_params` of each IMAGENET1K_V1
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
}
HEIGHT, WIDTH = 64, 50  # even sides tell PyTorch's padding from TensorFlow's; 50 becomes odd below
EXACT = 1e-10  # of the largest value, in float64


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.ci] * (name in ("resnet101", "resnet152")))
        for name in PUBLISHED
    ],
)
def test_parameters_with_the_top_are_those_published(name):
    model = build_resnet(name, (32, 32, 3), include_top=True)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == PUBLISHED[name] == RESNETS[name].parameters
    assert model.output_shape == (None, 1000)


def test_the_top_may_have_another_width():
    model = build_resnet("resnet18", (32, 32, 3), include_top=True, classes=7)
    assert model.output_shape == (None, 7)


@pytest.mark.parametrize(
    ("shape", "features"),
    [((224, 224), (7, 7)), ((64, 50), (2, 2)), ((65, 97), (3, 4)), ((31, 32), (1, 1))],
)
def test_sides_are_divided_by_32_and_rounded_up(shape, features):
    model = build_resnet("resnet18", (*shape, 3))
    assert model.output_shape == (None, *features, 512)


def test_an_unknown_network_gives_the_nearest():
    with pytest.raises(PipelineError, match=r"network 'resnet19'.*mean 'resnet18'"):
        build_resnet("resnet19", (32, 32, 3))


def test_a_grouped_convolution_trains_and_predicts():
    """TensorFlow has none on a CPU; Keras compiles them."""
    keras.utils.set_random_seed(0)
    body = build_resnet("resnext50_32x4d", (32, 32, 3))
    before = body.get_layer("layer1_0_conv2").kernel.numpy()
    # One grouped convolution is enough, since compiling takes its time; the twin has them all.
    x = keras.layers.GlobalAveragePooling2D()(body.get_layer("layer1_0_out").output)
    model = keras.Model(body.input, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile("sgd", "binary_crossentropy")
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    history = model.fit(images, np.array([0, 1, 0, 1]), batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.abs(body.get_layer("layer1_0_conv2").kernel.numpy() - before).max() > 0
    answers = model.predict(images, batch_size=3, verbose=0)  # a last partial batch
    assert answers.shape == (4, 1) and np.isfinite(answers).all()


@contextmanager
def float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[1])
    keras.config.set_dtype_policy(before[0])


TWINS = [
    "resnet18",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet34", "resnet50", "resnext50_32x4d")
    ),
]


@pytest.fixture(scope="module", params=TWINS)
def twins(request, tmp_path_factory):
    """The same random network in PyTorch and in Keras, loaded from a .pth, and images.

    In float64, so that what differs is not rounding: a ReLU that is near zero, or a batch of 16
    numbers to normalise by, makes 1e-7 to 1e-3 in fifty layers of float32.
    """
    torch = pytest.importorskip("torch")
    from helpers_torch import random_twin

    twin = random_twin(request.param)
    path = tmp_path_factory.mktemp(request.param) / "twin.pth"
    torch.save(twin.state_dict(), path)
    with float64():
        model = build_resnet(request.param, (HEIGHT, WIDTH, 3))
    load_torch_weights(model, path)
    images = np.random.default_rng(0).normal(size=(4, HEIGHT, WIDTH, 3))
    channels = model.output_shape[-1]
    weights = np.random.default_rng(1).normal(size=(4, 2, 2, channels))
    return SimpleNamespace(
        name=request.param,
        twin=twin.double(),
        model=model,
        images=images,
        weights=weights,
        folder=path.parent,
        variance=model.get_layer("bn1").moving_variance.numpy(),
    )


def channels_first(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def deviation(found, wanted):
    """Largest difference as a share of the largest value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype == np.float64
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def in_pytorch(twins, training):
    """Features and the gradients of their weighted sum: of images, of the first and last kernel."""
    twins.twin.train(training).zero_grad()
    images = channels_first(twins.images).requires_grad_()
    features = twins.twin.features(images)
    (features * channels_first(twins.weights)).sum().backward()
    last = [m for m in twins.twin.layer4.modules() if type(m).__name__ == "Conv2d"][-1]
    kernels = [twins.twin.conv1.weight.grad, last.weight.grad]
    gradients = [kernel.permute(2, 3, 1, 0).numpy() for kernel in kernels]
    return channels_last(features), [channels_last(images.grad), *gradients]


def in_keras(twins, training):
    convs = [la for la in twins.model.layers if type(la) is keras.layers.Conv2D]
    # The shortcut's convolution stands before the block's own ones, so the last is the block's.
    kernels = [convs[0].kernel.value, convs[-1].kernel.value]
    images = tf.constant(twins.images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = twins.model(images, training=training)
        loss = tf.reduce_sum(features * twins.weights)
    return features.numpy(), [np.asarray(one) for one in tape.gradient(loss, [images, *kernels])]


class TestTwin:
    """Same weights, same answers. The order matters: training moves the statistics."""

    def test_a_state_dict_has_a_layer_for_each_key(self, twins):
        modules = {key.rpartition(".")[0] for key in twins.twin.state_dict()} - {"fc"}
        layers = {la.name.replace("_", ".") for la in twins.model.layers if la.weights}
        assert modules == layers

    def test_same_features_from_safetensors_with_the_top(self, twins):
        save_file = pytest.importorskip("safetensors.torch").save_file
        path = twins.folder / "twin.safetensors"
        save_file(twins.twin.state_dict(), path)
        model = build_resnet(twins.name, (HEIGHT, WIDTH, 3), include_top=True)
        load_torch_weights(model, path)
        logits = twins.twin.eval()(channels_first(twins.images)).detach().numpy()
        assert np.ptp(logits, axis=0).max() > 0.1  # images do differ
        found = model(twins.images.astype(np.float32), training=False)
        np.testing.assert_allclose(found, logits, atol=1e-4)

    def test_same_features_and_gradients(self, twins):
        wanted, wanted_gradients = in_pytorch(twins, training=False)
        found, gradients = in_keras(twins, training=False)
        assert np.ptp(wanted, axis=0).max() > 0.1  # images do differ
        assert deviation(found, wanted) < EXACT
        for one, other in zip(gradients, wanted_gradients, strict=True):
            assert np.abs(other).max() > 1e-3
            assert deviation(one, other) < EXACT

    def test_same_features_gradients_and_statistics_in_training(self, twins):
        wanted, wanted_gradients = in_pytorch(twins, training=True)
        found, gradients = in_keras(twins, training=True)
        assert deviation(found, wanted) < EXACT
        for one, other in zip(gradients, wanted_gradients, strict=True):
            assert deviation(one, other) < EXACT
        state = twins.twin.state_dict()
        for layer in twins.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                mean = state[layer.name.replace("_", ".") + ".running_mean"]
                assert deviation(layer.moving_mean, mean) < EXACT
        # PyTorch adds a tenth of this batch's unbiased variance, Keras of its biased one.
        count = len(twins.images) * (HEIGHT // 2) * (WIDTH // 2)
        moved = twins.model.get_layer("bn1").moving_variance.numpy() - 0.9 * twins.variance
        unbiased = 0.9 * twins.variance + moved * count / (count - 1)
        assert deviation(unbiased, state["bn1.running_var"]) < EXACT
