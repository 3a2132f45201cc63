"""Melanoma competition pipeline: image and tabular models, blended into ``submission.csv``."""

__version__ = "0.1.0"

DISCLAIMER = "Research tool, not a medical device: its numbers are no diagnosis."
