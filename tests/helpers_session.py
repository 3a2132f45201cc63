"""A Kaggle session on this machine: read-only inputs, no network, a folder of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NO_NETWORK = """
import os, runpy, socket, sys
for name in os.environ["LACKING"].split():
    sys.modules[name] = None
def refuse(*words, **more):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Kaggle:
    """A folder that stands for ``/kaggle`` of one session, its inputs not to be written to."""

    def __init__(self, place, layout, lacking=""):
        self.root, self.layout, self.lacking = Path(place), layout, lacking
        self.working, self.input = self.root / "working", self.root / "input"
        for folder in (self.working, self.input, self.root / "src"):
            folder.mkdir(parents=True)

    def attach(self, kind, name, source):
        place = self.input / kind / name if self.layout == "new" else self.input / Path(name).name
        shutil.copytree(source, place)
        return self

    def command(self, kernel):
        name = kernel.name + ".py"
        script = shutil.copy(kernel / name, self.root / "src" / "script.py")
        for path in [*self.input.rglob("*"), *(self.root / "src").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        return [sys.executable, "-P", "-c", NO_NETWORK, str(script)]

    @property
    def environment(self):
        mine = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return mine | {
            "KAGGLE_PIPELINE_ROOT": str(self.root),
            "KAGGLE_PIPELINE_SET": "device=cpu",
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "LACKING": self.lacking,
        }

    def run(self, kernel):
        before = self.state()
        done = subprocess.run(
            self.command(kernel), cwd=self.working, env=self.environment, capture_output=True,
            text=True, timeout=1800, check=False,
        )  # fmt: skip
        assert self.state() == before, "an input was written to"
        return done

    def state(self):
        files = [path for path in self.input.rglob("*") if path.is_file()]
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def ok(done):
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
