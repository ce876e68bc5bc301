"""How sure a number is: intervals, bootstrap, a paired test; and how percentages are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_MOST_DIGITS = 6
_INVENTED = 2  # cases of the bootstrap


@dataclass(frozen=True)
class Estimate:
    """A share measured on ``n`` cases, with its interval.

    Args:
        value: The measured share, 0 to 1; NaN where there was no case.
        low: Lower end of the interval, 0 to 1; NaN where there was no case.
        high: Upper end of the interval, 0 to 1; NaN where there was no case.
        n: The number of cases the share was measured on.

    Example:
        >>> wilson(9, 10).known
        True
        >>> Estimate.unknown().to_json()
        {'value': None, 'low': None, 'high': None, 'n': 0}
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def unknown(cls) -> Estimate:
        """Return the estimate of a share that no case speaks about."""
        return cls(math.nan, math.nan, math.nan, 0)

    @property
    def known(self) -> bool:
        """Whether there was at least one case."""
        return self.n > 0 and not math.isnan(self.value)

    @property
    def interval(self) -> list[float]:
        """The two ends of the interval as a list, as JSON has it."""
        return [self.low, self.high]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as a JSON object; what is unknown is null."""
        names = ("value", "low", "high")
        return {name: getattr(self, name) if self.known else None for name in names} | {"n": self.n}


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a share of counted cases with its Wilson score interval.

    The interval stays inside 0 to 1 and has a width even when every case or none succeeded.

    Args:
        successes: How many of the cases succeeded, 0 to ``n``.
        n: The number of cases; with 0 the estimate is unknown.
        confidence: How often such intervals hold the true share, 0 to 1 (both excluded).

    Raises:
        ValueError: ``successes`` does not lie between 0 and ``n``.

    Example:
        >>> share = wilson(81, 263)
        >>> round(share.low, 4), round(share.high, 4)
        (0.2553, 0.3662)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and {n}, not {successes}")
    if n == 0:
        return Estimate.unknown()
    share = successes / n
    low, high = wilson_interval(share, n, NormalDist().inv_cdf(0.5 + confidence / 2))
    return Estimate(share, low, high, int(n))


def wilson_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the ends of the Wilson score interval of a share.

    Args:
        share: The measured share, 0 to 1.
        n: How many independent cases carry it, above 0; where cases are not independent, the number
            of independent ones that would know as much, which need not be whole.
        quantile: How many standard errors the interval reaches to each side.

    Example:
        >>> low, high = wilson_interval(0.5, 100, 1.96)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    z, weight = quantile, 1 + quantile * quantile / n
    middle = (share + z * z / (2 * n)) / weight
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / weight
    # At the ends the formula gives exactly 0 and 1; rounding must not move them.
    return 0.0 if share == 0 else middle - half, 1.0 if share == 1 else middle + half


def f1_estimate(hits: int, missed: int, false: int, confidence: float = 0.95) -> Estimate:
    """Return an F1 score with its interval.

    F1 is ``2 J / (1 + J)`` of the share ``J = hits / (hits + missed + false)``, so the Wilson
    interval of that share carries over. It has a width even where nothing went wrong, which a
    bootstrap has not (Lam, Gopal and Qian, "Confidence intervals for the F1 score: a comparison of
    four methods", 2023, there "Wilson indirect").

    Args:
        hits: Cases of the class that were named so.
        missed: Cases of the class that were named otherwise.
        false: Cases of other classes that were named so.
        confidence: How often such intervals hold the true score.

    Example:
        >>> f1_estimate(8, missed=2, false=2).value
        0.8
    """
    cases = hits + missed + false
    if cases == 0:
        return Estimate.unknown()
    share = wilson(hits, cases, confidence)
    low, high = (2 * end / (1 + end) for end in share.interval)
    return Estimate(2 * hits / (2 * hits + missed + false), low, high, cases)


def bootstrap(
    statistic: Callable[[Indices, Indices], float],
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return a statistic with its stratified percentile-bootstrap interval.

    Cases are drawn anew within each true class, so every resample holds as many of a class as the
    sample does. A plain bootstrap never draws an error that the sample does not hold, and is too
    sure of itself where errors are few: its intervals of a macro recall held the true one in 93 %
    of simulated samples, and in 71 % at worst. So two invented cases, shared among the classes, can
    be drawn too: one that is right and one that is named anything, much as Agresti and Coull,
    "Approximate is better than exact for interval estimation of binomial proportions", 1998, add
    successes and failures. That made it 95.6 %, and 93 % at worst.

    Args:
        statistic: Maps the indices of the true and of the predicted classes, shape (n,) both, to a
            number.
        truth: Index of the true class of each case, shape (n,).
        predicted: Index of the predicted class of each case, shape (n,).
        resamples: How many resamples are drawn.
        seed: Fixes the draws.
        confidence: How often such intervals hold the true value.

    Example:
        >>> def right(truth, predicted):
        ...     return (truth == predicted).mean()
        >>> share = bootstrap(right, [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0])
        >>> share.value, share.low < 0.75 < share.high
        (0.75, True)
    """

    def as_list(truth: Indices, predicted: Indices) -> list[float]:
        return [statistic(truth, predicted)]

    return bootstrap_all(
        as_list, truth, predicted, resamples=resamples, seed=seed, confidence=confidence
    )[0]


def bootstrap_all(
    statistics: Callable[[Indices, Indices], npt.ArrayLike],
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Estimate]:
    """Return several statistics from the same resamples; see :func:`bootstrap`.

    Args:
        statistics: Maps the indices of the true and of the predicted classes to m numbers.
        truth: See :func:`bootstrap`.
        predicted: See :func:`bootstrap`.
        resamples: See :func:`bootstrap`.
        seed: See :func:`bootstrap`.
        confidence: See :func:`bootstrap`.
    """
    true, named = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    values = np.asarray(statistics(true, named), dtype=np.float64)
    if len(true) == 0:
        return [Estimate.unknown()] * len(values)
    order = np.argsort(true, kind="stable")
    true, named = true[order], named[order]
    generator = np.random.default_rng(seed)
    drawn = np.array(
        [statistics(true, answers) for answers in _draw(true, named, resamples, generator)]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    ends = zip(np.minimum(low, values), np.maximum(high, values), strict=True)
    return [
        Estimate(value, float(low), float(high), n=len(true))
        for value, (low, high) in zip(values.tolist(), ends, strict=True)
    ]


def _draw(
    true: Indices, named: Indices, resamples: int, generator: np.random.Generator
) -> Iterator[Indices]:
    """Draw answers anew within each class; the cases must be sorted by class."""
    classes, first, size = np.unique(true, return_index=True, return_counts=True)
    # With the cases sorted by class, a draw within a class is a draw between two places; a draw
    # beyond its last place is an invented case.
    start, width = np.repeat(first, size), np.repeat(size, size)
    invented = _INVENTED / len(classes)
    names = np.union1d(classes, named)
    for _ in range(resamples):
        beyond = generator.random(len(true)) * (width + invented) - width
        within = np.minimum(beyond + width, width - 1).astype(np.int64)
        answers = named[start + within]
        new = np.flatnonzero(beyond >= 0)
        anything = names[generator.integers(len(names), size=len(new))]
        answers[new] = np.where(beyond[new] < invented / 2, true[new], anything)
        yield answers


@dataclass(frozen=True)
class PairedTest:
    """How two classifiers differ on the same cases (McNemar's exact test).

    Args:
        only_first: Cases that only the first named correctly.
        only_second: Cases that only the second named correctly.
        p_value: How often so lopsided a count, or a more lopsided one, arises when both are equally
            good.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> PairedTest:
    """Compare two classifiers case by case with McNemar's exact test.

    Args:
        first: Whether the first was right, shape (n,), bool.
        second: Whether the second was right on the same cases in the same order, shape (n,), bool.

    Raises:
        ValueError: The two have different lengths.

    Example:
        >>> mcnemar([True] * 6, [False] * 6).p_value
        0.03125
    """
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape:
        raise ValueError(f"{one.size} cases cannot be paired with {two.size}")
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    differing = only_first + only_second
    # Counting in Python's integers keeps the quotient exact where 2 ** differing overflows a float.
    ways, as_lopsided = 1, 0
    for i in range(min(only_first, only_second) + 1):
        as_lopsided += ways
        ways = ways * (differing - i) // (i + 1)
    p_value = min(1.0, 2 * as_lopsided / 2**differing)
    return PairedTest(only_first, only_second, p_value)


def percent(share: Estimate | float, *, digits: int = 1, parts: str = "interval n") -> str:
    """Print a share as a percentage; the only place in Regraft that does so.

    A share that is neither 0 nor 1 is never rounded to ``0.0 %`` or ``100.0 %``: it gets more
    digits instead.

    Args:
        share: A share, 0 to 1, or an estimate of one.
        digits: Digits after the point.
        parts: What of an estimate follows the value: ``"interval n"``, ``"interval"`` or ``""``.

    Raises:
        ValueError: The share does not lie between 0 and 1, such as one that is a percentage
            already.

    Example:
        >>> percent(wilson(470, 500))
        '94.0 % [91.6, 95.8], n = 500'
        >>> percent(1.0), percent(0.9999)
        ('100.0 %', '99.99 %')
        >>> percent(wilson(0, 0))
        'no samples'
    """
    if not isinstance(share, Estimate):
        return "no samples" if math.isnan(share) else f"{_hundredths(share, digits)} %"
    if not share.known:
        return "no samples"
    text = f"{_hundredths(share.value, digits)} %"
    if "interval" in parts:
        text += f" [{_hundredths(share.low, digits)}, {_hundredths(share.high, digits)}]"
    return f"{text}, n = {share.n:,}" if "n" in parts.split() else text


def points(
    difference: float,
    *,
    digits: int = 1,
    interval: Sequence[float] | None = None,
    signed: bool = True,
) -> str:
    """Print the difference of two shares in percentage points.

    A number that is not 0 is never rounded to ``0.0``: all of them get more digits instead.

    Args:
        difference: -1 to 1.
        digits: Digits after the point.
        interval: The two ends of its interval, printed behind it.
        signed: Whether a positive difference is led by a plus.

    Example:
        >>> points(0.021)
        '+2.1 points'
        >>> points(0.021, interval=(0.004, 0.038), signed=False)
        '2.1 points [0.4, 3.8]'
    """
    numbers = [100 * number for number in (difference, *(interval or ()))]
    places = next(
        (
            places
            for places in range(digits, max(digits, _MOST_DIGITS) + 1)
            if all(round(number, places) or not number for number in numbers)
        ),
        digits,
    )
    first, *ends = (
        f"{number:{sign}.{places}f}"
        for number, sign in zip(numbers, ("+" if signed else "-", "-", "-"), strict=False)
    )
    text = f"{first} points [{', '.join(ends)}]" if ends else f"{first} points"
    return text.replace("-", "\N{MINUS SIGN}")


def _hundredths(share: float, digits: int) -> str:
    if not -1e-9 <= share <= 1 + 1e-9:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    for places in range(digits, max(digits, _MOST_DIGITS) + 1):
        text = f"{100 * share:.{places}f}"
        if float(text) not in {0.0, 100.0} or share in {0.0, 1.0}:
            return text
    return f"{100 * round(share):.{digits}f}"
