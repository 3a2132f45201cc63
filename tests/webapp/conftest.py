"""A small run that the tests of the page serve."""

import shutil

import pytest
from helpers_webapp import make_run


@pytest.fixture(scope="module")
def run_dir(made_once, competition, tmp_path_factory):
    """A copy of a run on the drawn competition: a service writes its reference into it."""
    shared = made_once(
        "served", lambda folder: make_run("synthetic", folder, competition / "competition")
    )
    return shutil.copytree(shared / "run", tmp_path_factory.mktemp("served") / "run")
