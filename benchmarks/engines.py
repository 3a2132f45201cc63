"""The engines that ``benchmarks/step`` compares; each runs in a process that loads no other.

In: a :class:`Load`. Out: facts, told one by one: what it is doing, the seconds of the first step,
images a second, peak memory. All do the same work: the same network with random weights, all of its
layers trained by AdamW, one answer a photo, binary cross-entropy; random photos, uint8 from the
host's memory with every step, scaled on the device. Mixed precision is bfloat16 where a GPU has it.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Turns
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.environment import peak_memory_mb
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.private_api import all_layers
from kaggle_pipeline.datasets import get_spec

PEERS = {
    "EfficientNetB4": "tf_efficientnet_b4",
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionResNetV2Merged": "inception_resnet_v2",
    "MobileNetV2": "mobilenetv2_100",
    "ResNet50": "resnet50",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnext50_32x4d": "resnext50_32x4d",
}
"""timm's name of the same network."""
_TIMINGS = 3
"""Of a rate; the middle one counts: on a CPU a moment's other work halved a single one."""
Tell = Callable[..., None]


@dataclass(frozen=True)
class Load:
    """What every engine does.

    Attributes
    ----------
    backbone : str
    image_size_px, batch_size : int
    device : {"cpu", "gpu"}
    steps : int
        Timed ones, after a first that compiles; 0: none.
    peak_tflops : float or None
        Of the device, to give the share that training reaches.
    seconds : float
        An engine is ended after so many.
    predicting : bool
        Time prediction too.
    turns : str or None
        A file for :class:`~benchmarks.turns.Turns`.
    """

    backbone: str
    image_size_px: int
    batch_size: int
    device: str = "cpu"
    steps: int = 6
    peak_tflops: float | None = None
    seconds: float = 900.0
    predicting: bool = True
    turns: str | None = None

    @property
    def config(self) -> ImageConfig:
        """Return the image model's settings."""
        return ImageConfig(
            backbone=self.backbone, weights=None, image_size_px=self.image_size_px,
            batch_size=self.batch_size, mixed_precision=self.device != "cpu",
        )  # fmt: skip


def time_keras(backend: str, load: Load, tell: Tell) -> None:
    """Tell what Keras on ``backend`` does.

    Raises
    ------
    PipelineError
        If the device is missing.
    """
    tell(doing="starting")
    turns = Turns(Path(load.turns) if load.turns else None)
    os.environ["KERAS_BACKEND"] = backend
    if load.device == "cpu":  # else JAX looks for a TPU where its library lies, and says a page
        os.environ["JAX_PLATFORMS"] = "cpu"
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(load.device)
    from kaggle_pipeline.hardware.compile_log import compile_log
    from kaggle_pipeline.preflight.timing import StepTimer

    image, spec = load.config, get_spec("siim_isic_2020")
    tell(note=device.describe(mixed_precision=image.mixed_precision))
    log = compile_log() if backend == "jax" else None
    tell(doing="building")
    started = time.perf_counter()
    timer = StepTimer(image, spec, device, max(1, load.steps))
    tell(build_seconds=round(time.perf_counter() - started, 2))
    tell(gflop=round(forward_gflop(timer.network), 2), doing="compiling the first step")
    tell(first_seconds=round(timer.seconds(1), 2))
    if log:
        tell(compile_log=log.describe())
    predict = None
    if load.predicting:
        tell(doing="compiling the first prediction")
        predict = _keras_prediction(image, spec, device, timer.batches)
        predict(1)
    if not load.steps:
        return
    tell(doing="waiting for its turn")
    with turns.alone():
        tell(doing="training")
        timer.seconds(1)
        photos = timer.batch * load.steps
        tell(train=_rate(photos, partial(timer.seconds, load.steps)), peak_mb=_peak_mb(device))
        if predict:
            tell(doing="predicting")
            tell(predict=_rate(photos, partial(_seconds, partial(predict, load.steps))))


def _rate(photos: int, timed: Callable[[], float]) -> float:
    """Return photos a second, of the middle one of several timings."""
    return round(photos / statistics.median(timed() for _ in range(_TIMINGS)), 1)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def time_products(load: Load, tell: Tell) -> None:
    """Tell how many products of matrices NumPy makes a second: how fast the processor is now.

    A peer that is always installed, for :mod:`benchmarks.compare`; no rival.
    """
    tell(doing="multiplying", note="NumPy, products of 1024 × 1024 float32 a second: no network")
    matrix = np.random.default_rng(0).random((1024, 1024), np.float32)
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(8):
            matrix @ matrix
        rates.append(8 / (time.perf_counter() - started))
    tell(train=round(float(np.median(rates)), 1))


def _keras_prediction(
    image: ImageConfig, spec: Any, device: Any, batches: list
) -> Callable[[int], None]:
    """Return what predicts so many batches, as the predictor of a run does."""
    from kaggle_pipeline.models.image.inference.predictor import fused_on_cpu
    from kaggle_pipeline.models.image.network import build_network

    with device.scope(mixed_precision=image.mixed_precision):
        network = fused_on_cpu(build_network(image, spec, load_published=False), device)
        network.compile(jit_compile=device.jit_compile)
    images = [batch[0] for batch in batches]

    def predict(count: int) -> None:
        with device.scope(mixed_precision=image.mixed_precision, building=False):
            stream = ((one,) for one in itertools.cycle(images))
            network.predict(stream, steps=count, verbose=0)

    return predict


