"""Melanoma competition pipeline: image and tabular models, blended, ending in ``submission.csv``."""

__version__ = "0.1.0"
