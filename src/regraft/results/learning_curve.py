"""Accuracy against images per class: the power law in it, and how many more it asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.results.intervals import Estimate, accuracy_json, percent
from regraft.settings import to_json

Floats = npt.NDArray[np.float64]

LEAST_SIZES = 3
FARTHEST = 100
_DRAWS = 1000
_EXPONENTS = np.geomspace(0.02, 4, 120)


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """``error = a + b n ** -c`` with ``a, b >= 0`` and ``c > 0``.

    Args:
        a: The error that no number of images takes away.
        b: The error that one image per class would leave beyond it.
        c: How fast it falls.
        draws: What a, b and c could have been too, shape (draws, 3).
    """

    a: float
    b: float
    c: float
    draws: Floats

    def accuracy(self, sizes: npt.ArrayLike) -> Floats:
        """Return the accuracy that the law gives with so many images per class, shape (m,)."""
        own = np.array([[self.a, self.b, self.c]])
        return np.asarray(1 - _errors(own, np.atleast_1d(sizes))[0])

    def band(self, sizes: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return the two ends of the 95 % interval of that accuracy, shape (m,) each."""
        drawn = 1 - _errors(self.draws, np.atleast_1d(sizes))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    @property
    def limit(self) -> Estimate:
        """The accuracy that more and more images lead to; its ``n`` counts the draws."""
        low, high = np.quantile(1 - self.draws[:, 0], [0.025, 0.975])
        return Estimate(1 - self.a, float(low), float(high), len(self.draws))

    def needed(self, accuracy: float) -> tuple[float, float, float]:
        """Return how many images per class an accuracy takes: median and ends of the interval.

        What cannot be reached takes infinitely many.
        """
        a, b, c = self.draws.T
        room = 1 - accuracy - a
        with np.errstate(divide="ignore", over="ignore"):
            sizes = np.where(room > 0, (b / np.where(room > 0, room, 1)) ** (1 / c), np.inf)
        # Counted, not interpolated: between a number and infinity there is none.
        low, median, high = np.quantile(sizes, [0.025, 0.5, 0.975], method="inverted_cdf")
        return float(median), float(low), float(high)


