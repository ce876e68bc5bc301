"""How sure a share is: intervals of one run, over seeds and over splits; how shares are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Right = npt.NDArray[np.float64]

_MOST_DIGITS = 6
_PSEUDO_CASES = 2  # of the bootstrap
_ONE_SEED, _MOST, _BEYOND_CHANCE = 4, 1.75, 15  # see `effective_n`


@dataclass(frozen=True)
class Estimate:
    """A share measured on ``n`` cases, with its interval.

    Args:
        value: The measured share, 0 to 1; NaN where there was no case.
        low: Lower end of the interval, 0 to 1; NaN where there was no case.
        high: Upper end of the interval, 0 to 1; NaN where there was no case.
        n: The number of cases the share was measured on.
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
        """The two ends of the interval."""
        return [self.low, self.high]


def accuracy_json(share: Estimate) -> dict[str, Any]:
    """Return an accuracy as JSON has it everywhere; what is unknown is null.

    Example:
        >>> accuracy_json(Estimate(0.5, 0.15, 0.85, 4))
        {'accuracy': 0.5, 'n': 4, 'interval': [0.15, 0.85]}
    """
    if not share.known:
        return {"accuracy": None, "n": 0, "interval": None}
    return {"accuracy": share.value, "n": share.n, "interval": share.interval}


def wilson(successes: int, n: int) -> Estimate:
    """Return a share of counted cases with its 95 % Wilson score interval.

    The interval stays inside 0 to 1 and has a width even when every case or none succeeded.

    Args:
        successes: How many of the cases succeeded, 0 to ``n``.
        n: The number of cases; with 0 the estimate is unknown.

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
    return Estimate(share, *wilson_interval(share, n, quantile(0.975)), int(n))


def wilson_interval(share: float, n: float, z: float) -> tuple[float, float]:
    """Return the ends of the Wilson score interval of a share.

    Args:
        share: The measured share, 0 to 1.
        n: The number of independent cases, above 0; an effective number need not be whole.
        z: How many standard errors the interval reaches to each side.

    Example:
        >>> low, high = wilson_interval(0.5, 100, 1.96)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    weight = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / weight
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / weight
    # At the ends the formula gives exactly 0 and 1; rounding must not move them.
    return 0.0 if share == 0 else middle - half, 1.0 if share == 1 else middle + half


def f1_estimate(hits: int, missed: int, false: int) -> Estimate:
    """Return an F1 score with its interval.

    F1 is ``2 J / (1 + J)`` of the share ``J = hits / (hits + missed + false)``, so the Wilson
    interval of that share carries over ("Wilson indirect" in Lam, Gopal and Qian, "Confidence
    intervals for the F1 score: a comparison of four methods", 2023). It has a width even where
    nothing went wrong.

    Args:
        hits: Cases of the class that were predicted as such.
        missed: Cases of the class that were predicted otherwise.
        false: Cases of other classes that were predicted as this one.

    Example:
        >>> f1_estimate(8, missed=2, false=2).value
        0.8
    """
    cases = hits + missed + false
    if cases == 0:
        return Estimate.unknown()
    low, high = (2 * end / (1 + end) for end in wilson(hits, cases).interval)
    return Estimate(2 * hits / (2 * hits + missed + false), low, high, cases)


def bootstrap(
    statistics: Callable[[Indices, Indices], npt.ArrayLike],
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Estimate]:
    """Return statistics with their stratified percentile-bootstrap 95 % intervals.

    Cases are drawn within each true class, so every resample holds as many of a class as the
    sample. Two pseudo cases, shared among the classes, can be drawn too: one correct, one predicted
    as anything (in the spirit of Agresti and Coull, "Approximate is better than exact for interval
    estimation of binomial proportions", 1998); `docs/statistics.md` says what that brings.

    Args:
        statistics: Maps the indices of the true and of the predicted classes, shape (n,) both, to
            m numbers.
        truth: Index of the true class of each case, shape (n,).
        predicted: Index of the predicted class of each case, shape (n,).
        resamples: How many resamples are drawn.
        seed: Fixes the draws.

    Example:
        >>> def right(truth, predicted):
        ...     return [(truth == predicted).mean()]
        >>> share, = bootstrap(right, [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0])
        >>> share.value, share.low < 0.75 < share.high
        (0.75, True)
    """
    true, answers = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    values = np.asarray(statistics(true, answers), dtype=np.float64)
    if len(true) == 0:
        return [Estimate.unknown()] * len(values)
    order = np.argsort(true, kind="stable")
    true, answers = true[order], answers[order]
    generator = np.random.default_rng(seed)
    draws = _draw(true, answers, resamples, generator)
    drawn = np.array([statistics(true, each) for each in draws])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    ends = np.stack([values, np.minimum(low, values), np.maximum(high, values)], axis=1)
    return [Estimate(value, low, high, len(true)) for value, low, high in ends.tolist()]


