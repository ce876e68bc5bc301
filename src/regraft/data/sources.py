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
    """What a source says: its classes in order, its images, and what a reader should know."""

    classes: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def list_class_folders(folder: Path, *, allow_empty: bool, follow_outside: bool) -> Listing:
    """List the images of a folder with one folder for each class; see ``Dataset.from_folder``.

    Raises:
        DataError: The folder is not laid out in this way; each case has a code of its own.
    """
    walk = _Walk(folder, follow_outside=follow_outside)
    images = list(walk.images())
    part_of = _parts(walk)
    depth = 2 if part_of else 1
    places = [place for place in walk.folders if _depth(place) == depth]
    if not places:
        _refuse_flat(walk, len(images))
    classes = ordered_classes(place.rpartition("/")[2] for place in places)
    rows = _without_repeated_links(_labelled(walk, images, depth, part_of), walk)
    if not allow_empty:
        _refuse_empty(walk, classes, rows)
    _refuse_other_classes(folder, part_of.values(), rows)
    return Listing(classes, rows, walk.notes())


def list_table(
    table: Path, root: Path, *, path: str, label: str, part: str | None, group: str | None
) -> Listing:
    """List the images of a table; see ``Dataset.from_csv``.

    Raises:
        DataError: A row that cannot be used, with its line number (``DATA-CSV``).
    """

    def refuse(line: int, why: str, hint: str) -> NoReturn:
        what, why = "a row cannot be used", f"line {line}: {why}"
        raise DataError(what, path=table, why=why, hint=hint, code="DATA-CSV")

    named = [name for name in (path, label, part, group) if name is not None]
    rows: list[Row] = []
    raw_labels: list[str] = []
    lines: dict[str, int] = {}
    for line, cells in read_table(table, named):
        row = dict(zip(named, cells, strict=True))
        place, raw = os.path.normpath(root / row[path]), row[label]
        if "\0" in place or place == str(root) or not is_below(str(root), place):
            hint = f"root must be the folder that holds all of them; it is {root}"
            refuse(line, f"{row[path]!r} lies outside the folder of the images", hint)
        if not raw.strip():
            refuse(line, "it has no label", "write the class of the image")
        if place in lines:
            why = f"its image stands in line {lines[place]}, too"
            refuse(line, why, "delete one of the rows")
        where = "" if part is None else PART_NAMES.get(row[part].strip().casefold())
        if where is None:
            hint = "write train, val or test, or give the column another name"
            refuse(line, f"{row.get(part or '')!r} is no part", hint)
        rows.append(Row(place, class_name(raw), _group_name(row[group] if group else ""), where))
        raw_labels.append(raw)
        lines[place] = line
    if not rows:
        raise DataError("the table has no row below its header", path=table, code="DATA-CSV")
    missing = [f"line {line}: {path}" for path, line in lines.items() if not os.path.lexists(path)]
    if missing:
        what, why = f"{len(missing)} files of the table do not exist", list_names(missing, most=5)
        hint = "check root and write / between folders"
        raise DataError(what, path=table, why=why, hint=hint, code="DATA-CSV-FILE")
    return Listing(ordered_classes(raw_labels), rows)


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
    for found in walk.images():
        match = expression.search(Path(found.path).name)
        if match and match["label"]:
            labels.append(match["label"])
            group = _group_name(match.groupdict().get("group") or "")
            pairs.append((found, Row(found.path, class_name(labels[-1]), group)))
        else:
            strange.append(os.path.relpath(found.path, folder))
    if strange or not pairs:
        what = f"{len(strange)} file names do not match the pattern" if strange else "no image"
        why = list_names(sorted(strange)) if strange else list_names(walk.notes())
        hint = f"the pattern is {pattern}; it must fit the name of every image"
        raise DataError(what, path=folder, why=why, hint=hint, code="DATA-NAMES")
    return Listing(ordered_classes(labels), _without_repeated_links(pairs, walk), walk.notes())


