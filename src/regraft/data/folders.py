"""Folders whose subfolders are the classes, whole or already cut into train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from regraft.data.labels import class_name, list_names, ordered_classes
from regraft.data.listings import PART_NAMES, Listing, Row
from regraft.data.scan import Found, Walk, describe_ignored, drop_repeated_links
from regraft.errors import DataError


@dataclass(frozen=True)
class _ClassFolder:
    part: str | None
    raw_name: str
    path: Path

    @property
    def name(self) -> str:
        return class_name(self.raw_name)


def list_class_folders(
    folder: Path, *, classes: Sequence[str] | None, allow_empty: bool, follow_outside: bool
) -> Listing:
    """List the pictures of a folder with one folder for each class; see ``Dataset.from_folder``.

    Raises:
        DataError: The folder is not laid out in this way; each case has a code of its own.
    """
    walk = Walk(folder, follow_outside=follow_outside)
    found = _class_folders(walk)
    names = ordered_classes((each.raw_name for each in found), wanted=classes)
    _refuse_unknown(folder, found, names, allow_empty=allow_empty)
    wanted = set(names)
    chosen = [each for each in found if each.name in wanted]
    if len(found) > len(chosen):
        walk.ignored["class folders that were not asked for"] = len(found) - len(chosen)
    pictures = _pictures(walk, chosen)
    rows = [Row(picture.path, each.name, part=each.part or "") for picture, each in pictures]
    listing = Listing(names, rows, has_parts=any(each.part for each in found), ignored=walk.ignored)
    if not allow_empty:
        _refuse_empty(walk, chosen, pictures)
        if len(names) == 1 and classes is None:
            _refuse_lone_class(folder, names[0])
    listing.notes += _compare_parts(folder, chosen, pictures)
    listing.notes += [f"left out: {what} ({n})" for what, n in sorted(walk.ignored.items())]
    return listing


def _class_folders(walk: Walk) -> list[_ClassFolder]:
    names, pictures = walk.list_folder(walk.root)
    if not names:
        _refuse_flat(walk, pictures)
    cut = [name for name in names if name.casefold() in PART_NAMES]
    if len(cut) < len(names):
        _refuse_mixed(walk.root, names, cut)
        folders = [_ClassFolder(None, name, walk.root / name) for name in names]
    else:
        _refuse_repeated_part(walk.root, cut)
        folders = []
        for name in cut:
            inner_names, inner_pictures = walk.list_folder(walk.root / name)
            pictures += inner_pictures
            part = PART_NAMES[name.casefold()]
            folders += [_ClassFolder(part, each, walk.root / name / each) for each in inner_names]
        if not folders:
            _refuse_flat(walk, pictures)
    if pictures:
        walk.ignored["pictures outside a class folder"] = pictures
    return folders


def _pictures(walk: Walk, folders: list[_ClassFolder]) -> list[tuple[Found, _ClassFolder]]:
    pairs: list[tuple[Found, _ClassFolder]] = []
    nested: dict[str, int] = {}
    for each in folders:
        for found in walk.pictures(each.path):
            if found.folder:
                place = (each.path / found.folder).relative_to(walk.root).as_posix()
                nested[place] = nested.get(place, 0) + 1
            pairs.append((found, each))
    if nested:
        raise DataError(
            "pictures lie deeper than one level below the class folders",
            path=walk.root,
            why=list_names(f"{place} ({count})" for place, count in sorted(nested.items())),
            hint="give the folder that holds the class folders, move the pictures up, "
            "or name each picture's class in a table (from_csv)",
            code="DATA-NESTED",
        )
    pairs = drop_repeated_links(pairs, walk.ignored, label=lambda each: (each.part, each.name))
    return sorted(pairs, key=lambda pair: pair[0].path)


def _refuse_flat(walk: Walk, pictures: int) -> NoReturn:
    if pictures:
        raise DataError(
            "pictures, but no folder for each class",
            path=walk.root,
            why=f"{pictures} pictures lie directly in this folder or in those of its parts",
            hint="sort them into class folders, or read the classes from the file names "
            "(from_names) or from a table (from_csv)",
            code="DATA-FLAT",
        )
    raise DataError(
        "no class folder and no picture",
        path=walk.root,
        why=f"found: {describe_ignored(walk.ignored)}",
        hint="give the folder that holds one folder for each class",
        code="DATA-NO-CLASSES",
    )


def _refuse_mixed(root: Path, names: list[str], cut: list[str]) -> None:
    if len(cut) > 1 and "train" in {PART_NAMES[name.casefold()] for name in cut}:
        raise DataError(
            "folders of parts and other folders stand side by side",
            path=root,
            why=f"parts: {list_names(cut)}; others: {list_names(sorted(set(names) - set(cut)))}",
            hint="move the other folders away",
            code="DATA-PARTS-MIXED",
        )


def _refuse_repeated_part(root: Path, names: list[str]) -> None:
    parts = [PART_NAMES[name.casefold()] for name in names]
    for part in set(parts):
        same = [name for name in names if PART_NAMES[name.casefold()] == part]
        if len(same) > 1:
            raise DataError(
                f"several folders for the part {part}",
                path=root,
                why=list_names(same),
                hint="join them or rename one",
                code="DATA-PARTS-TWICE",
            )


def _refuse_unknown(
    root: Path, found: list[_ClassFolder], names: list[str], *, allow_empty: bool
) -> None:
    there = {each.name for each in found}
    missing = [name for name in names if name not in there]
    if missing and not allow_empty:
        raise DataError(
            "no folder for some of the classes asked for",
            path=root,
            why=f"missing: {list_names(missing)}; there: {list_names(sorted(there))}",
            hint="check the spelling",
            code="DATA-CLASSES",
        )


def _refuse_empty(
    walk: Walk, folders: list[_ClassFolder], pictures: list[tuple[Found, _ClassFolder]]
) -> None:
    full = {each.name for _, each in pictures}
    empty = sorted({each.name for each in folders} - full)
    if empty:
        other = f"; other files: {describe_ignored(walk.ignored)}" if walk.ignored else ""
        raise DataError(
            "class folders without a picture",
            path=walk.root,
            why=list_names(empty, most=100) + other,
            hint="delete them, leave them out with classes=, or pass allow_empty=True "
            "(--allow-empty-class)",
            code="DATA-EMPTY-CLASS",
        )


def _refuse_lone_class(root: Path, name: str) -> None:
    raise DataError(
        "only one class",
        path=root,
        why=f"{name}: there is nothing to tell it from",
        hint="add a folder for a second class, or pass allow_empty=True (--allow-empty-class) "
        "to look at one class alone",
        code="DATA-ONE-CLASS",
    )


def _compare_parts(
    root: Path, folders: list[_ClassFolder], pictures: list[tuple[Found, _ClassFolder]]
) -> list[str]:
    there: dict[str, set[str]] = {each.part: set() for each in folders if each.part}
    for _, each in pictures:
        if each.part:
            there[each.part].add(each.name)
    train = there.get("train")
    if train is None:
        return []
    notes = []
    for part in ("val", "test"):
        extra = there.get(part, set()) - train
        if extra:
            sets = ((name, list_names(sorted(there[name]))) for name in ("train", part))
            raise DataError(
                f"the part {part} has classes that the part train has not",
                path=root,
                why="; ".join(f"{name}: {names}" for name, names in sets),
                hint="rename or move the folders so that every class stands in train",
                code="DATA-CLASSES-DIFFER",
            )
        if part in there and train - there[part]:
            notes.append(
                f"the part {part} lacks {list_names(sorted(train - there[part]))}"
                f" (it has: {list_names(sorted(there[part]))})"
            )
    return notes
