"""The kind of question that a data set asks: it decides activation, loss and scores."""

from typing import Literal

Task = Literal["binary", "multilabel", "multiclass"]
"""``binary``: one sigmoid; ``multilabel``: a sigmoid a class; ``multiclass``: one softmax."""
