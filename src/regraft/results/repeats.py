"""One way of learning measured several times: other seeds on one split, or other splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import RunError
from regraft.results.predictions import part_name
from regraft.results.run import PART_TITLES, Run
from regraft.results.statistics import Estimate, wilson, wilson_interval
from regraft.results.variance import Right, Variance, variance_over_seeds, variance_over_splits


@dataclass(frozen=True)
class Repeated:
    """The accuracy of one way of learning over its repeats.

    Args:
        estimate: The mean accuracy with its 95 % interval; ``n`` counts different pictures.
        sd: Standard deviation of the accuracy over the repeats; None for one run.
        repeats: The number of runs.
    """

    estimate: Estimate
    sd: float | None
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"accuracy", "n", "interval", "sd", "repeats"}``; what is unknown is null.

        Example:
            >>> Repeated(wilson(1, 2), None, 1).to_json()["accuracy"]
            0.5
        """
        known = self.estimate.known
        return {
            "accuracy": self.estimate.value if known else None,
            "n": self.estimate.n,
            "interval": self.estimate.interval if known else None,
            "sd": self.sd,
            "repeats": self.repeats,
        }


@dataclass(frozen=True, eq=False)
class Answers:
    """What several runs on one split said about the same pictures.

    Args:
        paths: The pictures, sorted.
        right: Whether each run (row) named each picture (column) correctly, shape (runs, n), as
            0 and 1.
    """

    paths: tuple[str, ...]
    right: Right


def answers(runs: Sequence[Run], part: str = "test") -> Answers:
    """Return what runs on one split said, picture by picture.

    Args:
        runs: At least one run.
        part: ``train``, ``val`` or ``test``.

    Raises:
        RunError: ``RUN-SPLITS``: the runs used different splits or predicted different pictures.
    """
    first = runs[0]
    rows: list[npt.NDArray[np.bool_]] = []
    paths: tuple[str, ...] = ()
    for run in runs:
        if run.split_hash != first.split_hash:
            raise different_splits(first, run)
        found = run.predictions.part(part)
        order = sorted(range(len(found)), key=found.paths.__getitem__)
        own = tuple(found.paths[index] for index in order)
        if rows and own != paths:
            raise RunError(
                "these runs predicted different pictures",
                why=f"{first.name}: {len(paths)}, {run.name}: {len(own)} pictures",
                code="RUN-SPLITS",
            )
        paths = own
        rows.append(found.correct[np.asarray(order, dtype=np.int64)])
    return Answers(paths, np.stack(rows).astype(np.float64))


def different_splits(first: Run, second: Run) -> RunError:
    """Return the error that says that two runs cannot be compared picture by picture."""
    return RunError(
        "these runs used different splits",
        why=f"{first.name}: {first.split_hash[:12]}, {second.name}: {second.split_hash[:12]}",
        hint="fit both on one split manifest to compare them picture by picture",
        code="RUN-SPLITS",
    )


def by_split(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs under the hash of their split, in the order given."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.split_hash, []).append(run)
    return found


def part_to_train(runs: Sequence[Run], part: str = "test") -> float:
    """Return the pictures of a part divided by those of the training part, mean over runs.

    Of the whole training part, even where fewer were learned from: what counts is how much the test
    parts of two splits have in common.
    """

    def pictures(run: Run, title: str) -> int:
        return sum(run.data["data"]["counts"].get(title, {}).values())

    title = PART_TITLES[part_name(part)]
    ratios = [pictures(run, title) / max(1, pictures(run, "train")) for run in runs]
    return sum(ratios) / len(ratios)


def summarise(runs: Sequence[Run], part: str = "test") -> Repeated:
    """Return the accuracy of one way of learning over its runs.

    * One run: the share of pictures named correctly, with its Wilson interval.
    * Seeds on one split: the mean accuracy. The interval carries both the choice of the pictures
      and that of the seeds: Wilson's, for as many independent pictures as have the variance of
      :func:`~regraft.results.variance.variance_over_seeds` ("effective sample size", Korn and
      Graubard, "Confidence intervals for proportions with small expected number of positive counts
      estimated from survey data", 1998), with the t distribution. Seeds that are all alike count
      as one.
    * Several splits or folds: the mean accuracy with the corrected resampled t interval
      (:func:`~regraft.results.variance.variance_over_splits`), never narrower than that of one test
      on all the different pictures. Seeds on one split are averaged before. Seeds that learned from
      different pictures of one split count as splits in the training part.

    Args:
        runs: At least one finished run.
        part: ``train``, ``val`` or ``test``.

    Raises:
        RunError: ``RUN-SPLITS``: runs on one split predicted different pictures of ``val`` or
            ``test``.
    """
    groups = [answers(group, part) for group in _on_the_same_pictures(runs, part)]
    groups = [group for group in groups if group.paths]
    if not groups:
        return Repeated(Estimate.unknown(), None, len(runs))
    accuracies = np.concatenate([group.right.mean(axis=1) for group in groups])
    sd = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    if len(groups) == 1:
        estimate = over_seeds(groups[0].right)
    else:
        n = len({path for group in groups for path in group.paths})
        means = [float(group.right.mean()) for group in groups]
        estimate = over_splits(means, test_to_train=part_to_train(runs, part), n=n)
    return Repeated(estimate, sd, len(runs))


def _on_the_same_pictures(runs: Sequence[Run], part: str) -> list[list[Run]]:
    """Return the runs on one split, of the training part also those that drew the same from it."""
    if part_name(part) != "train":
        return list(by_split(runs).values())
    found: dict[tuple[str, frozenset[str]], list[Run]] = {}
    for run in runs:
        drawn = frozenset(run.predictions.part("train").paths)
        found.setdefault((run.split_hash, drawn), []).append(run)
    return list(found.values())


def over_splits(accuracies: Sequence[float], *, test_to_train: float, n: int) -> Estimate:
    """Return the mean of accuracies over splits with its corrected resampled t interval.

    Args:
        accuracies: One per split, at least two.
        test_to_train: Test pictures divided by training pictures, of one split.
        n: The number of different test pictures of all the splits.

    Example:
        >>> found = over_splits([0.90, 0.92, 0.94], test_to_train=0.5, n=300)
        >>> round(found.value, 2), [round(end, 3) for end in found.interval]
        (0.92, [0.841, 0.999])
    """
    mean = sum(accuracies) / len(accuracies)
    variance = variance_over_splits(accuracies, test_to_train)
    half = variance.quantile() * math.sqrt(variance.value)
    # Splits that happen to agree are no surer than one test on all the different pictures.
    low, high = wilson_interval(mean, n, NormalDist().inv_cdf(0.975))
    return Estimate(mean, max(0.0, min(mean - half, low)), min(1.0, max(mean + half, high)), n)


def over_seeds(right: npt.ArrayLike) -> Estimate:
    """Return the mean accuracy of seeds that were tested on the same pictures; see `summarise`.

    Args:
        right: Whether each seed (row) was right on each picture (column), shape (seeds, n).

    Example:
        >>> over_seeds([[True, True, False, True]]) == wilson(3, 4)
        True
    """
    table = np.asarray(right, dtype=np.float64)
    n = table.shape[1]
    if (table == table[0]).all():
        return wilson(int(table[0].sum()), n)
    share, variance = float(table.mean()), variance_over_seeds(table)
    weight = _independent(share * (1 - share), variance, most=table.size)
    return Estimate(share, *wilson_interval(share, weight, variance.quantile()), n)


def _independent(of_one: float, variance: Variance, most: int) -> float:
    return min(of_one / variance.value, most) if variance.value > 0 else most
