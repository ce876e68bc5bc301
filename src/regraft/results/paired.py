"""Two methods on the same images: how far apart they are, how sure that is, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.results.intervals import effective_n, points, quantile, variance_over_splits

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """The difference of two accuracies: the second minus the first.

    Args:
        value: -1 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_value: How often so large a difference, or a larger one, arises between two methods that
            are equally good.
        n: The number of different images it was measured on.
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
        """The two ends of the interval."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Verdict:
    """What may be said about two methods.

    Args:
        a: The description of one method.
        b: The description of the other.
        difference: Accuracy of b minus accuracy of a, -1 to 1.
        interval: The two ends of the 95 % interval of the difference, for this pair alone.
        p: How often so large a difference, or a larger one, arises by chance, corrected for the
            number of pairs that are judged together (Holm).
        verdict: The same as a sentence.
        better: ``"a"``, ``"b"``, or None where the two are not distinguishable.
        n: The number of different images it rests on.
        detectable: The smallest difference that could be seen here.
    """

    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    p: float
    verdict: str
    better: str | None
    n: int
    detectable: float


def judge(pairs: Sequence[tuple[str, str, Difference]]) -> list[Verdict]:
    """Return the verdicts on pairs of methods that are judged together.

    Two methods are called different when p, corrected for the number of pairs by Holm's method, is
    below 5 %.

    Args:
        pairs: The descriptions of the two methods, and their difference.

    Example:
        >>> judge([("a", "b", Difference(0.02, -0.01, 0.05, 0.2, 850, 1, 0.04))])[0].verdict
        'a and b are not distinguishable on 850 images; \
a difference under 4.0 points cannot be seen here'
    """
    verdicts = []
    adjusted = holm([difference.p_value for *_, difference in pairs])
    for (a, b, d), p in zip(pairs, adjusted, strict=True):
        better = None if p >= LEVEL else "b" if d.value > 0 else "a"
        by = points(d.value, interval=d.interval, signed=False)
        said = f"{b} is better than {a} by {by}"
        if better == "a":
            by = points(-d.value, interval=(-d.high, -d.low), signed=False)
            said = f"{a} is better than {b} by {by}"
        if better is None:
            said = f"{a} and {b} are not distinguishable on {d.n:,} images; a difference under"
            said += f" {points(d.detectable, signed=False)} cannot be seen here"
        ends = d.low, d.high
        verdicts.append(Verdict(a, b, d.value, ends, p, said, better, d.n, d.detectable))
    return verdicts


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, *, comparisons: int = 1
) -> Difference:
    """Compare two methods on the same test images.

    Tango's score interval and McNemar's exact test. The test is a little stricter than the
    interval: what it calls different, the interval does too, and rarely the other way round.

    With several seeds the images that only one of two seeds predicted correctly are counted for
    every pair of seeds, and weigh as many independent images as
    :func:`~regraft.results.intervals.effective_n` says; that has the simulations, too.

    Args:
        first: Whether each repeat of the first method was right on each image, shape
            (repeats, n), or (n,) for one.
        second: The same of the second method; it may have another number of repeats.
        comparisons: How many such differences are judged together; a difference is detectable only
            if it could be seen among all of them.

    Raises:
        ValueError: The two have different numbers of images, or none.

    Example:
        >>> before = [True] * 60 + [False] * 40
        >>> after = [True] * 75 + [False] * 25
        >>> found = paired_difference(before, after)
        >>> round(found.value, 2), found.p_value < 0.001, round(found.low, 2)
        (0.15, True, 0.09)
    """
    one, two = (np.atleast_2d(np.asarray(right, dtype=np.float64)) for right in (first, second))
    if one.shape[1] != two.shape[1] or not one.size:
        raise ValueError(f"{one.shape[1]} cases cannot be paired with {two.shape[1]}")
    ones, twos = one.mean(axis=0), two.mean(axis=0)
    only_first, only_second = float((ones * (1 - twos)).mean()), float((twos * (1 - ones)).mean())
    of_one = only_first + only_second - (only_second - only_first) ** 2
    weight = effective_n(of_one, one, two)
    counts = weight * only_first, weight * only_second
    return Difference(
        float(twos.mean() - ones.mean()),
        *tango_interval(*counts, weight, quantile(0.975)),
        mcnemar(*counts),
        one.shape[1],
        max(len(one), len(two)),
        detectable_difference(only_first + only_second, weight, level=LEVEL / comparisons),
    )


def resampled_difference(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    test_to_train: float,
    n: int,
    comparisons: int = 1,
) -> Difference:
    """Compare two methods over several splits, or folds, of one data set.

    The corrected resampled t test and its interval, see
    :func:`~regraft.results.intervals.variance_over_splits`. The variance is never taken to be
    smaller than that of a single test on all the different images, so that splits which agree by
    chance prove nothing.

    Args:
        first: For each split, the share of seeds of the first method that were right on each test
            image, shape (n of the split,), 0 to 1.
        second: The same of the second method: the same splits, the same images in the same order.
        test_to_train: Test images divided by training images, of one split.
        n: The number of different test images of all the splits.
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
    from scipy.special import stdtr

    ones = [np.asarray(right, dtype=np.float64) for right in first]
    twos = [np.asarray(right, dtype=np.float64) for right in second]
    if len(ones) < 2 or [one.shape for one in ones] != [two.shape for two in twos]:
        raise ValueError("two methods are compared over the same splits, at least two of them")
    pairs = list(zip(ones, twos, strict=True))
    values = [float(two.mean() - one.mean()) for one, two in pairs]
    value = sum(values) / len(values)
    only_first = sum(float((one * (1 - two)).mean()) for one, two in pairs) / len(pairs)
    only_second = sum(float((two * (1 - one)).mean()) for one, two in pairs) / len(pairs)
    degrees = len(values) - 1
    least = _least_variance(only_first, only_second, n)
    error = math.sqrt(max(variance_over_splits(values, test_to_train), least))
    half = quantile(0.975, degrees) * error
    ends = max(-1.0, value - half), min(1.0, value + half)
    p_value = 2 * stdtr(degrees, -abs(value / error))
    of_one = only_first + only_second - value**2
    seen = detectable_difference(
        only_first + only_second,
        min(n, of_one / error**2) if of_one > 0 else n,
        degrees,
        level=LEVEL / comparisons,
    )
    return Difference(value, *ends, float(p_value), n, len(values), seen)


