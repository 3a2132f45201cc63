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


@pytest.mark.parametrize(("where", "command", "words"), commands())
def test_a_shown_command_is_there_with_its_options(where, command, words, monkeypatch):
    if command == "benchmark":  # a program of its own, beside the package
        return
    monkeypatch.chdir(ROOT)
    PARSER.below[command].refuse_unknown_options(words)
    said = list(pairwise(words))
    changes = [two for one, two in said if one == "--set" and "…" not in two]
    config = dict(said).get("--config") or ("" if "--run-dir" in words else str(DEFAULT_CONFIG))
    if config not in ("", "…", "C", "mine.yaml", "planned.yaml"):  # else the run's or the reader's
        load_experiment(Path(config), changes)
