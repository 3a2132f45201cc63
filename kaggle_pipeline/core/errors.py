"""The one exception that means "the user can mend this": one line, exit code 2, no traceback."""

from collections.abc import Iterable, Sequence


class PipelineError(Exception):
    """A mistake in data, configuration or command.

    The message is one line that names the file, row or key and says what to do. The command
    line prints it and exits with code 2; every other exception is a bug and keeps its traceback.

    Parameters
    ----------
    message : str
        What it cites of a file, and what other packages say, is made one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text with blanks for line breaks, and characters that no line can show as Python
    writes them.

    Examples
    --------
    >>> one_line("while scanning\\n  a key\\x00")
    'while scanning a key\\\\x00'
    """
    words = " ".join(filter(None, map(str.strip, text.splitlines())))
    if words.isprintable():
        return words
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in words)


def describe_missing(package: str) -> str:
    """Return one line for a package that cannot be imported: how to get it, or to where it is."""
    # Imported here, as below: only the failing path pays for it.
    import sys

    return (
        f"{sys.executable} has no package {package!r}: `source .venv/bin/activate` if `make demo` "
        "has made that environment, else `make demo`, or `pip install '.[cpu]'` (or gpu, tpu)"
    )


def closest(name: str, allowed: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the one of ``allowed`` that is most like ``name``, capitals apart; None: none is.

    ``cutoff`` is the ratio of ``difflib`` from which two are alike.
    """
    from difflib import get_close_matches

    folded = {one.casefold(): one for one in allowed}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def nearest(name: str, allowed: Sequence[str], prefix: str = "", *, or_all: bool = True) -> str:
    """Return a hint such as ``"; did you mean 'epochs'?"`` for a misspelt ``name``, or the choices.

    Parameters
    ----------
    name : str
        What the user wrote.
    allowed : sequence of str
        What could have been written.
    prefix : str
        What stands before both, such as ``"image."``: told, but not compared.
    or_all : bool
        Name the choices where none is like it; False, where there are too many: say nothing.
    """
    if (found := closest(name, allowed)) is not None:
        return f"; did you mean {prefix + found!r}?"
    return f"; choose from {', '.join(prefix + one for one in sorted(allowed))}" if or_all else ""
