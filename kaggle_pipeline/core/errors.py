"""The one exception that means "the user can mend this": one line, exit code 2, no traceback."""


class PipelineError(Exception):
    """A mistake in data, configuration or command.

    The message is one line that names the file, row or key and says what to do. The command
    line prints it and exits with code 2; every other exception is a bug and keeps its traceback.
    """


def describe_missing(package: str) -> str:
    """Return one line for a package that cannot be imported: how to get it, or to where it is."""
    # Imported here, as below: only the failing path pays for it.
    import sys

    return (
        f"{sys.executable} has no package {package!r}: `source .venv/bin/activate` if `make demo` "
        "has made that environment, else `make demo`, or `pip install '.[cpu]'` (or gpu, tpu)"
    )


def nearest(name: str, allowed: list[str], prefix: str = "") -> str:
    """Return a hint such as ``"; did you mean 'epochs'?"`` for a misspelt ``name``, or the choices.

    Parameters
    ----------
    name : str
        What the user wrote.
    allowed : list of str
        What could have been written.
    prefix : str
        What stands before both, such as ``"image."``: told, but not compared.
    """
    from difflib import get_close_matches

    folded = {one.casefold(): one for one in allowed}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {prefix + folded[close[0]]!r}?"
    return f"; choose from {', '.join(prefix + one for one in sorted(allowed))}"
