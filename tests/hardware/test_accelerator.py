"""Tests of the choice of hardware, on a machine that has none but its CPU."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.hardware import accelerator, tpu_probe
from kaggle_pipeline.hardware.accelerator import Accelerator, choose_accelerator

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
no_gpu = pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No variables of a TPU's host or of other workers, and Keras' own choice of backend."""
    others = ("KERAS_BACKEND", "TF_CONFIG", "KERAS_DISTRIBUTION_NUM_PROCESSES")
    for name in (*tpu_probe._HOST_VARIABLES, *others):
        monkeypatch.delenv(name, raising=False)
    accelerator._tpu.cache_clear()


def test_the_cpu_is_chosen_where_asked_for():
    found = choose_accelerator("cpu")
    assert (found.kind, found.backend, found.replicas) == ("cpu", "tensorflow", 1)
    assert (found.policy, found.strategy) == ("float32", None)
    assert found.reason == "CPU, Keras on tensorflow (asked for)"


@no_gpu
def test_auto_finds_the_cpu_and_says_why():
    found = choose_accelerator("auto")
    assert found.kind == "cpu"
    assert found.reason == "CPU, Keras on tensorflow (no GPU or TPU found)"


@no_gpu
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(PipelineError, match=r"device=gpu: tensorflow sees no GPU here.*cpu"):
        choose_accelerator("gpu")


def test_a_tpu_that_is_not_there_is_a_quick_error_that_says_what_was_looked_for():
    started = time.perf_counter()
    with pytest.raises(PipelineError, match="no TPU found") as caught:
        choose_accelerator("tpu")
    assert time.perf_counter() - started < 120
    assert re.search(r"\(tensorflow: [^;]+; jax: [^;]+\)", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("import time; time.sleep(60)", "no answer in 1 s"),
        (
            "import no_such_engine",
            "it failed, ModuleNotFoundError: No .*",
        ),
        ("print('cpu', 1)", "no TPU device"),
        ("print('tpu', 8); raise SystemExit(3)", "it failed, exit code 3"),
    ],
)
def test_a_probe_that_finds_no_tpu_says_why(monkeypatch, probe, why):
    monkeypatch.setitem(tpu_probe.PROBES, "jax", probe)
    monkeypatch.setattr(tpu_probe, "_SECONDS_ELSEWHERE", 1 if "sleep" in probe else 15)
    monkeypatch.setattr(tpu_probe, "_lacking_package", lambda backend: "")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(PipelineError, match=rf"no TPU found \(jax: {why}\)"):
        choose_accelerator("tpu")


def test_packages_that_cannot_drive_a_tpu_are_not_even_started(monkeypatch):
    monkeypatch.setattr(tpu_probe.subprocess, "run", None)
    monkeypatch.setattr(tpu_probe, "find_spec", lambda name: None)
    assert tpu_probe.count_tpu_cores("jax") == (0, "not installed")
    monkeypatch.setattr(tpu_probe, "find_spec", lambda name: name != "libtpu")
    assert tpu_probe.count_tpu_cores("jax") == (0, "jax has no libtpu")
    monkeypatch.setattr(tpu_probe, "version", lambda name: "2.20.0")
    why = "tensorflow-cpu cannot drive a TPU, tensorflow-tpu can"
    assert tpu_probe.count_tpu_cores("tensorflow") == (0, why)


def test_a_probe_counts_cores(monkeypatch):
    noisy = "print('a line of the driver'); print('tpu', 8)"
    monkeypatch.setitem(tpu_probe.PROBES, "jax", noisy)
    monkeypatch.setattr(tpu_probe, "_lacking_package", lambda backend: "")
    assert tpu_probe.count_tpu_cores("jax") == (8, "")


