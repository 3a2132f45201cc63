"""All stages of a small made-up run, as the commands that a user gives, and what they leave.

In: a folder to work in, which gets a made-up competition and its runs. Out: a run that nobody
disturbed, as it was after each step, and whether another one is equal to it. Moments are given in
processor time: on a busy machine the same ones are met. Linux only.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

STEPS = ("pipeline", "ensemble", "page", "predict")
"""``pipeline`` prepares, trains the image model, the tabular one and a learner, and blends them;
``page`` looks at training photos and is ended once it answers."""
STAGES = {"prepare": 1.0, "image": 0.75, "tabular": 0.5, "logistic": 0.35, "blend": 0.2}
"""Of the pipeline; about the share of its time that is left when each begins."""
SETTINGS = (
    "records.image_size_px=48",
    "records.workers=2",
    "image.image_size_px=48",
    "image.epochs=2",
    "image.backbone_options={filters: 4}",
    "image.steps_per_epoch=4",
    "image.tta=none",
    "folds.k=2",
    "tabular.epochs=3",
    "tabular.learners=[dense,logistic]",
    "blend.models=[image,tabular,logistic]",
    "ensemble.models=[image,logistic]",
    "ensemble.use=[scores]",
    "ensemble.folds=2",
    "ensemble.repeats=1",
)
"""All stages in a minute."""
_TABLES = ("submission.csv", "predictions.csv", "oof.csv", "test.csv")
_FITTED = ("calibration.json", "decision.json", "blend.json")
_IMPORTED = (
    "streamlit.web.bootstrap",
    "kaggle_pipeline.cli.main",
    "kaggle_pipeline.stages.blend_scores",
    "kaggle_pipeline.stages.pipeline",
    "kaggle_pipeline.stages.predict",
    "kaggle_pipeline.models.image.model",
    "kaggle_pipeline.webapp.serve",
    "kaggle_pipeline.webapp.service",
    "sklearn.linear_model",
    "matplotlib.figure",
)
_ENDED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""How the page ends that is asked to, beside 0."""
_PATIENCE_SECONDS = 900
_LOOK_SECONDS = 0.3


