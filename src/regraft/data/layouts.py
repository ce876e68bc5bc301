"""From the layout in which a data set is published to one folder for each class.

A layout looks at unpacked files and says for each picture where it belongs: part, class and name.
Nothing is moved here. What is not placed is left over, and whoever fetches says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from regraft.data.labels import list_names
from regraft.data.listings import PART_NAMES
from regraft.data.scan import IMAGE_SUFFIXES, is_junk
from regraft.errors import DataError

_NUMBER = re.compile(r"^image_(\d+)\.jpg$", re.IGNORECASE)
_LABELS, _PARTS = "imagelabels.mat", "setid.mat"
_PART_KEYS = (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
_NOT_ON_WINDOWS = re.compile(r'[<>:"/\\|?*]')


class Placement(NamedTuple):
    """Where one picture belongs; the part is empty where the source has none."""

    source: Path
    part: str
    label: str


@dataclass(frozen=True)
class Arrangement:
    """What a layout found.

    Args:
        placements: The pictures.
        removed: Pictures that are known to belong to no class, by the name of their folder.
        papers: Files that a reader of the pictures needs: licences, lists.
    """

    placements: tuple[Placement, ...]
    removed: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    papers: tuple[Path, ...] = ()


class Layout(Protocol):
    """A published layout."""

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong.

        Raises:
            DataError: ``DATA-LAYOUT``: the folder is not laid out like this.
        """
        ...


@dataclass(frozen=True)
class ClassFolders:
    """A folder for each class, in the parts train, val and test or not, at any depth.

    Of several such folders the one that lies highest is taken; what is below it again is left over.

    Args:
        names: All classes; () takes every folder that holds pictures.
        among: Some of the classes, by which the data set is known where not all are named.
        leave_out: Folders that are no class.

    Example:
        >>> ClassFolders(("cats", "dogs")).names
        ('cats', 'dogs')
    """

    names: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong."""
        for place in _folders_below(folder):
            found = self._classes_in(place)
            if found:
                break
        else:
            wanted = list_names(self.names or self.among)
            raise _other_layout(folder, f"no folder that holds folders of pictures named {wanted}")
        placements = [
            Placement(picture, part, inner.name)
            for part, inner in found
            for picture in _pictures_in(inner)
        ]
        removed = {
            inner.name: tuple(_pictures_in(inner))
            for inner in _folders_in(place)
            if inner.name in self.leave_out
        }
        papers = tuple(file for file in _files_in(place) if file.suffix.lower() in {".txt", ".md"})
        return Arrangement(tuple(placements), removed, papers)

    def _classes_in(self, place: Path) -> list[tuple[str, Path]]:
        """Return the class folders in ``place`` with their parts; [] if it is not the one."""
        inner = _folders_in(place)
        parts = [(PART_NAMES.get(each.name.casefold(), ""), each) for each in inner]
        cut = [(part, each) for part, each in parts if part]
        if any(part == "train" for part, _ in cut):
            found = [(part, each) for part, top in cut for each in self._choose(_folders_in(top))]
            if found and all(self._choose(_folders_in(top)) for _, top in cut):
                return found
        return [("", each) for each in self._choose(inner)]

    def _choose(self, folders: list[Path]) -> list[Path]:
        if self.names:
            chosen = [each for each in folders if each.name in self.names]
            return chosen if len(chosen) == len(self.names) else []
        chosen = [
            each
            for each in folders
            if each.name not in self.leave_out and next(_pictures_in(each), None)
        ]
        return chosen if {each.name for each in chosen} >= set(self.among) else []


@dataclass(frozen=True)
class LeafFolders:
    """A folder for each class at different depths, such as ``Apple/Apple A`` beside ``Banana``.

    Args:
        among: Some of the classes, by which the data set is known.
        leave_out: Folders that are no class.
    """

    among: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong."""
        placements: list[Placement] = []
        removed: dict[str, tuple[Path, ...]] = {}
        owners: dict[str, Path] = {}
        for inner in _folders_below(folder):
            pictures = list(_pictures_in(inner))
            if inner.name in self.leave_out:
                removed[inner.name] = tuple(pictures)
            elif pictures and inner != folder:
                if (other := owners.setdefault(inner.name, inner)) != inner:
                    continue  # a copy, or left over and said
                placements += [Placement(picture, "", other.name) for picture in pictures]
        if missing := sorted(set(self.among) - set(owners)):
            raise _other_layout(folder, f"no folder of pictures named {list_names(missing)}")
        return Arrangement(tuple(placements), removed)


