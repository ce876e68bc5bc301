"""Cutting a data set into train, val and test so that nothing of one part is known from another."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from regraft.data.dataset import PARTS, Dataset
from regraft.data.grouping import Assignment, Unit, make_units
from regraft.data.labels import list_names
from regraft.data.listings import compile_pattern
from regraft.data.sampling import exact
from regraft.data.split import Split
from regraft.errors import DataError, UsageError


def cut(
    data: Dataset,
    *,
    val: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
    group_by: str | None = None,
    on_duplicates: str = "together",
    regroup: bool = False,
    small_classes: str = "refuse",
    alike: Sequence[Sequence[str]] = (),
) -> Split:
    """Cut a data set into train, val and test.

    Each class is cut by itself, exactly by largest remainder, and has at least one picture in each
    part asked for. Pictures of one group, and files of the same content, come to the same part; the
    sizes are then as close to the wanted ones as the groups allow. The choice depends on the
    relative paths, the seed and the shares, not on order or machine.

    Parts that the data set was given are kept; a part that is missing is cut from train, and the
    shares are then shares of train.

    Args:
        data: What to cut; its groups are used if it has any.
        val: Share of the validation part, 0 for none.
        test: Share of the test part, 0 for none.
        seed: Another seed, another choice.
        group_by: A regular expression looked for in the relative path: its group named ``group``,
            else its first group, else the whole match is what must stay together, and a picture
            without a match is a group of its own. ``"column"``: the groups of the data set.
        on_duplicates: What to do when given parts hold copies of one file: ``"together"`` refuses
            them, ``"move"`` moves the copies into train.
        regroup: Whether to forget the given parts and cut anew.
        small_classes: What to do with a class too small for every part: ``"refuse"`` it, or put all
            of it into ``"train"``.
        alike: Groups of relative paths whose pictures look alike, as a check finds them; they come
            to the same part where it is cut here.

    Raises:
        DataError: A class is too small (``SPLIT-TOO-FEW``), or given parts share groups
            (``SPLIT-GROUPS``) or copies of files (``SPLIT-DUPLICATES``).
        UsageError: An argument is out of range.

    Example:
        >>> import tempfile
        >>> from regraft.data.drawn import make_flowers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = cut(make_flowers(folder, species=2, per_class=4, size=16))
        >>> {part: len(data) for part, data in split.parts().items()}
        {'train': 4, 'val': 2, 'test': 2}
    """
    shares = _checked_shares(val, test, on_duplicates, small_classes)
    _refuse_few_classes(data)
    groups, without = groups_of(data, group_by)
    hashes = data.hashes()
    given = None if regroup or data.parts is None else list(data.parts)
    ties = (groups, hashes, _look_alikes(data, alike, given))
    units = make_units(data.relative_paths(), data.labels, ties, seed=seed)
    settings = {
        "val": val,
        "test": test,
        "group_by": "column" if group_by is None and data.groups is not None else group_by,
        "on_duplicates": on_duplicates,
        "regroup": regroup,
        "given_parts": [part for part in PARTS if given and part in given],
        "groups": len(set(groups)) if groups != list(range(len(data))) else None,
        "pictures_without_group": without,
        "copies": len(data) - len(set(hashes)),
        "look_alikes": sum(map(len, alike)),
        "small_classes": small_classes,
    }
    if given is not None:
        _refuse_torn_groups(given, groups)
        settings["moved_copies"] = _settle_copies(data, given, units, move=on_duplicates == "move")
    parts = _assign(data, units, shares, given, keep_small=small_classes == "train")
    plain = dataclasses.replace(data, parts=None, ignored=(), notes=())
    train, val_data, test_data = (plain.take(indices) for indices in parts)
    return Split(train, val_data, test_data, seed=seed, settings=settings)


def _checked_shares(
    val: float, test: float, on_duplicates: str, small_classes: str
) -> dict[str, float]:
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            "val and test must be shares that leave something for train",
            why=f"val={val}, test={test}",
            hint="both at least 0, together below 1",
        )
    if on_duplicates not in {"together", "move"}:
        raise UsageError("on_duplicates must be 'together' or 'move'", why=repr(on_duplicates))
    if small_classes not in {"refuse", "train"}:
        raise UsageError("small_classes must be 'refuse' or 'train'", why=repr(small_classes))
    return {"val": val, "test": test}


def _refuse_few_classes(data: Dataset) -> None:
    if len(data.classes) < 2:
        raise DataError(
            "only one class" if data.classes else "no class",
            path=data.root,
            why=f"classes: {list_names(data.classes)}",
            hint="a split needs pictures of at least two classes",
            code="DATA-ONE-CLASS",
        )


def groups_of(data: Dataset, group_by: str | None) -> tuple[list[Any], int | None]:
    """Return a group for each picture and how many are a group of their own for want of a name.

    Args:
        data: The pictures; their own groups are used if they have any.
        group_by: As in :func:`cut`.

    Raises:
        DataError: There are no groups to use (``SPLIT-GROUP-COLUMN``), or the expression matches no
            picture (``SPLIT-GROUP-PATTERN``).

    Example:
        >>> people = Dataset(("ann_1.jpg", "ann_2.jpg", "bea.jpg"), ("x", "y", "x"), ("x", "y"))
        >>> groups_of(people, "^([a-z]+)_")
        (['ann', 'ann', 2], 1)
    """
    alone = list(range(len(data)))
    if group_by is None and data.groups is None:
        return alone, None
    named: Sequence[str | None]
    if group_by is None or group_by == "column":
        if data.groups is None:
            hint = "read them with from_csv(…, group=COLUMN), or give a regular expression"
            raise DataError("the data set has no groups", hint=hint, code="SPLIT-GROUP-COLUMN")
        named = data.groups
    else:
        named = _matches(data.relative_paths(), group_by)
        if not any(named):
            raise DataError(
                "the group pattern matches no picture",
                path=data.root,
                why=f"pattern: {group_by}; for example {list_names(data.relative_paths()[:1])}",
                hint="it is looked for in the path relative to the data folder",
                code="SPLIT-GROUP-PATTERN",
            )
    groups = [name or number for name, number in zip(named, alone, strict=True)]
    return groups, sum(not name for name in named)


def _matches(paths: Sequence[str], pattern: str) -> list[str | None]:
    expression = compile_pattern(pattern)
    which: str | int = "group" if "group" in expression.groupindex else min(1, expression.groups)
    found = (expression.search(path) for path in paths)
    return [match[which] if match else None for match in found]


def _look_alikes(
    data: Dataset, alike: Sequence[Sequence[str]], given: list[str] | None
) -> list[Any]:
    """Return a value for each picture that is equal where pictures look alike in the same part."""
    group_of = {path: number for number, paths in enumerate(alike) for path in paths}
    return [
        (group_of[path], given and given[index]) if path in group_of else index
        for index, path in enumerate(data.relative_paths())
    ]


def _refuse_torn_groups(given: list[str], groups: list[Any]) -> None:
    parts_of: defaultdict[Any, set[str]] = defaultdict(set)
    for part, group in zip(given, groups, strict=True):
        parts_of[group].add(part)
    torn = {group: parts for group, parts in parts_of.items() if len(parts) > 1}
    if torn:
        kinds = Counter(" and ".join(p for p in PARTS if p in parts) for parts in torn.values())
        raise DataError(
            f"{len(torn)} groups stand in more than one of the given parts",
            why="; ".join(f"{count} in {kind}" for kind, count in kinds.most_common())
            + f": {list_names(sorted(torn))}",
            hint="pass regroup=True (--regroup) to forget the given parts and cut anew "
            "with groups apart, or leave group_by out to keep the parts as they are",
            code="SPLIT-GROUPS",
        )


def _settle_copies(data: Dataset, given: list[str], units: list[Unit], *, move: bool) -> int:
    """Move units of several given parts into train, or refuse them; return how many moved."""
    torn = [unit for unit in units if len({given[index] for index in unit.members}) > 1]
    if torn and not move:
        paths = data.relative_paths()
        pairs = (" = ".join(paths[index] for index in unit.members) for unit in torn)
        raise DataError(
            f"{len(torn)} pictures have copies in another of the given parts",
            path=data.root,
            why=list_names(pairs, most=5),
            hint="pass on_duplicates='move' to move them into train, or regroup=True to cut anew",
            code="SPLIT-DUPLICATES",
        )
    moved = [index for unit in torn for index in unit.members if given[index] != "train"]
    for index in moved:
        given[index] = "train"
    return len(moved)


def _assign(
    data: Dataset,
    units: list[Unit],
    shares: dict[str, float],
    given: list[str] | None,
    *,
    keep_small: bool,
) -> list[list[int]]:
    """Return the places of the pictures of each part."""
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
    small = _small_classes(data, units, sum(share > 0 for share in every_share))
    if small and not keep_small:
        raise _too_few(data, small, sum(share > 0 for share in every_share))
    kept = [unit for unit in units if small.keys() & dict(unit.counts).keys()]
    assignment = Assignment([unit for unit in units if unit not in kept], every_share)
    parts = assignment.divide()
    parts[0] += [index for unit in kept for index in unit.members]
    _refuse_uncovered(assignment)
    for index, part in enumerate(given or ()):
        if part != "train":
            parts[PARTS.index(part)].append(index)
    return parts


def _small_classes(data: Dataset, units: list[Unit], needed: int) -> dict[str, int]:
    """Return the classes with fewer units than there are parts, and how many they have."""
    count = Counter(label for unit in units for label, _ in unit.counts)
    return {name: count[name] for name in data.classes if count[name] < needed}


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
        hint="add pictures, leave the classes out with classes=, ask for fewer parts "
        "(val=0 or test=0), or put them all into train with small_classes='train' "
        "(--small-classes train)",
        code="SPLIT-TOO-FEW",
    )


def _refuse_uncovered(assignment: Assignment) -> None:
    lacking = [
        f"{label} in {PARTS[part]}"
        for label, parts in sorted(assignment.without.items())
        for part in sorted(parts)
    ]
    if lacking:
        raise DataError(
            "the groups are too large to give every part a picture of every class",
            why=f"nothing left for: {list_names(lacking)}",
            hint="try another seed, larger shares, or ask for fewer parts (val=0 or test=0)",
            code="SPLIT-TOO-FEW",
        )