def _draw(
    true: Indices, answers: Indices, resamples: int, generator: np.random.Generator
) -> Iterator[Indices]:
    """Draw answers anew within each class; the cases must be sorted by class."""
    classes, first, size = np.unique(true, return_index=True, return_counts=True)
    # With the cases sorted by class, a draw within a class is a draw between two places; a draw
    # beyond its last place is a pseudo case.
    start, width = np.repeat(first, size), np.repeat(size, size)
    pseudo = _PSEUDO_CASES / len(classes)
    known = np.union1d(classes, answers)
    for _ in range(resamples):
        beyond = generator.random(len(true)) * (width + pseudo) - width
        within = np.minimum(beyond + width, width - 1).astype(np.int64)
        drawn = answers[start + within]
        new = np.flatnonzero(beyond >= 0)
        anything = known[generator.integers(len(known), size=len(new))]
        drawn[new] = np.where(beyond[new] < pseudo / 2, true[new], anything)
        yield drawn


def quantile(probability: float, degrees: float = math.inf) -> float:
    """Return the quantile of the t distribution; of the normal one with infinite degrees.

    Example:
        >>> round(quantile(0.975), 2), round(quantile(0.975, 2), 2)
        (1.96, 4.3)
    """
    if math.isinf(degrees):
        return NormalDist().inv_cdf(probability)
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    return float(stdtrit(degrees, probability))


def variance_over_seeds(*methods: Right) -> float:
    """Return the variance of a mean accuracy, or of a difference of two, over images and seeds.

    Every seed was tested on the same images, so both are crossed: the mean varies with the choice
    of the images and with that of the seeds. The first shows between images, the second between
    seeds; what shows between equally good seeds, since they err on different images, is
    subtracted.

    Args:
        methods: Whether each seed (row) was right on each image (column), shape (seeds, n): one
            method for its accuracy, two for their difference, which may have different numbers of
            seeds. A method with one seed counts as one that no seed changes.

    Example:
        >>> variance_over_seeds(np.array([[1.0, 1.0, 1.0, 0.0]]))
        0.046875
    """
    n: int = methods[0].shape[1]
    first, *others = (right.mean(axis=0) for right in methods)
    images = float(np.var(first - sum(others))) / n
    between, by_chance = 0.0, 0.0
    for right in methods:
        seeds = len(right)
        if seeds > 1:
            own = right.mean(axis=1)
            rest = right - right.mean(axis=0) - own[:, None] + own.mean()
            between += float(np.var(own, ddof=1)) / seeds
            by_chance += float((rest**2).sum()) / ((seeds - 1) * max(1, n - 1)) / (seeds * n)
    return images + max(0.0, between - by_chance)


def effective_n(variance_of_one: float, *methods: Right) -> float:
    """Return how many independent images tell as much as several seeds on the same ones.

    The estimand is the accuracy of a method over all images and all seeds. A few seeds say nearly
    nothing of how much seeds vary, so :func:`variance_over_seeds` is shrunk towards the variance
    of one seed, which weighs as much as 4 further seeds (Smyth, "Linear models and empirical Bayes
    methods for assessing differential expression", 2004): networks of several seeds differ little
    but in the images that they happen to miss (Jordan, "On the variance of neural network training
    with respect to test sets and distributions", 2024). It is at most 1.75 times that of one seed,
    unless the seeds differ as they never do by chance, such as one that learned and one that did
    not: then the measured variance counts as it is.

    What was simulated, and what else was tried, stands in `docs/statistics.md`.

    Args:
        variance_of_one: The variance of one seed on one image.
        methods: As :func:`variance_over_seeds` takes them.

    Example:
        >>> effective_n(0.1875, np.array([[1.0, 1.0, 1.0, 0.0]]))
        4.0
    """
    n: int = methods[0].shape[1]
    further = sum(len(right) - 1 for right in methods)
    if not further or variance_of_one <= 0:
        return float(n)
    ratio = variance_over_seeds(*methods) * n / variance_of_one
    if ratio < 1 + _BEYOND_CHANCE / further:
        ratio = min((_ONE_SEED + further * ratio) / (_ONE_SEED + further), _MOST)
    return n / ratio


