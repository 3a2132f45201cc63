"""Scores of labelled predictions, with intervals, by class and by subgroup."""
