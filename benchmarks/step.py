"""Training and inference of one network, Keras on its backends beside PyTorch, in one run.

In: a backbone, a size, a batch. Out: images a second of each engine, every one in a process of its
own, on the same made-up images. PyTorch's twin is timm's network of the same name in the paper.
"""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.child_process import EndedSilently, run_in_child
from kaggle_pipeline.core.environment import versions
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.preflight.timing import time_steps

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
ENGINES = ("tensorflow", "jax", "pytorch")


@dataclass(frozen=True)
class Load:
    """What every engine does.

    Attributes
    ----------
    backbone : str
    image_size_px, batch_size : int
    device : {"cpu", "gpu"}
    steps : int
        Timed ones, after a first that compiles.
    peak_tflops : float or None
        Of the device, to tell the share that training reaches.
    """

    backbone: str
    image_size_px: int
    batch_size: int
    device: str = "cpu"
    steps: int = 6
    peak_tflops: float | None = None


def measure_step(
    load: Load, json_path: Path | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Time a training step and an inference step of every engine that is installed.

    Parameters
    ----------
    load : Load
    json_path : pathlib.Path, optional
        Gets the figures with the versions.
    say : callable

    Returns
    -------
    dict
        By engine: ``train`` and ``predict`` in images a second, ``first_seconds`` (compilation
        included); ``ratio`` of the best Keras backend to PyTorch.
    """
    say(
        f"{load.backbone} at {load.image_size_px} px, batches of {load.batch_size}, {load.device}, "
        f"{load.steps} steps after the first"
    )
    say(f"{'engine':>12}{'train img/s':>13}{'predict img/s':>15}{'first step s':>14}  note")
    found = {}
    for engine in ENGINES:
        answer = _apart(engine, load)
        if "error" in answer:
            say(f"{engine:>12}{'':>42}  {answer['error']}")
            continue
        found[engine] = answer
        say(
            f"{engine:>12}{answer['train']:>13.1f}{answer['predict']:>15.1f}"
            f"{answer['first_seconds']:>14.1f}  {_note(answer, load)}"
        )
    ratio = {}
    keras = [found[name] for name in ENGINES[:2] if name in found]
    if "pytorch" in found and keras:
        for what in ("train", "predict"):
            ratio[what] = round(max(one[what] for one in keras) / found["pytorch"][what], 2)
        say(
            f"best of Keras to PyTorch: {ratio['train']} in training, {ratio['predict']} predicting"
        )
    result = {"load": vars(load), "engines": found, "ratio": ratio, "versions": versions()}
    if json_path:
        write_json(json_path, result)
    return result


def _note(answer: dict[str, Any], load: Load) -> str:
    if not load.peak_tflops or "gflop" not in answer:
        return answer["note"]
    # Backward costs twice what forward does.
    share = 3 * answer["gflop"] * answer["train"] / 1000 / load.peak_tflops
    return f"{answer['note']}, {share:.0%} of {load.peak_tflops:g} TFLOP/s"


def _apart(engine: str, load: Load) -> dict[str, Any]:
    """Measure one engine in a process that loads no other."""
    try:
        return run_in_child(_child, engine, load)
    except EndedSilently as end:
        return {"error": str(end)}


def _child(engine: str, load: Load, pipe: Connection) -> None:
    try:
        answer = _time_torch(load) if engine == "pytorch" else _time_keras(engine, load)
    except ImportError as error:
        answer = {"error": f"{error.name} is not installed"}
    except PipelineError as error:
        answer = {"error": str(error)}
    pipe.send(answer)


def _time_keras(backend: str, load: Load) -> dict[str, Any]:
    os.environ["KERAS_BACKEND"] = backend
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(load.device)
    image = ImageConfig(
        backbone=load.backbone, weights=None, image_size_px=load.image_size_px,
        batch_size=load.batch_size, mixed_precision=load.device != "cpu",
    )  # fmt: skip
    spec = get_spec("siim_isic_2020")
    config = Experiment("step", spec.id, image=image)
    trained = time_steps(config, spec, device, load.steps)
    from kaggle_pipeline.models.image.inference.predictor import fused_on_cpu
    from kaggle_pipeline.models.image.network import build_network

    with device.scope(mixed_precision=image.mixed_precision):
        network = fused_on_cpu(build_network(image, spec, load_published=False), device)
        network.compile(jit_compile=device.jit_compile)
    batch = load.batch_size * device.replicas
    images = np.zeros((batch, load.image_size_px, load.image_size_px, 3), np.uint8)
    with device.scope(mixed_precision=image.mixed_precision, building=False):

        def predict(count: int) -> None:
            stream = ((images,) for _ in itertools.count())
            network.predict(stream, steps=count, verbose=0)

        predict(1)
        started = time.perf_counter()
        predict(load.steps)
        seconds = time.perf_counter() - started
    return {
        "train": trained["images_per_second"],
        "predict": round(batch * load.steps / seconds, 1),
        "first_seconds": trained["first_step_seconds"],
        "note": device.reason,
    }


def _time_torch(load: Load) -> dict[str, Any]:
    import torch

    if load.backbone not in PEERS:
        raise PipelineError(f"no PyTorch twin of {load.backbone}")
    import timm

    on_gpu = load.device == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise PipelineError("PyTorch sees no GPU")
    place = torch.device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    network = timm.create_model(PEERS[load.backbone], num_classes=1)
    network = network.to(place, memory_format=torch.channels_last)
    side = load.image_size_px
    images = torch.zeros((load.batch_size, 3, side, side), device=place)
    images = images.to(memory_format=torch.channels_last)
    gflop = _forward_gflop(network, images[:1])
    run = torch.compile(network) if on_gpu else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    targets = torch.ones((load.batch_size, 1), device=place)

    def mixed() -> Any:
        return torch.autocast(place.type, torch.bfloat16, enabled=on_gpu)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with mixed():
            loss = torch.nn.functional.binary_cross_entropy_with_logits(run(images), targets)
        loss.backward()
        optimizer.step()

    def predict() -> None:
        with torch.inference_mode(), mixed():
            run(images)

    def seconds(step: Callable[[], None], count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    network.train()
    first = seconds(train, 1)
    trained = seconds(train, load.steps)
    network.eval()
    seconds(predict, 1)
    predicted = seconds(predict, load.steps)
    total = load.batch_size * load.steps
    return {
        "train": round(total / trained, 1),
        "predict": round(total / predicted, 1),
        "first_seconds": round(first, 2),
        "gflop": round(gflop, 2),
        "note": f"PyTorch {torch.__version__}, channels_last"
        + (", bfloat16, torch.compile" if on_gpu else ""),
    }


def _forward_gflop(network: Any, image: Any) -> float:
    """Arithmetic of one image's way through the network, as PyTorch counts it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() / 1e9
