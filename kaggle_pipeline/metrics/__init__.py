"""Scores under many bootstrap weights at once."""
