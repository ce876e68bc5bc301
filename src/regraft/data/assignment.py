"""Which picture comes to which part: by shares, beside given parts, or fold by fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

from regraft.data.dataset import PARTS, Dataset
from regraft.data.grouping import Assignment, Unit
from regraft.data.labels import list_names
from regraft.data.sampling import exact
from regraft.errors import DataError


def assign_by_shares(
    data: Dataset,
    units: list[Unit],
    shares: Mapping[str, float],
    given: list[str] | None,
    *,
    keep_small: bool,
) -> list[list[int]]:
    """Return the places of the pictures of each part, parts that are given left as they are.

    Args:
        data: What is cut.
        units: What must stay together.
        shares: Of ``val`` and ``test``, 0 to 1.
        given: The part of each picture where the data set is cut already, or None.
        keep_small: Whether all of a class that is too small for every part comes to train.

    Raises:
        DataError: A class is too small (``SPLIT-TOO-FEW``), or there is no train part
            (``SPLIT-NO-TRAIN``).
    """
    there = set(given or ())
    if there and "train" not in there:
        raise DataError(
            "the given parts have no train part",
            path=data.root,
            why=f"given: {list_names(sorted(there))}",
            hint="pass regroup=True to cut them anew",
            code="SPLIT-NO-TRAIN",
        )
    wanted = [exact(0.0 if part in there else shares[part]) for part in ("val", "test")]
    if given is not None:
        units = [unit for unit in units if given[unit.members[0]] == "train"]
    every_share = [1 - wanted[0] - wanted[1], *wanted]
    needed = sum(share > 0 for share in every_share)
    units, kept = _without_small_classes(data, units, needed, keep_small=keep_small)
    assignment = Assignment(units, every_share)
    parts = assignment.divide()
    parts[0] += kept
    _refuse_uncovered(assignment, PARTS)
    for index, part in enumerate(given or ()):
        if part != "train":
            parts[PARTS.index(part)].append(index)
    return parts


def assign_fold(
    data: Dataset,
    units: list[Unit],
    val: float,
    folds: int,
    fold: int,
    *,
    keep_small: bool,
) -> list[list[int]]:
    """Return the places of the pictures of each part where one of several folds is the test part.

    Every picture is in one fold. The folds of each class differ by one picture at most where every
    picture is a unit of its own, and so do whole folds.

    Args:
        data: What is cut.
        units: What must stay together.
        val: Share of the validation part among the pictures of the other folds.
        folds: How many folds there are, 2 or more.
        fold: Which of them is the test part, counted from 0.
        keep_small: Whether all of a class that is too small for every fold comes to train, always.

    Raises:
        DataError: A class is too small (``SPLIT-TOO-FEW``).
    """
    # With two folds, a half of the class must still be enough for train and validation.
    needed = 4 if folds == 2 and val > 0 else folds
    units, kept = _without_small_classes(data, units, needed, keep_small=keep_small)
    whole = Assignment(units, [Fraction(1, folds)] * folds, _fold_sizes(units, folds))
    test = whole.divide()[fold]
    _refuse_uncovered(whole, [f"fold {number}" for number in range(folds)])
    tested = set(test)
    rest = [unit for unit in units if unit.members[0] not in tested]
    others = Assignment(rest, [1 - exact(val), exact(val)])
    train, held = others.divide()
    _refuse_uncovered(others, PARTS)
    return [train + kept, held, test]


def _fold_sizes(units: list[Unit], folds: int) -> dict[str, list[int]]:
    """Return how many pictures of each class each fold wants; what is left over goes round."""
    sizes: Counter[str] = Counter()
    for unit in units:
        sizes.update(dict(unit.counts))
    wanted, start = {}, 0
    for label in sorted(sizes):
        end = start + sizes[label]
        wanted[label] = [
            len(range(start + (fold - start) % folds, end, folds)) for fold in range(folds)
        ]
        start = end
    return wanted


def _without_small_classes(
    data: Dataset, units: list[Unit], needed: int, *, keep_small: bool
) -> tuple[list[Unit], list[int]]:
    """Return the units of classes that are large enough, and the places of all other pictures."""
    count = Counter(label for unit in units for label, _ in unit.counts)
    small = {name: count[name] for name in data.classes if count[name] < needed}
    if small and not keep_small:
        raise _too_few(data, small, needed)
    large: list[Unit] = []
    kept: list[int] = []
    for unit in units:
        if small.keys() & dict(unit.counts).keys():
            kept += unit.members
        else:
            large.append(unit)
    return large, kept


def _too_few(data: Dataset, few: dict[str, int], needed: int) -> DataError:
    pictures = data.counts()
    return DataError(
        "classes too small for this split",
        path=data.root,
        why=list_names(
            f"{name}: {pictures[name]} pictures in {number} separate groups"
            if pictures[name] != number
            else f"{name}: {number} pictures"
            for name, number in few.items()
        )
        + f"; least number needed: {needed}",
        hint="add pictures, leave the classes out with classes=, ask for fewer parts or folds "
        "(val=0 or test=0), or put them all into train with small_classes='train' "
        "(--small-classes train)",
        code="SPLIT-TOO-FEW",
    )


def _refuse_uncovered(assignment: Assignment, parts: tuple[str, ...] | list[str]) -> None:
    lacking = [
        f"{label} in {parts[part]}"
        for label, without in sorted(assignment.without.items())
        for part in sorted(without)
    ]
    if lacking:
        raise DataError(
            "the groups are too large to give every part a picture of every class",
            why=f"nothing left for: {list_names(lacking)}",
            hint="try another seed, larger shares, or ask for fewer parts or folds "
            "(val=0 or test=0)",
            code="SPLIT-TOO-FEW",
        )
