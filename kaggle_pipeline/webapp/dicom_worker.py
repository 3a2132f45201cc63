"""The other end of ``dicom_child``: DICOM bytes in, pixels out, whatever becomes of the decoder.

In: bytes. Out: an RGB image, or one sentence. The process is started at the first file, kept, and
replaced where it died, took too long or has done its share.
"""

import json
import os
import subprocess
import sys
import threading

from PIL import Image

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.webapp.dicom_child import LENGTH_BYTES

_SECONDS = 30
_FILES = 200
"""After so many a fresh process takes over: what a decoder leaks is bounded."""


class DicomWorker:
    """Decodes one file at a time in a process of its own.

    Parameters
    ----------
    max_pixels : int
        More are refused before anything is decoded.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._left = 0

    def decode(self, content: bytes) -> Image.Image:
        """Return the upright RGB photo in a DICOM file.

        Raises
        ------
        PipelineError
            With the reason alone: the caller knows the name.
        """
        with self._lock:
            process = self._running()
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                head, pixels = _ask(process, content)
            except (OSError, ValueError):
                self.close()
                raise PipelineError("the decoder broke down on it or took too long") from None
            finally:
                timer.cancel()
        if "error" in head:
            raise PipelineError(head["error"])
        return Image.frombytes("RGB", tuple(head["size"]), pixels)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None or not self._left:
            self.close()
            root = str(CHECKOUT)
            paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kaggle_pipeline.webapp.dicom_child", str(self._max_pixels)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
            self._left = _FILES
        self._left -= 1
        return self._process


def _ask(process: subprocess.Popen, content: bytes) -> tuple[dict, bytes]:
    process.stdin.write(len(content).to_bytes(LENGTH_BYTES) + content)
    process.stdin.flush()
    head = json.loads(process.stdout.readline())  # nothing at all is no JSON: a ValueError
    size = head.get("size", (0, 0))
    pixels = process.stdout.read(3 * size[0] * size[1])
    if len(pixels) != 3 * size[0] * size[1]:
        raise ValueError("the answer ends too soon")
    return head, pixels
