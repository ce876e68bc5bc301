"""Which image comes to which part, so that nothing of one part is known from another.

What must stay together (groups, copies, look-alikes) is a unit. Units come in the order of the
SHA-256 of (seed, purpose, name): the same on every machine and with every version of every library,
whatever the order in which images were found, and unchanged for the others when one comes or goes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from regraft.data.sources import PARTS
from regraft.errors import DataError, UsageError, list_names
from regraft.files import sha256_json
from regraft.settings import settings_class


class _Images(Protocol):
    """What a cut needs to know of a data set."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def groups(self) -> tuple[str, ...] | None: ...
    @property
    def parts(self) -> tuple[str, ...] | None: ...
    @property
    def root(self) -> Path | None: ...
    def relative_paths(self) -> tuple[str, ...]: ...
    def hashes(self) -> tuple[str, ...]: ...


PartSize = Annotated[float, Field(ge=0)]
"""How large a part is: a share of the images below 1, from 1 on so many images of each class."""


def refuse_broken_numbers(val: float, test: float) -> None:
    """Refuse the size of a part that is neither a share nor a whole number.

    Raises:
        UsageError: One of them is 1.5, for example.
    """
    for name, size in (("val", val), ("test", test)):
        if size >= 1 and not size.is_integer():
            hint = "below 1 it is a share of the images, from 1 on a whole number of each class"
            raise UsageError(f"{name} cannot be {size}", hint=hint)


@settings_class(kw_only=True)
class SplitOptions:
    """How a data set is cut; see ``Dataset.split``."""

    val: PartSize = 0.15
    test: PartSize = 0.25
    seed: int = 0
    group_by: str | None = None
    regroup: bool = False
    keep_parts: bool = False
    small_classes: Literal["refuse", "train"] = "refuse"
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        refuse_broken_numbers(self.val, self.test)
        if self.folds is None and sum(size for size in (self.val, self.test) if size < 1) >= 1:
            why = f"val={self.val}, test={self.test}"
            raise UsageError("val and test must leave something for train", why=why)
        if self.regroup and self.keep_parts:
            raise UsageError("parts are kept or cut anew: give keep_parts or regroup, not both")
        if self.fold >= (self.folds or 1):
            why = f"folds={self.folds}, fold={self.fold}"
            raise UsageError("fold must be one of the folds, counted from 0", why=why)


@dataclass(frozen=True)
class Unit:
    """Images that must stay together: their places, how many each class has, a place in order."""

    members: tuple[int, ...]
    counts: tuple[tuple[str, int], ...]
    key: bytes


def assign(
    data: _Images, options: SplitOptions, alike: Sequence[Sequence[str]]
) -> tuple[list[list[int]], dict[str, Any]]:
    """Return the places of the images of train, val and test, and what is known of the cut.

    Arguments and errors are those of ``Dataset.split``; the groups stand in the data.
    """
    _refuse_what_cannot_be_cut(data, options)
    hashes, size = data.hashes(), len(data.labels)
    groups = [name or place for place, name in enumerate(data.groups or [""] * size)]
    given = None if options.regroup or data.parts is None else list(data.parts)
    ties: list[Sequence[Any]] = [groups, hashes]
    if given is not None and options.keep_parts:  # only within a part can be kept together
        ties = [list(zip(column, given, strict=True)) for column in ties]
    elif given is not None:
        _refuse_torn(data, given, groups, "groups", "SPLIT-GROUPS")
        _refuse_torn(data, given, hashes, "images with copies", "SPLIT-DUPLICATES")
    ties.append(_look_alikes(data, alike, given))
    units = make_units(data.relative_paths(), data.labels, ties, seed=options.seed)
    column = options.group_by is None and data.groups is not None
    facts = {
        "val": _written(options.val),
        "test": _written(options.test) if options.folds is None else None,
        "group_by": "column" if column else options.group_by,
        "regroup": options.regroup,
        "keep_parts": options.keep_parts,
        "given_parts": [part for part in PARTS if given and part in given],
        "groups": None if data.groups is None else len(set(groups)),
        "copies": size - len(set(hashes)),
        "look_alikes": sum(map(len, alike)),
        "small_classes": options.small_classes,
        "division": division(data, regroup=options.regroup),
    }
    if options.folds is None:
        return _assign_by_sizes(data, units, options, given), facts
    facts |= {"folds": options.folds, "fold": options.fold}
    return _assign_fold(data, units, options, options.folds), facts


