"""Which of several ways of learning is better, said only as far as the test pictures carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from regraft.errors import RunError
from regraft.results.pairing import (
    LEVEL,
    Difference,
    holm,
    paired_difference,
    resampled_difference,
)
from regraft.results.predictions import part_name
from regraft.results.repeats import answers, by_split, different_splits, part_to_train
from regraft.results.run import PART_TITLES, Run
from regraft.results.statistics import points

Way = tuple[str, Sequence[Run]]


@dataclass(frozen=True)
class Verdict:
    """What may be said about two ways of learning.

    Args:
        a: The description of one way.
        b: The description of the other.
        difference: Accuracy of b minus accuracy of a, -1 to 1.
        interval: The two ends of the 95 % interval of the difference, for this pair alone.
        p: How often so large a difference, or a larger one, arises by chance, corrected for the
            number of pairs that are judged together (Holm).
        verdict: The same as a sentence.
        better: ``"a"``, ``"b"``, or None where the two cannot be told apart.
        n: The number of different pictures it rests on.
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

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "interval": list(self.interval),
            "p": self.p,
            "verdict": self.verdict,
            "better": self.better,
            "n": self.n,
            "detectable": self.detectable,
        }


def judge_ways(
    ways: Sequence[Way], *, part: str = "test", all_pairs: bool = False
) -> list[Verdict]:
    """Judge ways of learning, each measured by one run or by repeats, on the same test pictures.

    The way with the highest validation accuracy is judged against every other. The validation part
    chooses it, because whoever chooses by the test part chooses luck too: the best of many test
    accuracies is better than it will ever be again. Only where a way has no validation part the
    test part chooses; the verdicts then favour the chosen one a little.

    On one split the comparison is picture by picture (:func:`~.pairing.paired_difference`), over
    several splits or folds split by split (:func:`~.pairing.resampled_difference`). Two ways are
    called different when p, corrected for the number of pairs by Holm's method, is below 5 %.

    Args:
        ways: Descriptions with runs; the repeats of all ways must have used the same splits.
        part: The part that is judged on; ways that did not predict it are left out.
        all_pairs: Judge every pair, not only those with the chosen way.

    Returns:
        One verdict per pair: ``a`` the other way, ``b`` the chosen one; with ``all_pairs`` ``a``
        stands before ``b`` in ``ways``. Empty for fewer than two ways.

    Raises:
        RunError: ``RUN-SPLITS``: two ways used different splits.

    Example:
        >>> judge_ways([])
        []
    """
    title = PART_TITLES[part_name(part)]
    judged = [way for way in ways if all(title in run.metrics for run in way[1])]
    if len(judged) < 2:
        return []
    if all_pairs:
        pairs = list(combinations(judged, 2))
    else:
        chosen = reference(judged, part)
        pairs = [(way, judged[chosen]) for place, way in enumerate(judged) if place != chosen]
    differences = [compare(a[1], b[1], part, comparisons=len(pairs)) for a, b in pairs]
    corrected = holm([difference.p_value for difference in differences])
    return [
        _verdict(a[0], b[0], replace(difference, p_value=p))
        for (a, b), difference, p in zip(pairs, differences, corrected, strict=True)
    ]


def reference(ways: Sequence[Way], part: str = "test") -> int:
    """Return the place of the way with the highest validation accuracy, the first one on a tie.

    Where a way was not validated, ``part`` decides.

    Args:
        ways: At least one way.
        part: Which part decides instead.
    """
    validated = all(PART_TITLES["val"] in run.metrics for _, runs in ways for run in runs)
    title = PART_TITLES["val" if validated else part_name(part)]

    def accuracy(place: int) -> float:
        runs = ways[place][1]
        return sum(float(run.metrics[title]["accuracy"]) for run in runs) / len(runs)

    return max(range(len(ways)), key=accuracy)


def compare(
    first: Sequence[Run], second: Sequence[Run], part: str = "test", *, comparisons: int = 1
) -> Difference:
    """Return the difference of two ways, each measured by one run or by repeats.

    Args:
        first: The runs of one way.
        second: The runs of the other, on the same splits.
        part: The part that both are compared on.
        comparisons: How many pairs are judged together.

    Raises:
        RunError: ``RUN-SPLITS``: the two used different splits.
    """
    ones, twos = by_split(first), by_split(second)
    if set(ones) != set(twos):
        raise _other_splits(ones, twos)
    pairs = []
    for split, runs in ones.items():
        both = answers([*runs, *twos[split]], part)
        pairs.append((both.paths, both.right[: len(runs)], both.right[len(runs) :]))
    if len(pairs) == 1:
        _, one, two = pairs[0]
        return paired_difference(one, two, comparisons=comparisons)
    return resampled_difference(
        [one.mean(axis=0) for _, one, _ in pairs],
        [two.mean(axis=0) for _, _, two in pairs],
        test_to_train=part_to_train(first, part),
        n=len({path for paths, _, _ in pairs for path in paths}),
        comparisons=comparisons,
    )


def _other_splits(ones: dict[str, list[Run]], twos: dict[str, list[Run]]) -> RunError:
    alone_one = next((runs[0] for split, runs in ones.items() if split not in twos), None)
    alone_two = next((runs[0] for split, runs in twos.items() if split not in ones), None)
    first = alone_one or next(iter(ones.values()))[0]
    second = alone_two or next(iter(twos.values()))[0]
    return different_splits(first, second)


def _verdict(a: str, b: str, difference: Difference) -> Verdict:
    better = None
    if difference.p_value < LEVEL:
        better = "b" if difference.value > 0 else "a"
    return Verdict(
        a,
        b,
        difference.value,
        (difference.low, difference.high),
        difference.p_value,
        _sentence(a, b, difference, better),
        better,
        difference.n,
        difference.detectable,
    )


def _sentence(a: str, b: str, difference: Difference, better: str | None) -> str:
    if better is None:
        least = points(difference.detectable, signed=False)
        return (
            f"{a} and {b} are not distinguishable on {difference.n:,} images; "
            f"a difference under {least} cannot be seen here"
        )
    if better == "b":
        ends = difference.low, difference.high
        return f"{b} is better than {a} by {_by(difference.value, ends)}"
    ends = -difference.high, -difference.low
    return f"{a} is better than {b} by {_by(-difference.value, ends)}"


def _by(value: float, ends: tuple[float, float]) -> str:
    return points(value, interval=ends, signed=False)
