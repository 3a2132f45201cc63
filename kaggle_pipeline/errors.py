"""The one exception that means "the user can mend this": one line, exit code 2, no traceback."""


class PipelineError(Exception):
    """A mistake in data, configuration or command.

    The message is one line that names the file, row or key and says what to do. The command
    line prints it and exits with code 2; every other exception is a bug and keeps its traceback.
    """


def nearest(name: str, allowed: list[str]) -> str:
    """Return a hint such as ``"; did you mean 'epochs'?"`` for a misspelt ``name``, or the choices.

    Parameters
    ----------
    name : str
        What the user wrote.
    allowed : list of str
        What could have been written.
    """
    # Imported here: only the failing path pays for it.
    from difflib import get_close_matches

    close = get_close_matches(name, allowed, n=1, cutoff=0.5)
    return (
        f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(sorted(allowed))}"
    )
