"""A data set cut into train, val and test, and its manifest."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from regraft.data import manifest
from regraft.data.dataset import PARTS, Dataset, absolute
from regraft.errors import DataError


@dataclass(frozen=True)
class Split:
    """Three data sets with the same classes, cut from one, and how that was done.

    Attributes:
        train: What a learner is fitted on.
        val: What settings are chosen with; may be empty.
        test: What is looked at when everything is decided; may be empty.
        seed: The seed of the cut.
        settings: How it was cut: shares, groups, parts that were given, what was found.

    Example:
        >>> import tempfile
        >>> from regraft.data.drawn import make_flowers
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
            raise DataError("a picture stands in two parts", code="SPLIT-INVALID")

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
        facts = {"seed": self.seed, "settings": self.settings, "counts": counts}
        manifest.write(Path(folder), self._rows(), self.classes, facts)

    @classmethod
    def read(cls, source: str | os.PathLike[str], *, root: str | os.PathLike[str]) -> Split:
        """Read a written split and make sure that it and all its files are as they were.

        Args:
            source: The folder of ``split.csv`` and ``split.json``, or the CSV file itself.
            root: The folder of the pictures.

        Raises:
            DataError: The manifest is missing (``SPLIT-MISSING``), malformed (``SPLIT-INVALID``) or
                changed (``SPLIT-HASH``), or files are gone (``SPLIT-FILE-MISSING``) or have other
                content (``SPLIT-FILE-CHANGED``).
        """
        folder = absolute(root)
        stored = manifest.read(Path(source))
        manifest.refuse_missing_files(stored, folder)
        parts: dict[str, Dataset] = {}
        hashes: dict[str, str] = {}
        for part in PARTS:
            rows = [row for row in stored.rows if row.part == part]
            parts[part] = Dataset(
                paths=tuple(folder / row.path for row in rows),
                labels=tuple(row.label for row in rows),
                classes=stored.classes,
                root=folder,
            )
            hashes.update(zip((row.path for row in rows), parts[part].hashes(), strict=True))
        manifest.refuse_changed_files(stored, hashes, folder)
        return cls(**parts, seed=stored.seed, settings=stored.settings)

    def joined(self) -> Dataset:
        """Return all pictures as one data set that is cut already."""
        parts = self.parts().items()
        whole = dataclasses.replace(
            self.train,
            paths=tuple(path for _, data in parts for path in data.paths),
            labels=tuple(label for _, data in parts for label in data.labels),
            parts=tuple(part for part, data in parts for _ in data.paths),
            groups=None,
        )
        return whole.knowing(
            {p: h for _, data in parts for p, h in zip(data.paths, data.hashes(), strict=True)}
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


def read_manifest(source: str | os.PathLike[str]) -> tuple[manifest.Row, ...]:
    """Return what a written split says of each picture, without looking for the pictures.

    Args:
        source: The folder of ``split.csv`` and ``split.json``, or the CSV file itself.

    Returns:
        Rows with ``path``, ``sha256``, ``label`` and ``part``, their hash verified.

    Raises:
        DataError: Codes ``SPLIT-MISSING``, ``SPLIT-INVALID`` and ``SPLIT-HASH``.
    """
    return manifest.read(Path(source)).rows