class CommandProcess:
    """A command in a process, and a process group, of its own.

    It is forked from this process, which has imported all that commands import: most moments of a
    small run would fall into TensorFlow's import else. Nothing of TensorFlow has run here.

    Parameters
    ----------
    words : list of str
        Command and options.
    said : pathlib.Path
        Gets what is written on standard error.

    Attributes
    ----------
    pid : int
    returncode : int or None
        As of ``subprocess.Popen``; None while it runs.
    """

    def __init__(self, words: list[str], said: Path) -> None:
        _import_all()
        self.words, self.returncode = words, None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(words, said)
        with contextlib.suppress(OSError):  # it does the same: whoever comes first
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            number, status = os.waitpid(self.pid, os.WNOHANG)
            if number:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = np.inf) -> None:
        """Wait for its end for so many seconds."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.02)

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)


def _import_all() -> None:
    from kaggle_pipeline.core.engine import import_tensorflow

    import_tensorflow()
    for name in _IMPORTED:
        importlib.import_module(name)


def _become(words: list[str], said: Path) -> NoReturn:
    """Be a command, as its script would be; for a process that was forked just now."""
    code: object = 1
    try:
        os.setpgid(0, 0)
        for path, number in ((os.devnull, 1), (str(said), 2)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, number)
            os.close(file)
        sys.argv = [f"scripts/{words[0].replace('-', '_')}.py", *words[1:]]
        from kaggle_pipeline.cli.main import main

        code = main(words)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


@dataclass(frozen=True)
class Chain:
    """The commands of one run, each to be started, waited for and started again.

    Attributes
    ----------
    work_dir : pathlib.Path
        With the competition, as :func:`undisturbed` leaves it.
    run : pathlib.Path
    """

    work_dir: Path
    run: Path

    @property
    def _said(self) -> Path:
        return self.work_dir / f"{self.run.name}.said"

    def start(self, step: str) -> CommandProcess:
        """Start one step, or go on with it, in a process group of its own."""
        command, *more = {
            "pipeline": ["run-pipeline", "--resume"],
            "ensemble": ["blend-scores", "--resume"],
            "page": ["serve", "--port", str(_free_port())],
            "predict": ["predict", "--images", str(self.work_dir / "photos"), "--overwrite",
                        "--out", str(self.run / "predictions.csv")],
        }[step]  # fmt: skip
        words = [command, "--run-dir", str(self.run)]
        if step in ("pipeline", "ensemble"):
            words += ["--config", str(CHECKOUT / "configs" / "demo.yaml")]
            words += ["--data-dir", str(self.work_dir / "data" / "competition")]
            for setting in SETTINGS:
                words += ["--set", setting]
        return CommandProcess([*words, *more], self._said)

    def said(self) -> list[str]:
        """Return the lines that the step started last has written on standard error."""
        return self._said.read_text(encoding="utf-8", errors="replace").splitlines()

    def wait(self, process: CommandProcess, step: str, cpu_seconds: float = np.inf) -> bool:
        """Wait for a step's end, or until its processes have used so much processor time.

        The page is ended once it answers.

        Returns
        -------
        bool
            Whether the step has ended, however.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while process.poll() is None and cpu_seconds_of(process.pid) < cpu_seconds:
            if step == "page" and _answers(int(process.words[-1])):
                process.terminate()
                process.wait(_PATIENCE_SECONDS)
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
                raise PipelineError(f"{self.run}: {step} did not end in {_PATIENCE_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
        return process.poll() is not None

    def finish(self, step: str) -> None:
        """Start a step and wait for its end; a PipelineError with its last line if it fails."""
        process = self.start(step)
        self.wait(process, step)
        self.require_ended(process, step)

    def require_ended(self, process: CommandProcess, step: str) -> None:
        """Stop where a step that has ended did not end well."""
        if process.returncode not in (0, *(_ENDED if step == "page" else ())):
            last = (self.said() or ["nothing said"])[-1]
            raise PipelineError(f"{self.run}: {step} ended with {process.returncode}: {last}")

    def halves(self) -> list[str]:
        """Return half-written files and locks that are left in the run."""
        left = [*self.run.rglob(".[0-9]*.*"), *self.run.rglob(".locks/*")]
        return [str(path.relative_to(self.run)) for path in left]

    def reached(self) -> str:
        """Return the folder of the run that was written to last."""
        files = [one for one in self.run.rglob("*") if one.is_file() and ".locks" not in one.parts]
        if not files:
            return "nothing"
        newest = max(files, key=lambda path: path.stat().st_mtime).relative_to(self.run)
        return newest.parts[0]


def undisturbed(work_dir: Path) -> dict[str, float]:
    """Leave a run of all steps that nobody disturbed; return each step's processor seconds.

    What is there of an earlier call is taken as it is: another version's may differ in a word.

    Raises
    ------
    PipelineError
        If a step fails, or this is no Linux.
    """
    if not Path("/proc/self/stat").exists():
        raise PipelineError("processes are looked at in /proc: this needs Linux")
    chain, took = Chain(work_dir, work_dir / "whole"), work_dir / "whole.json"
    if took.exists():
        return json.loads(took.read_text(encoding="utf-8"))
    shutil.rmtree(chain.run, ignore_errors=True)
    if not (work_dir / "data" / "competition" / "train.csv").exists():
        generate(work_dir / "data", patients=60, image_size_px=48, seed=1)
    (work_dir / "photos").mkdir(exist_ok=True)
    test = work_dir / "data" / "competition" / "jpeg" / "test"
    for path in sorted(test.iterdir())[:4]:
        shutil.copy(path, work_dir / "photos")
    seconds = {}
    for step in STEPS:
        before = _children_seconds()
        chain.finish(step)
        seconds[step] = _children_seconds() - before
        shutil.rmtree(after(work_dir, step), ignore_errors=True)
        shutil.copytree(chain.run, after(work_dir, step))
    took.write_text(json.dumps(seconds), encoding="utf-8")
    return seconds


def after(work_dir: Path, step: str) -> Path:
    """Return the folder that holds the undisturbed run as it was after a step."""
    return work_dir / f"after_{step}"


def begin_at(chain: Chain, step: str, stage: str = "") -> None:
    """Put what the undisturbed run was before a step in the place of the chain's run.

    Parameters
    ----------
    chain : Chain
    step : str
    stage : str
        Of the pipeline, one of :data:`STAGES`: those before it are done already.
    """
    shutil.rmtree(chain.run, ignore_errors=True)
    done = list(STAGES)[: list(STAGES).index(stage)] if stage else []
    if number := STEPS.index(step):
        shutil.copytree(after(chain.work_dir, STEPS[number - 1]), chain.run)
    elif done:
        chain.run.mkdir(parents=True)
        for name in (*done, "explore", "records"):
            shutil.copytree(after(chain.work_dir, step) / name, chain.run / name)


def first_difference(run: Path, whole: Path) -> str | None:
    """Return the first of a run's results that is another; None if all are equal.

    Tables and what was fitted to the byte; weights and arrays number by number, for such files of
    equal numbers differ in bytes; of a training's history the epochs.
    """
    for kind in (*_TABLES, *_FITTED, "*.weights.h5", "reference.npz", "history.csv"):
        for path in sorted(whole.rglob(kind)):
            other = run / path.relative_to(whole)
            if not other.exists() or _content(other) != _content(path):
                return str(path.relative_to(whole))
    return None


def _content(path: Path) -> object:
    if path.name == "history.csv":
        return [line.partition(",")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix != ".h5":
        return path.read_bytes()
    import h5py

    found = {}

    def take(name: str, one: object) -> None:
        if isinstance(one, h5py.Dataset):
            found[name] = one[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def cpu_seconds_of(group: int) -> float:
    """Return the processor time that the processes of a group have used, those waited for too."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in _of_group(group))
    return ticks / os.sysconf("SC_CLK_TCK")


def living(group: int) -> list[str]:
    """Return the processes of a group that have not ended."""
    return [fields[-1] for fields in _of_group(group) if fields[0] != "Z"]


def _of_group(group: int) -> Iterator[list[str]]:
    """Fields of each process's ``stat`` from its state on, and its number last."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(group):
            yield [*fields, path.parent.name]


def _children_seconds() -> float:
    now = os.times()
    return now.children_user + now.children_system


def none_living(group: int, seconds: float = 20) -> bool:
    """Return whether all processes of a group are gone within so many seconds."""
    until = time.monotonic() + seconds
    while left := living(group):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return not left


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
        return True
    except OSError:
        return False