def test_the_host_of_a_tpu_never_falls_back_to_its_cpu(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    monkeypatch.setattr(tpu_probe, "PROBES", {"tensorflow": "pass", "jax": "pass"})
    with pytest.raises(PipelineError, match="no TPU found"):
        choose_accelerator("auto")


class Recorder:
    """Stands for a strategy that needs hardware: remembers what it was made of."""

    def __init__(self, devices):
        self.devices = devices
        self.num_replicas_in_sync = len(devices) if isinstance(devices, list) else 1


@pytest.mark.parametrize(
    ("count", "asked", "devices", "replicas"),
    [
        (1, None, None, 1),
        (2, None, ["/gpu:0", "/gpu:1"], 2),
        (4, 2, ["/gpu:0", "/gpu:1"], 2),
        (2, 1, "/gpu:0", 1),
    ],
)
def test_gpus_are_mirrored_and_one_is_taken_plainly(monkeypatch, count, asked, devices, replicas):
    found = tf.config.list_physical_devices
    gpus = {"GPU": [f"GPU {i}" for i in range(count)]}
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: gpus.get(kind) or found(kind)
    )
    grown = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, yes: grown.append((gpu, yes))
    )
    details = {"compute_capability": (7, 5)}  # T4
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    for name in ("MirroredStrategy", "OneDeviceStrategy"):
        monkeypatch.setattr(tf.distribute, name, Recorder)
    chosen = choose_accelerator("gpu", asked)
    assert (chosen.kind, chosen.replicas, chosen.policy) == ("gpu", replicas, "mixed_float16")
    assert (chosen.strategy and chosen.strategy.devices) == devices
    assert chosen.jit_compile == (False if devices else "auto")
    assert grown == [(gpu, True) for gpu in gpus["GPU"]]
    assert chosen.reason == f"{replicas} GPU, Keras on tensorflow"


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ([(9, 0), (8, 0)], "mixed bfloat16"),  # H200 and A100
        ([(8, 0), (7, 5)], "mixed float16, the loss scaled"),  # a T4 beside: it has none
        ([(6, 0)], "mixed float16, the loss scaled"),  # P100
        ([None], "mixed float16, the loss scaled"),  # nobody knows
    ],
)
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_bfloat16_is_taken_where_every_gpu_has_it(monkeypatch, backend, capabilities, words):
    if backend == "jax":
        jax = pytest.importorskip("jax")
        gpus = [
            SimpleNamespace(compute_capability=one and f"{one[0]}.{one[1]}") for one in capabilities
        ]
        monkeypatch.setattr(jax, "local_devices", lambda: gpus)
        monkeypatch.setattr(accelerator, "_keep_compiled", lambda: None)
        monkeypatch.setattr(accelerator, "data_parallel", lambda kind, count: None)
    else:
        gpus = list(range(len(capabilities)))
        experimental = tf.config.experimental
        details = [{"compute_capability": one} if one else {} for one in capabilities]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        monkeypatch.setattr(experimental, "get_device_details", details.__getitem__)
        monkeypatch.setattr(experimental, "set_memory_growth", lambda gpu, yes: None)
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", Recorder)
    found = accelerator._gpu(backend, len(gpus), 1)
    assert found.describe(mixed_precision=True).endswith(f"Keras on {backend}, {words}")
    assert found.describe(mixed_precision=False).endswith(", float32")


@no_gpu
def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(accelerator, "_count_gpus", lambda backend: 2)
    with pytest.raises(PipelineError, match="replicas is 3: here are 2 GPUs"):
        choose_accelerator("auto", 3)


def test_a_tpu_is_set_up_once_and_taken_with_all_its_cores(monkeypatch):
    done = []
    resolver = object()
    monkeypatch.setattr(accelerator, "count_tpu_cores", lambda backend: (8, ""))
    monkeypatch.setattr(
        tf.distribute.cluster_resolver,
        "TPUClusterResolver",
        lambda tpu: done.append(tpu) or resolver,
    )
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", lambda found: done.append("connect")
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda found: done.append("initialise")
    )
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda found: Recorder(list(range(8))))
    chosen = choose_accelerator("tpu")
    assert done == ["local", "connect", "initialise"]
    assert (chosen.kind, chosen.backend, chosen.replicas) == ("tpu", "tensorflow", 8)
    # XLA compiles a TPUStrategy's step by itself; asking for it fails.
    assert (chosen.policy, chosen.jit_compile) == ("mixed_bfloat16", False)
    assert choose_accelerator("tpu") is chosen
    with pytest.raises(PipelineError, match="replicas is 4: a TPU is taken with all its cores"):
        choose_accelerator("tpu", 4)


def test_another_backend_than_the_running_one_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(PipelineError, match="keras runs on tensorflow already, not jax"):
        choose_accelerator("cpu")


class TestScope:
    """The dtype policy, inside and after."""

    @pytest.mark.parametrize(("mixed", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
    def test_the_policy_is_set_and_restored(self, mixed, policy):
        device = replace(choose_accelerator("cpu"), policy="mixed_bfloat16")
        before = keras.config.dtype_policy()
        with device.scope(mixed_precision=mixed):
            assert keras.config.dtype_policy().name == policy
        assert keras.config.dtype_policy() == before

    def test_the_policy_is_restored_after_an_error(self):
        device = replace(choose_accelerator("cpu"), policy="mixed_bfloat16")
        before = keras.config.dtype_policy()
        with pytest.raises(KeyError), device.scope(mixed_precision=True):
            raise KeyError
        assert keras.config.dtype_policy() == before

    def test_mixed_precision_means_float32_on_a_cpu(self):
        with choose_accelerator("cpu").scope(mixed_precision=True):
            assert keras.config.dtype_policy().name == "float32"

    def test_the_strategys_scope_is_entered(self):
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
        device = replace(choose_accelerator("cpu"), strategy=strategy)
        with device.scope(mixed_precision=False):
            assert tf.distribute.get_strategy() is strategy
        assert tf.distribute.get_strategy() is not strategy


def test_the_memory_of_a_gpu_is_what_jax_has_kept_for_itself(monkeypatch):
    jax = pytest.importorskip("jax")
    cards = [
        SimpleNamespace(memory_stats=lambda n=n: {"bytes_limit": n * 2**30, "bytes_in_use": 2**30})
        for n in (60, 40)
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: cards)
    gpu = Accelerator("gpu", "jax", 2, "mixed_bfloat16", "auto", "two GPUs")
    assert gpu.free_memory_mb() == 39 * 1024
    assert Accelerator("cpu", "jax", 1, "float32", "auto", "a CPU").free_memory_mb() is None
