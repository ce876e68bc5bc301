"""Labelled images, whole or cut into train, val and test: what everything else starts from."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from regraft.data import manifest, sources
from regraft.data.sources import PARTS, Listing, find_groups
from regraft.data.split import SplitOptions, as_fraction, assign, choose_subset
from regraft.errors import BadImagesError, DataError, ImageError, UsageError, list_names
from regraft.files import sha256_file
from regraft.notebook import ShownInNotebook

NAME_PATTERN = r"^(?P<label>.*?[^\W\d_].*?)[\s._-]*(?:\(?\d+\)?)?\.[^.]+$"


@dataclass(frozen=True)
class Dataset(ShownInNotebook):
    """Images and the names of their classes; it never changes.

    The classes stand in a fixed order: read from a folder or table, by Unicode code point of their
    names in composed form (NFC). It matters nowhere afterwards: labels travel as names.

    Attributes:
        paths: One path for each image; none stands there twice.
        labels: The class of each image.
        classes: All classes, also those without an image.
        root: The folder that names of images are relative to; None: the paths are taken as given.
        groups: What must not be torn apart by a split (patient, plant, film), if known; an empty
            text means a group of its own.
        parts: ``train``, ``val`` or ``test`` for each image, where the source is cut already.
        notes: What a reader should know, such as what the scan left out, one sentence each.

    Example:
        >>> images = Dataset(("a.jpg", "b.jpg"), ("rose", "lily"), ("lily", "rose"))
        >>> len(images), images.counts()
        (2, {'lily': 1, 'rose': 1})
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    root: Path | None = None
    groups: tuple[str, ...] | None = None
    parts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    known_hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        settle = object.__setattr__  # the one moment at which a frozen value may be completed
        settle(self, "paths", tuple(map(Path, self.paths)))
        for name in ("labels", "classes", "groups", "parts"):
            column = getattr(self, name)
            if column is None:
                continue
            settle(self, name, tuple(column))
            if name != "classes" and len(column) != len(self.paths):
                raise DataError(f"{len(column)} {name} for {len(self.paths)} images")
            # 0 or None would silently be no group at all.
            if odd := [value for value in column if not isinstance(value, str)]:
                why = f"{odd[0]!r} is of the type {type(odd[0]).__name__}"
                hint = 'turn numbers into texts with str(), and write "" for a group of its own'
                raise DataError(f"{name} are texts", why=why, hint=hint, code="DATA-NOT-TEXT")
        _refuse_odd_names(self)

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        *,
        allow_empty: bool = False,
        follow_outside: bool = False,
    ) -> Dataset:
        """Read a folder that holds one folder of images for each class.

        A folder that is cut into ``train``, ``val`` and ``test`` first (also ``training``,
        ``valid``, ``validation``, ``testing``, in any case) is recognised and its parts are kept.
        Images deeper than the class folders are an error, for two folders of one name below
        different parents would become one class.

        Args:
            folder: The folder; nothing is ever written there.
            allow_empty: Whether a class may have no image, or stand alone.
            follow_outside: Whether links may lead out of the folder.

        Raises:
            DataError: The folder is not laid out in this way; each case has a code of its own.

        Example:
            >>> Dataset.from_folder("no/such/folder")
            Traceback (most recent call last):
            regraft.errors.DataError: folder not found ...
        """
        root = absolute(folder)
        found = sources.list_class_folders(
            root, allow_empty=allow_empty, follow_outside=follow_outside
        )
        return cls._from_listing(found, root)

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
    ) -> Dataset:
        """Read a table with one image a row; labels are text whatever they look like.

        Args:
            file: A CSV file in UTF-8 with a header; comma, semicolon or tab are recognised.
            path: The column of paths, relative to ``root``.
            label: The column of classes.
            part: The column that says train, val or test, if there is one.
            group: The column of groups, if there is one; they are compared without regard to case.
            root: The folder of the images; default: that of the table.

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
        found = sources.list_table(table, folder, path=path, label=label, part=part, group=group)
        return cls._from_listing(found, folder)

    @classmethod
    def from_names(cls, folder: str | os.PathLike[str], *, pattern: str = NAME_PATTERN) -> Dataset:
        """Read the class of each image from its file name, as in ``cat.0.jpg``.

        Args:
            folder: A folder of images, in subfolders or not.
            pattern: A regular expression that is looked for in the file name; its group named
                ``label`` is the class, one named ``group`` (if any) what a split keeps together.
                The default takes what stands before the number at the end.

        Raises:
            DataError: There is no image, or the pattern does not match some of the names.
            UsageError: The pattern is no regular expression or has no group named ``label``.

        Example:
            >>> import re
            >>> re.search(NAME_PATTERN, "cat.0.jpg")["label"]
            'cat'
        """
        root = absolute(folder)
        return cls._from_listing(sources.list_named_files(root, pattern), root)

    @classmethod
    def _from_listing(cls, listing: Listing, root: Path) -> Dataset:
        columns = list(zip(*listing.rows, strict=True)) or [()] * 4
        paths, labels, groups, parts = columns
        return cls(
            paths=tuple(map(Path, paths)),
            labels=labels,
            classes=tuple(listing.classes),
            root=root,
            groups=groups if any(groups) else None,
            parts=parts if any(parts) else None,
            notes=tuple(listing.notes),
        )

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class, in the order of the classes."""
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
        known = self.known_hashes
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
        return dataclasses.replace(self, known_hashes={**self.known_hashes, **hashes})

    def take(self, indices: Iterable[int]) -> Dataset:
        """Return the images at these places, with all classes.

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
        at_most: bool = False,
        seed: int = 0,
    ) -> Dataset:
        """Return a part of the images, exactly as large as asked for; its last note says how large.

        Subsets of one seed are nested: a smaller one lies within every larger one of the same kind.
        With ``size`` or ``fraction`` each class has at least one image and its proportional share.

        Args:
            per_class: This many images of each class.
            size: This many images in all, the classes in proportion.
            fraction: This share of all images, in (0, 1], rounded to a whole number of images.
            at_most: Whether a class that has fewer than ``per_class`` images gives all it has,
                instead of being refused.
            seed: Another seed, another choice.

        Raises:
            UsageError: Not exactly one of the first three is given, or one is out of range.
            DataError: There are not enough images (``DATA-SUBSET``).

        Example:
            >>> four = Dataset(("1.jpg", "2.jpg", "3.jpg", "4.jpg"), tuple("xxxy"), ("x", "y"))
            >>> four.subset(per_class=1).counts()
            {'x': 1, 'y': 1}
            >>> four.subset(per_class=2, at_most=True).counts()
            {'x': 2, 'y': 1}
        """
        if sum(value is not None for value in (per_class, size, fraction)) != 1:
            raise UsageError("give one of per_class, size and fraction")
        if at_most and per_class is None:
            raise UsageError("at_most does nothing without per_class")
        if fraction is not None:
            if not 0 < fraction <= 1:
                raise UsageError("fraction must lie in (0, 1]", why=str(fraction))
            size = round(len(self) * as_fraction(fraction))
        chosen = choose_subset(self, per_class=per_class, size=size, at_most=at_most, seed=seed)
        taken = self.take(sorted(chosen))
        note = f"{len(taken):,} of {len(self):,} images"
        if per_class is not None:
            note += f", {'at most ' if at_most else ''}{per_class:,} of each class"
            if few := [f"{name} {n}" for name, n in taken.counts().items() if n < per_class]:
                note += f"; fewer of {list_names(few)}"
        return dataclasses.replace(taken, notes=(*self.notes, note))

    def grouped(self, group_by: str | None) -> Dataset:
        """Return the same images with the group of each, as :meth:`split` makes them.

        Raises:
            DataError: There are no groups to use (``SPLIT-GROUP-COLUMN``), or the expression
                matches no image (``SPLIT-GROUP-PATTERN``).

        Example:
            >>> people = Dataset(("ann_1.jpg", "ann_2.jpg", "bea.jpg"), ("x", "y", "x"), ("x", "y"))
            >>> people.grouped("^([a-z]+)_").groups
            ('ann', 'ann', '')
        """
        if group_by == "column" and self.groups is None:
            hint = "read them with from_csv(…, group=COLUMN), or give a regular expression"
            raise DataError("the data set has no groups", hint=hint, code="SPLIT-GROUP-COLUMN")
        if group_by is None or group_by == "column":
            return self
        names = self.relative_paths()
        found = find_groups(names, group_by)
        if not any(found):
            what = "the group pattern matches no image"
            why = f"pattern: {group_by}; for example {list_names(names[:1])}"
            hint = "it is looked for in the path relative to the data folder"
            raise DataError(what, path=self.root, why=why, hint=hint, code="SPLIT-GROUP-PATTERN")
        return dataclasses.replace(self, groups=tuple(name or "" for name in found))

    def split(
        self,
        *,
        val: float = 0.15,
        test: float = 0.25,
        seed: int = 0,
        group_by: str | None = None,
        regroup: bool = False,
        keep_parts: bool = False,
        small_classes: Literal["refuse", "train"] = "refuse",
        alike: Sequence[Sequence[str]] = (),
        folds: int | None = None,
        fold: int = 0,
    ) -> Split:
        """Cut the images into train, val and test.

        Each class is cut by itself, exactly by number or by largest remainder, and has at least one
        image in each part asked for. Images of one group, and copies, come to the same part. The
        choice depends on the relative paths, the seed and the sizes, not on order or machine.
        Parts that the data set was given are kept; a missing one is cut from train.

        Args:
            val: Size of the validation part, 0 for none: below 1 a share of the images; from 1 on a
                number of images of each class.
            test: Size of the test part in the same way; without meaning for folds.
            seed: Another seed, another choice.
            group_by: A regular expression that finds what must stay together in the relative path,
                as `find_groups` reads it; ``"column"``: the groups of the data set.
            regroup: Whether to forget the given parts and cut anew.
            keep_parts: Whether to keep the given parts even where they share groups or copies.
            small_classes: What to do with a class too small for every part: ``"refuse"`` it, or put
                all of it into ``"train"``.
            alike: Groups of relative paths whose images look alike, as a check finds them; they
                come to the same part where it is cut here.
            folds: Cut into so many folds of the same size, each of which is the test part once;
                ``val`` is then cut from the other folds.
            fold: Which of the folds is the test part, counted from 0.

        Raises:
            DataError: A class is too small (``SPLIT-TOO-FEW``), given parts share groups
                (``SPLIT-GROUPS``) or copies of files (``SPLIT-DUPLICATES``), or stand against folds
                (``SPLIT-FOLDS``).
            UsageError: An argument is out of range, or two contradict each other.
        """
        options = SplitOptions(
            val=val,
            test=test,
            seed=seed,
            group_by=group_by,
            regroup=regroup,
            keep_parts=keep_parts,
            small_classes=small_classes,
            folds=folds,
            fold=fold,
        )
        grouped = self.grouped(group_by)
        places, settings = assign(grouped, options, alike)
        plain = dataclasses.replace(grouped, parts=None, notes=())
        train, held, tested = (plain.take(indices) for indices in places)
        return Split(train, held, tested, seed=options.seed, settings=settings)


@dataclass(frozen=True)
class Split(ShownInNotebook):
    """Three data sets with the same classes, cut from one, and how that was done.

    Attributes:
        train: What a learner is fitted on.
        val: What settings are chosen with; may be empty.
        test: What is looked at when everything is decided; may be empty.
        seed: The seed of the cut.
        settings: How it was cut: shares, groups, parts that were given, what was found.

    Example:
        >>> import tempfile
        >>> from regraft.data.synthetic import make_flowers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = make_flowers(folder, species=2, per_class=4, size=16).split()
        ...     split.write(folder)
        ...     Split.read(folder, root=folder).hash == split.hash
        True
    """

    train: Dataset
    val: Dataset
    test: Dataset
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.train.classes == self.val.classes == self.test.classes:
            raise DataError("the parts of a split have different classes", code="SPLIT-INVALID")
        places = [path for data in self.parts().values() for path in data.paths]
        if len(set(places)) < len(places):
            raise DataError("an image stands in two parts", code="SPLIT-INVALID")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all three parts, in their fixed order."""
        return self.train.classes

    def parts(self) -> dict[str, Dataset]:
        """Return the three parts under their names, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of what stands where: sorted paths, contents, classes and parts."""
        return manifest.manifest_hash(self._rows(), self.classes)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``split.csv`` (path, sha256, class, part) and ``split.json`` into ``folder``.

        A counter of looks at the test part is kept when the same split is written again.
        """
        counts = {part: data.counts() for part, data in self.parts().items()}
        facts = manifest.Facts(
            hash=self.hash,
            classes=self.classes,
            seed=self.seed,
            settings=self.settings,
            counts=counts,
        )
        manifest.write_manifest(Path(folder), self._rows(), facts)

    @classmethod
    def read(cls, source: str | os.PathLike[str], *, root: str | os.PathLike[str]) -> Split:
        """Read a written split and make sure that it and all its files are as they were.

        Args:
            source: The folder of ``split.csv`` and ``split.json``, or the CSV file itself.
            root: The folder of the images.

        Raises:
            RegraftError: The manifest is missing, malformed or changed (``SPLIT-MISSING``,
                ``SPLIT-INVALID``, ``SPLIT-HASH``, ``FILE-JSON``), or files are gone or have other
                content (``SPLIT-FILE-MISSING``, ``SPLIT-FILE-CHANGED``).
        """
        folder = absolute(root)
        rows, facts = manifest.read_manifest(Path(source))
        manifest.refuse_missing_files(rows, folder)
        paths = tuple(folder / row.path for row in rows)
        whole = Dataset(paths, tuple(row.label for row in rows), facts.classes, root=folder)
        manifest.refuse_changed_files(rows, whole.hashes(), folder)
        train, val, test = (
            whole.take(place for place, row in enumerate(rows) if row.part == part)
            for part in PARTS
        )
        return cls(train, val, test, facts.seed, dict(facts.settings))

    def joined(self) -> Dataset:
        """Return all images as one data set that is cut already."""
        every = list(self.parts().values())
        groups = tuple(group for data in every for group in data.groups or ())
        return dataclasses.replace(
            self.train,
            paths=tuple(path for data in every for path in data.paths),
            labels=tuple(label for data in every for label in data.labels),
            parts=tuple(part for part, data in self.parts().items() for _ in data.paths),
            groups=None if any(data.groups is None for data in every) else groups,
            known_hashes={path: h for data in every for path, h in data.known_hashes.items()},
        )

    @staticmethod
    def count_test_look(folder: str | os.PathLike[str]) -> int:
        """Count one more look at the test part of the split in ``folder``; return the new count."""
        return manifest.count_test_look(Path(folder))

    def _rows(self) -> list[manifest.Row]:
        return [
            manifest.Row(path, sha256, label, part)
            for part, data in self.parts().items()
            for path, sha256, label in zip(
                data.relative_paths(), data.hashes(), data.labels, strict=True
            )
        ]


def absolute(folder: str | os.PathLike[str]) -> Path:
    """Return the path from the root of the file system, with links left as they are named."""
    return Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links


def _relative(path: Path, root: Path) -> Path:
    try:
        return path.relative_to(root)
    except ValueError as error:
        what, why = "an image does not lie below the root", f"it is {root}"
        hint = "let the paths begin with it, or give none"
        raise DataError(what, path=path, why=why, hint=hint, code="DATA-OUTSIDE") from error


def _content_hash(path: Path) -> str:
    code = "IMG-UNREADABLE"
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            raise ImageError("not a regular file", path=path, code=code)
        return sha256_file(path)
    except OSError as error:
        why = error.strerror or ""
        raise ImageError("cannot read the file", path=path, why=why, code=code) from error


def _refuse_odd_names(data: Dataset) -> None:
    classes = list_names(data.classes)
    if len(set(data.classes)) < len(data.classes):
        raise DataError("a class is named twice", why=classes, code="DATA-CLASSES")
    if unknown := set(data.labels) - set(data.classes):
        why = f"labels: {list_names(sorted(unknown))}; classes: {classes}"
        raise DataError("labels that are no class", why=why, code="DATA-CLASSES")
    if unknown := set(data.parts or ()) - set(PARTS):
        raise DataError("unknown parts", why=list_names(sorted(unknown)), code="DATA-PARTS")
    if len(set(data.paths)) < len(data.paths):
        repeated = [str(path) for path, count in Counter(data.paths).items() if count > 1]
        raise DataError("an image is named twice", path=repeated[0], code="DATA-TWICE")
