"""Which of several runs is better, said only as far as the test pictures carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regraft.errors import RegraftError
from regraft.results.run import Run
from regraft.results.statistics import PairedTest
from regraft.results.store import paired_test

_LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What may be said about several runs.

    Args:
        same_split: Whether all used one and the same split.
        best: The run that is better than every other, if that can be told.
        notes: The same in sentences.
    """

    same_split: bool
    best: int | None
    notes: tuple[str, ...]


def judge(runs: Sequence[Run]) -> Verdict:
    """Compare the run with the highest test accuracy with each other one, picture by picture.

    McNemar's exact test is used at 5 %, divided by the number of comparisons (Bonferroni).

    Example:
        >>> judge([])
        Verdict(same_split=True, best=None, notes=())
    """
    hashes = {run.split_hash for run in runs}
    if len(hashes) > 1:
        note = (
            f"These runs used {len(hashes)} different splits, so their accuracies were measured on "
            "different pictures. They stand side by side here, but none can be called better: "
            "fit them on one split to compare them."
        )
        return Verdict(same_split=False, best=None, notes=(note, _looks(runs)))
    tested = [index for index, run in enumerate(runs) if _accuracy(run) is not None]
    if len(tested) < 2:
        return Verdict(same_split=True, best=None, notes=())
    top = max(tested, key=lambda index: _accuracy(runs[index]) or 0.0)
    best, note = _against_all(runs, top, [index for index in tested if index != top])
    return Verdict(same_split=True, best=best, notes=(note, _looks(runs)))


def _against_all(runs: Sequence[Run], top: int, others: list[int]) -> tuple[int | None, str]:
    tests: dict[int, PairedTest] = {}
    for other in others:
        try:
            tests[other] = paired_test(runs[top], runs[other])
        except RegraftError as error:
            return None, f"No best is marked, for the runs cannot be paired: {error}."
    level = _LEVEL / len(tests)
    equals = [other for other, test in tests.items() if test.p_value >= level]
    name = runs[top].description
    if not equals:
        return top, (
            f"* {name} is better than every other run here on the same test pictures "
            f"(McNemar's exact test, p < {level:.2g} each)."
        )
    nearest = max(equals, key=lambda other: tests[other].p_value)
    test = tests[nearest]
    rest = f" and {len(equals) - 1} more" if len(equals) > 1 else ""
    return None, (
        f"No best is marked: the highest test accuracy, {name}, cannot be told from "
        f"{runs[nearest].description}{rest}. Of the pictures on which these two differ, the first "
        f"is right on {test.only_first} and the second on {test.only_second} "
        f"(McNemar's exact test, p = {test.p_value:.2g})."
    )


def _accuracy(run: Run) -> float | None:
    part = run.metrics.get("test") or {}
    return part.get("accuracy")


def _looks(runs: Sequence[Run]) -> str:
    if len(runs) < 2:
        return ""
    return (
        "Choose a run by its validation accuracy: the best of many test accuracies is too good to "
        "be true by the luck of the choice."
    )