@dataclass(frozen=True)
class Goal:
    """How many more images per class an accuracy takes.

    Args:
        accuracy: The accuracy that is wanted, 0 to 1.
        more: How many more per class than the largest number that was measured, the median; None
            where it cannot be said.
        interval: The two ends of the 95 % interval of that number, the upper one None where there
            is none; None where it cannot be said.
        sentence: The same in words, or why it cannot be said.
    """

    accuracy: float
    more: int | None
    interval: tuple[int, int | None] | None
    sentence: str


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The accuracy of one method with several numbers of images per class.

    Args:
        name: What the method is called.
        points: Images per class with the accuracy, fewest first.
        fit: The power law through them; None where none could be fitted.
        note: What the fit says, or why there is none, one sentence.
    """

    name: str
    points: tuple[tuple[float, Estimate], ...]
    fit: PowerLaw | None
    note: str

    def images_for(self, accuracy: float) -> Goal:
        """Return how many more images per class an accuracy takes, or why that cannot be said.

        Nothing is said of more than 100 times the images that were measured with.

        Args:
            accuracy: Above 0 and below 1.

        Raises:
            ValueError: The accuracy does not lie between 0 and 1.

        Example:
            >>> from regraft.results.intervals import wilson
            >>> points = [(n, wilson(round(900 * (1 - n**-0.5)), 900)) for n in (25, 50, 100, 400)]
            >>> fit_curve("features", points).images_for(0.95).sentence
            '95 % is reached with 400 images per class'
        """
        if not 0 < accuracy < 1:
            raise ValueError(f"an accuracy lies between 0 and 1, not {accuracy}")
        wanted = percent(accuracy, digits=0 if math.isclose(100 * accuracy % 1, 0) else 1)
        if self.points and self.points[-1][1].value >= accuracy:
            above = itertools.takewhile(lambda point: point[1].value >= accuracy, self.points[::-1])
            size = _rounded(min(size for size, _ in above))
            return Goal(accuracy, 0, (0, 0), f"{wanted} is reached with {size} images per class")
        if self.fit is None:
            return _unsaid(accuracy, wanted, self.note)
        largest = self.points[-1][0]
        farthest = FARTHEST * largest
        median, low, high = self.fit.needed(accuracy)
        if low > farthest:
            why = f"it takes more than {FARTHEST} times as many images as there are"
            return _unsaid(accuracy, wanted, why)
        if median > farthest:
            limit = percent(self.fit.limit, parts="interval")
            why = f"the curve may well level off before, its limit is {limit}"
            return _unsaid(accuracy, wanted, why)
        more, least = max(1, math.ceil(median - largest)), max(0, math.floor(low - largest))
        most = max(more, math.ceil(high - largest)) if high <= farthest else None
        tail = f", at least {_rounded(least)}; how many at most cannot be said"
        if most is not None:
            tail = f" [{_rounded(least)}, {_rounded(most)}]"
        text = f"about {_rounded(more)} more images per class for {wanted}{tail}"
        return Goal(accuracy, more, (least, most), text)

    def to_json(self, accuracy: float = 0.95) -> dict[str, Any]:
        """Return the curve with its law, and what an accuracy takes, as a JSON object."""
        law = self.fit and {name: getattr(self.fit, name) for name in "abc"}
        return {
            "name": self.name,
            "points": [{"per_class": size} | accuracy_json(share) for size, share in self.points],
            "fit": law,
            "note": self.note,
            "goal": to_json(self.images_for(accuracy)),
        }


def fit_curve(
    name: str, points: Sequence[tuple[float, Estimate]], *, seed: int = 0
) -> LearningCurve:
    """Fit a power law to accuracies with several numbers of images per class.

    ``error = a + b n ** -c`` by least squares, each point weighed by its interval (Hestness et al.,
    "Deep learning scaling is predictable, empirically", 2017; Viering and Loog, "The shape of
    learning curves: a review", 2021). How sure it is comes from the parametric bootstrap: the
    points are drawn anew around the curve, each within its interval, and the curve is fitted again.

    Points that were tested on the same images are taken as independent, which makes the answers
    wider than they need be. Three sizes are enough: see `docs/statistics.md`.

    Args:
        name: What the method is called.
        points: Images per class with the accuracy, in any order.
        seed: Fixes the draws.

    Example:
        >>> fit_curve("features", []).note
        'a curve needs 3 sizes, and 0 were measured'
    """
    from scipy.special import chdtri

    known = tuple(sorted((point for point in points if point[1].known), key=lambda point: point[0]))
    if len({size for size, _ in known}) < LEAST_SIZES:
        note = f"a curve needs {LEAST_SIZES} sizes, and {len(known)} were measured"
        return LearningCurve(name, known, None, note)
    sizes = np.array([size for size, _ in known], dtype=np.float64)
    errors = np.array([1 - share.value for _, share in known])
    sigma = np.array([_sigma(share) for _, share in known])
    (law,), (misfit,) = _least_squares(sizes, errors[None], sigma)
    flat = float((((errors - np.average(errors, weights=sigma**-2)) / sigma) ** 2).sum())
    if law[1] == 0 or flat - misfit < chdtri(2, 0.05):
        note = "the accuracy does not rise with the number of images as far as can be seen"
        return LearningCurve(name, known, None, note)
    if misfit > chdtri(max(1, len(sizes) - 3), 0.001):
        return LearningCurve(name, known, None, "the accuracies do not lie on one power law")
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((_DRAWS, len(sizes))) * sigma
    draws, _ = _least_squares(sizes, _errors(law[None], sizes) + noise, sigma)
    a, b, c = law.tolist()
    fit = PowerLaw(a, b, c, draws)
    note = (
        f"error = {fit.a:.3g} + {fit.b:.3g} n^\N{MINUS SIGN}{fit.c:.2f}; "
        f"with ever more images it leads to {percent(fit.limit, parts='interval')}"
    )
    return LearningCurve(name, known, fit, note)


def _unsaid(accuracy: float, wanted: str, why: str) -> Goal:
    text = f"how many more images per class {wanted} takes cannot be said: {why}"
    return Goal(accuracy, None, None, text)


def _least_squares(sizes: Floats, errors: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """Fit many curves at once.

    With the exponent given, a and b follow from a straight line; so the best exponent is looked up
    among many, which finds the best of all curves and never a merely local one.

    Args:
        sizes: Images per class, shape (m,).
        errors: One row per curve, shape (k, m).
        sigma: Standard errors, shape (m,).

    Returns:
        a, b and c of each curve, shape (k, 3), and the weighted sum of squares that is left, (k,).
    """
    weights = sigma**-2
    x = (sizes / sizes[0]) ** -_EXPONENTS[:, None]
    w, wx, wxx = weights.sum(), x @ weights, (x * x) @ weights
    wy = (errors @ weights)[:, None]
    wxy = (errors * weights) @ x.T
    b = (w * wxy - wx * wy) / (w * wxx - wx * wx)
    a = (wy - wx * b) / w
    b = np.where(a < 0, wxy / wxx, b)
    a = np.maximum(a, 0)
    falling = b > 0
    a = np.where(falling, a, np.maximum(wy / w, 0))
    b = np.maximum(b, 0)
    wyy = ((errors * errors) @ weights)[:, None]
    left = wyy - 2 * (a * wy + b * wxy) + a * a * w + 2 * a * b * wx + b * b * wxx
    best = left.argmin(axis=1)
    rows = np.arange(len(errors))
    c = _EXPONENTS[best]
    laws = np.stack([a[rows, best], b[rows, best] * sizes[0] ** c, c], axis=1)
    return laws, left[rows, best]


def _errors(laws: Floats, sizes: npt.ArrayLike) -> Floats:
    a, b, c = (column[:, None] for column in laws.T)
    errors: Floats = a + b * np.asarray(sizes, dtype=np.float64) ** -c
    return errors


def _sigma(share: Estimate) -> float:
    return (share.high - share.low) / (2 * NormalDist().inv_cdf(0.975))


def _rounded(number: float) -> str:
    """Print a number of images with two digits that count."""
    if number < 100:
        return f"{number:.0f}"
    return f"{round(number, 1 - math.floor(math.log10(number))):,.0f}"
