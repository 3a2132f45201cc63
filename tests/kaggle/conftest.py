"""Kernels are packed quickly."""

import lzma

import pytest

from kaggle_pipeline.kaggle import kernels


@pytest.fixture(scope="module", autouse=True)
def packed_quickly():
    """Half a second a kernel is saved; what is unpacked is the same. Others pack as users do."""
    compress = lzma.compress
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.lzma, "compress", lambda content, preset: compress(content, preset=1))
        yield
