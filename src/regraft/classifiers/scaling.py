"""What is done to features before a shallow classifier sees them; saved together with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.classifiers.linear import principal_directions
from regraft.errors import UsageError

_COMPONENTS = 64
_CELLS = 8_000_000  # numbers that are widened to float64 at once: 64 MB


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
        """Return scaled features, (n, d) or (n, r).

        Args:
            features: (n, d).
            out: Where to write a result of the same shape; ``out=features`` saves a second matrix.
        """
        if "components" in self.arrays:
            turned: NDArray[np.float32] = features @ self.arrays["components"].T
            return np.asarray(turned - self.arrays["offset"])
        if "divisor" in self.arrays:
            scaled: NDArray[np.float32] = np.subtract(features, self.arrays["mean"], out=out)
            np.divide(scaled, self.arrays["divisor"], out=scaled)
            return scaled
        return features

    def width(self, features: int) -> int:
        """Return how many columns come out when ``features`` go in."""
        return len(self.arrays["offset"]) if "offset" in self.arrays else features

    def problem(self, features: int) -> str:
        """Return what is wrong with the arrays for that many features, or an empty string."""
        shapes = {name: array.shape for name, array in self.arrays.items()}
        rank = len(self.arrays["offset"]) if shapes.get("offset", ()) else 0
        expected: dict[str, dict[str, tuple[int, ...]]] = {
            "none": {},
            "unit": {"mean": (features,), "divisor": (features,)},
            "columns": {"mean": (features,), "divisor": (features,)},
            "principal": {"components": (rank, features), "offset": (rank,)},
        }
        floats = all(array.dtype == np.float32 for array in self.arrays.values())
        if shapes != expected.get(self.name) or not floats:
            return f"the scaling {self.name!r} of {features} features has the arrays {shapes}"
        divisor = self.arrays.get("divisor")
        return "" if divisor is None or np.all(divisor > 0) else "a divisor is not positive"


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
        raise UsageError(
            f"unknown scale {name!r}", hint="one of " + ", ".join(SCALES), code="USAGE-SCALE"
        )


def _unchanged(_: NDArray[np.float32]) -> Scaling:
    return Scaling("none")


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
    length = np.sqrt(variance.sum()) or 1.0
    directions = principal_directions(features - mean.astype(np.float32), _COMPONENTS) / length
    arrays = {"components": directions, "offset": directions @ mean}
    # In one order in memory before and after saving: the order decides how products are rounded.
    return Scaling(
        "principal", {name: part.astype(np.float32, order="C") for name, part in arrays.items()}
    )


def _moments(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    step = max(1, _CELLS // features.shape[1])
    for start in range(0, len(features), step):
        squares += ((features[start : start + step] - mean) ** 2).sum(axis=0)
    return mean, squares / len(features)


SCALES: Mapping[str, Callable[[NDArray[np.float32]], Scaling]] = {
    "unit": _unit,
    "columns": _columns,
    "principal": _principal,
    "none": _unchanged,
}
