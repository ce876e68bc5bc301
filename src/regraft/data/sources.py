"""Where labelled images come from: class folders, a table, or the names of files.

What is found in a folder:

* Hidden files and what operating systems leave behind (``Thumbs.db``, ``__MACOSX``, ``@eaDir`` …)
  are ignored and counted.
* An image is a file with the suffix of a known format. Other files are counted by their suffix.
* Each file is taken once. A link to an image of the same class is counted and left out; one to an
  image of another class or part, one that leads in a circle, and (unless asked for) one that leads
  out of the folder are errors.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from regraft.data.tables import read_table
from regraft.errors import DataError, UsageError, list_names

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val"} | {
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".heic", ".heif", ".jxl", ".jp2"}
)
"""Suffixes, in lower case, of files meant to be images, also of kinds answered with advice."""
SOURCE_PREFIX = "SOURCE."
"""How files begin that say where images came from; they are neither images nor junk."""
_JUNK = frozenset(
    {"$recycle.bin", "@eadir", "__macosx", "__pycache__", "desktop.ini", "ehthumbs.db", "icon\r"}
    | {"lost+found", "system volume information", "thumbs.db"}
)


class Row(NamedTuple):
    """One labelled image; group and part are empty where the source does not give them."""

    path: str
    label: str
    group: str = ""
    part: str = ""


@dataclass
class Listing:
    """What a source says: its classes in order, its images, and what was left out."""

    classes: list[str]
    rows: list[Row]
    has_groups: bool = False
    has_parts: bool = False
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Columns(NamedTuple):
    """The names of the columns of a table; None: there is no such column."""

    path: str
    label: str
    part: str | None = None
    group: str | None = None


def list_class_folders(
    folder: Path, *, classes: Sequence[str] | None, allow_empty: bool, follow_outside: bool
) -> Listing:
    """List the images of a folder with one folder for each class; see ``Dataset.from_folder``.

    Raises:
        DataError: The folder is not laid out in this way; each case has a code of its own.
    """
    walk = _Walk(folder, follow_outside=follow_outside)
    found = _class_folders(walk)
    names = ordered_classes((each.raw_name for each in found), wanted=classes)
    there = {each.label for each in found}
    if (missing := [name for name in names if name not in there]) and not allow_empty:
        what = "no folder for some of the classes asked for"
        why = f"missing: {list_names(missing)}; there: {list_names(sorted(there))}"
        raise DataError(what, path=folder, why=why, hint="check the spelling", code="DATA-CLASSES")
    chosen = [each for each in found if each.label in set(names)]
    if len(found) > len(chosen):
        walk.ignored["class folders that were not asked for"] = len(found) - len(chosen)
    rows = _rows(walk, chosen)
    has_parts = any(each.part for each in found)
    listing = Listing(names, rows, has_parts=has_parts, ignored=walk.ignored)
    if not allow_empty:
        _refuse_empty(walk, chosen, rows)
        if len(names) == 1 and classes is None:
            why = f"{names[0]}: there is nothing to tell it from"
            hint = "add a folder for a second class, or pass allow_empty=True (--allow-empty-class)"
            hint += " to look at one class alone"
            raise DataError(
                "only one class", path=folder, why=why, hint=hint, code="DATA-ONE-CLASS"
            )
    listing.notes += _compare_parts(folder, chosen, rows)
    listing.notes += [f"left out: {what} ({n})" for what, n in sorted(walk.ignored.items())]
    return listing


def list_table(
    table: Path, root: Path, columns: Columns, *, classes: Sequence[str] | None
) -> Listing:
    """List the images of a table; see ``Dataset.from_csv``.

    Raises:
        DataError: A row that cannot be used, with its line number.
    """
    named = [name for name in columns if name is not None]
    rows: list[Row] = []
    raw_labels: list[str] = []
    lines: dict[str, int] = {}
    for line, cells in read_table(table, named):
        row = dict(zip(named, cells, strict=True))
        label, path = row[columns.label], _inside(table, line, root, row[columns.path])
        if not label.strip():
            why = f"line {line}"
            raise DataError("a row has no label", path=table, why=why, code="DATA-CSV-LABEL")
        if path in lines:
            why = f"lines {lines[path]} and {line}: {path}"
            what, hint = "an image stands in the table twice", "delete one of the rows"
            raise DataError(what, path=table, why=why, hint=hint, code="DATA-CSV-TWICE")
        part = "" if columns.part is None else _part(table, line, row[columns.part])
        group = "" if columns.group is None else _group_name(row[columns.group])
        rows.append(Row(path, class_name(label), group, part))
        raw_labels.append(label)
        lines[path] = line
    if not rows:
        raise DataError("the table has no row below its header", path=table, code="DATA-CSV-EMPTY")
    missing = [f"line {line}: {path}" for path, line in lines.items() if not os.path.lexists(path)]
    if missing:
        what, why = f"{len(missing)} files of the table do not exist", list_names(missing, most=5)
        hint = "check root and write / between folders"
        raise DataError(what, path=table, why=why, hint=hint, code="DATA-CSV-FILE")
    listing = Listing(ordered_classes(raw_labels, wanted=classes), rows)
    listing.has_groups, listing.has_parts = columns.group is not None, columns.part is not None
    _keep_classes(listing)
    _note_similar_groups(listing)
    return listing


def list_named_files(folder: Path, pattern: str) -> Listing:
    """List the images below a folder whose names tell their class; see ``Dataset.from_names``.

    Raises:
        DataError: No image, or names that the pattern does not match (``DATA-NAMES``).
        UsageError: The pattern is no regular expression or has no group named ``label``.
    """
    expression = compile_pattern(pattern)
    if "label" not in expression.groupindex:
        hint = "write (?P<label>…) around the part of the name that is the class"
        raise UsageError("the pattern has no group named label", why=pattern, hint=hint)
    walk = _Walk(folder)
    pairs: list[tuple[_Found, Row]] = []
    labels, strange = [], []
    for found in walk.images(folder):
        match = expression.search(Path(found.path).name)
        if match and match["label"]:
            labels.append(match["label"])
            group = match.groupdict().get("group") or ""
            pairs.append((found, Row(found.path, class_name(labels[-1]), _group_name(group))))
        else:
            strange.append(os.path.relpath(found.path, folder))
    if strange:
        what = f"{len(strange)} file names do not match the pattern"
        why, hint = f"{list_names(sorted(strange))}; pattern: {pattern}", "give one that fits all"
        raise DataError(what, path=folder, why=why, hint=hint, code="DATA-NAMES")
    if not pairs:
        why = f"found: {_describe(walk.ignored)}"
        raise DataError("no image", path=folder, why=why, code="DATA-NO-PICTURES")
    rows = sorted(_without_repeated_links(pairs, walk.ignored))
    listing = Listing(ordered_classes(labels), rows, ignored=walk.ignored)
    listing.has_groups = "group" in expression.groupindex
    _note_similar_groups(listing)
    return listing


def class_name(text: str) -> str:
    r"""Return ``text`` in Unicode's composed form (NFC), in which classes are compared.

    Example:
        >>> class_name("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def ordered_classes(raw_names: Iterable[str], *, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the classes found in their fixed order: as ``wanted``, else by Unicode code point.

    Args:
        raw_names: The names as they stand on disk or in a table, repeated or not.
        wanted: The classes to use, in this order; the other ones are left out.

    Raises:
        DataError: ``DATA-CLASS-TWINS``: two names differ only by case, outer blanks or Unicode
            form, and ``wanted`` does not name both. ``DATA-CLASSES``: ``wanted`` repeats a name.

    Example:
        >>> ordered_classes(["rose", "Lily", "rose"])
        ['Lily', 'rose']
    """
    asked = [class_name(name) for name in wanted or ()]
    if len(set(asked)) < len(asked):
        raise DataError("a class is named twice", why=list_names(asked), code="DATA-CLASSES")
    found = {raw for raw in raw_names if wanted is None or class_name(raw) in asked}
    first: dict[str, str] = {}
    for raw in sorted(found):
        name = class_name(raw)
        other = first.setdefault(name if name in asked else name.strip().casefold(), raw)
        if other != raw:
            what = "two classes differ only by case, outer blanks or Unicode form"
            hint = "rename or join them, or name both in classes= if they are two classes"
            why = f"{other!a} and {raw!a}"
            raise DataError(what, why=why, hint=hint, code="DATA-CLASS-TWINS")
    return asked if wanted is not None else sorted(set(map(class_name, found)))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled regular expression.

    Raises:
        UsageError: ``pattern`` is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        why = f"{pattern}: {error}"
        raise UsageError("not a regular expression", why=why, code="USAGE-PATTERN") from error


def find_groups(names: Sequence[str], expression: str) -> list[str | None]:
    """Return what an expression finds in each name.

    Args:
        names: Relative paths.
        expression: A regular expression that is looked for; its group named ``group``, else its
            first group, else the whole match is what is found.

    Raises:
        UsageError: It is no regular expression (``USAGE-PATTERN``).

    Example:
        >>> find_groups(["a/ann_1.jpg", "b/bea_1.jpg", "b/2.jpg"], "([a-z]+)_")
        ['ann', 'bea', None]
    """
    pattern = compile_pattern(expression)
    which: str | int = "group" if "group" in pattern.groupindex else min(1, pattern.groups)
    found = (pattern.search(name) for name in names)
    return [match[which] if match else None for match in found]


def is_junk(name: str) -> bool:
    """Tell whether a file or folder of this name is left behind by a system and never meant.

    Example:
        >>> is_junk("._rose.jpg"), is_junk("Thumbs.db"), is_junk("rose.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _JUNK


def is_image_name(name: str) -> bool:
    """Tell by its suffix whether a file is meant to be an image.

    Example:
        >>> is_image_name("rose.JPG"), is_image_name("rose.py")
        (True, False)
    """
    return _suffix(name) in IMAGE_SUFFIXES


def is_below(folder: str, path: str) -> bool:
    """Tell whether ``path`` is ``folder`` or lies in it, by their names alone.

    Example:
        >>> is_below("/data", "/data/rose/../../etc"), is_below("/data", "/data/rose")
        (False, True)
    """
    path = os.path.normpath(path)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


@dataclass(frozen=True)
class _ClassFolder:
    part: str
    raw_name: str
    path: Path

    @property
    def label(self) -> str:
        return class_name(self.raw_name)


class _Found(NamedTuple):
    """One image file, its folder relative to the one walked, and whether a link led there."""

    path: str
    folder: str
    linked: bool


class _Walk:
    """One walk over a root folder; it counts what it leaves out in ``ignored``."""

    def __init__(self, root: Path, *, follow_outside: bool = False) -> None:
        if not os.path.lexists(root):
            hint = "check the spelling and the current folder"
            raise DataError("folder not found", path=root, hint=hint, code="DATA-NOT-FOUND")
        if not root.is_dir():
            hint = "give the folder that holds the class folders"
            raise DataError("not a folder", path=root, hint=hint, code="DATA-NOT-A-FOLDER")
        self.root = root
        self.ignored: Counter[str] = Counter()
        self._real_root = os.path.realpath(root)
        self._follow_outside = follow_outside

    def list_folder(self, folder: Path) -> tuple[list[str], int]:
        """Return the sorted names of the subfolders and the number of images."""
        names, images = [], 0
        for entry in self._entries(folder):
            if _is_folder(entry):
                self._target(entry)
                names.append(entry.name)
            elif is_image_name(entry.name):
                images += 1
            else:
                self._count_other(entry.name)
        return sorted(names), images

    def images(self, folder: Path) -> Iterator[_Found]:
        """Yield the images in ``folder`` and below, in the order of the file system."""
        real = os.path.realpath(folder)
        linked = os.path.relpath(real, self._real_root) != os.path.relpath(folder, self.root)
        # For each folder to read: path, relative path, real paths on the way, whether by a link.
        pending: list[tuple[str, str, tuple[str, ...], bool]]
        pending = [(os.fspath(folder), "", (real,), linked)]
        while pending:
            path, relative, way, linked = pending.pop()
            for entry in self._entries(path):
                target = self._target(entry)
                if _is_folder(entry):
                    beyond = target or f"{way[-1]}{os.sep}{entry.name}"
                    if any(is_below(beyond, passed) for passed in way):
                        what, hint = "link leads in a circle", "delete the link"
                        code = "DATA-LINK-LOOP"
                        raise DataError(what, path=entry.path, hint=hint, code=code)
                    inner = f"{relative}/{entry.name}" if relative else entry.name
                    pending.append((entry.path, inner, (*way, beyond), linked or bool(target)))
                elif is_image_name(entry.name):
                    yield _Found(entry.path, relative, linked or bool(target))
                else:
                    self._count_other(entry.name)

    def _entries(self, folder: str | Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_junk(entry.name):
                        self.ignored["hidden and system files"] += 1
                    else:
                        yield entry
        except OSError as error:
            what, why = "cannot read the folder", error.strerror or ""
            raise DataError(what, path=folder, why=why, code="DATA-UNREADABLE") from error

    def _target(self, entry: os.DirEntry[str]) -> str:
        """Return where a link leads, "" if the entry is no link; refuse ways out."""
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        allowed = self._follow_outside or not target or is_below(self._real_root, target)
        # A broken link is an image that cannot be read; the check lists it.
        if not allowed and Path(target).exists():
            what, why = "link leads out of the data folder", f"to {target}"
            hint = "allow it with follow_outside=True (--follow-links), or copy the files"
            raise DataError(what, path=entry.path, why=why, hint=hint, code="DATA-LINK-OUTSIDE")
        return target

    def _count_other(self, name: str) -> None:
        if not name.startswith(SOURCE_PREFIX):
            self.ignored[f"{_suffix(name) or 'no suffix'}: not an image"] += 1


def _class_folders(walk: _Walk) -> list[_ClassFolder]:
    names, images = walk.list_folder(walk.root)
    if not names:
        _refuse_flat(walk, images)
    cut = [name for name in names if name.casefold() in PART_NAMES]
    if len(cut) < len(names):
        if len(cut) > 1 and "train" in {PART_NAMES[name.casefold()] for name in cut}:
            what = "folders of parts and other folders stand side by side"
            others = sorted(set(names) - set(cut))
            why = f"parts: {list_names(cut)}; others: {list_names(others)}"
            hint = "move the other folders away"
            raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-PARTS-MIXED")
        folders = [_ClassFolder("", name, walk.root / name) for name in names]
    else:
        folders = []
        first: dict[str, str] = {}
        for name in cut:
            part = PART_NAMES[name.casefold()]
            if (other := first.setdefault(part, name)) != name:
                what, why = f"several folders for the part {part}", list_names([other, name])
                hint = "join them or rename one"
                raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-PARTS-TWICE")
            inner_names, inner_images = walk.list_folder(walk.root / name)
            images += inner_images
            folders += [_ClassFolder(part, each, walk.root / name / each) for each in inner_names]
        if not folders:
            _refuse_flat(walk, images)
    if images:
        walk.ignored["images outside a class folder"] = images
    return folders


def _rows(walk: _Walk, folders: list[_ClassFolder]) -> list[Row]:
    pairs: list[tuple[_Found, Row]] = []
    nested: Counter[str] = Counter()
    for each in folders:
        for found in walk.images(each.path):
            if found.folder:
                nested[(each.path / found.folder).relative_to(walk.root).as_posix()] += 1
            pairs.append((found, Row(found.path, each.label, part=each.part)))
    if nested:
        what = "images lie deeper than one level below the class folders"
        why = list_names(f"{place} ({count})" for place, count in sorted(nested.items()))
        hint = "give the folder that holds the class folders, move the images up, or name each"
        hint += " image's class in a table (from_csv)"
        raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-NESTED")
    return sorted(_without_repeated_links(pairs, walk.ignored))


def _refuse_flat(walk: _Walk, images: int) -> NoReturn:
    if images:
        what = "images, but no folder for each class"
        why = f"{images} images lie directly in this folder or in those of its parts"
        hint = "sort them into class folders, or read the classes from the file names (from_names)"
        hint += " or from a table (from_csv)"
        raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-FLAT")
    what, why = "no class folder and no image", f"found: {_describe(walk.ignored)}"
    hint = "give the folder that holds one folder for each class"
    raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-NO-CLASSES")


def _refuse_empty(walk: _Walk, folders: list[_ClassFolder], rows: list[Row]) -> None:
    empty = sorted({each.label for each in folders} - {row.label for row in rows})
    if empty:
        other = f"; other files: {_describe(walk.ignored)}" if walk.ignored else ""
        what, why = "class folders without an image", list_names(empty, most=100) + other
        hint = "delete them, leave them out with classes=, or pass allow_empty=True"
        hint += " (--allow-empty-class)"
        raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-EMPTY-CLASS")


def _compare_parts(root: Path, folders: list[_ClassFolder], rows: list[Row]) -> list[str]:
    """Return what val and test lack; refuse classes that only they have."""
    there: dict[str, set[str]] = {each.part: set() for each in folders if each.part}
    for row in rows:
        there.get(row.part, set()).add(row.label)
    train, notes = there.get("train"), []
    for part in ("val", "test"):
        if train is None or part not in there:
            continue
        shown = list_names(sorted(there[part]))
        if there[part] - train:
            what = f"the part {part} has classes that the part train has not"
            why = f"train: {list_names(sorted(train))}; {part}: {shown}"
            hint = "rename or move the folders so that every class stands in train"
            raise DataError(what, path=root, why=why, hint=hint, code="DATA-CLASSES-DIFFER")
        if lacking := sorted(train - there[part]):
            notes.append(f"the part {part} lacks {list_names(lacking)} (it has: {shown})")
    return notes


def _without_repeated_links(pairs: list[tuple[_Found, Row]], ignored: Counter[str]) -> list[Row]:
    """Return the images without links to another one of them of the same class and part."""
    if not any(found.linked for found, _ in pairs):
        return [row for _, row in pairs]
    kept: dict[str, Row] = {}
    for _, row in sorted(pairs, key=lambda pair: (pair[0].linked, pair[0].path)):
        first = kept.setdefault(os.path.realpath(row.path), row)
        if (first.label, first.part) != (row.label, row.part):
            what = "the same file stands in two classes or parts"
            why, hint = f"a link to the same file as {first.path}", "delete the link"
            raise DataError(what, path=row.path, why=why, hint=hint, code="DATA-LINK-TWICE")
        if first is not row:
            ignored["links to an image that is there"] += 1
    return list(kept.values())


def _keep_classes(listing: Listing) -> None:
    wanted = set(listing.classes)
    kept = [row for row in listing.rows if row.label in wanted]
    if missing := wanted - {row.label for row in kept}:
        what, why = "no row of some of the classes asked for", list_names(sorted(missing))
        hint = "check the spelling"
        raise DataError(what, why=f"missing: {why}", hint=hint, code="DATA-CLASSES")
    if left_out := len(listing.rows) - len(kept):
        listing.ignored["rows of classes that were not asked for"] = left_out
    listing.rows = kept


def _note_similar_groups(listing: Listing) -> None:
    spellings: dict[str, set[str]] = {}
    for row in listing.rows:
        spellings.setdefault(row.group.casefold(), set()).add(row.group)
    several = [" and ".join(sorted(names)) for names in spellings.values() if len(names) > 1]
    if several:
        listed = list_names(several)
        listing.notes.append(f"groups that differ only by case are kept apart: {listed}")


def _group_name(text: str) -> str:
    return class_name(text).strip()


def _part(table: Path, line: int, text: str) -> str:
    part = PART_NAMES.get(text.strip().casefold())
    if part is None:
        why = f"line {line}: {text!r}"
        hint = "write train, val or test, or give the column another name"
        raise DataError("unknown part", path=table, why=why, hint=hint, code="DATA-CSV-PART")
    return part


def _inside(table: Path, line: int, root: Path, text: str) -> str:
    path = os.path.normpath(root / text)
    if not text or "\0" in text or path == str(root) or not is_below(str(root), path):
        what = "a path leads out of the folder of the images"
        why = f"line {line}: {text!r}, folder: {root}"
        hint = "give the folder that holds all of them as root"
        raise DataError(what, path=table, why=why, hint=hint, code="DATA-CSV-OUTSIDE")
    return path


def _describe(ignored: Counter[str]) -> str:
    return list_names(f"{count} {what}" for what, count in sorted(ignored.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; the check lists it like any broken one
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Paths are slow
