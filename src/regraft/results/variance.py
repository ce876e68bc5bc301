"""How much a mean over repeats varies: other seeds on one split, or other splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Right = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variance:
    """The variance of a mean.

    Args:
        value: The square of its standard error.
        degrees: How many degrees of freedom it was estimated with; infinite where the normal
            distribution serves.
    """

    value: float
    degrees: float = math.inf

    def quantile(self, probability: float = 0.975) -> float:
        """Return the quantile of the distribution that the mean divided by its error has.

        Example:
            >>> round(Variance(1.0).quantile(), 2), round(Variance(1.0, 2).quantile(), 2)
            (1.96, 4.3)
        """
        if math.isinf(self.degrees):
            return NormalDist().inv_cdf(probability)
        from scipy.special import stdtrit  # scipy.stats takes seconds to import

        return float(stdtrit(self.degrees, probability))

    def p_value(self, ratio: float) -> float:
        """Return how often a mean is so many standard errors, or more, from what it should be.

        Args:
            ratio: The distance divided by the standard error.
        """
        if math.isinf(self.degrees):
            return math.erfc(abs(ratio) / math.sqrt(2))
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(ratio)))


def variance_over_seeds(*ways: Right) -> Variance:
    """Return the variance of an accuracy, or of a difference, over pictures and seeds.

    Every seed was tested on the same pictures, so both are crossed: the mean over pictures and
    seeds varies because other pictures could have been drawn, and because other seeds could. The
    first shows between pictures, the second between seeds; what shows between seeds although they
    are equally good, for they err on different pictures, is subtracted. What remains of it is known
    badly where seeds are few, which the degrees of freedom carry (Satterthwaite, "An approximate
    distribution of estimates of variance components", 1946).

    Args:
        ways: Whether each seed (row) was right on each picture (column), shape (seeds, n): one way
            for its accuracy; two ways, which may have different numbers of seeds, for their
            difference. A way with one seed counts as one that no seed changes.

    Example:
        >>> once = np.array([[1.0, 1.0, 1.0, 0.0]])
        >>> variance_over_seeds(once)
        Variance(value=0.046875, degrees=inf)
    """
    n = ways[0].shape[1]
    first, *others = (way.mean(axis=0) for way in ways)
    pictures = float(np.var(first - sum(others))) / n
    between, by_chance, spread = 0.0, 0.0, 0.0
    for way in ways:
        seeds = len(way)
        if seeds == 1:
            continue
        own = way.mean(axis=1)
        measured = float(np.var(own, ddof=1)) / seeds
        rest = way - way.mean(axis=0) - own[:, None] + own.mean()
        by_chance += float((rest**2).sum()) / ((seeds - 1) * max(1, n - 1)) / (seeds * n)
        between += measured
        spread += measured**2 / (seeds - 1)
    if between <= by_chance:
        return Variance(pictures)
    value = pictures + between - by_chance
    return Variance(value, value**2 / spread)


def variance_over_splits(values: Sequence[float], test_to_train: float) -> Variance:
    """Return the variance of a mean over splits that share their training pictures.

    Splits of one data set are not independent: the variance between them, divided by their number,
    is too small. Nadeau and Bengio, "Inference for the generalization error", 2003, add the number
    of test pictures divided by the number of training pictures: ``(1 / k + test / train) s²``.
    The same serves for folds (Bouckaert and Frank, "Evaluating the replicability of significance
    tests for comparing learning algorithms", 2004).

    Args:
        values: One accuracy, or difference of two, per split; at least two.
        test_to_train: Test pictures divided by training pictures, of one split.

    Example:
        >>> found = variance_over_splits([0.90, 0.92, 0.94], test_to_train=0.5)
        >>> round(found.value, 8), found.degrees  # (1/3 + 0.5) * 0.0004
        (0.00033333, 2)
    """
    spread = float(np.var(np.asarray(values, dtype=np.float64), ddof=1))
    return Variance((1 / len(values) + test_to_train) * spread, len(values) - 1)
