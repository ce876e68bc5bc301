"""What is done to features before a shallow classifier sees them: scaling, and exact rotation.

The optimum of a linear model with an L2 penalty is a combination of the training rows (the
representer theorem), so for n rows of d > n features nothing is lost by turning the coordinates
until the rows fill at most n of them. Every grid point and fold is then fitted on (n, n) instead of
(n, d), and the coefficients are turned back at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC
from sklearn.utils.extmath import randomized_svd

from regraft.errors import UsageError

_COMPONENTS = 64
_CELLS = 8_000_000  # numbers that are widened to float64 at once: 64 MB


@dataclass(frozen=True)
class Rotation:
    """Rows in the coordinates of the space that they span.

    Attributes:
        coordinates: (n, r) float64, r <= n; inner products of rows are those of the features.
        back: (n, r): the features times this, transposed, is the orthonormal basis (r, d).
    """

    coordinates: NDArray[np.float64]
    back: NDArray[np.float64]

    def coefficients(
        self, rotated: NDArray[np.float64], features: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return coefficients for features, (k, d), from those for coordinates, (k, r)."""
        combination = rotated @ self.back.T
        turned = np.zeros((len(rotated), features.shape[1]))
        for rows in _blocks(features.shape[0], features.shape[1]):
            turned += combination[:, rows] @ features[rows].astype(np.float64)
        return turned

    def turn_back(self, classifier: Any, features: NDArray[np.float32]) -> None:
        """Make a classifier that was fitted on coordinates one for features, in place."""
        classifier.coef_ = self.coefficients(classifier.coef_, features)
        classifier.n_features_in_ = features.shape[1]


def rotate(features: NDArray[np.float32]) -> Rotation:
    """Turn n rows of d features into at most n coordinates.

    Works by the eigenvalues of the n x n matrix of inner products in float64: unlike a Cholesky
    factor it does not mind equal rows, unlike a singular value decomposition it needs no second
    d x n matrix. Directions below the rounding of the float32 features are left out.

    Example:
        >>> rows = np.array([[3.0, 0.0, 4.0], [3.0, 0.0, 4.0]], dtype=np.float32)
        >>> rotation = rotate(rows)
        >>> rotation.coordinates.shape
        (2, 1)
        >>> np.abs(rotation.coordinates).round(6).tolist()
        [[5.0], [5.0]]
    """
    count, width = features.shape
    products = np.zeros((count, count))
    for columns in _blocks(width, count):
        block = features[:, columns].astype(np.float64)
        products += block @ block.T
    values, vectors = np.linalg.eigh(products)
    # float32 features are known to 6e-8 of their length, so smaller singular values are noise.
    kept = values > max(float(values[-1]), 0.0) * np.finfo(np.float32).eps ** 2
    lengths, vectors = np.sqrt(values[kept]), vectors[:, kept]
    return Rotation(coordinates=vectors * lengths, back=vectors / lengths)


def can_rotate(classifier: Any) -> bool:
    """Say whether rotating the features leaves what ``classifier`` learns unchanged.

    Example:
        >>> can_rotate(LinearSVC()), can_rotate(LinearSVC(penalty="l1"))
        (True, False)
    """
    if type(classifier) is LogisticRegression:
        # Only L-BFGS takes the same steps in turned coordinates, so that even an early stop agrees.
        ridge = classifier.l1_ratio in {None, 0} and bool(np.isfinite(classifier.C))
        return classifier.solver == "lbfgs" and ridge and _penalty(classifier) == "l2"
    if type(classifier) is LinearSVC:
        return _penalty(classifier) == "l2"
    return type(classifier) is RidgeClassifier and not classifier.positive


def _penalty(classifier: Any) -> str:
    # From scikit-learn 1.8 on l1_ratio alone tells the penalty; the old word is "deprecated".
    penalty = classifier.penalty
    return "l2" if penalty in {"l2", "deprecated"} else str(penalty)