def class_name(text: str) -> str:
    r"""Return ``text`` in Unicode's composed form (NFC), in which classes are compared.

    Example:
        >>> class_name("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def ordered_classes(raw_names: Iterable[str]) -> list[str]:
    """Return the classes found in their fixed order, by Unicode code point.

    Args:
        raw_names: The names as they stand on disk or in a table, repeated or not.

    Raises:
        DataError: ``DATA-CLASS-TWINS``: two names differ only by case, outer blanks or Unicode
            form.

    Example:
        >>> ordered_classes(["rose", "Lily", "rose"])
        ['Lily', 'rose']
    """
    found = set(raw_names)
    first: dict[str, str] = {}
    for raw in sorted(found):
        if (other := first.setdefault(class_name(raw).strip().casefold(), raw)) != raw:
            what = "two classes differ only by case, outer blanks or Unicode form"
            why, hint = f"{other!a} and {raw!a}", "rename or join them"
            raise DataError(what, why=why, hint=hint, code="DATA-CLASS-TWINS")
    return sorted(map(class_name, found))


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


class _Found(NamedTuple):
    """One image file, its folder relative to the one walked, and whether a link led there."""

    path: str
    folder: str
    linked: bool


class _Walk:
    """One walk over a root folder; it keeps the folders in it and counts what it leaves out."""

    def __init__(self, root: Path, *, follow_outside: bool = False) -> None:
        if not root.is_dir():
            found = os.path.lexists(root)
            what, code = ("not a folder", "A-FOLDER") if found else ("folder not found", "FOUND")
            hint = "give the folder that holds the class folders"
            raise DataError(what, path=root, hint=hint, code=f"DATA-NOT-{code}")
        self.root = root
        self.folders: list[str] = []
        self.ignored: Counter[str] = Counter()
        self._real_root = os.path.realpath(root)
        self._follow_outside = follow_outside

    def notes(self) -> list[str]:
        """Return what was left out, one sentence each."""
        return [f"left out: {what} ({count})" for what, count in sorted(self.ignored.items())]

    def images(self) -> Iterator[_Found]:
        """Yield the images in the root folder and below, in the order of the file system."""
        # For each folder to read: path, relative path, real paths on the way, whether by a link.
        pending: list[tuple[str, str, tuple[str, ...], bool]]
        pending = [(os.fspath(self.root), "", (self._real_root,), False)]
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
                    self.folders.append(inner)
                    pending.append((entry.path, inner, (*way, beyond), linked or bool(target)))
                elif is_image_name(entry.name):
                    yield _Found(entry.path, relative, linked or bool(target))
                elif not entry.name.startswith(SOURCE_PREFIX):
                    self.ignored[f"{_suffix(entry.name) or 'no suffix'}: not an image"] += 1

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
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


def _parts(walk: _Walk) -> dict[str, str]:
    """Return the part that each of the highest folders is; nothing where they are classes."""
    names = sorted(place for place in walk.folders if _depth(place) == 1)
    part_of = {name: PART_NAMES[name.casefold()] for name in names if name.casefold() in PART_NAMES}
    given, mixed = list(part_of.values()), len(part_of) < len(names)
    if "train" in given and len(given) > 1 and (mixed or len(set(given)) < len(given)):
        what, why = "the folders are neither parts nor classes", list_names(names)
        hint = "leave one folder for each of train, val and test, and move the others away"
        raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-PARTS")
    return {} if mixed else part_of


def _labelled(
    walk: _Walk, images: list[_Found], depth: int, part_of: dict[str, str]
) -> list[tuple[_Found, Row]]:
    """Return the images with the class and part that their folders stand for."""
    pairs: list[tuple[_Found, Row]] = []
    nested: Counter[str] = Counter()
    for found in images:
        if _depth(found.folder) == depth:
            label = class_name(found.folder.rpartition("/")[2])
            part = part_of.get(found.folder.partition("/")[0], "")
            pairs.append((found, Row(found.path, label, part=part)))
        elif _depth(found.folder) > depth:
            nested[found.folder] += 1
        else:
            walk.ignored["images outside a class folder"] += 1
    if nested:
        what = "images lie deeper than one level below the class folders"
        why = list_names(f"{place} ({count})" for place, count in sorted(nested.items()))
        hint = "give the folder that holds the class folders, move the images up, or name each"
        hint += " image's class in a table (from_csv)"
        raise DataError(what, path=walk.root, why=why, hint=hint, code="DATA-NESTED")
    return pairs


def _refuse_flat(walk: _Walk, images: int) -> NoReturn:
    what, why, code = "no class folder and no image", list_names(walk.notes()), "DATA-NO-CLASSES"
    hint = "give the folder that holds one folder for each class"
    if images:
        what, code = "images, but no folder for each class", "DATA-FLAT"
        why = f"{images} images lie directly in this folder or in those of its parts"
        hint = "sort them into class folders, or read the classes from the file names (from_names)"
        hint += " or from a table (from_csv)"
    raise DataError(what, path=walk.root, why=why, hint=hint, code=code)


def _refuse_empty(walk: _Walk, classes: list[str], rows: list[Row]) -> None:
    hint = "to look at it all the same, pass allow_empty=True (--allow-empty-class)"
    if empty := sorted(set(classes) - {row.label for row in rows}):
        what, code = "class folders without an image", "DATA-EMPTY-CLASS"
        why = f"{list_names(empty, most=100)}; {list_names(walk.notes())}"
        raise DataError(what, path=walk.root, why=why, hint=f"delete them, or {hint}", code=code)
    if len(classes) == 1:
        why = f"{classes[0]}: there is nothing to tell it from"
        raise DataError("only one class", path=walk.root, why=why, hint=hint, code="DATA-ONE-CLASS")


def _refuse_other_classes(root: Path, parts: Iterable[str], rows: list[Row]) -> None:
    there: dict[str, set[str]] = {part: set() for part in parts}
    for row in rows:
        there.get(row.part, set()).add(row.label)
    train = there.pop("train", None)
    for part, names in there.items():
        if train is not None and names - train:
            what = f"the part {part} has classes that the part train has not"
            why = f"train: {list_names(sorted(train))}; {part}: {list_names(sorted(names))}"
            hint = "rename or move the folders so that every class stands in train"
            raise DataError(what, path=root, why=why, hint=hint, code="DATA-CLASSES-DIFFER")


def _without_repeated_links(pairs: list[tuple[_Found, Row]], walk: _Walk) -> list[Row]:
    """Return the images in order, without links to another one of the same class and part."""
    if not any(found.linked for found, _ in pairs):
        return sorted(row for _, row in pairs)
    kept: dict[str, Row] = {}
    for _, row in sorted(pairs, key=lambda pair: (pair[0].linked, pair[0].path)):
        first = kept.setdefault(os.path.realpath(row.path), row)
        if (first.label, first.part) != (row.label, row.part):
            what = "the same file stands in two classes or parts"
            why, hint = f"a link to the same file as {first.path}", "delete the link"
            raise DataError(what, path=row.path, why=why, hint=hint, code="DATA-LINK-TWICE")
        if first is not row:
            walk.ignored["links to an image that is there"] += 1
    return sorted(kept.values())


def _depth(place: str) -> int:
    return len(place.split("/")) if place else 0


def _group_name(text: str) -> str:
    """Return the one form of a group's name; what differs by case is kept together."""
    return class_name(text).strip().casefold()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; the check lists it like any broken one
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Paths are slow
