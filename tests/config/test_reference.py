"""Tests of docs/configuration.md: it is what the dataclasses and the configs say, all of them."""

import re
from pathlib import Path

import pytest

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.reference import (
    BEGIN,
    END,
    describe_settings,
    list_settings,
    update_reference,
)
from kaggle_pipeline.core.errors import PipelineError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def flat_keys(content, prefix=""):
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_page_is_what_the_settings_say():
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    assert rest.partition(END)[0].strip() == describe_settings(), "stale: make docs"


def section(title):
    """What the page says below a heading."""
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_config_is_in_the_table():
    named = re.findall(r"^\| `configs/(.+?)` \|", section("The configs"), re.MULTILINE)
    assert sorted(named) == sorted(
        path.name for path in (PAGE.parents[1] / "configs").glob("*.yaml")
    )


def test_recipes_that_are_off_are_in_no_config():
    table = section("Recipes that are off").partition("Two more are off by default")[0]
    off = {key for row in re.findall(r"^\| (`image.+?) \|", table, re.MULTILINE)
           for key in re.findall(r"`(image\.[a-z_.]+)", row)}  # fmt: skip
    assert len(off) > 8
    used = re.findall(r"^\| `(image\..+?)` .*\| `.+` \|$", describe_settings(), re.MULTILINE)
    assert "image.seeds" in used and not off & set(used)


def test_every_setting_is_there_and_has_a_meaning():
    settings = {one.key: one for one in list_settings()}
    assert set(flat_keys(to_mapping(Experiment("it", "synthetic")))) <= set(settings)
    assert not [key for key, one in settings.items() if not one.meaning]


def test_ranges_are_those_that_the_checks_enforce():
    allowed = {one.key: one.allowed for one in list_settings()}
    assert allowed["folds.k"] == "at least 2"
    assert allowed["image.dropout"] == "in [0, 1)"
    assert allowed["image.weights"] == ""


def test_a_page_without_marks_is_named(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(PipelineError, match=r"page\.md is missing"):
        update_reference(page)
    page.write_text("nothing")
    with pytest.raises(PipelineError, match=r"page\.md lacks the lines"):
        update_reference(page)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_reference(page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "`image.epochs`" in text
    assert "old" not in text.splitlines()
