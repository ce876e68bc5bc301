"""Walking a folder of pictures: what is a picture, what is junk, and where links lead.

Rules:

* Junk is ignored and counted: names that begin with a dot, and what operating systems and archives
  leave behind (``Thumbs.db``, ``__MACOSX``, ``@eaDir`` …).
* A picture is a file with the suffix of a known format. Other files are counted by their suffix.
* Each file is taken once. A link to a picture of the same class is counted and left out; one to a
  picture of another class or part, one that leads in a circle, and (unless asked for) one that
  leads out of the folder are errors.

Folders are read entry by entry, so a folder of a million files needs no list of them in memory.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from regraft.data.labels import list_names
from regraft.errors import DataError

_JUNK = frozenset(
    {
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "__pycache__",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".heic", ".heif", ".jxl", ".jp2"}
)
"""Suffixes, in lower case, of files meant to be pictures, also of kinds answered with advice."""

SOURCE_PREFIX = "SOURCE."
"""How files begin that say where pictures came from; they are neither pictures nor junk."""

Owner = TypeVar("Owner")


class _Place(NamedTuple):
    """A folder on the way: its path, the same relative and real, and the links that led there."""

    path: str
    relative: str
    real: str
    links: frozenset[str]


class Found(NamedTuple):
    """One picture file: path, folder relative to the one walked, whether a link led there."""

    path: str
    folder: str
    linked: bool


def is_junk(name: str) -> bool:
    """Tell whether a file or folder of this name is left behind by a system and never meant.

    Example:
        >>> is_junk("._rose.jpg"), is_junk("Thumbs.db"), is_junk("rose.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _JUNK


class Walk:
    """One walk over a root folder; it counts what it leaves out in ``ignored``.

    Args:
        root: The folder that links must not leave.
        follow_outside: Whether links may leave it all the same.

    Raises:
        DataError: The folder is missing (``DATA-NOT-FOUND``) or no folder (``DATA-NOT-A-FOLDER``).
    """

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

    def list_folder(self, folder: str | os.PathLike[str]) -> tuple[list[str], int]:
        """Return the sorted names of the subfolders and the number of pictures."""
        names: list[str] = []
        pictures = 0
        place = _Place(os.fspath(folder), "", os.path.realpath(folder), frozenset())
        for entry in self._entries(folder):
            if _is_folder(entry):
                self._target(entry, place)
                names.append(entry.name)
            elif _is_picture(entry.name):
                pictures += 1
            else:
                self._count_other(entry.name)
        return sorted(names), pictures

    def pictures(self, folder: str | os.PathLike[str]) -> Iterator[Found]:
        """Yield the pictures in ``folder`` and below, in the order of the file system.

        Raises:
            DataError: A link leads in a circle (``DATA-LINK-LOOP``) or out of the root
                (``DATA-LINK-OUTSIDE``), or a folder cannot be read (``DATA-UNREADABLE``).
        """
        real = os.path.realpath(folder)
        linked = os.path.relpath(real, self._real_root) != os.path.relpath(folder, self.root)
        pending = [
            _Place(os.fspath(folder), "", real, frozenset({real}) if linked else frozenset())
        ]
        while pending:
            place = pending.pop()
            for entry in self._entries(place.path):
                target = self._target(entry, place)
                if _is_folder(entry):
                    inner = f"{place.relative}/{entry.name}" if place.relative else entry.name
                    links = place.links | {target} if target else place.links
                    real = target or f"{place.real}{os.sep}{entry.name}"
                    pending.append(_Place(entry.path, inner, real, links))
                elif _is_picture(entry.name):
                    yield Found(entry.path, place.relative, bool(target or place.links))
                else:
                    self._count_other(entry.name)

    def _entries(self, folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_junk(entry.name):
                        self.ignored["hidden and system files"] += 1
                    else:
                        yield entry
        except OSError as error:
            raise DataError(
                "cannot read the folder",
                path=folder,
                why=error.strerror or "",
                code="DATA-UNREADABLE",
            ) from error

    def _target(self, entry: os.DirEntry[str], place: _Place) -> str | None:
        """Return where a link leads, None if the entry is no link; refuse circles and ways out."""
        if not entry.is_symlink():
            return None
        target = os.path.realpath(entry.path)
        if target in place.links or is_below(target, place.real) or _leads_nowhere(entry.path):
            raise DataError(
                "link leads in a circle",
                path=entry.path,
                why=f"to {target}",
                hint="delete the link",
                code="DATA-LINK-LOOP",
            )
        if not Path(target).exists():
            return target  # a broken link is a picture that cannot be read; the check lists it
        if not self._follow_outside and not is_below(self._real_root, target):
            raise DataError(
                "link leads out of the data folder",
                path=entry.path,
                why=f"to {target}",
                hint="allow it with follow_outside=True (--follow-links), or copy the files",
                code="DATA-LINK-OUTSIDE",
            )
        return target

    def _count_other(self, name: str) -> None:
        if name.startswith(SOURCE_PREFIX):
            return
        suffix = _suffix(name)
        self.ignored[f"{suffix or 'no suffix'}: not a picture"] += 1


def drop_repeated_links(
    pictures: list[tuple[Found, Owner]],
    ignored: Counter[str],
    *,
    label: Callable[[Owner], object],
) -> list[tuple[Found, Owner]]:
    """Return the pictures without links to another one of them under the same label.

    Args:
        pictures: Pairs of a picture and what it belongs to.
        ignored: Where the links left out are counted.
        label: What must be equal for two owners to count as the same.

    Raises:
        DataError: A link leads to a picture of another label (``DATA-LINK-TWICE``).
    """
    if not any(found.linked for found, _ in pictures):
        return pictures
    kept: dict[str, tuple[Found, Owner]] = {}
    for pair in sorted(pictures, key=lambda pair: (pair[0].linked, pair[0].path)):
        first = kept.setdefault(os.path.realpath(pair[0].path), pair)
        if label(first[1]) != label(pair[1]):
            raise DataError(
                "the same file stands in two classes or parts",
                path=pair[0].path,
                why=f"a link to the same file as {first[0].path}",
                hint="delete the link",
                code="DATA-LINK-TWICE",
            )
        if first is not pair:
            ignored["links to a picture that is there"] += 1
    return list(kept.values())


def describe_ignored(ignored: Counter[str]) -> str:
    """Return what was left out for a message, for example ``"3 .txt: not a picture"``."""
    return list_names(f"{count} {what}" for what, count in sorted(ignored.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; the check of links names it
        return False


def _is_picture(name: str) -> bool:
    return _suffix(name) in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Paths are slow


def is_below(folder: str, path: str) -> bool:
    """Tell whether ``path`` is ``folder`` or lies in it, by their names alone.

    Example:
        >>> is_below("/data", "/data/rose/../../etc"), is_below("/data", "/data/rose")
        (False, True)
    """
    path = os.path.normpath(path)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _leads_nowhere(path: str) -> bool:
    """Tell whether links lead to each other without end."""
    try:
        Path(path).stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False
