"""What commands print, on any console: characters that it lacks are written by others.

A console of Windows, a file in latin-1 or a bare C locale has no "…" or "→". A result is worth more
than a character: nothing is lost because of one.
"""

import codecs
import io
import os
import sys
import unicodedata
import warnings

_PLAIN = {
    "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "←": "<-", "×": "x", "·": "*", "≤": "<=",
    "≥": ">=", "≠": "!=", "≈": "~", "±": "+-", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'",
    "█": "#", "µ": "u", "σ": "s",
}  # fmt: skip
_HANDLER = "kaggle_pipeline.plain"


def plain(text: str) -> str:
    """Return text in ASCII: a character as it is typed, a letter without its accents, else "?"."""
    parts = []
    for character in text:
        bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        parts.append(_PLAIN.get(character) or bare or "?")
    return "".join(parts)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def soften_console() -> None:
    """Let standard output and standard error say :func:`plain` what their encoding lacks.

    Each line goes out at once, also into a file: there it is seen while the work goes on, and in
    the order in which both streams said it.
    """
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER, line_buffering=True)


def quieten_packages() -> None:
    """Keep the warnings of other packages, which are for their developers, off the terminal.

    ``python -W`` and ``PYTHONWARNINGS`` show them, and ``TF_CPP_MIN_LOG_LEVEL=0`` TensorFlow's and
    JAX's own; processes that are started follow this one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX's import, which makes it 1
    if not sys.warnoptions and "PYTHONWARNINGS" not in os.environ:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"


def leave_closed_pipe() -> None:
    """Let what is still to be printed go nowhere: its reader, such as ``head``, has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
