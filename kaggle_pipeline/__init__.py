"""Melanoma competition pipeline: image and tabular models, blended into ``submission.csv``."""

__version__ = "0.1.0"
