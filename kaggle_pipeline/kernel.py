"""One script for Kaggle: the package, its configs and an entry, packed into a single file.

In: a folder of ``kernels/``. Out: the script beside its ``kernel-metadata.json``. A push uploads
one source file of at most 1 MB and no second one, so the package travels inside it.
"""

import base64
import io
import json
import tarfile
from pathlib import Path

from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.rundir import atomic_path

ENTRY = "entry.py"
MAX_BYTES = 1_000_000
"""Of a kernel's source; Kaggle refuses more."""
_PACKED = ("kaggle_pipeline/**/*.py", "configs/**/*.yaml", "configs/**/*.json")
_UNPACK = '''"""{title}

Made by scripts/pack_kernel.py from kernels/{name}/{entry} and the package; change those, not this.
"""

import base64
import io
import sys
import tarfile
import tempfile

_ARCHIVE = (
{archive}
)
_FOLDER = tempfile.mkdtemp(prefix="kaggle_pipeline_")
with tarfile.open(fileobj=io.BytesIO(base64.b85decode("".join(_ARCHIVE))), mode="r:xz") as _tar:
    _tar.extractall(_FOLDER, filter="data")
sys.path.insert(0, _FOLDER)

'''


def pack_kernel(folder: Path, root: Path) -> Path:
    """Write the script that a kernel's metadata names; the same sources give the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        With ``kernel-metadata.json`` and ``entry.py``, which finds ``configs/`` beside the package.
    root : pathlib.Path
        Where the package and ``configs/`` lie.

    Returns
    -------
    pathlib.Path
        The script.

    Raises
    ------
    PipelineError
        If the metadata is missing or incomplete, or the script is too large for Kaggle.
    """
    folder = Path(folder)
    metadata_path = folder / "kernel-metadata.json"
    try:
        metadata = json.loads(metadata_path.read_text())
        title, code_file = metadata["title"], metadata["code_file"]
        entry = (folder / ENTRY).read_text()
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing") from None
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{metadata_path}: {error!r}: it needs title and code_file") from None
    lines = [f'    "{line}"' for line in _in_lines(_archive(Path(root)), 96)]
    text = _UNPACK.format(title=title, name=folder.name, entry=ENTRY, archive="\n".join(lines))
    content = (text + entry).encode()
    if len(content) > MAX_BYTES:
        raise PipelineError(
            f"{code_file} would have {len(content)} bytes; Kaggle takes {MAX_BYTES}"
        )
    path = folder / Path(code_file).name
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def _archive(root: Path) -> str:
    """Package and configs as a tar, compressed and in printable characters without quotes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as tar:
        for path in sorted(path for pattern in _PACKED for path in root.glob(pattern)):
            content = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(root).as_posix())
            member.size = len(content)  # no time, no owner: the same bytes tomorrow
            tar.addfile(member, io.BytesIO(content))
    # Base 85 of RFC 1924 has neither quotes nor backslashes.
    return base64.b85encode(buffer.getvalue()).decode()


def _in_lines(text: str, width: int) -> list[str]:
    return [text[i : i + width] for i in range(0, len(text), width)]
