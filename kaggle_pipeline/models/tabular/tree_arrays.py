"""Decision trees as plain arrays: a forest that is saved without a pickle and answers the same.

In: a fitted scikit-learn ensemble. Out: a :class:`Trees`, read from and written to ``.npz``.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_pipeline.core.private_api import boosting_nodes

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

_LEAF = -1


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees, one after the other.

    Attributes
    ----------
    roots : int32 array (trees,)
        Node at which each tree begins.
    feature : int32 array (nodes,)
        Column that an inner node asks, -1 for a leaf.
    threshold : float64 array (nodes,)
        Rows whose value is at most this go left.
    left, right : int32 array (nodes,)
    value : float64 array (nodes, outputs)
        What a leaf adds.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    def total(self, x: np.ndarray) -> np.ndarray:
        """Return the sum of all trees' leaves (n, outputs), float64, for ``x`` (n, columns)."""
        total = np.zeros((len(x), self.value.shape[1]))
        everyone = np.arange(len(x))
        for root in self.roots:
            node = np.full(len(x), root)
            rows = everyone
            while len(rows):
                rows = rows[self.feature[node[rows]] != _LEAF]
                at = node[rows]
                goes_left = x[rows, self.feature[at]] <= self.threshold[at]
                node[rows] = np.where(goes_left, self.left[at], self.right[at])
            total += self.value[node]
        return total

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, for ``numpy.savez``."""
        return asdict(self)


def from_forest(forest: "ExtraTreesClassifier") -> Trees:
    """Return a fitted forest's trees; their total is the classes' mean probabilities."""
    parts = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        shares = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
        leaf = tree.children_left == _LEAF
        parts.append(
            {
                "feature": np.where(leaf, _LEAF, tree.feature),
                "threshold": tree.threshold,
                "left": tree.children_left,
                "right": tree.children_right,
                "value": np.where(leaf[:, None], shares, 0) / len(forest.estimators_),
            }
        )
    return _joined(parts)


def from_boosting(boosting: "HistGradientBoostingClassifier") -> Trees:
    """Return a fitted boosting's trees; their total and the baseline are the raw scores."""
    iterations = boosting_nodes(boosting)
    outputs = len(iterations[0])
    parts = []
    for iteration in iterations:
        for output, nodes in enumerate(iteration):
            leaf = nodes["is_leaf"].astype(bool)
            value = np.zeros((len(nodes), outputs))
            value[leaf, output] = nodes["value"][leaf]
            parts.append(
                {
                    "feature": np.where(leaf, _LEAF, nodes["feature_idx"]),
                    "threshold": nodes["num_threshold"],
                    "left": nodes["left"],
                    "right": nodes["right"],
                    "value": value,
                }
            )
    return _joined(parts)


def _joined(parts: Sequence[dict[str, Any]]) -> Trees:
    sizes = [len(part["feature"]) for part in parts]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)

    def stacked(name: str, kind: type, shift: bool = False) -> np.ndarray:
        arrays = [
            np.asarray(part[name]) + (root if shift else 0)
            for part, root in zip(parts, roots, strict=True)
        ]
        return np.concatenate(arrays).astype(kind)

    return Trees(
        roots,
        stacked("feature", np.int32),
        stacked("threshold", np.float64),
        stacked("left", np.int32, shift=True),
        stacked("right", np.int32, shift=True),
        stacked("value", np.float64),
    )
