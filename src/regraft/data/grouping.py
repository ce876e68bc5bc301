"""Dividing what must stay together among the parts of a split, close to the wanted sizes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from regraft.data.sampling import chance_key, quotas


@dataclass(frozen=True)
class Unit:
    """Pictures that must not be torn apart.

    Attributes:
        members: Their places in the data set.
        counts: How many of them each class has.
        key: The place of the unit in the random order.
    """

    members: tuple[int, ...]
    counts: tuple[tuple[str, int], ...]
    key: bytes


def make_units(
    names: Sequence[str],
    labels: Sequence[str],
    ties: Iterable[Sequence[Hashable]],
    *,
    seed: int,
) -> list[Unit]:
    """Return the smallest units that tear no tie apart.

    Args:
        names: A name for each picture, from which the random order is made.
        labels: The class of each picture.
        ties: Columns of one value for each picture; pictures with the same value in a column
            stay together, directly or through a third one.
        seed: Another seed, another order.

    Example:
        >>> units = make_units(["a", "b", "c"], ["x", "x", "y"], [["p1", "p2", "p1"]], seed=0)
        >>> sorted(unit.members for unit in units)
        [(0, 2), (1,)]
    """
    parent = list(range(len(names)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for column in ties:
        first: dict[Hashable, int] = {}
        for index, value in enumerate(column):
            parent[root(index)] = root(first.setdefault(value, index))
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(names)):
        members[root(index)].append(index)
    return [_unit(indices, names, labels, seed) for indices in members.values()]


def _unit(indices: list[int], names: Sequence[str], labels: Sequence[str], seed: int) -> Unit:
    counts = Counter(labels[index] for index in indices)
    name = min(names[index] for index in indices)
    key = chance_key(name, seed=seed, purpose="split")
    return Unit(tuple(indices), tuple(sorted(counts.items())), key)


def _turn(unit: Unit) -> tuple[int, bytes]:
    """Return when it is a unit's turn: in a strict order of sizes a seed would choose nothing."""
    return -len(unit.members).bit_length(), unit.key


@dataclass
class Assignment:
    """Units given to parts, large ones before small ones, each to the part that lacks it most.

    Where every picture is a unit of its own, each class is cut exactly by largest remainder.

    Args:
        units: What is to be divided.
        shares: The wanted share of each part; they add up to one. A share of zero gets nothing.
        wanted: How many pictures of each class each part wants, instead of its share rounded.
    """

    units: Sequence[Unit]
    shares: Sequence[Fraction]
    wanted: dict[str, list[int]] = field(default_factory=dict)
    left: dict[str, list[int]] = field(init=False)
    waiting: Counter[str] = field(init=False)
    without: dict[str, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        sizes: Counter[str] = Counter()
        self.waiting = Counter()
        for unit in self.units:
            for label, count in unit.counts:
                sizes[label] += count
                self.waiting[label] += 1
        if not self.wanted:
            self.wanted = {label: quotas(count, self.shares) for label, count in sizes.items()}
        self.left = {label: list(counts) for label, counts in self.wanted.items()}
        open_parts = {part for part, share in enumerate(self.shares) if share > 0}
        self.without = {label: set(open_parts) for label in sizes}

    def divide(self) -> list[list[int]]:
        """Return the places of the pictures of each part, in rising order."""
        parts: list[list[int]] = [[] for _ in self.shares]
        for unit in sorted(self.units, key=_turn):
            part = min(self._candidates(unit), key=lambda part: self._cost(unit, part))
            for label, count in unit.counts:
                self.left[label][part] -= count
                self.waiting[label] -= 1
                self.without[label].discard(part)
            parts[part] += unit.members
        return [sorted(members) for members in parts]

    def _candidates(self, unit: Unit) -> set[int]:
        """Return the parts open to a unit: those in need, once a class has no unit to spare."""
        candidates = {part for part, share in enumerate(self.shares) if share > 0}
        for label, _ in unit.counts:
            urgent = self.without[label]
            if urgent and self.waiting[label] <= len(urgent):
                candidates = candidates & urgent or candidates
        return candidates

    def _cost(self, unit: Unit, part: int) -> tuple[int, float, int]:
        too_many = 0
        need = 0.0
        for label, count in unit.counts:
            left = self.left[label][part]
            too_many += max(0, count - max(0, left))
            need += count * left / max(1, self.wanted[label][part])
        return too_many, -need, part