def _blocks(length: int, width: int) -> list[slice]:
    step = max(1, _CELLS // max(1, width))
    return [slice(start, start + step) for start in range(0, length, step)]


@dataclass(frozen=True)
class Scaling:
    """A fitted scaling.

    Attributes:
        name: A key of ``SCALES``.
        arrays: Nothing (the features stay as they are), ``mean`` and ``divisor``, both (d,), or
            ``components`` (r, d) and ``offset`` (r,); float32.

    Example:
        >>> scaling = fit_scaling("columns", np.array([[0.0], [2.0]], dtype=np.float32))
        >>> scaling.apply(np.array([[4.0]], dtype=np.float32)).tolist()
        [[3.0]]
    """

    name: str = "none"
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def apply(
        self, features: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return scaled features, (n, d) or (n, r)."""
        if "components" in self.arrays:
            turned: NDArray[np.float32] = features @ self.arrays["components"].T
            return np.asarray(turned - self.arrays["offset"])
        if "divisor" in self.arrays:
            scaled: NDArray[np.float32] = np.subtract(features, self.arrays["mean"], out=out)
            np.divide(scaled, self.arrays["divisor"], out=scaled)
            return scaled
        return features

    def unscaled(
        self, coefficients: NDArray[np.float64], intercepts: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what a linear function of scaled features, (k, r) and (k,), is of unscaled ones.

        Example:
            >>> scaling = fit_scaling("columns", np.array([[0.0], [4.0]], dtype=np.float32))
            >>> [part.tolist() for part in scaling.unscaled(np.array([[1.0]]), np.array([0.0]))]
            [[[0.5]], [-1.0]]
        """
        if "components" in self.arrays:
            return (
                coefficients @ self.arrays["components"],
                intercepts - coefficients @ self.arrays["offset"],
            )
        if "divisor" in self.arrays:
            coefficients = coefficients / self.arrays["divisor"]
            return coefficients, intercepts - coefficients @ self.arrays["mean"]
        return coefficients, intercepts


def fit_scaling(name: str, features: NDArray[np.float32]) -> Scaling:
    """Learn a scaling from training rows.

    Args:
        name: ``"unit"``: the mean row is subtracted and all is divided by one number, so that the
            mean square of the rows' lengths is 1: angles and distances keep their proportions, and
            a regularisation strength means the same for every backbone. ``"columns"``: each column
            gets mean 0 and variance 1. ``"principal"``: the 64 leading principal components, for
            classifiers that would be slow on thousands of columns. ``"none"``: no change.
        features: (n, d).

    Raises:
        UsageError: The name is unknown.
    """
    check_scale(name)
    return SCALES[name](features)


def check_scale(name: str) -> None:
    """Refuse an unknown scaling.

    Raises:
        UsageError: The name is unknown.

    Example:
        >>> check_scale("unit")
    """
    if name not in SCALES:
        hint = "one of " + ", ".join(SCALES)
        raise UsageError(f"unknown scale {name!r}", hint=hint, code="USAGE-SCALE")


def _unit(features: NDArray[np.float32]) -> Scaling:
    mean, variance = _moments(features)
    length = np.sqrt(variance.sum()) or 1.0
    return _scaling("unit", mean, np.full_like(mean, length))


def _columns(features: NDArray[np.float32]) -> Scaling:
    mean, variance = _moments(features)
    # A column that only wavers by rounding is constant: dividing by its noise would blow that up.
    constant = variance <= (10 * np.finfo(np.float32).eps * np.abs(mean)) ** 2
    return _scaling("columns", mean, np.where(constant, 1.0, np.sqrt(variance)))


def _scaling(name: str, mean: NDArray[Any], divisor: NDArray[Any]) -> Scaling:
    arrays = {"mean": mean.astype(np.float32), "divisor": divisor.astype(np.float32)}
    return Scaling(name, arrays)


def _principal(features: NDArray[np.float32]) -> Scaling:
    mean, variance = _moments(features)
    centred = features - mean.astype(np.float32)
    _, _, found = randomized_svd(centred, min(_COMPONENTS, *features.shape), random_state=0)
    directions = found / (np.sqrt(variance.sum()) or 1.0)
    arrays = {"components": directions, "offset": directions @ mean}
    # In one order in memory before and after saving: the order decides how products are rounded.
    ordered = {name: part.astype(np.float32, order="C") for name, part in arrays.items()}
    return Scaling("principal", ordered)


def _moments(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for rows in _blocks(*features.shape):
        squares += ((features[rows] - mean) ** 2).sum(axis=0)
    return mean, squares / len(features)


SCALES: Mapping[str, Callable[[NDArray[np.float32]], Scaling]] = {
    "unit": _unit,
    "columns": _columns,
    "principal": _principal,
    "none": lambda _features: Scaling(),
}
