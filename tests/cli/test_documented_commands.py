"""Every command line that the documents show has a command, options and settings that are there."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from kaggle_pipeline.cli.command import build_parser
from kaggle_pipeline.cli.main import COMMANDS
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import DEFAULT_CONFIG

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARSER = build_parser(COMMANDS)
_SHOWN = re.compile(r"(?:python scripts/(\w+)\.py|kaggle-pipeline ([a-z]+-[a-z-]+))([^`\n#|;&]*)")


def shown(text):
    """Command and words of every command line, in blocks and in sentences."""
    for script, command, rest in _SHOWN.findall(re.sub(r"\\\n\s*", "", text)):
        yield script.replace("_", "-") or command, tuple(shlex.split(rest))


def commands():
    helps = [(f"{one.name} --help", one.examples) for one in COMMANDS]
    documents = [(str(one.relative_to(ROOT)), one.read_text("utf-8")) for one in DOCUMENTS]
    return [(where, *found) for where, text in (*documents, *helps) for found in shown(text)]


def test_documents_show_commands():
    assert len(commands()) > 80


def unknown_words(words):
    """Words that mean nothing; it ends where one is missing or mistyped."""
    PARSER.below[words[0]].refuse_unknown_options(words[1:])
    return PARSER.parse_known_args(words)[1]


def of_the_package():
    return [one for one in commands() if one[1] != "benchmark"]  # a program of its own


@pytest.mark.parametrize(("where", "command", "words"), of_the_package())
def test_a_shown_command_is_there_with_its_options(where, command, words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    try:
        fault = unknown_words([command, *words])
    except SystemExit:
        fault = capsys.readouterr().err
    assert not fault, where
    said = list(pairwise(words))
    changes = [two for one, two in said if one == "--set" and "…" not in two]
    config = dict(said).get("--config") or ("C" if "--run-dir" in words else str(DEFAULT_CONFIG))
    # A run's own config, or the reader's, has the same keys; this one has models of every kind.
    theirs = config in ("…", "C", "mine.yaml", "planned.yaml")
    load_experiment(ROOT / "configs" / "siim_mini_embedding.yaml" if theirs else config, changes)


@pytest.mark.parametrize(
    "words", ["predict", "plan stray", "plan --hour", "prepare-data --run-dri x"]
)
def test_a_line_that_lacks_something_would_be_found(words, capsys):
    try:
        assert unknown_words(words.split())
    except SystemExit as end:
        assert end.code == 2 and capsys.readouterr().err