@dataclass(frozen=True)
class NumberRanges:
    """Numbered pictures ``image_0001.jpg`` …, a fixed number for each class in turn.

    The number alone decides, so pictures that somebody has sorted already come out the same.

    Args:
        names: The classes in the order of the numbers.
        each: How many pictures a class has.

    Example:
        >>> NumberRanges(("daffodil", "snowdrop"), each=80).label_of(81)
        'snowdrop'
    """

    names: tuple[str, ...]
    each: int

    def label_of(self, number: int) -> str:
        """Return the class of a picture by its number, from 1; "" if there is none."""
        place = (number - 1) // self.each
        return self.names[place] if 0 <= place < len(self.names) else ""

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong."""
        numbered = _numbered(folder)
        placements = [
            Placement(picture, "", self.label_of(number))
            for number, picture in sorted(numbered.items())
            if self.label_of(number)
        ]
        if not placements:
            raise _other_layout(folder, "no folder that holds image_0001.jpg …")
        return Arrangement(tuple(placements))


@dataclass(frozen=True)
class LabelFiles:
    """Numbered pictures with their classes and parts in MATLAB files, as in Flowers-102.

    Args:
        names: The classes in the order of their numbers, from 1.
    """

    names: tuple[str, ...]

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong."""
        files = {name: _find(folder, name) for name in (_LABELS, _PARTS)}
        numbered = _numbered(folder)
        if not numbered:
            raise _other_layout(folder, "no folder that holds image_00001.jpg …")
        labels = _matlab(files[_LABELS], ("labels",))["labels"]
        parts = _matlab(files[_PARTS], [key for key, _ in _PART_KEYS])
        part_of = {number: part for key, part in _PART_KEYS for number in parts[key]}
        if sum(map(len, parts.values())) != len(part_of):
            raise _other_layout(folder, f"{_PARTS} puts a picture into two parts")
        placements = []
        for number, part in sorted(part_of.items()):
            if number not in numbered:
                continue  # the pictures are counted, and that some are missing is said
            if not (0 < number <= len(labels) and 0 < labels[number - 1] <= len(self.names)):
                raise _other_layout(folder, f"{_LABELS} gives picture {number} no known class")
            name = _NOT_ON_WINDOWS.sub("", self.names[labels[number - 1] - 1])
            placements.append(Placement(numbered[number], part, name))
        return Arrangement(tuple(placements), papers=tuple(files.values()))


@dataclass(frozen=True)
class NamePrefixes:
    """One folder of pictures whose names begin with their class, as in ``cat.0.jpg``.

    Args:
        names: The classes.
    """

    names: tuple[str, ...]

    def arrange(self, folder: Path) -> Arrangement:
        """Say where the pictures in an unpacked folder belong."""
        for place in _folders_below(folder):
            placements = [
                Placement(picture, "", picture.name.partition(".")[0])
                for picture in _pictures_in(place)
                if picture.name.partition(".")[0] in self.names
            ]
            if {each.label for each in placements} == set(self.names):
                return Arrangement(tuple(placements))
        wanted = list_names(f"{name}.0.jpg" for name in self.names)
        raise _other_layout(folder, f"no folder that holds files such as {wanted}")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file in a folder and below but what systems leave behind, in a fixed order."""
    for place in _folders_below(folder):
        yield from _files_in(place)


def is_picture(file: Path) -> bool:
    """Tell by its suffix whether a file is meant to be a picture.

    Example:
        >>> is_picture(Path("rose.JPG")), is_picture(Path("rose.py"))
        (True, False)
    """
    return file.suffix.lower() in IMAGE_SUFFIXES


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield a folder and those below it, the highest first; links are not followed."""
    level = [folder]
    while level:
        yield from level
        level = [inner for place in level for inner in _folders_in(place)]


def _folders_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _files_in(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_file():
            yield Path(entry.path)


def _pictures_in(folder: Path) -> Iterator[Path]:
    return (file for file in _files_in(folder) if is_picture(file))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_junk(entry.name)]
    except OSError as error:
        raise DataError(
            "cannot read the folder", path=folder, why=error.strerror or "", code="DATA-UNREADABLE"
        ) from error
    return sorted(found, key=lambda entry: entry.name)


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the numbered pictures in a folder and below; of two alike the one that lies higher."""
    numbered: dict[int, Path] = {}
    for file in files_below(folder):
        if match := _NUMBER.match(file.name):
            numbered.setdefault(int(match.group(1)), file)
    return numbered


def _find(folder: Path, name: str) -> Path:
    for place in _folders_below(folder):
        if (place / name).is_file():
            return place / name
    raise _other_layout(folder, f"no file {name}")


def _matlab(file: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Return lists of whole numbers from a MATLAB file."""
    import numpy as np
    from scipy.io import loadmat

    wanted: Sequence[str] = list(names)
    try:
        content: dict[str, Any] = loadmat(file, variable_names=wanted)
        return {name: np.asarray(content[name]).astype(int).ravel().tolist() for name in wanted}
    except Exception as error:  # scipy's reader raises what comes to it on a damaged file
        raise DataError(
            "cannot read the MATLAB file",
            path=file,
            why=f"{type(error).__name__}: {error}"[:200],
            code="DATA-LAYOUT",
        ) from error


def _other_layout(folder: Path, why: str) -> DataError:
    return DataError(
        "the pictures are not laid out as this data set is published",
        path=folder,
        why=why,
        hint="give the archive or folder as it was published",
        code="DATA-LAYOUT",
    )
