"""Seconds that hashes, records and locks add to the demo and to the conversion of many photos.

In: a folder to work in, which gets made-up competitions and runs. Out: a line a command: seconds of
the whole, of each kind, and their share.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

_PHOTOS_A_PATIENT = 8


def measure_costs(
    work_dir: Path, photos: int = 2000, say: Callable[[str], None] = print
) -> dict[str, dict[str, float]]:
    """Run the demo and a conversion at 1024 px with a clock around what keeps files from harm.

    Parameters
    ----------
    work_dir : pathlib.Path
        What is there of data is used again.
    photos : int
        About how many are converted, drawn at 1024 px: nothing is made smaller, so that the
        conversion itself is as fast as can be.
    say : callable
        Takes a line.

    Returns
    -------
    dict
        By command: ``seconds`` in all, and of ``hashes`` (with the records) and ``locks``.

    Raises
    ------
    PipelineError
        If a command fails.
    """
    found = {}
    for name, script, drawn, settings in (
        ("demo", "run_pipeline.py", {"patients": 200, "image_size_px": 64}, ()),
        ("conversion", "prepare_data.py",
         {"patients": photos // _PHOTOS_A_PATIENT, "image_size_px": 1024},
         ("records.image_size_px=1024",)),
    ):  # fmt: skip
        data, run = work_dir / f"data_{name}", work_dir / f"run_{name}"
        if not (data / "competition" / "train.csv").exists():
            generate(data, seed=1, **drawn)
        shutil.rmtree(run, ignore_errors=True)
        words = [script.removesuffix(".py").replace("_", "-"), "--run-dir", str(run)]
        words += ["--config", str(CHECKOUT / "configs" / "demo.yaml")]
        words += ["--data-dir", str(data / "competition")]
        for setting in settings:
            words += ["--set", setting]
        out = work_dir / f"{name}.json"
        command = [sys.executable, "-m", "benchmarks.costs", str(out), *words]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PipelineError(f"{name} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
        found[name] = row = json.loads(out.read_text(encoding="utf-8"))
        count = len(list((data / "competition" / "jpeg").rglob("*.jpg")))
        parts = ", ".join(
            f"{kind} {row[kind]:.2f} s ({row[kind] / row['seconds']:.2%})"
            for kind in ("hashes", "locks")
        )
        say(f"{name} of {count} photos: {row['seconds']:.1f} s, of these {parts}")
    return found


class _Clock:
    """Counts the seconds within functions; within each other once."""

    def __init__(self) -> None:
        self.seconds, self._within = 0.0, False

    def around(self, module: Any, *names: str) -> None:
        """Put the clock around functions of a module."""
        for name in names:
            setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            if self._within:
                return work(*given, **named)
            self._within, began = True, time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                self._within = False
                self.seconds += time.perf_counter() - began

        return timed


def _main(out: Path, words: list[str]) -> int:
    from kaggle_pipeline.cli.main import main
    from kaggle_pipeline.core import commit, lock, record

    began = time.perf_counter()
    hashes, locks = _Clock(), _Clock()
    hashes.around(record, "_entry", "_is_same", "_agrees", "read_record")
    hashes.around(commit, "describe", "read_record", "_write", "differences")
    locks.around(lock, "_clear_stale", "_take", "_obstacle", "_read", "_tidy")
    code = main(words)
    found = {
        "seconds": time.perf_counter() - began, "hashes": hashes.seconds, "locks": locks.seconds
    }  # fmt: skip
    out.write_text(json.dumps(found), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2:]))
