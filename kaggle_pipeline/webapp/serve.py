"""Serve the page that reads lesions.

In: a trained run. Out: a server on this machine, until it is stopped.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.config.names import DEMO_RUN
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.webapp import upload

_PAGE = Path(__file__).with_name("app.py")


def serve(run_dir: Path, *, host: str, port: int, say: Callable[[str], None] = print) -> None:
    """Load a run, warm it, then listen until interrupted.

    Parameters
    ----------
    run_dir : pathlib.Path
        With a trained ``image/``.
    host : str
        Address to listen on; anything but this machine's own is pointed out.
    port : int
    say : callable
        Takes a line for the user.

    Raises
    ------
    PipelineError
        If Streamlit is not installed or would put uploads on disk, or the run is not there or not
        trained.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise PipelineError("the page needs Streamlit: pip install '.[app]'")
    if run_dir == DEMO_RUN and not run_dir.is_dir():
        raise PipelineError(
            f"{run_dir} is not there: `make demo` makes it in a few minutes, or name a trained run "
            "with --run-dir"
        )
    from kaggle_pipeline.webapp.shared_service import shared_service

    _keep_uploads_in_memory()
    say(f"loading {run_dir} …")
    service = shared_service(run_dir)
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
    from streamlit.web import bootstrap

    settings = server_settings(host, port)
    bootstrap.load_config_options(settings)
    try:
        bootstrap.run(str(_PAGE), False, ["--run-dir", str(run_dir)], settings)
    finally:
        service.close()


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


def _keep_uploads_in_memory() -> None:
    """Starlette, under Streamlit from 1.5x on, would put a file of more than 1 MiB on disk."""
    try:
        from starlette.formparsers import MultiPartParser
    except ImportError:  # an older Streamlit: Tornado keeps uploads in memory
        return
    # Named so from Starlette 0.46 on; another name's being set would change nothing.
    names = [one for one in ("spool_max_size", "max_file_size") if hasattr(MultiPartParser, one)]
    if not names:
        raise PipelineError(
            "this Starlette puts uploads on disk and has no setting against it: pip install "
            "'starlette==1.10'"
        )
    setattr(MultiPartParser, names[0], (upload.MAX_FILE_MIB + 1) * 2**20)