def division(
    data: _Images, *, regroup: bool = False, among: Container[str] | None = None
) -> str | None:
    """Return a digest of the parts and groups that images came with; None where they have none.

    Args:
        data: The images.
        regroup: Whether their parts are forgotten.
        among: The relative paths of those that count; by default all.
    """
    nothing = ("",) * len(data.labels)
    parts = nothing if regroup else data.parts or nothing
    rows = zip(data.relative_paths(), parts, data.groups or nothing, strict=True)
    known = [row for row in rows if among is None or row[0] in among]
    return sha256_json(sorted(known)) if any(row[1] or row[2] for row in known) else None


def make_units(
    names: Sequence[str], labels: Sequence[str], ties: Iterable[Sequence[Hashable]], *, seed: int
) -> list[Unit]:
    """Return the smallest units that tear no tie apart.

    Args:
        names: A name for each image, from which the random order is made.
        labels: The class of each image.
        ties: Columns of values; images with the same value in one stay together.
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
    units = []
    for indices in members.values():
        counts = Counter(labels[index] for index in indices)
        key = order_key(min(names[index] for index in indices), seed=seed, purpose="split")
        units.append(Unit(tuple(indices), tuple(sorted(counts.items())), key))
    return units


def order_key(name: str, *, seed: int, purpose: str) -> bytes:
    """Return the 32 bytes by which ``name`` takes its place in a random order.

    Example:
        >>> order_key("a.jpg", seed=0, purpose="subset").hex()[:8]
        'a1073e8e'
    """
    text = f"{seed}\0{purpose}\0{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def as_fraction(share: float) -> Fraction:
    """Return the fraction that was written: 0.15 is 3/20, not the nearest binary number.

    Example:
        >>> as_fraction(0.15)
        Fraction(3, 20)
    """
    return Fraction(repr(float(share)))


def quotas(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Cut ``total`` by largest remainder (earlier shares win ties), at least one for each share.

    Args:
        total: How many there are; at least as many as there are shares above zero.
        shares: Shares that add up to one.

    Example:
        >>> quotas(10, [as_fraction(0.6), as_fraction(0.15), as_fraction(0.25)])
        [6, 2, 2]
    """
    counts = [math.floor(total * share) for share in shares]
    remainders = [total * share - count for share, count in zip(shares, counts, strict=True)]
    order = sorted(range(len(shares)), key=lambda i: (-remainders[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    for i, share in enumerate(shares):
        if share > 0 and counts[i] == 0:
            counts[counts.index(max(counts))] -= 1
            counts[i] = 1
    return counts


def part_sizes(total: int, val: float, test: float) -> list[int]:
    """Return how many of a class's images come to train, val and test.

    Args:
        total: How many images the class has, at least :func:`least_size`.
        val: A share of them below 1, or a number of images.
        test: The same.

    Example:
        >>> part_sizes(20, 0.15, 0.25), part_sizes(20, 5, 5), part_sizes(20, 5, 0.25)
        ([12, 3, 5], [10, 5, 5], [10, 5, 5])
    """
    counts = [0, *(int(size) for size in (val, test))]
    rest = max(0, total - sum(counts))
    shares = [as_fraction(size) * total / max(1, rest) if size < 1 else 0 for size in (val, test)]
    cut = quotas(rest, [Fraction(1 - sum(shares)), *map(Fraction, shares)])
    return [share + count for share, count in zip(cut, counts, strict=True)]


def least_size(val: float, test: float = 0.0) -> int:
    """Return how many images a class needs so that every part gets its number, and train one.

    Example:
        >>> least_size(0.15, 0.25), least_size(50, 50), least_size(5, 0.5)
        (3, 101, 12)
    """
    counts = int(val) + int(test)
    shares = [as_fraction(size) for size in (val, test) if 0 < size < 1]
    least = 1 + counts + len(shares)
    return max(least, math.ceil((1 + counts) / (1 - sum(shares)))) if counts else least


def stratified_order(class_sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return one order of all images whose every prefix holds the classes in fair proportion.

    First comes one image of each class, then always the class that is furthest behind its share
    (Sainte-Laguë's method). A longer prefix never takes an image away from a class.

    Args:
        class_sizes: Number of images of each class.

    Returns:
        Pairs (class number, place within the class).

    Example:
        >>> stratified_order([4, 2])
        [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
    """
    # Division rounds correctly, so equal fractions are equal floats and ties are ties everywhere.
    keyed = [
        ((2 * place + 1) / size if place else 0.0, number, place)
        for number, size in enumerate(class_sizes)
        for place in range(size)
    ]
    return [(number, place) for _, number, place in sorted(keyed)]


def choose_subset(
    data: _Images, *, per_class: int | None, size: int | None, at_most: bool, seed: int
) -> list[int]:
    """Return the places of the images of a subset; see ``Dataset.subset``."""
    queues: dict[str, list[int]] = {name: [] for name in data.classes}
    keys = [order_key(name, seed=seed, purpose="subset") for name in data.relative_paths()]
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        queues[data.labels[place]].append(place)
    if per_class is not None:
        if per_class < 1:
            raise UsageError("per_class must be at least 1", why=str(per_class))
        short = {name: len(queue) for name, queue in queues.items() if len(queue) < per_class}
        if short and not at_most:
            why = list_names(f"{name} has {count}" for name, count in short.items())
            hint = f"at most per_class={min(short.values())} is possible; or pass at_most=True"
            hint += " (--at-most), and smaller classes give all they have"
            what = f"not every class has {per_class} images"
            raise DataError(what, why=why, hint=hint, code="DATA-SUBSET")
        return [place for queue in queues.values() for place in queue[:per_class]]
    size = size or 0
    total, least = len(keys), sum(map(bool, queues.values()))
    if not least <= size <= total or size == 0:
        why = f"there are {total}, and {least} classes need one each"
        what, hint = f"a subset of {size} images is not possible", f"from {least} to {total} are"
        raise DataError(what, why=why, hint=hint, code="DATA-SUBSET")
    lists = list(queues.values())
    order = stratified_order([len(queue) for queue in lists])
    return [lists[number][place] for number, place in order[:size]]


def _written(size: float) -> float:
    """Return a size as people write it: a share as it is, a number of images without a point."""
    return int(size) if size >= 1 else size


def _refuse_what_cannot_be_cut(data: _Images, options: SplitOptions) -> None:
    if options.folds is not None and data.parts is not None and not options.regroup:
        what = "the images have parts of their own, which folds would cut anew"
        why = f"given: {list_names(part for part in PARTS if part in set(data.parts))}"
        hint = "pass regroup=True (--regroup) to forget the given parts, or ask for no folds"
        raise DataError(what, path=data.root, why=why, hint=hint, code="SPLIT-FOLDS")
    if len(data.classes) < 2:
        what = "only one class" if data.classes else "no class"
        why = f"classes: {list_names(data.classes)}"
        hint = "a split needs images of at least two classes"
        raise DataError(what, path=data.root, why=why, hint=hint, code="DATA-ONE-CLASS")


def _look_alikes(
    data: _Images, alike: Sequence[Sequence[str]], given: list[str] | None
) -> list[Any]:
    """Return a value for each image that is equal where images look alike in the same part."""
    group_of = {path: number for number, paths in enumerate(alike) for path in paths}
    return [
        (group_of[path], given and given[index]) if path in group_of else index
        for index, path in enumerate(data.relative_paths())
    ]


def _refuse_torn(
    data: _Images, given: list[str], column: Sequence[Hashable], what: str, code: str
) -> None:
    """Refuse given parts between which images with the same value in a column are divided."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, value in enumerate(column):
        members[value].append(place)
    torn = [each for each in members.values() if len({given[place] for place in each}) > 1]
    if torn:
        paths = data.relative_paths()
        why = list_names((" = ".join(paths[i] for i in each[:3]) for each in torn), most=5)
        hint = "pass regroup=True (--regroup) to forget the given parts and cut anew with them"
        hint += " together, or keep_parts=True (--keep-parts) to keep the parts and measure without"
        hint += " these images, too"
        what = f"{len(torn)} {what} stand in more than one of the given parts"
        raise DataError(what, path=data.root, why=why, hint=hint, code=code)


def _assign_by_sizes(
    data: _Images, units: list[Unit], options: SplitOptions, given: list[str] | None
) -> list[list[int]]:
    """Return the places of each part's images; parts that are given stay as they are."""
    there = set(given or ())
    if there and "train" not in there:
        what, why = "the given parts have no train part", f"given: {list_names(sorted(there))}"
        hint = "pass regroup=True (--regroup) to cut them anew"
        raise DataError(what, path=data.root, why=why, hint=hint, code="SPLIT-NO-TRAIN")
    val, test = (0.0 if part in there else getattr(options, part) for part in ("val", "test"))
    if given is not None:
        units = [unit for unit in units if given[unit.members[0]] == "train"]
    least = 1 + bool(val) + bool(test), least_size(val, test)
    units, kept = _without_small(data, units, *least, options.small_classes)
    wanted = {name: part_sizes(size, val, test) for name, size in _sizes(units).items()}
    parts = _divide(units, wanted, PARTS)
    parts[0] += kept
    for place, part in enumerate(given or ()):
        if part != "train":
            parts[PARTS.index(part)].append(place)
    return parts


def _assign_fold(
    data: _Images, units: list[Unit], options: SplitOptions, folds: int
) -> list[list[int]]:
    """Return the places of each part's images where one of several folds is the test part.

    Every image is in one fold. The folds of each class differ by one image at most where every
    image is a unit of its own, and so do whole folds.
    """
    # What is left beside the largest fold must still be enough for train and validation.
    left = (1 + bool(options.val), least_size(options.val))
    least, images = (max(folds, math.ceil(Fraction(size * folds, folds - 1))) for size in left)
    units, kept = _without_small(data, units, least, images, options.small_classes)
    names = [f"fold {number}" for number in range(folds)]
    test = _divide(units, _fold_sizes(units, folds), names)[options.fold]
    tested = set(test)
    rest = [unit for unit in units if unit.members[0] not in tested]
    wanted = {name: part_sizes(size, options.val, 0) for name, size in _sizes(rest).items()}
    train, held, _ = _divide(rest, wanted, PARTS)
    return [train + kept, held, test]


def _fold_sizes(units: list[Unit], folds: int) -> dict[str, list[int]]:
    """Return how many images of each class each fold wants; what is left over goes round."""
    wanted, start = {}, 0
    for label, size in sorted(_sizes(units).items()):
        end = start + size
        wanted[label] = [
            len(range(start + (fold - start) % folds, end, folds)) for fold in range(folds)
        ]
        start = end
    return wanted


def _sizes(units: Iterable[Unit]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for unit in units:
        sizes.update(dict(unit.counts))
    return sizes


def _without_small(
    data: _Images, units: list[Unit], least: int, least_images: int, small_classes: str
) -> tuple[list[Unit], list[int]]:
    """Return the units of classes that are large enough, and the places of all other images."""
    count, images = Counter(name for unit in units for name, _ in unit.counts), _sizes(units)
    small = {name for name in data.classes if count[name] < least or images[name] < least_images}
    if small and small_classes == "refuse":
        listed = (
            f"{name}: {images[name]} images"
            + (f" in {count[name]} separate groups" if images[name] != count[name] else "")
            for name in data.classes
            if name in small
        )
        why = f"{list_names(listed)}; least number needed: {max(least, least_images)}"
        hint = "add images, ask for smaller or fewer parts or folds (val=0 or test=0), or put these"
        hint += " classes into train with small_classes='train' (--small-classes train)"
        what = "classes too small for this split"
        raise DataError(what, path=data.root, why=why, hint=hint, code="SPLIT-TOO-FEW")
    large = [unit for unit in units if not small & dict(unit.counts).keys()]
    kept = [i for unit in units if small & dict(unit.counts).keys() for i in unit.members]
    return large, kept


def _divide(
    units: Sequence[Unit], wanted: Mapping[str, Sequence[int]], names: Sequence[str]
) -> list[list[int]]:
    """Give units to parts, large ones before small ones, each to the part that lacks it most.

    Where every image is a unit of its own, each part gets what it wants exactly.

    Args:
        units: What is to be divided.
        wanted: How many images of each class each part wants; one that wants none gets none.
        names: Of the parts, for the error where one gets no image of a class.
    """
    left = {label: list(counts) for label, counts in wanted.items()}
    waiting = Counter(label for unit in units for label, _ in unit.counts)
    open_parts = {part for counts in wanted.values() for part, n in enumerate(counts) if n}
    without = {label: set(open_parts) for label in waiting}

    def candidates(unit: Unit) -> set[int]:
        """Return the parts open to a unit: those in need, once a class has no unit to spare."""
        found = open_parts
        for label, _ in unit.counts:
            urgent = without[label]
            if urgent and waiting[label] <= len(urgent):
                found = found & urgent or found
        return found

    def cost(unit: Unit, part: int) -> tuple[int, float, int]:
        too_many, need = 0, 0.0
        for label, count in unit.counts:
            room = left[label][part]
            too_many += max(0, count - max(0, room))
            need += count * room / max(1, wanted[label][part])
        return too_many, -need, part

    parts: list[list[int]] = [[] for _ in names]
    # Large units first, but by rough size: in a strict order of sizes a seed would choose nothing.
    for unit in sorted(units, key=lambda unit: (-len(unit.members).bit_length(), unit.key)):
        part = min(candidates(unit), key=lambda part: cost(unit, part))
        for label, count in unit.counts:
            left[label][part] -= count
            waiting[label] -= 1
            without[label].discard(part)
        parts[part] += unit.members
    if lacking := [f"{x} in {names[part]}" for x in sorted(without) for part in sorted(without[x])]:
        what = "the groups are too large to give every part an image of every class"
        hint = "try another seed, larger parts, or ask for fewer parts or folds (val=0 or test=0)"
        why = f"nothing left for: {list_names(lacking)}"
        raise DataError(what, why=why, hint=hint, code="SPLIT-TOO-FEW")
    return [sorted(members) for members in parts]
