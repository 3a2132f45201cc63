"""A command: its options, its function and its examples in one entry, and how commands end.

In: commands and words. Out: an exit code: 0, 75 when ``--max-hours`` are up, 128 and a signal's
number after that signal, or 2 with one line on standard error that says what to mend.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kaggle_pipeline import DISCLAIMER, __version__
from kaggle_pipeline.cli.console import leave_closed_pipe, quieten_packages, soften_console
from kaggle_pipeline.core.deadline import OutOfTime
from kaggle_pipeline.core.errors import PipelineError, closest, describe_missing, nearest
from kaggle_pipeline.core.private_api import option_strings
from kaggle_pipeline.core.room import describe_system_error
from kaggle_pipeline.core.stopping import GO_ON, Stopped, stoppable

OUT_OF_TIME = 75
"""Exit code after ``--max-hours``: not done, not failed (EX_TEMPFAIL of BSD's sysexits)."""
INSTALLED = "kaggle-pipeline"
"""The command that an installation gives; ``scripts/`` come with a checkout alone."""
CLOSED_PIPE = 141
"""Exit code where the reader of what is printed has gone: that of a program which SIGPIPE ends."""
_CLOSE = 0.6
"""Likeness from which an option is taken for the one that was meant."""


@dataclass(frozen=True)
class Command:
    """One subcommand; ``scripts/<name>.py`` runs it.

    Attributes
    ----------
    name : str
        Such as ``train-image``.
    help : str
        One sentence.
    add_options : callable
        ``add_options(parser)``.
    run : callable
        ``run(options)``; imports its stage when it is called, so that ``--help`` stays quick.
    examples : str
        Shown at the end of ``--help``: command lines that work as they are written.
    """

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    examples: str


def as_installed(text: str) -> str:
    """Return a text in which scripts are run, with the installed command in their place.

    Examples
    --------
    >>> as_installed("python scripts/run_pipeline.py --config configs/demo.yaml")
    'kaggle-pipeline run-pipeline --config demo'
    """
    text = re.sub(
        r"python scripts/(\w+)\.py",
        lambda match: f"{INSTALLED} {match[1].replace('_', '-')}",
        text,
    )
    return re.sub(r"--config configs/(\w+)\.yaml", r"--config \1", text)


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, like every other error.

    Attributes
    ----------
    below : dict of str to Parser
        The parsers of its commands.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.below: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")

    def refuse_unknown_options(self, words: Sequence[str]) -> None:
        """End where a word is an option that there is not, with the one that may be meant.

        Asked before ``argparse``, which would first miss the required option that is mistyped.
        Nothing behind a ``--`` is an option, nor a number, nor what holds a blank.
        """
        known = option_strings(self)
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            there = any(one.startswith(name) for one in known)  # as argparse takes it
            if not there and re.fullmatch(r"--?[^\W\d]\S*", word):
                hint = closest(name, known, _CLOSE)
                meant = f"; did you mean {hint}?" if hint else ""
                self.error(f"unknown option {name}{meant}")


def build_parser(
    commands: Sequence[Command],
    said: Callable[[str], str] = str,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> argparse.ArgumentParser:
    """Return the parser of ``commands``, whose help lists them in ``groups``: title to names.

    ``options.command`` is the chosen :class:`Command`, and
    ``options.refuse`` ends it with a mistake that its own ``--help`` explains.

    ``said``, later ``options.said``, turns command lines of a text into those that work where this
    was started.
    """
    parser = Parser(
        prog=INSTALLED, usage=f"{INSTALLED} COMMAND [options]", description=DISCLAIMER,
        epilog=_overview(commands, groups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for command in commands:
        below = subparsers.add_parser(
            command.name,
            prog=said(f"python scripts/{command.name.replace('-', '_')}.py"),
            description=f"{command.help} {DISCLAIMER}",
            epilog=said(f"examples:\n{command.examples}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(below)
        parser.below[command.name] = below
        below.set_defaults(command=command, said=said, refuse=below.error)
    return parser


def _overview(
    commands: Sequence[Command], groups: Mapping[str, Sequence[str]] | None
) -> str | None:
    """Every command in a line, by group."""
    if not groups:
        return None
    known = {command.name: command.help for command in commands}
    width = max(map(len, known))
    parts = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {known[name]}" for name in names)])
        for title, names in groups.items()
    ]
    return "\n\n".join([*parts, f"options and examples of one: {INSTALLED} COMMAND --help"])


def _meant(unknown: Sequence[str], options: argparse.Namespace) -> str:
    """A hint for words that belong to no option, where it is known which was forgotten."""
    if hasattr(options, "overrides") and any("=" in word for word in unknown):
        return "; each setting is one word behind a --set of its own: --set KEY=VALUE"
    if bare := [one for one in getattr(options, "overrides", []) if "=" not in one]:
        return f"; did you mean --set {bare[0]}={unknown[0]}?"
    if hasattr(options, "config") and unknown[0].endswith((".yaml", ".yml")):
        return f"; did you mean --config {unknown[0]}?"
    return ""


def run_command(
    commands: Sequence[Command],
    arguments: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Run the one of ``commands`` that ``arguments`` (default: ``sys.argv``) name.

    Without any word it shows them all, in ``groups``.

    Returns
    -------
    int
        Exit code.
    """
    soften_console()
    quieten_packages()
    said = as_installed if arguments is None else str
    parser = build_parser(commands, said, groups)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        return 2
    if words[0].startswith("-"):
        parser.refuse_unknown_options(words[:1])
    elif words[0] not in parser.below:
        parser.error(f"unknown command {words[0]!r}{nearest(words[0], list(parser.below))}")
    else:
        parser.below[words[0]].refuse_unknown_options(words[1:])
    options, unknown = parser.parse_known_args(words)
    if unknown:  # the parser of all commands would name itself
        options.refuse(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, options)}")
    try:
        with stoppable():
            options.command.run(options)
            sys.stdout.flush()  # here, where a closed pipe is no traceback
    except BrokenPipeError:
        leave_closed_pipe()
        return CLOSED_PIPE
    except OutOfTime as stop:
        print(f"stopped in time: {stop}; {GO_ON}", file=sys.stderr)
        return OUT_OF_TIME
    except PipelineError as error:
        print(said(f"error: {error}"), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "kaggle_pipeline").startswith("kaggle_pipeline"):
            raise
        print(f"error: {describe_missing(error.name)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written, a file in its place
        named = f"{error.filename or 'a file'}: {error.strerror or error}"
        print(f"error: {describe_system_error(error) or named}", file=sys.stderr)
        return 2
    except Exception as error:
        line = describe_system_error(error)  # TensorFlow's own errors of a full disk
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(stop if isinstance(stop, Stopped) else f"interrupted: {GO_ON}", file=sys.stderr)
        return stop.code if isinstance(stop, Stopped) else 130
    return 0
