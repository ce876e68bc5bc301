"""Cutting a data set into train, val and test so that nothing of one part is known from another."""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from typing import Any

from regraft.data.assignment import assign_by_shares, assign_fold
from regraft.data.dataset import PARTS, Dataset
from regraft.data.grouping import Unit, make_units
from regraft.data.identifiers import matches
from regraft.data.labels import list_names
from regraft.data.split import Split
from regraft.errors import DataError, UsageError
from regraft.files import sha256_json


def cut(
    data: Dataset,
    *,
    val: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
    group_by: str | None = None,
    on_duplicates: str = "together",
    regroup: bool = False,
    keep_parts: bool = False,
    small_classes: str = "refuse",
    alike: Sequence[Sequence[str]] = (),
    folds: int | None = None,
    fold: int = 0,
) -> Split:
    """Cut a data set into train, val and test.

    Each class is cut by itself, exactly by largest remainder, and has at least one picture in each
    part asked for. Pictures of one group, and files of the same content, come to the same part; the
    sizes are then as close to the wanted ones as the groups allow. The choice depends on the
    relative paths, the seed and the shares, not on order or machine.

    Parts that the data set was given are kept; a part that is missing is cut from train, and the
    shares are then shares of train.

    With ``folds`` the pictures are cut into so many parts of the same size, each of which is the
    test part once. All folds of one seed together hold every picture once.

    Args:
        data: What to cut; its groups are used if it has any.
        val: Share of the validation part, 0 for none.
        test: Share of the test part, 0 for none; without meaning for folds.
        seed: Another seed, another choice.
        group_by: A regular expression looked for in the relative path: its group named ``group``,
            else its first group, else the whole match is what must stay together, and a picture
            without a match is a group of its own. ``"column"``: the groups of the data set.
        on_duplicates: What to do when given parts hold copies of one file: ``"together"`` refuses
            them, ``"move"`` moves the copies into train.
        regroup: Whether to forget the given parts and cut anew.
        keep_parts: Whether to keep the given parts even where they share groups or copies of files,
            which a check of the split then finds.
        small_classes: What to do with a class too small for every part: ``"refuse"`` it, or put all
            of it into ``"train"``.
        alike: Groups of relative paths whose pictures look alike, as a check finds them; they come
            to the same part where it is cut here.
        folds: Cut into so many folds, 2 or more; ``val`` is then a share of the other folds.
        fold: Which of the folds is the test part, counted from 0.

    Returns:
        The three parts; they know their groups where there are any.

    Raises:
        DataError: A class is too small (``SPLIT-TOO-FEW``), given parts share groups
            (``SPLIT-GROUPS``) or copies of files (``SPLIT-DUPLICATES``), or stand against folds
            (``SPLIT-FOLDS``).
        UsageError: An argument is out of range, or two contradict each other.

    Example:
        >>> import tempfile
        >>> from regraft.data.drawn import make_flowers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = cut(make_flowers(folder, species=2, per_class=4, size=16))
        >>> {part: len(data) for part, data in split.parts().items()}
        {'train': 4, 'val': 2, 'test': 2}
    """
    seed, fold = operator.index(seed), operator.index(fold)  # NumPy's numbers are no JSON
    shares = _checked_shares(val, 0.0 if folds else test, on_duplicates, small_classes)
    _refuse_contradictions(data, regroup=regroup, keep_parts=keep_parts, folds=folds, fold=fold)
    _refuse_few_classes(data)
    groups, without = groups_of(data, group_by)
    hashes = data.hashes()
    given = None if regroup or data.parts is None else list(data.parts)
    ties: list[Sequence[Any]] = [groups, hashes]
    if given is not None and keep_parts:  # only what stands in one part can be kept together
        ties = [list(zip(column, given, strict=True)) for column in ties]
    ties.append(_look_alikes(data, alike, given))
    units = make_units(data.relative_paths(), data.labels, ties, seed=seed)
    settings = {
        "val": val,
        "test": test if folds is None else None,
        "group_by": "column" if group_by is None and data.groups is not None else group_by,
        "on_duplicates": on_duplicates,
        "regroup": regroup,
        "given_parts": [part for part in PARTS if given and part in given],
        "groups": len(set(groups)) if groups != list(range(len(data))) else None,
        "pictures_without_group": without,
        "copies": len(data) - len(set(hashes)),
        "look_alikes": sum(map(len, alike)),
        "small_classes": small_classes,
        "division": division(data, regroup=regroup),
    }
    if given is not None and keep_parts:
        settings["keep_parts"] = True
    elif given is not None:
        _refuse_torn_groups(given, groups)
        settings["moved_copies"] = _settle_copies(data, given, units, move=on_duplicates == "move")
    keep_small = small_classes == "train"
    if folds is None:
        parts = assign_by_shares(data, units, shares, given, keep_small=keep_small)
    else:
        settings |= {"folds": folds, "fold": fold}
        parts = assign_fold(data, units, val, folds, fold, keep_small=keep_small)
    plain = dataclasses.replace(grouped(data, group_by), parts=None, ignored=(), notes=())
    train, val_data, test_data = (plain.take(indices) for indices in parts)
    return Split(train, val_data, test_data, seed=seed, settings=settings)


