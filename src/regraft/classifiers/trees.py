"""Decision trees as plain arrays: taken out of fitted classifiers, checked, and walked.

All the trees of a classifier stand in one set of arrays, one after the other. A node asks whether a
feature is at most its threshold and goes ``left`` or ``right``; both stand behind the node itself,
so that a walk always ends. A leaf has feature -1 and names a row of ``values``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS = 4_000_000  # rows x trees that are walked at once: 64 MB of work space


@dataclass(frozen=True)
class Forest:
    """The nodes of many trees.

    Attributes:
        roots: The node at which each tree begins, (trees,).
        feature: The column that a node asks about, -1 in a leaf, (nodes,).
        threshold: A row goes left where its value is at most this, (nodes,).
        left: The node to the left, or in a leaf its row of ``values``, (nodes,).
        right: The node to the right, 0 in a leaf, (nodes,).
        values: What the leaves answer, (leaves, outputs).

    Example:
        >>> stump = Forest(
        ...     roots=np.array([0]),
        ...     feature=np.array([0, -1, -1]),
        ...     threshold=np.array([0.5, 0.0, 0.0]),
        ...     left=np.array([1, 0, 1]),
        ...     right=np.array([2, 0, 0]),
        ...     values=np.array([[1.0, 0.0], [0.0, 1.0]]),
        ... )
        >>> leaves = stump.leaves(np.array([[0.2], [0.9]]))
        >>> stump.values[leaves[:, 0]].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    roots: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]
    values: NDArray[Any]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problem(self, width: int) -> str:
        """Return what is wrong with the arrays for rows of ``width`` features, or an empty string.

        Shapes and types are the caller's affair; this looks at where the indices point.
        """
        nodes = np.arange(len(self.feature))
        leaf = self.feature < 0
        inner = nodes[~leaf]
        if np.any(self.roots < 0) or np.any(self.roots >= len(nodes)):
            return "a root points outside the nodes"
        if np.any(self.feature >= width):
            return "a node asks about a feature that does not exist"
        if np.any(self.left[leaf] < 0) or np.any(self.left[leaf] >= len(self.values)):
            return "a leaf points outside the values"
        for child in (self.left[inner], self.right[inner]):
            if np.any(child <= inner) or np.any(child >= len(nodes)):
                return "a node points backwards or outside the nodes"
        return ""

    def leaves(self, features: NDArray[Any]) -> NDArray[np.intp]:
        """Return the row of ``values`` at which each row of ``features`` ends in each tree.

        Args:
            features: (n, d), finite.

        Returns:
            (n, trees).
        """
        node = np.broadcast_to(self.roots.astype(np.intp), (len(features), len(self.roots))).copy()
        moving_row, moving_tree = np.nonzero(self.feature[node] >= 0)
        while moving_row.size:
            here = node[moving_row, moving_tree]
            low = features[moving_row, self.feature[here]] <= self.threshold[here]
            here = np.where(low, self.left[here], self.right[here])
            node[moving_row, moving_tree] = here
            inner = self.feature[here] >= 0
            moving_row, moving_tree = moving_row[inner], moving_tree[inner]
        return self.left[node].astype(np.intp)

    def blocks(self, features: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.intp]]]:
        """Yield slices of the rows with their ``leaves``, so that the work space stays small."""
        step = max(1, _CELLS // max(1, len(self.roots) * self.values.shape[1]))
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            yield rows, self.leaves(features[rows])


@dataclass(frozen=True)
class _Tree:
    """One tree, nodes counted from 0; ``values`` has a row for every node."""

    feature: NDArray[Any]
    threshold: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]
    values: NDArray[Any]


def from_scikit(trees: Iterable[Any], *, shares: bool) -> Forest:
    """Return the trees of scikit-learn's fitted decision trees.

    Args:
        trees: ``tree_`` of each ``DecisionTreeClassifier`` or ``DecisionTreeRegressor``.
        shares: Whether a leaf answers with the share of each class instead of one number.
    """
    return _join(_from_scikit(tree, shares=shares) for tree in trees)


def _from_scikit(tree: Any, *, shares: bool) -> _Tree:
    values = tree.value[:, 0, :].astype(np.float64)
    if shares:
        values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    feature = np.where(tree.children_left < 0, -1, tree.feature)
    return _Tree(feature, tree.threshold, tree.children_left, tree.children_right, values)


def from_histograms(predictors: Iterable[Iterable[Any]]) -> Forest:
    """Return the trees of a fitted ``HistGradientBoostingClassifier``, round by round.

    Args:
        predictors: Its ``_predictors``: for each round one tree per output.
    """
    return _join(_from_histogram(tree.nodes) for trees in predictors for tree in trees)


def _from_histogram(nodes: NDArray[Any]) -> _Tree:
    feature = np.where(nodes["is_leaf"] > 0, -1, nodes["feature_idx"])
    threshold = np.where(nodes["is_leaf"] > 0, 0.0, nodes["num_threshold"])
    # A split "everything against missing" has the threshold infinity; our features are finite.
    threshold = np.minimum(threshold, np.finfo(np.float64).max)
    return _Tree(feature, threshold, nodes["left"], nodes["right"], nodes["value"][:, None])


def from_xgboost(booster: Any) -> tuple[Forest, NDArray[np.float64]]:
    """Return the trees of a fitted XGBoost booster and the score from which they start.

    Args:
        booster: ``XGBClassifier.get_booster()`` of a classifier on numbers.

    Returns:
        The trees, those of one round side by side, and the start (outputs,) before the softmax or
        the logistic function.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    start = json.loads(learner["learner_model_param"]["base_score"])
    scores = np.atleast_1d(np.asarray(start, dtype=np.float64))
    if learner["objective"]["name"] == "binary:logistic":
        scores = np.log(scores / (1.0 - scores))
    trees = learner["gradient_booster"]["model"]["trees"]
    return _join(_from_xgboost(tree) for tree in trees), scores


def _from_xgboost(tree: dict[str, Any]) -> _Tree:
    left = np.asarray(tree["left_children"])
    condition = np.asarray(tree["split_conditions"], dtype=np.float32)
    feature = np.where(left < 0, -1, np.asarray(tree["split_indices"]))
    # XGBoost goes left where value < threshold: the next smaller float32 turns that into <=.
    threshold = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    return _Tree(feature, threshold, left, np.asarray(tree["right_children"]), condition[:, None])


def _join(trees: Iterable[_Tree]) -> Forest:
    columns: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("roots", "feature", "threshold", "left", "right", "values")
    }
    nodes = leaves = 0
    for tree in trees:
        leaf = tree.feature < 0
        row = leaves + np.cumsum(leaf) - 1
        columns["roots"].append(np.array([nodes]))
        columns["feature"].append(tree.feature)
        columns["threshold"].append(np.where(leaf, 0.0, tree.threshold))
        columns["left"].append(np.where(leaf, row, tree.left.astype(np.int64) + nodes))
        columns["right"].append(np.where(leaf, 0, tree.right.astype(np.int64) + nodes))
        columns["values"].append(tree.values[leaf])
        nodes += len(leaf)
        leaves += int(leaf.sum())
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    indices = {
        name: joined[name].astype(np.int32) for name in ("roots", "feature", "left", "right")
    }
    return Forest(threshold=joined["threshold"], values=joined["values"], **indices)
