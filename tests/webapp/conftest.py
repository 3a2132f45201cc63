"""A small run that the tests of the page serve."""

import shutil

import pytest
from helpers_webapp import make_run

from kaggle_pipeline.core import figures


@pytest.fixture(scope="module")
def run_dir(made_once, competition, tmp_path_factory):
    """A copy of a run on the drawn competition: a service writes its reference into it."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:  # pictures as sharp as the page shows them
            patch.setattr(figures, "DPI", 200)
            make_run("synthetic", folder, competition / "competition")

    shared = made_once("served", make)
    return shutil.copytree(shared / "run", tmp_path_factory.mktemp("served") / "run")
