"""Tests of what is shown of TensorFlow's words on loading."""

import os

import pytest

from kaggle_pipeline.core.engine import _kept_back_errors


@pytest.mark.parametrize(("error", "shown"), [(ImportError, True), (KeyboardInterrupt, False)])
def test_words_are_shown_where_loading_fails_not_where_a_signal_ends_it(capfd, error, shown):
    with pytest.raises(error), _kept_back_errors():
        os.write(2, b"of C++\n")
        raise error
    assert ("of C++" in capfd.readouterr().err) is shown
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"