def grouped(data: Dataset, group_by: str | None) -> Dataset:
    """Return a data set that knows the group of each picture.

    Args:
        data: The pictures; without ``group_by`` they keep what groups they have.
        group_by: As in :func:`cut`.

    Raises:
        DataError: See :func:`groups_of`.

    Example:
        >>> people = Dataset(("ann_1.jpg", "ann_2.jpg", "bea.jpg"), ("x", "y", "x"), ("x", "y"))
        >>> grouped(people, "^([a-z]+)_").groups
        ('ann', 'ann', '')
    """
    groups, without = groups_of(data, group_by)
    if without is None:
        return data
    named = (group if isinstance(group, str) else "" for group in groups)
    return dataclasses.replace(data, groups=tuple(named))


def division(
    data: Dataset, *, regroup: bool = False, among: Container[str] | None = None
) -> str | None:
    """Return a digest of the parts and groups that pictures came with; None where they have none.

    Args:
        data: The pictures.
        regroup: Whether their parts are forgotten.
        among: The relative paths of those that count; by default all.

    Example:
        >>> division(Dataset(("a.jpg", "b.jpg"), ("x", "y"), ("x", "y"))) is None
        True
    """
    nothing = ("",) * len(data)
    parts = nothing if regroup else data.parts or nothing
    groups = data.groups or nothing
    rows = zip(data.relative_paths(), parts, groups, strict=True)
    known = [row for row in rows if among is None or row[0] in among]
    return sha256_json(sorted(known)) if any(row[1] or row[2] for row in known) else None


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


def _refuse_contradictions(
    data: Dataset, *, regroup: bool, keep_parts: bool, folds: int | None, fold: int
) -> None:
    if regroup and keep_parts:
        raise UsageError("parts are kept or cut anew", hint="give keep_parts or regroup, not both")
    if folds is None:
        if fold:
            raise UsageError("a fold needs folds", why=f"fold={fold}", hint="give folds, too")
        return
    if folds < 2 or not 0 <= fold < folds:
        raise UsageError(
            "folds must be 2 or more, and fold one of them counted from 0",
            why=f"folds={folds}, fold={fold}",
        )
    if data.parts is not None and not regroup:
        raise DataError(
            "the pictures have parts of their own, which folds would cut anew",
            path=data.root,
            why=f"given: {list_names(part for part in PARTS if part in set(data.parts))}",
            hint="pass regroup=True (--regroup) to forget the given parts, or ask for no folds",
            code="SPLIT-FOLDS",
        )


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
        named = matches(data.relative_paths(), group_by)
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
            hint="pass regroup=True (--regroup) to forget the given parts and cut anew with groups "
            "apart, or keep_parts=True (--keep-parts) to keep them and measure without them, too",
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
            hint="pass on_duplicates='move' to move them into train, regroup=True (--regroup) to "
            "cut anew, or keep_parts=True (--keep-parts) to keep both and measure without, too",
            code="SPLIT-DUPLICATES",
        )
    moved = [index for unit in torn for index in unit.members if given[index] != "train"]
    for index in moved:
        given[index] = "train"
    return len(moved)