def _peak_mb(device: Any) -> float:
    """Return the most memory that the first device has held, in MiB; on a CPU the process."""
    if device.kind == "cpu":
        return round(peak_memory_mb() or float("nan"))
    if device.backend == "jax":
        import jax

        held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    else:
        import tensorflow as tf

        held = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return float("nan") if held is None else round(held / 2**20)


def forward_gflop(network: Any) -> float:
    """Return the arithmetic of one image's way through a Keras network, in 10^9.

    Two for every weight of a convolution or a dense layer and every place where it is used. The
    rest (normalisation, activation, pooling) is some percent, and left out by common use.
    """
    total = 0
    for layer in all_layers(network):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            shape = layer.output.shape  # (batch, rows, columns, channels) or (batch, channels)
            total += 2 * int(np.prod(kernel.shape)) * int(np.prod(shape[1:-1]))
    return total / 1e9


def time_torch(load: Load, tell: Tell, *, compiled: bool) -> None:
    """Tell what PyTorch does, eager or compiled, channels last.

    Raises
    ------
    PipelineError
        If there is no twin of the network, or no GPU where one was asked for.
    """
    tell(doing="starting")
    turns = Turns(Path(load.turns) if load.turns else None)
    import torch

    if load.backbone not in PEERS:
        raise PipelineError(f"no PyTorch twin of {load.backbone}")

    on_gpu = load.device == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise PipelineError("PyTorch sees no GPU")
    place = torch.device("cuda" if on_gpu else "cpu")
    mixed = on_gpu and torch.cuda.is_bf16_supported()
    tell(
        note=f"PyTorch {torch.__version__}, channels_last" + (", bfloat16" if mixed else "")
        + (", torch.compile" if compiled else ""),
        doing="building",
    )  # fmt: skip
    step = _TorchStep(load, place, mixed, compiled)
    tell(doing="compiling the first step")
    tell(first_seconds=round(step.seconds(step.train, 1), 2))
    if load.predicting:
        tell(doing="compiling the first prediction")
        step.seconds(step.predict, 1)
    if not load.steps:
        return
    tell(doing="waiting for its turn")
    with turns.alone():
        total = load.batch_size * load.steps
        tell(doing="training")
        step.seconds(step.train, 2)
        timed = partial(step.seconds, step.train, load.steps)
        tell(train=_rate(total, timed), peak_mb=step.peak_mb())
        if load.predicting:
            tell(doing="predicting")
            tell(predict=_rate(total, partial(step.seconds, step.predict, load.steps)))


class _TorchStep:
    """timm's network with what trains it."""

    def __init__(self, load: Load, place: Any, mixed: bool, compiled: bool) -> None:
        import timm
        import torch

        torch.manual_seed(0)
        self._torch, self._place, self._mixed = torch, place, mixed
        network = timm.create_model(
            PEERS[load.backbone], num_classes=1, drop_rate=load.config.dropout
        )
        self._network = network.to(place, memory_format=torch.channels_last)
        self._run = torch.compile(self._network) if compiled else self._network
        named = dict(self._network.named_parameters())
        decayed = [one for one in named.values() if one.ndim > 1]
        kept = [one for one in named.values() if one.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": kept, "weight_decay": 0.0}],
            lr=load.config.learning_rate, weight_decay=load.config.weight_decay,
        )  # fmt: skip
        rng, side = np.random.default_rng(0), load.image_size_px
        shape = (load.batch_size, side, side, 3)
        batches = [torch.from_numpy(rng.integers(0, 256, shape, np.uint8)) for _ in range(2)]
        if place.type == "cuda":  # as its DataLoader gives them with pin_memory
            batches = [one.pin_memory() for one in batches]
            torch.backends.cudnn.benchmark = True
        self._batches = itertools.cycle(batches)
        self._targets = torch.ones((load.batch_size, 1), device=place)

    def _images(self) -> Any:
        pixels = next(self._batches).to(self._place, non_blocking=True)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # in memory still channels last

    def _precision(self) -> Any:
        return self._torch.autocast(self._place.type, self._torch.bfloat16, enabled=self._mixed)

    def train(self) -> None:
        """Make one training step."""
        self._network.train()
        self._optimizer.zero_grad(set_to_none=True)
        with self._precision():
            answers = self._run(self._images())
        loss = self._torch.nn.functional.binary_cross_entropy_with_logits(
            answers.float(), self._targets
        )
        loss.backward()
        self._optimizer.step()

    def predict(self) -> None:
        """Predict one batch."""
        self._network.eval()
        with self._torch.inference_mode(), self._precision():
            self._run(self._images()).float().cpu()

    def seconds(self, step: Callable[[], None], count: int) -> float:
        """Return how long so many steps take, the device's last one included."""
        started = time.perf_counter()
        for _ in range(count):
            step()
        if self._place.type == "cuda":
            self._torch.cuda.synchronize()
        return time.perf_counter() - started

    def peak_mb(self) -> float:
        """Return the most memory that the device has held, in MiB; on a CPU the process."""
        if self._place.type == "cuda":
            return round(self._torch.cuda.max_memory_allocated() / 2**20)
        return round(peak_memory_mb() or float("nan"))
