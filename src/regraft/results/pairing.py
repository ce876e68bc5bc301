"""Two ways of learning on the same pictures: how far apart they are, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.results.statistics import mcnemar
from regraft.results.variance import Variance, variance_over_seeds, variance_over_splits

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """The difference of two accuracies: the second minus the first.

    Args:
        value: -1 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_value: How often so large a difference, or a larger one, arises between two ways that are
            equally good.
        n: The number of different pictures it was measured on.
        repeats: The number of seeds, or of splits.
        detectable: The smallest difference that could be seen here, see
            :func:`detectable_difference`.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    repeats: int
    detectable: float

    @property
    def interval(self) -> list[float]:
        """The two ends of the interval as a list, as JSON has it."""
        return [self.low, self.high]


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, *, comparisons: int = 1
) -> Difference:
    """Compare two ways on the same test pictures.

    One repeat each: Tango's score interval and McNemar's exact test. The test is a little stricter
    than the interval: what it calls different, the interval does too, and rarely not the other way
    round.

    Several seeds: the pictures that only one of two seeds named correctly are counted for every
    pair of seeds, and weigh as much as the variance over pictures and seeds allows
    (:func:`~regraft.results.variance.variance_over_seeds`): as so many independent pictures as have
    that variance. Tango's interval and test then use the t distribution, and say the same. In
    simulations with 2 to 5 seeds on 50 to 624 pictures the intervals held the true difference in
    94 to 97 % of the cases, in 95.7 % on average. Two seeds that scatter by several points on many
    pictures are too few to say so: there it can be 93 %.

    Args:
        first: Whether each repeat of the first way was right on each picture, shape
            (repeats, n), or (n,) for one.
        second: The same of the second way; it may have another number of repeats. Repeats that are
            all alike, as those of a classifier without chance are, count as one.
        comparisons: How many such differences are judged together; a difference is detectable only
            if it could be seen among all of them.

    Raises:
        ValueError: The two have different numbers of pictures, or none.

    Example:
        >>> before = [True] * 60 + [False] * 40
        >>> after = [True] * 75 + [False] * 25
        >>> found = paired_difference(before, after)
        >>> round(found.value, 2), found.p_value < 0.001, round(found.low, 2)
        (0.15, True, 0.09)
    """
    one, two = _table(first), _table(second)
    if one.shape[1] != two.shape[1] or not one.size:
        raise ValueError(f"{one.shape[1]} cases cannot be paired with {two.shape[1]}")
    n, repeats = one.shape[1], max(len(one), len(two))
    one, two = _once_if_alike(one), _once_if_alike(two)
    ones, twos = one.mean(axis=0), two.mean(axis=0)
    only_first, only_second = float((ones * (1 - twos)).mean()), float((twos * (1 - ones)).mean())
    variance = variance_over_seeds(one, two)
    weight = _independent_pictures(
        only_first, only_second, variance, n, most=n * max(len(one), len(two))
    )
    low, high = score_interval(
        weight * only_first, weight * only_second, weight, variance.quantile()
    )
    if len(one) == len(two) == 1:
        p_value = mcnemar(one[0], two[0]).p_value
    else:
        differing = only_first + only_second
        lopsided = weight * (only_second - only_first) / math.sqrt(weight * differing or 1)
        p_value = variance.p_value(lopsided)
    detectable = detectable_difference(
        only_first + only_second, weight, variance, level=LEVEL / comparisons
    )
    value = float(twos.mean() - ones.mean())
    return Difference(value, low, high, p_value, n, repeats, detectable)


def resampled_difference(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    test_to_train: float,
    n: int,
    comparisons: int = 1,
) -> Difference:
    """Compare two ways over several splits, or folds, of one data set.

    The corrected resampled t test and its interval, see
    :func:`~regraft.results.variance.variance_over_splits`. The variance is never taken to be
    smaller than that of a single test on all the different pictures, so that splits which agree
    by chance prove nothing.

    Args:
        first: For each split, the share of seeds of the first way that were right on each test
            picture, shape (n of the split,), 0 to 1.
        second: The same of the second way: the same splits, the same pictures in the same order.
        test_to_train: Test pictures divided by training pictures, of one split.
        n: The number of different test pictures of all the splits.
        comparisons: See :func:`paired_difference`.

    Raises:
        ValueError: There is one split only, or the splits do not pair.

    Example:
        >>> first = [[1, 1, 0, 0, 1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 1, 1, 1, 0, 1]]
        >>> second = [[1, 1, 1, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]]
        >>> found = resampled_difference(first, second, test_to_train=1, n=20)
        >>> round(found.value, 2), found.p_value > 0.05
        (0.15, True)
    """
    ones = [np.asarray(right, dtype=np.float64) for right in first]
    twos = [np.asarray(right, dtype=np.float64) for right in second]
    if len(ones) < 2 or [one.shape for one in ones] != [two.shape for two in twos]:
        raise ValueError("two ways are compared over the same splits, at least two of them")
    pairs = list(zip(ones, twos, strict=True))
    values = [float(two.mean() - one.mean()) for one, two in pairs]
    value = sum(values) / len(values)
    only_first = sum(float((one * (1 - two)).mean()) for one, two in pairs) / len(pairs)
    only_second = sum(float((two * (1 - one)).mean()) for one, two in pairs) / len(pairs)
    corrected = variance_over_splits(values, test_to_train)
    variance = Variance(
        max(corrected.value, _least_variance(only_first, only_second, n)), corrected.degrees
    )
    error = math.sqrt(variance.value)
    half = variance.quantile() * error
    weight = _independent_pictures(only_first, only_second, variance, n, most=n)
    detectable = detectable_difference(
        only_first + only_second, weight, variance, level=LEVEL / comparisons
    )
    p_value = variance.p_value(value / error)
    ends = max(-1.0, value - half), min(1.0, value + half)
    return Difference(value, *ends, p_value, n, len(values), detectable)


