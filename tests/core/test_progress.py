"""How far work is: a bar on a terminal, lines of their own in a file."""

import io
import sys
import time

import pytest

from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.progress import Progress


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_now_and_then(clock, capsys):
    with Progress(9000, "convert", "photo") as progress:
        for _ in range(90):
            clock[0] += 2
            progress(100)
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert len(lines) == 6, said
    assert lines[0] == "convert: 1,500 of 9,000 photos (17%), about 2 min left"
    assert lines[-1] == "convert: 9,000 photos in 3 min"


def test_a_log_file_gets_nothing_of_short_work(clock, capsys):
    with Progress(10, "index", "record") as progress:
        clock[0] += 5
        progress(10)
    assert capsys.readouterr().err == ""


def test_work_that_is_cut_short_says_how_far_it_came(clock, capsys):
    with pytest.raises(OutOfTime), Progress(10, "index", "record", Deadline(50 / 3600, 1000)) as it:
        clock[0] += 40
        it(3)
        clock[0] += 40
        it(3)
    assert capsys.readouterr().err.splitlines()[-1].startswith("index: 6 of 10 records (60%), ")


def test_bytes_are_said_in_megabytes_and_a_new_total_counts(clock, capsys):
    with Progress(1, "download", "B") as progress:
        progress.expect(4_000_000_000)
        clock[0] += 40
        progress(1_000_000_000)
    assert "download: 1,000 of 4,000 MB (25%), " in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(4, "convert", "photo") as progress:
        progress(4)
    assert "\rconvert: 100%" in terminal.getvalue()
