"""timm's published weights from the Hugging Face hub, fetched once and compared with its SHA-256.

In: a name, such as ``tf_efficientnet_b0.ns_jft_in1k``. Out: a ``.safetensors`` file in Keras'
cache, the beginning of its SHA-256 in its name. No other kind of file is fetched: unlike a pickle
it cannot run code.
"""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.progress import Progress

SCHEME = "timm:"
"""Begins a value of ``image.weights`` that names weights of the hub's ``timm/``."""
LARGEST_BYTES = 2 * 2**30
"""More than any network of the registry has."""
_SECONDS = 60
"""Without an answer."""
_BLOCK_BYTES = 2**20


class _Stay(urllib.request.HTTPRedirectHandler):
    """Does not follow: the hub's own answer has the hash, what it leads to has not."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return no request."""


def fetch_timm(source: str) -> Path:
    """Return the file of ``timm:<name>``; downloaded once, then kept.

    ``HF_ENDPOINT`` names another hub, ``KERAS_HOME`` another cache, as for their own libraries.

    Raises
    ------
    PipelineError
        If there is no such file, it cannot be had, is too large, or is not what the hub says.
    """
    name = source.removeprefix(SCHEME)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise PipelineError(f"image.weights: {source} names no weights of timm")
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    for path in sorted(home.glob(f"timm-{name}-????????.safetensors")):
        if _digest(path).startswith(path.stem.rpartition("-")[2]):
            return path
        raise PipelineError(f"image.weights: {path} is damaged; delete it and run again")
    hub = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.match(r"https?://[^/]", hub):
        raise PipelineError(f"HF_ENDPOINT={hub} is no address: it begins with https://")
    url = f"{hub}/timm/{name}/resolve/main/model.safetensors"
    try:
        return _download(url, name, home)
    except urllib.error.HTTPError as error:
        reason = "the hub has none" if error.code in (401, 404) else f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", None) or error) or type(error).__name__
    hint = "with no internet name a .safetensors file in image.weights, or say null"
    raise PipelineError(f"image.weights: {url} cannot be downloaded ({reason}); {hint}")


def _download(url: str, name: str, home: Path) -> Path:
    wanted, size = _promised(url)
    place = home / f"timm-{name}-{wanted[:8]}.safetensors"
    with (
        urllib.request.urlopen(url, timeout=_SECONDS) as answer,
        atomic_path(place) as temporary,
        temporary.open("wb") as file,
        Progress(size, f"download timm/{name}", "B") as progress,
    ):
        digest, got = hashlib.sha256(), 0
        while block := answer.read(_BLOCK_BYTES):
            got += len(block)
            if got > size:
                break
            digest.update(block)
            file.write(block)
            progress(len(block))
        if got != size or digest.hexdigest() != wanted:
            raise PipelineError(
                f"image.weights: {url} is not the {size:,} bytes of SHA-256 {wanted} that the hub "
                "promises: run again, or fetch the file by hand"
            )
    return place


def _promised(url: str) -> tuple[str, int]:
    """SHA-256 and size that the hub says a file has."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        answer = urllib.request.build_opener(_Stay).open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if not 300 <= error.code < 400:
            raise
        answer = error
    with answer:
        said = answer.headers
    wanted = (said.get("X-Linked-Etag") or said.get("ETag") or "").strip('"')
    size = said.get("X-Linked-Size") or said.get("Content-Length") or ""
    if not re.fullmatch(r"[0-9a-f]{64}", wanted) or not size.isdecimal():
        raise PipelineError(f"image.weights: {url}: the hub tells no SHA-256 and size of it")
    if int(size) > LARGEST_BYTES:
        raise PipelineError(f"image.weights: {url} has {int(size):,} bytes: too large for weights")
    return wanted, int(size)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
