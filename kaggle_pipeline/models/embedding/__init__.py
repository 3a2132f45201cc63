"""Vectors of encoders that stay as they are, and a linear head on them."""
