"""Labelled pictures: the one value that everything else in Regraft starts from."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.data.folders import list_class_folders
from regraft.data.labels import list_names
from regraft.data.listings import Columns, Listing, list_named_files, list_table
from regraft.data.sampling import chance_key, exact, first_of_each, in_proportion
from regraft.errors import BadImagesError, DataError, ImageError, UsageError
from regraft.files import sha256_file, sha256_json

if TYPE_CHECKING:
    from regraft.data.split import Split

PARTS = ("train", "val", "test")
NAME_PATTERN = r"^(?P<label>.*?[^\W\d_].*?)[\s._-]*(?:\(?\d+\)?)?\.[^.]+$"


@dataclass(frozen=True)
class Dataset:
    """Pictures and the names of their classes; it never changes.

    The classes stand in a fixed order: by Unicode code point of their names in composed form (NFC),
    unless they were given in another one. The order is kept with the data set, so it matters
    nowhere afterwards: labels travel as names.

    Attributes:
        paths: One path for each picture; none stands there twice.
        labels: The class of each picture.
        classes: All classes, also those without a picture.
        root: The folder that names of pictures are relative to; None: the paths are taken as given.
        groups: What must not be torn apart by a split (patient, plant, film), if known; an empty
            text means a group of its own.
        parts: ``train``, ``val`` or ``test`` for each picture, where the source is cut already.
        ignored: What the scan left out, and how many of each.
        notes: What else a reader should know, one sentence each.

    Example:
        >>> pictures = Dataset(("a.jpg", "b.jpg"), ("rose", "lily"), ("lily", "rose"))
        >>> len(pictures), pictures.counts()
        (2, {'lily': 1, 'rose': 1})
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    root: Path | None = None
    groups: tuple[str, ...] | None = None
    parts: tuple[str, ...] | None = None
    ignored: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    _known_hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        settle = object.__setattr__  # the one moment at which a frozen value may be completed
        settle(self, "paths", tuple(map(Path, self.paths)))
        for name in ("labels", "classes", "groups", "parts"):
            if getattr(self, name) is None:
                continue
            settle(self, name, tuple(getattr(self, name)))
            column = getattr(self, name)
            if name != "classes" and len(column) != len(self.paths):
                raise DataError(f"{len(column)} {name} for {len(self.paths)} pictures")
            _refuse_other_than_text(name, column)
        _refuse_odd_names(self)

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        allow_empty: bool = False,
        follow_outside: bool = False,
    ) -> Dataset:
        """Read a folder that holds one folder of pictures for each class.

        A folder that is cut into ``train``, ``val`` and ``test`` first (also ``training``,
        ``valid``, ``validation``, ``testing``, in any case) is recognised and its parts are kept.
        Pictures deeper than the class folders are an error, for two folders of one name below
        different parents would become one class.

        Args:
            folder: The folder; nothing is ever written there.
            classes: The classes to use and their order; default: all folders.
            allow_empty: Whether a class may have no picture, or stand alone.
            follow_outside: Whether links may lead out of the folder.

        Raises:
            DataError: The folder is not laid out in this way; each case has a code of its own.

        Example:
            >>> Dataset.from_folder("no/such/folder")
            Traceback (most recent call last):
            regraft.errors.DataError: folder not found ...
        """
        root = absolute(folder)
        listing = list_class_folders(
            root, classes=classes, allow_empty=allow_empty, follow_outside=follow_outside
        )
        return cls._from_listing(listing, root)

    @classmethod
    def from_csv(
        cls,
        file: str | os.PathLike[str],
        *,
        path: str = "path",
        label: str = "label",
        part: str | None = None,
        group: str | None = None,
        root: str | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> Dataset:
        """Read a table with one picture a row; labels are text whatever they look like.

        Args:
            file: A CSV file in UTF-8 with a header; comma, semicolon or tab are recognised.
            path: The column of paths, relative to ``root``.
            label: The column of classes.
            part: The column that says train, val or test, if there is one.
            group: The column of groups, if there is one.
            root: The folder of the pictures; default: that of the table.
            classes: The order of the classes, and leave to name two that differ only by case.

        Raises:
            DataError: A column is missing, a file is unknown, lies outside ``root`` or stands there
                twice …; the message gives the line.

        Example:
            >>> Dataset.from_csv("no/such/table.csv", label="species")
            Traceback (most recent call last):
            regraft.errors.DataError: table not found ...
        """
        table = Path(file)
        folder = absolute(table.parent if root is None else root)
        columns = Columns(path, label, part, group)
        return cls._from_listing(list_table(table, folder, columns, classes=classes), folder)

    @classmethod
    def from_names(cls, folder: str | os.PathLike[str], *, pattern: str = NAME_PATTERN) -> Dataset:
        """Read the class of each picture from its file name, as in ``cat.0.jpg``.

        Args:
            folder: A folder of pictures, in subfolders or not.
            pattern: A regular expression that is looked for in the file name; its group named
                ``label`` is the class, one named ``group`` (if any) what a split keeps together.
                The default takes what stands before the number at the end.

        Raises:
            DataError: There is no picture, or the pattern does not match some of the names.
            UsageError: The pattern is no regular expression or has no group named ``label``.

        Example:
            >>> import re
            >>> re.search(NAME_PATTERN, "cat.0.jpg")["label"]
            'cat'
        """
        root = absolute(folder)
        return cls._from_listing(list_named_files(root, pattern), root)

    @classmethod
    def _from_listing(cls, listing: Listing, root: Path) -> Dataset:
        rows = listing.rows
        return cls(
            paths=tuple(Path(row.path) for row in rows),
            labels=tuple(row.label for row in rows),
            classes=tuple(listing.classes),
            root=root,
            groups=tuple(row.group for row in rows) if listing.has_groups else None,
            parts=tuple(row.part for row in rows) if listing.has_parts else None,
            ignored=tuple(sorted(listing.ignored.items())),
            notes=tuple(listing.notes),
        )

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each class, in the order of the classes."""
        counted = Counter(self.labels)
        return {name: counted[name] for name in self.classes}

    def relative_paths(self) -> tuple[str, ...]:
        """Return the paths relative to ``root``, with ``/`` between folders.

        Raises:
            DataError: A path does not lie below ``root`` (``DATA-OUTSIDE``).
        """
        if self.root is None:
            return tuple(path.as_posix() for path in self.paths)
        return tuple(_relative(path, self.root).as_posix() for path in self.paths)

    def hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of each file's content; each file is read once.

        Data sets that were taken from this one share what is known.

        Raises:
            BadImagesError: Files cannot be read, all of them at once.
        """
        known = self._known_hashes
        bad: list[ImageError] = []
        for path in self.paths:
            if path not in known:
                try:
                    known[path] = _content_hash(path)
                except ImageError as error:
                    bad.append(error)
        if bad:
            raise BadImagesError(bad, hint="see regraft data check; --skip-bad leaves them out")
        return tuple(known[path] for path in self.paths)

    def knowing(self, hashes: Mapping[Path, str]) -> Dataset:
        """Return the same data set with the SHA-256 of files that were read already."""
        return dataclasses.replace(self, _known_hashes={**self._known_hashes, **hashes})

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of classes, relative paths, labels and contents in sorted order."""
        rows = zip(self.relative_paths(), self.labels, self.hashes(), strict=True)
        return sha256_json({"classes": self.classes, "pictures": sorted(rows)})

    def take(self, indices: Iterable[int]) -> Dataset:
        """Return the pictures at these places, with all classes.

        Example:
            >>> Dataset(("a.jpg", "b.jpg"), ("x", "y"), ("x", "y")).take([1]).labels
            ('y',)
        """
        chosen = [int(index) for index in indices]

        def pick(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if column is None else tuple(column[index] for index in chosen)

        return dataclasses.replace(
            self,
            paths=tuple(self.paths[index] for index in chosen),
            labels=tuple(self.labels[index] for index in chosen),
            groups=pick(self.groups),
            parts=pick(self.parts),
        )

    def subset(
        self,
        *,
        per_class: int | None = None,
        size: int | None = None,
        fraction: float | None = None,
        seed: int = 0,
    ) -> Dataset:
        """Return a part of the pictures, exactly as large as asked for.

        Subsets of one seed are nested: a smaller one lies within every larger one of the same kind.
        With ``size`` or ``fraction`` each class has at least one picture and beyond that a number
        that only grows with the size (Sainte-Laguë's method; within one of its proportional share
        but for the rarest classes).

        Args:
            per_class: This many pictures of each class.
            size: This many pictures in all, the classes in proportion.
            fraction: This share of all pictures, in (0, 1], rounded to a whole number of pictures.
            seed: Another seed, another choice.

        Raises:
            UsageError: Not exactly one of the three is given, or it is out of range.
            DataError: There are not enough pictures (``DATA-SUBSET``).

        Example:
            >>> four = Dataset(("1.jpg", "2.jpg", "3.jpg", "4.jpg"), tuple("xxxy"), ("x", "y"))
            >>> four.subset(per_class=1).counts()
            {'x': 1, 'y': 1}
        """
        if sum(value is not None for value in (per_class, size, fraction)) != 1:
            raise UsageError("give one of per_class, size and fraction")
        queues = self._chance_queues(seed)
        if per_class is not None:
            chosen = first_of_each(queues, per_class)
        else:
            if fraction is not None:
                if not 0 < fraction <= 1:
                    raise UsageError("fraction must lie in (0, 1]", why=str(fraction))
                size = round(len(self) * exact(fraction))
            chosen = in_proportion(queues, size or 0)
        return self.take(sorted(chosen))

    def split(
        self,
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
        """Cut the pictures into train, val and test; see :func:`regraft.data.cutting.cut`."""
        from regraft.data.cutting import cut

        return cut(
            self,
            val=val,
            test=test,
            seed=seed,
            group_by=group_by,
            on_duplicates=on_duplicates,
            regroup=regroup,
            keep_parts=keep_parts,
            small_classes=small_classes,
            alike=alike,
            folds=folds,
            fold=fold,
        )

    def _chance_queues(self, seed: int) -> dict[str, list[int]]:
        """Return the places of each class's pictures in the random order of ``seed``."""
        queues: dict[str, list[int]] = {name: [] for name in self.classes}
        names = self.relative_paths()
        keys = [chance_key(name, seed=seed, purpose="subset") for name in names]
        for index in sorted(range(len(self)), key=keys.__getitem__):
            queues[self.labels[index]].append(index)
        return queues


def absolute(folder: str | os.PathLike[str]) -> Path:
    """Return the path from the root of the file system, with links left as they are named."""
    return Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links


def _relative(path: Path, root: Path) -> Path:
    try:
        return path.relative_to(root)
    except ValueError as error:
        raise DataError(
            "a picture does not lie below the root",
            path=path,
            why=f"it is {root}",
            hint="let the paths begin with it, or give none",
            code="DATA-OUTSIDE",
        ) from error


def _content_hash(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            raise ImageError("not a regular file", path=path, code="IMG-UNREADABLE")
        return sha256_file(path)
    except OSError as error:
        raise ImageError(
            "cannot read the file", path=path, why=error.strerror or "", code="IMG-UNREADABLE"
        ) from error


def _refuse_other_than_text(name: str, column: tuple[object, ...]) -> None:
    for value in column:
        if not isinstance(value, str):  # 0 or None would silently be no group at all
            raise DataError(
                f"{name} are texts",
                why=f"{value!r} is of the type {type(value).__name__}",
                hint='turn numbers into texts with str(), and write "" for a group of its own',
                code="DATA-NOT-TEXT",
            )


def _refuse_odd_names(data: Dataset) -> None:
    if len(set(data.classes)) < len(data.classes):
        raise DataError("a class is named twice", why=list_names(data.classes), code="DATA-CLASSES")
    unknown = set(data.labels) - set(data.classes)
    if unknown:
        raise DataError(
            "labels that are no class",
            why=f"labels: {list_names(sorted(unknown))}; classes: {list_names(data.classes)}",
            code="DATA-CLASSES",
        )
    unknown = set(data.parts or ()) - set(PARTS)
    if unknown:
        raise DataError("unknown parts", why=list_names(sorted(unknown)), code="DATA-PARTS")
    if len(set(data.paths)) < len(data.paths):
        repeated = [str(path) for path, count in Counter(data.paths).items() if count > 1]
        raise DataError("a picture is named twice", path=repeated[0], code="DATA-TWICE")
