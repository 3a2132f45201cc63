"""Tests of work that other processes do."""

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from kaggle_pipeline.core import child_process
from kaggle_pipeline.core.child_process import (
    EndedSilently,
    TookTooLong,
    answers_of_child,
    map_in_order,
    run_in_child,
)
from kaggle_pipeline.core.errors import PipelineError


def test_one_worker_is_this_process():
    seen = []
    assert list(map_in_order(seen.append, "abc", 1)) == [None] * 3 and seen == ["a", "b", "c"]


def test_several_workers_keep_the_order_and_run_only_a_little_ahead():
    taken = []
    found = map_in_order(math.factorial, (taken.append(n) or n for n in range(60)), 2)
    assert next(found) == 1 and len(taken) == 16
    assert list(found) == [math.factorial(n) for n in range(1, 60)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_item_raises_comes_through_in_its_turn(workers):
    found = map_in_order(math.sqrt, [4.0, -1.0, 9.0], workers)
    assert next(found) == 2
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(found)


def test_an_error_of_a_worker_keeps_its_traceback():
    with pytest.raises(ValueError) as error:
        list(map_in_order(math.sqrt, [4.0, -1.0], 2))
    assert "in _work_through" in str(error.value.__cause__)


@pytest.mark.parametrize(("count", "parts"), [(2, [1, 1]), (5, [3, 2]), (9, [4, 4, 1])])
def test_few_items_are_shared_out_among_all_workers(monkeypatch, count, parts):
    given = []

    class Pool(ThreadPoolExecutor):
        def submit(self, run, work, part):
            given.append(len(part))
            return super().submit(run, work, part)

    monkeypatch.setattr(child_process, "worker_pool", lambda workers, *_: Pool(workers))
    assert list(map_in_order(abs, range(count), 2)) == list(range(count)) and given == parts


def kill_at(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_that_is_killed_is_one_line_with_a_remedy():
    found = map_in_order(kill_at, range(100), 2, what="conversion", remedy="say --workers 1")
    with pytest.raises(
        PipelineError, match=r"^conversion: a worker process was killed.*: say --wo"
    ):
        list(found)


LONG = """
import os, time
from kaggle_pipeline.core.child_process import (
    EndedSilently,
    TookTooLong,
    answers_of_child,
    map_in_order,
    run_in_child,
)
from test_child_process import slowly
if __name__ == "__main__":
    for pid in map_in_order(slowly, range(10**6), 2):
        print(pid, flush=True)
"""


def slowly(number):
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.ci
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(ending, tmp_path):
    """However it ends; after Ctrl-C no worker adds a traceback of its own."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    script = tmp_path / "long.py"
    script.write_text(LONG)
    paths = os.pathsep.join([here, *sys.path])
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
        # A shell's background job ignores Ctrl-C, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    pids = {int(process.stdout.readline()) for _ in range(20)}
    process.send_signal(ending)
    said = process.communicate(timeout=120)[1]
    assert said.count("Traceback") == (ending == signal.SIGINT)  # its own; commands say one line
    until = time.monotonic() + 120
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):  # noqa: PTH110
        assert time.monotonic() < until
        time.sleep(0.05)


def _count(number, pipe):
    for i in range(number):
        pipe.send(i)


def _then_sleep(pipe):
    pipe.send("begun")
    time.sleep(900)


def _then_die(pipe):
    pipe.send("begun")
    os._exit(3)


def take(answers, found):
    """Append each answer when it comes."""
    for answer in answers:
        found.append(answer)


def test_all_answers_come_in_order():
    assert list(answers_of_child(_count, 3)) == [0, 1, 2]


def test_what_a_slow_process_had_sent_is_kept(monkeypatch):
    answers = answers_of_child(_then_sleep, patience=300.0)
    assert next(answers) == "begun"
    late = SimpleNamespace(monotonic=lambda: time.monotonic() + 300)
    monkeypatch.setattr(child_process, "time", late)
    with pytest.raises(TookTooLong):
        next(answers)


def test_a_process_that_dies_says_with_which_code():
    found = []
    with pytest.raises(EndedSilently, match="code 3"):
        take(answers_of_child(_then_die), found)
    assert found == ["begun"]


def test_the_first_answer_is_enough_and_none_is_an_error():
    assert run_in_child(_count, 2) == 0
    assert run_in_child(_then_sleep, patience=300.0) == "begun"
    with pytest.raises(EndedSilently, match="code 0"):
        run_in_child(_count, 0)
