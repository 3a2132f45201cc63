"""TensorFlow loaded without what its C++ part prints on loading.

It writes of its CPU kernels and of absl's log past ``TF_CPP_MIN_LOG_LEVEL``, before any setting is
read. Whoever sets that variable below 3 sees all of it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
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
        _import_triton()
        import tensorflow
    return tensorflow


def _import_triton() -> None:
    """Load PyTorch's compiler before TensorFlow, where it is installed.

    Both bring LLVM. With triton 3.7 behind TensorFlow 2.21 the process ends in a segmentation
    fault, with no word of why; the other way round both work. It takes 0.2 s.
    """
    if "tensorflow" not in sys.modules and find_spec("triton"):
        with contextlib.suppress(Exception):  # one that does not load is no matter of TensorFlow's
            import_module("triton")


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
