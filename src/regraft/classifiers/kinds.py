"""Shallow classifiers as data: which arrays each kind is, and how they give probabilities.

``KINDS`` is the one table of them; scoring needs numpy alone. A learner predicts through the arrays
from the moment it is fitted, so a saved and loaded one cannot answer differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from regraft.classifiers.trees import Forest

Arrays = Mapping[str, NDArray[Any]]
_INDICES = frozenset({"roots", "feature", "left", "right", "classes"})
_CELLS = 8_000_000  # numbers widened to float64 at once: 64 MB


@dataclass(frozen=True)
class ArrayClassifier:
    """A fitted classifier as arrays and a few settings.

    Attributes:
        kind: A key of ``KINDS``.
        arrays: The arrays that the kind names.
        settings: The words and numbers that the kind names.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> arrays = {"coefficients": weights, "intercepts": np.zeros(2)}
        >>> linear = ArrayClassifier("linear", arrays)
        >>> linear.predict_proba(np.array([[2.0, 0.0]])).round(2).tolist()
        [[0.88, 0.12]]
    """

    kind: str
    arrays: Arrays
    settings: Mapping[str, Any] = field(default_factory=dict)

    def predict_proba(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each class for each row.

        Args:
            features: (n, d), finite.

        Returns:
            (n, k), rows sum to 1.
        """
        score = KINDS[self.kind].score
        step = max(1, _CELLS // max(1, features.shape[1]))
        blocks = [
            score(self.arrays, self.settings, features[start : start + step])
            for start in range(0, max(1, len(features)), step)
        ]
        return np.concatenate(blocks)

    def problem(self, width: int, classes: int) -> str:
        """Return what is wrong with the arrays for so many features and classes, or nothing."""
        kind = KINDS.get(self.kind)
        if kind is None:
            return f"the kind {self.kind!r} is unknown"
        if set(self.arrays) != set(kind.shapes):
            return f"a {self.kind} classifier has {sorted(kind.shapes)}, not {sorted(self.arrays)}"
        sizes = {"d": width, "k": classes, "1": 1}
        for name, letters in kind.shapes.items():
            array, shape = self.arrays[name], self.arrays[name].shape
            if array.dtype.kind != ("i" if name in _INDICES else "f"):
                return f"{name} holds {array.dtype}"
            if (
                0 in shape
                or len(shape) != len(letters)
                or any(
                    sizes.setdefault(letter, size) != size
                    for letter, size in zip(letters, shape, strict=True)
                )
            ):
                return f"{name} has the shape {shape}, expected ({', '.join(letters)}) with {sizes}"
        return kind.problem(self.arrays, self.settings, sizes)


@dataclass(frozen=True)
class Kind:
    """How one kind of arrays is scored.

    Attributes:
        shapes: The arrays and their axes by letter: d features, k classes, any other letter
            whatever size it has at first.
        score: From arrays, settings and features (n, d) to probabilities (n, k).
        problem: From arrays, settings and the sizes by letter to what is wrong, if anything.
    """

    shapes: Mapping[str, str]
    score: Callable[[Arrays, Mapping[str, Any], NDArray[Any]], NDArray[np.float64]]
    problem: Callable[[Arrays, Mapping[str, Any], Mapping[str, int]], str]


def _no_settings(_: Arrays, settings: Mapping[str, Any], __: Mapping[str, int]) -> str:
    return f"unknown settings {sorted(settings)}" if settings else ""


# ---- linear: softmax of one score per class ----------------------------------------------------


def _decision(arrays: Arrays, features: NDArray[Any]) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = features.astype(np.float64) @ arrays["coefficients"].T
    return wide + arrays["intercepts"]


def _score_linear(
    arrays: Arrays, _: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    return np.asarray(softmax(_decision(arrays, features), axis=1))


def _score_one_vs_rest(
    arrays: Arrays, _: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    separate = np.maximum(expit(_decision(arrays, features)), np.finfo(np.float64).tiny)
    return np.asarray(separate / separate.sum(axis=1, keepdims=True))


# ---- Gaussian naive Bayes ----------------------------------------------------------------------


def _score_gaussian(
    arrays: Arrays, _: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    columns = [
        log_prior - 0.5 * (np.log(2 * np.pi * variance) + (wide - mean) ** 2 / variance).sum(axis=1)
        for mean, variance, log_prior in zip(
            arrays["means"], arrays["variances"], arrays["log_priors"], strict=True
        )
    ]
    return np.asarray(softmax(np.stack(columns, axis=1), axis=1))


def _problem_gaussian(arrays: Arrays, settings: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    if not np.all(arrays["variances"] > 0):
        return "a variance is not positive"
    return _no_settings(arrays, settings, sizes)


# ---- nearest neighbours ------------------------------------------------------------------------

_METRICS = ("euclidean", "cosine")
_WEIGHTS = ("uniform", "distance")


def _score_neighbours(
    arrays: Arrays, settings: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    cosine = settings["metric"] == "cosine"
    known = _unit_rows(arrays["features"]) if cosine else arrays["features"].astype(np.float64)
    asked = _unit_rows(features) if cosine else features.astype(np.float64)
    squares = (known**2).sum(
        axis=1
    ) - 2.0 * asked @ known.T  # the row's own square changes no order
    count = settings["neighbours"]
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
    # Again without the cancellation of the expanded square: equal pictures are at exactly 0.
    exact = np.stack(
        [((known[rows] - row) ** 2).sum(axis=1) for rows, row in zip(nearest, asked, strict=True)]
    ).reshape(len(asked), count)
    distance = exact / 2.0 if cosine else np.sqrt(exact)
    votes = np.ones_like(distance)
    if settings["weights"] == "distance":
        same = distance == 0.0
        votes = np.where(same.any(axis=1, keepdims=True), same, 1.0 / np.where(same, 1.0, distance))
    shares = np.zeros((len(asked), settings["classes"]))
    rows = np.arange(len(asked))[:, None]
    np.add.at(shares, (rows, arrays["classes"][nearest]), votes)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _unit_rows(features: NDArray[Any]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    length = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    return np.asarray(wide / np.where(length == 0.0, 1.0, length))


def _problem_neighbours(
    arrays: Arrays, settings: Mapping[str, Any], sizes: Mapping[str, int]
) -> str:
    if set(settings) != {"metric", "weights", "neighbours", "classes"}:
        return f"neighbours need metric, weights, neighbours and classes, not {sorted(settings)}"
    if settings["metric"] not in _METRICS or settings["weights"] not in _WEIGHTS:
        return f"metric must be one of {_METRICS} and weights one of {_WEIGHTS}"
    count, classes = settings["neighbours"], arrays["classes"]
    if type(count) is not int or not 1 <= count <= sizes["n"]:
        return f"the number of neighbours must be from 1 to {sizes['n']}"
    if settings["classes"] != sizes["k"]:
        return "the classes of the neighbours do not fit"
    return "" if np.all((classes >= 0) & (classes < sizes["k"])) else "a neighbour has no class"


# ---- trees -------------------------------------------------------------------------------------

_FOREST = {"roots": "t", "feature": "m", "threshold": "m", "left": "m", "right": "m"}


def _forest(arrays: Arrays) -> Forest:
    return Forest(**{name: arrays[name] for name in (*_FOREST, "values")})


def _score_forest(
    arrays: Arrays, _: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    forest = _forest(arrays)
    shares = np.empty((len(features), forest.values.shape[1]))
    for rows, leaves in forest.blocks(features):
        shares[rows] = forest.values[leaves].sum(axis=1, dtype=np.float64)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _problem_forest(arrays: Arrays, settings: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    if not np.all(arrays["values"] >= 0) or not np.all(arrays["values"].sum(axis=1) > 0):
        return "the values of a leaf are no shares of classes"
    return _forest(arrays).problem(sizes["d"]) or _no_settings(arrays, settings, sizes)


def _score_boosting(
    arrays: Arrays, _: Mapping[str, Any], features: NDArray[Any]
) -> NDArray[np.float64]:
    forest, start = _forest(arrays), arrays["start"]
    scores = np.empty((len(features), len(start)))
    for rows, leaves in forest.blocks(features):
        steps = forest.values[leaves, 0].reshape(len(leaves), -1, len(start))
        scores[rows] = start + steps.sum(axis=1, dtype=np.float64)
    if len(start) == 1:
        scores = scores * np.array([-0.5, 0.5])  # softmax of these two is the logistic function
    return np.asarray(softmax(scores, axis=1))


def _problem_boosting(arrays: Arrays, settings: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    outputs = 1 if sizes["k"] == 2 else sizes["k"]
    if sizes["o"] != outputs or sizes["t"] % outputs:
        return f"{sizes['t']} trees and {sizes['o']} starts do not fit {sizes['k']} classes"
    return _forest(arrays).problem(sizes["d"]) or _no_settings(arrays, settings, sizes)


_LINEAR = {"coefficients": "kd", "intercepts": "k"}

KINDS: Mapping[str, Kind] = {
    "linear": Kind(_LINEAR, _score_linear, _no_settings),
    "one_vs_rest": Kind(_LINEAR, _score_one_vs_rest, _no_settings),
    "gaussian": Kind(
        {"means": "kd", "variances": "kd", "log_priors": "k"}, _score_gaussian, _problem_gaussian
    ),
    "neighbours": Kind({"features": "nd", "classes": "n"}, _score_neighbours, _problem_neighbours),
    "forest": Kind(_FOREST | {"values": "lk"}, _score_forest, _problem_forest),
    "boosting": Kind(_FOREST | {"values": "l1", "start": "o"}, _score_boosting, _problem_boosting),
}
