"""Serve the page that reads lesions.

In: a trained run. Out: a server on this machine, until it is stopped.
"""

import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.names import DEMO_RUN
from kaggle_pipeline.config.run_folders import require_run
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.machine import give_back_freed_memory
from kaggle_pipeline.core.private_api import keep_uploads_in_memory, run_streamlit, upload_bytes
from kaggle_pipeline.webapp import upload
from kaggle_pipeline.webapp.guard import Guard

_PAGE = Path(__file__).with_name("app.py")


def serve(
    run_dir: Path,
    *,
    host: str,
    port: int,
    also_called: Sequence[str] = (),
    show_training_photos: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Load a run, warm it, then listen until interrupted.

    Parameters
    ----------
    run_dir : pathlib.Path
        With a trained ``image/``, or ``embedding/`` alone.
    host : str
        Address to listen on; anything but this machine's own is pointed out.
    port : int
    also_called : sequence of str
        Further names that the page answers to, such as a proxy's; others are refused.
    show_training_photos : bool
        Let visitors see the training photos that are nearest to theirs.
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If Streamlit is not installed or would put uploads on disk, the run is not there or not
        trained, a name is none, or somebody listens at the port.
    """
    for name in also_called:
        if "/" in name or name.count(":") == 1:  # it would match no visitor, and nobody would know
            raise PipelineError(f"--also-called {name}: say the name alone, no port and no http://")
    if importlib.util.find_spec("streamlit") is None:
        raise PipelineError("the page needs Streamlit: pip install '.[app]'")
    if run_dir == DEMO_RUN and not run_dir.is_dir():
        raise PipelineError(
            f"{run_dir} is not there: `make demo` makes it in two to three minutes, or name a "
            "trained run"
        )
    give_back_freed_memory()
    keep_uploads_in_memory((upload.MAX_FILE_MIB + 1) * 2**20)
    require_run(run_dir)
    require_free_port(host, port)
    from kaggle_pipeline.webapp.shared_service import shared_service

    say(f"loading {run_dir} …")
    service = shared_service(run_dir, show_training_photos)
    say(f"{service.spec.id}: {len(service.models.folds)} folds loaded and warm. {DISCLAIMER}")
    if host not in ("127.0.0.1", "localhost", "::1"):
        say(f"note: other machines can open the page at {host}; there is no login")
    if not service.models.judged_as_used:
        say(
            "note: this run's scores, calibration and thresholds belong to a blend with equal "
            "weights, not to the blend used here: run make_submission again"
        )
    if service.models.missing:
        lacking = service.models.missing
        say(f"note: folds {lacking} are not trained and are missing from the mean")
    if line := service.models.fit.describe():
        say(line)
    if show_training_photos and not service.has_training_photos:
        say(
            "note: no training photos can be shown: the run has no head on encoders, or its "
            "vectors or TFRecords are not here"
        )
    words = ["--run-dir", str(run_dir), *["--show-training-photos"] * show_training_photos]
    try:
        run_streamlit(
            _PAGE, words, server_settings(host, port), Guard,
            host=host, further=tuple(also_called), held_bytes=upload_bytes,
            state=lambda: {"readings": service.readings},
        )  # fmt: skip
    finally:
        service.close()


def require_free_port(host: str, port: int) -> None:
    """Raise a PipelineError where nothing can listen at an address, before models are loaded."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as one:
            # As Streamlit's server does: a port that was just left is free.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(found[4])
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        advice = f"say another --port, such as {port + 1}" if taken else "check --host and --port"
        reason = os.strerror(error.errno) if (error.errno or 0) > 0 else str(error)
        raise PipelineError(f"cannot listen at {host}:{port}: {reason}; {advice}") from None


def server_settings(host: str, port: int) -> dict[str, object]:
    """Return Streamlit's settings: nothing leaves the machine, no file is watched.

    Keys are Streamlit's with an underscore for the dot, as its command line passes them.
    """
    return {
        "server_address": host,
        "server_port": port,
        "server_headless": True,  # opens no browser, asks for no e-mail address
        "server_fileWatcherType": "none",
        "server_maxUploadSize": upload.MAX_FILE_MIB,
        "server_enableXsrfProtection": True,
        "browser_gatherUsageStats": False,
        "client_showErrorDetails": "none",
        "client_toolbarMode": "minimal",
        "theme_light_primaryColor": "#2a78b5",
        "theme_dark_primaryColor": "#6cb0e3",
    }
