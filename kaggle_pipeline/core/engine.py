"""TensorFlow loaded without what its C++ part prints on loading.

It writes of its CPU kernels and of absl's log past ``TF_CPP_MIN_LOG_LEVEL``, before any setting is
read. Whoever sets that variable below 3 sees all of it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_tensorflow() -> ModuleType:
    """Return TensorFlow; what it prints on loading is left out, unless the variable asks for it.

    Raises
    ------
    ImportError
        If it is not installed, or does not load; then all that it printed is shown.
    """
    # Processes that this one starts inherit the variable, and are as quiet.
    quiet = "tensorflow" not in sys.modules and os.environ.setdefault(_LEVEL, "3") == "3"
    with _kept_back_errors() if quiet else contextlib.nullcontext():
        import tensorflow
    return tensorflow


@contextlib.contextmanager
def _kept_back_errors() -> Iterator[None]:
    """Keep what is written to the process's standard error; it is shown if the block raises."""
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:  # a signal that ends this process is no failure of the import
            kept.seek(0)
            os.write(before, kept.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
