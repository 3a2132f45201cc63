"""A step that JAX has compiled is found again by a start with another number of steps."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("jax")
pytestmark = pytest.mark.slow

START = """
import json, sys
from kaggle_pipeline.hardware.accelerator import choose_accelerator

device = choose_accelerator("cpu")
import jax
import keras
import numpy as np
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.compile_log import compile_log
from kaggle_pipeline.models.image.fit.optimizer import AdamW
from kaggle_pipeline.preflight.timing import StepTimer

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
log, folder = compile_log(), sys.argv[1]
config = ImageConfig(backbone="LeNet", weights=None, image_size_px=32, batch_size=4)


def network(steps):
    timer = StepTimer(config, get_spec("siim_isic_2020"), device, steps)
    timer.seconds(1)
    return timer.network


kept, rates = [], []
for steps in (30, 7, 1):
    jax.clear_caches()  # as in another process
    before = log.kept
    one = network(steps)
    kept.append(log.kept - before)
    rates.append(float(one.optimizer.learning_rate))
words = log.describe()

again = network(30)
path = folder + "/state.weights.h5"
one.save_weights(path)  # of one step an epoch
again.load_weights(path)
same = all(
    np.array_equal(ours, others)
    for ours, others in zip(one.optimizer._own_variables(), again.optimizer._own_variables())
)
kernel = keras.Variable(np.ones((3, 4), "f"))
theirs = keras.optimizers.AdamW(0.1)
theirs.build([kernel])
rate = keras.optimizers.schedules.CosineDecay(0.01, 20, warmup_target=0.1, warmup_steps=3)
ours = AdamW(rate, 0.3)
ours.build([kernel])
store = {}
ours.save_own_variables(store)
print(json.dumps({
    "kept": kept, "rates": rates, "words": words, "same": same,
    "rate after loading": float(again.optimizer.learning_rate),
    "saved": len(store), "of Keras": len(theirs.variables) - 1,  # a rate of its own
    "config": AdamW.from_config(ours.get_config()).get_config()["learning_rate"]["config"],
}))
"""


def test_a_step_compiled_once_serves_fits_of_any_length(tmp_path):
    environment = {
        **os.environ, "KERAS_BACKEND": "jax", "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path)], env=environment, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    first, *others = found["kept"]
    assert first > 0 and others == [0, 0]  # as constants the schedule's numbers made a program each
    assert "programs from the cache" in found["words"] and "new ones kept" in found["words"]
    assert len(set(found["rates"])) == 3  # and yet each has the rate of its own length
    assert found["same"] and found["saved"] == found["of Keras"]  # states of before stay readable
    # After one step, of an epoch of 30: what was loaded has counted one step too.
    assert found["rate after loading"] == pytest.approx(found["rates"][0])
    assert found["config"]["decay_steps"] == 20 and found["config"]["warmup_target"] == 0.1
