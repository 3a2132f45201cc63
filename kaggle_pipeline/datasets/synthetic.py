"""The made-up melanoma competition: read like ``siim_isic_2020``, drawn by ``synthetic/``."""

from dataclasses import replace
from functools import partial

from kaggle_pipeline.datasets import siim_isic_2020

_SOURCE = (
    "make it with `python scripts/make_synthetic.py --out data/demo` and say "
    "--data-dir data/demo/competition"
)
SPEC = replace(
    siim_isic_2020.SPEC,
    id="synthetic",
    title="Made-up melanoma competition",
    made_up=True,
    source=_SOURCE,
    kaggle="",
    given_fit=None,
    read_raw=partial(siim_isic_2020.read_raw, source=_SOURCE),
)