def mcnemar(only_first: float, only_second: float) -> float:
    """Return the p-value of McNemar's exact test.

    Args:
        only_first: Cases that only the first method predicted correctly; need not be whole.
        only_second: Cases that only the second method predicted correctly.

    Example:
        >>> mcnemar(6, 0)
        0.03125
    """
    from scipy.special import betainc  # scipy.stats takes seconds to import

    fewer, more = sorted((only_first, only_second))
    # The binomial distribution as an incomplete beta function.
    return min(1.0, 2 * float(betainc(more, fewer + 1, 0.5))) if more > 0 else 1.0


def tango_interval(
    only_first: float, only_second: float, n: float, z: float
) -> tuple[float, float]:
    """Return the score interval of the difference of two paired shares, second minus first.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998. It holds 0 exactly where McNemar's test
    finds no difference, and has a width where no image tells the two apart.

    Args:
        only_first: Images that only the first predicted correctly; need not be whole.
        only_second: Images that only the second predicted correctly.
        n: The number of images.
        z: How many standard errors the interval reaches to each side.

    Example:
        >>> low, high = tango_interval(7, 1, 21, 1.96)
        >>> round(low, 3), round(high, 3)
        (-0.517, -0.026)
    """

    def end(sign: float) -> float:
        inside, outside = (only_second - only_first) / n, sign
        for _ in range(60):
            middle = (inside + outside) / 2
            distance = _score(only_first, only_second, n, middle)
            inside, outside = (middle, outside) if abs(distance) < z else (inside, middle)
        return (inside + outside) / 2

    return end(-1.0), end(1.0)


def _score(only_first: float, only_second: float, n: float, difference: float) -> float:
    """Return by how many standard errors the counts miss a difference."""
    # The most likely share that only the first predicts correctly, given the difference.
    b = (2 * n + only_first - only_second) * difference - only_first - only_second
    c = -only_first * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    distance = only_second - only_first - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def detectable_difference(
    disagreement: float, n: float, degrees: float = math.inf, *, level: float = LEVEL
) -> float:
    """Return the smallest difference that a paired comparison sees in 80 % of the cases.

    Computed from how often the two methods disagreed (Connor, "Sample size for testing differences
    in proportions for the paired-sample design", Biometrics 43, 1987); a true difference makes
    them disagree at least as often as it is large.

    Args:
        disagreement: The share of images that only one of the two predicted correctly.
        n: The number of independent images.
        degrees: Of freedom; the normal distribution by default.
        level: The share of false alarms that is allowed.

    Example:
        >>> round(detectable_difference(40 / 850, 850), 3)
        0.021
    """
    alarm, seen = quantile(1 - level / 2, degrees), quantile(POWER, degrees)
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


def _least_variance(only_first: float, only_second: float, n: int) -> float:
    """Return the variance of a test on ``n`` images, not 0 where both are alike.

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", 2012: one image more for either.
    """
    one, two = (only_first * n + 1) / (n + 2), (only_second * n + 1) / (n + 2)
    return (one + two - (two - one) ** 2) / (n + 2)
