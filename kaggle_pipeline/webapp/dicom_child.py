"""Decode DICOM files in a process that may die of one: ``python -m …dicomchild MAX_PIXELS``.

In, again and again on standard input: a file's length (8 bytes, big endian), then the file. Out: a
line of JSON, ``{"size": [w, h]}`` or ``{"error": text}``, then the RGB pixels. Nothing else of a
file leaves the process: no name, no date, no number of a patient.
"""

import json
import sys

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photos import decode_image

LENGTH_BYTES = 8
_MEMORY_BYTES = 3 * 2**30


def main() -> None:
    """Answer until standard input ends."""
    _limit_memory()
    max_pixels = int(sys.argv[1])
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(LENGTH_BYTES):
        answer, pixels = _decode(source.read(int.from_bytes(head)), max_pixels)
        out.write(json.dumps(answer).encode() + b"\n" + pixels)
        out.flush()


def _decode(content: bytes, max_pixels: int) -> tuple[dict, bytes]:
    try:
        image = decode_image(content, "", max_pixels=max_pixels)
        return {"size": image.size}, image.tobytes()
    except PipelineError as error:
        return {
            "error": str(error)
            .removeprefix("cannot read DICOM : ")
            .removeprefix("cannot read image : ")
            .strip()
        }, b""
    except MemoryError:
        return {"error": "unpacking it takes too much memory"}, b""


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit; the parent's clock remains
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