def variance_over_splits(values: Sequence[float], test_to_train: float) -> float:
    """Return the variance of a mean over splits that share their training images.

    Splits of one data set are not independent: the variance between them, divided by their number,
    is too small. Nadeau and Bengio, "Inference for the generalization error", 2003, add the number
    of test images divided by that of training images: ``(1 / k + test / train) s²``, with ``k - 1``
    degrees of freedom. The same serves for folds (Bouckaert and Frank, "Evaluating the
    replicability of significance tests for comparing learning algorithms", 2004).

    Args:
        values: One accuracy, or difference of two, per split; at least two.
        test_to_train: Test images divided by training images, of one split.

    Example:
        >>> round(variance_over_splits([0.90, 0.92, 0.94], test_to_train=0.5), 8)
        0.00033333
    """
    return (1 / len(values) + test_to_train) * float(np.var(np.asarray(values), ddof=1))


def over_seeds(right: npt.ArrayLike) -> Estimate:
    """Return the mean accuracy of seeds that were tested on the same images.

    The interval is Wilson's, for as many images as :func:`effective_n` says. Seeds that are all
    alike count as one.

    Args:
        right: Whether each seed (row) was right on each image (column), shape (seeds, n).

    Example:
        >>> over_seeds([[True, True, False, True]]) == wilson(3, 4)
        True
        >>> percent(over_seeds([[True] * 200, [True] * 199 + [False]]))
        '99.8 % [97.8, 99.97], n = 200'
    """
    table = np.asarray(right, dtype=np.float64)
    share = float(table.mean())
    independent = effective_n(share * (1 - share), table)
    return Estimate(share, *wilson_interval(share, independent, quantile(0.975)), table.shape[1])


def over_splits(accuracies: Sequence[float], *, test_to_train: float, n: int) -> Estimate:
    """Return the mean of accuracies over splits with its corrected resampled t interval.

    It is never narrower than the interval of a single test on all the different images.

    Args:
        accuracies: One per split, at least two.
        test_to_train: Test images divided by training images, of one split.
        n: The number of different test images of all the splits.

    Example:
        >>> found = over_splits([0.90, 0.92, 0.94], test_to_train=0.5, n=300)
        >>> round(found.value, 2), [round(end, 3) for end in found.interval]
        (0.92, [0.841, 0.999])
    """
    mean = sum(accuracies) / len(accuracies)
    error = math.sqrt(variance_over_splits(accuracies, test_to_train))
    half = quantile(0.975, len(accuracies) - 1) * error
    low, high = wilson_interval(mean, n, quantile(0.975))
    return Estimate(mean, max(0.0, min(mean - half, low)), min(1.0, max(mean + half, high)), n)


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
    difference: float, *, interval: Sequence[float] | None = None, signed: bool = True
) -> str:
    """Print the difference of two shares in percentage points.

    A number that is not 0 is never rounded to ``0.0``: all of them get more digits instead.

    Args:
        difference: -1 to 1.
        interval: The two ends of its interval, printed behind it.
        signed: Whether a positive difference is led by a plus.

    Example:
        >>> points(0.021)
        '+2.1 points'
        >>> points(0.021, interval=(0.004, 0.038), signed=False)
        '2.1 points [0.4, 3.8]'
    """
    numbers = [100 * number for number in (difference, *(interval or ()))]
    seen = [d for d in range(1, _MOST_DIGITS + 1) if all(round(n, d) or not n for n in numbers)]
    digits = min(seen, default=1)
    first, *ends = (f"{number:.{digits}f}" for number in numbers)
    plus = "+" if signed and not first.startswith("-") else ""
    tail = f" [{', '.join(ends)}]" if ends else ""
    return f"{plus}{first} points{tail}".replace("-", "\N{MINUS SIGN}")


def _hundredths(share: float, digits: int) -> str:
    if not -1e-9 <= share <= 1 + 1e-9:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    for places in range(digits, max(digits, _MOST_DIGITS) + 1):
        text = f"{100 * share:.{places}f}"
        if float(text) not in {0.0, 100.0} or share in {0.0, 1.0}:
            return text
    return f"{100 * round(share):.{digits}f}"