def score_interval(
    only_first: float, only_second: float, n: float, quantile: float
) -> tuple[float, float]:
    """Return the score interval of the difference of two paired shares, second minus first.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998. It holds 0 exactly where McNemar's test
    finds no difference, and has a width where no picture tells the two apart.

    Args:
        only_first: Pictures that only the first named correctly; need not be whole.
        only_second: Pictures that only the second named correctly.
        n: The number of pictures.
        quantile: How many standard errors the interval reaches to each side.

    Example:
        >>> low, high = score_interval(7, 1, 21, 1.96)
        >>> round(low, 3), round(high, 3)
        (-0.517, -0.026)
    """

    def end(sign: float) -> float:
        inside, outside = (only_second - only_first) / n, sign
        for _ in range(60):
            middle = (inside + outside) / 2
            distance = _score(only_first, only_second, n, middle)
            inside, outside = (middle, outside) if abs(distance) < quantile else (inside, middle)
        return (inside + outside) / 2

    return end(-1.0), end(1.0)


def _score(only_first: float, only_second: float, n: float, difference: float) -> float:
    """Return by how many standard errors the counts miss a difference."""
    # The share that only the first names correctly, as likely as can be given the difference.
    b = (2 * n + only_first - only_second) * difference - only_first - only_second
    c = -only_first * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    distance = only_second - only_first - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def detectable_difference(
    disagreement: float,
    n: float,
    variance: Variance | None = None,
    *,
    level: float = LEVEL,
    power: float = POWER,
) -> float:
    """Return the smallest difference that a paired comparison sees in 80 % of the cases.

    Computed from how often the two ways disagreed (Connor, "Sample size for testing differences in
    proportions for the paired-sample design", Biometrics 43, 1987); a true difference makes them
    disagree at least as often as it is large.

    Args:
        disagreement: The share of pictures that only one of the two named correctly.
        n: The number of independent pictures.
        variance: Whose degrees of freedom count; the normal distribution by default.
        level: The share of false alarms that is allowed.
        power: The share of such differences that is seen.

    Example:
        >>> round(detectable_difference(40 / 850, 850), 3)
        0.021
    """
    distribution = variance or Variance(1.0)
    alarm, seen = distribution.quantile(1 - level / 2), distribution.quantile(power)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        apart = max(disagreement, middle)
        needed = alarm * math.sqrt(apart) + seen * math.sqrt(apart - middle * middle)
        low, high = (low, middle) if middle * math.sqrt(n) >= needed else (middle, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that allow for their number, in the order given.

    Holm, "A simple sequentially rejective multiple test procedure", 1979: what stays below 5 % is
    a false alarm anywhere among them in at most 5 % of the cases.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _table(right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.atleast_2d(np.asarray(right, dtype=np.float64))


def _once_if_alike(right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return right[:1] if (right == right[0]).all() else right


def _independent_pictures(
    only_first: float, only_second: float, variance: Variance, n: int, *, most: int
) -> float:
    """Return how many independent pictures would tell the difference as well."""
    of_one = only_first + only_second - (only_second - only_first) ** 2
    if of_one <= 0:
        return n
    return min(of_one / variance.value, most) if variance.value > 0 else most


def _least_variance(only_first: float, only_second: float, n: int) -> float:
    """Return the variance of a test on ``n`` pictures, not 0 where both are alike.

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", 2012: one picture more for either.
    """
    one, two = (only_first * n + 1) / (n + 2), (only_second * n + 1) / (n + 2)
    return (one + two - (two - one) ** 2) / (n + 2)
