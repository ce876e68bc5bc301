"""From a folder or table to a checked split: the data part of every experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from regraft.data.check import CheckReport, check, usable
from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import is_manifest
from regraft.data.tables import column_names
from regraft.errors import DataError, UsageError


@dataclass(frozen=True)
class PreparedData:
    """A split whose pictures were all decoded once, and what was found.

    Attributes:
        split: The parts; ``split.train`` is whole even where fewer pictures are learned from.
        train: The pictures to learn from: ``split.train`` or the asked-for share of it.
        report: What the check found.
    """

    split: Split
    train: Dataset
    report: CheckReport
    _data: Dataset = field(repr=False)  # all pictures that can be used, not cut
    _stamps: dict[Path, tuple[int, int]] = field(repr=False)

    def refuse_changed_files(self) -> None:
        """Make sure that no picture was changed since it was checked.

        Raises:
            DataError: Files are gone or have another size or time (code ``DATA-CHANGED``).
        """
        changed = [path for path, stamp in self._stamps.items() if _stamp(path) != stamp]
        if changed:
            raise DataError(
                f"{len(changed)} pictures changed while the run was at work",
                path=changed[0],
                why="their size or time is not what it was when they were checked",
                hint="let nothing write there, and run again",
                code="DATA-CHANGED",
            )


@dataclass(frozen=True)
class DataPlan:
    """Which pictures, how they are split and how many of them are learned from.

    Args:
        source: A folder with one folder per class, a CSV table with the columns ``path`` and
            ``label`` (where it has ``part`` or ``group``, these are used), or the ``split.csv`` of
            a written split, which is then repeated exactly.
        val: Share of the pictures for validation, 0 to 1.
        test: Share of the pictures for the test, 0 to 1.
        seed: Seed of the split.
        draw: Seed of the choice of pictures to learn from; None for that of the split.
        group_by: A regular expression on the path, or ``"column"`` for the column
            ``group`` of a table, which is used without being asked for; groups stay together.
        regroup: Whether to cut anew where the folder's own parts share a group.
        keep_parts: Whether to keep the folder's own parts even where they share a group or copies;
            a run then shows the test accuracy without these, too.
        folds: Cut into so many folds, of which ``fold`` is the test part.
        fold: Which of the folds, counted from 0.
        small_classes: ``"refuse"`` classes too small for every part, or put them into ``"train"``.
        allow_empty_class: Whether a class folder may be empty, or the only one.
        follow_links: Whether links may lead out of the folder.
        root: The folder that a table's paths begin in; by default the table's own.
        label_from_name: A regular expression with the group ``label``, for flat folders.
        per_class: Learn from this many pictures of each class; the test part stays the same.
        size: Learn from this many pictures in all.
        fraction: Learn from this share of the training pictures, 0 to 1.
        skip_bad: Go on without pictures that cannot be used.
        max_bad: The largest share of pictures that may be left out, 0 to 1.

    Example:
        >>> DataPlan("flowers17").test
        0.25
    """

    source: str | Path
    val: float = 0.15
    test: float = 0.25
    seed: int = 0
    draw: int | None = None
    group_by: str | None = None
    regroup: bool = False
    keep_parts: bool = False
    folds: int | None = None
    fold: int = 0
    small_classes: str = "refuse"
    allow_empty_class: bool = False
    follow_links: bool = False
    root: str | Path | None = None
    label_from_name: str | None = None
    per_class: int | None = None
    size: int | None = None
    fraction: float | None = None
    skip_bad: bool = False
    max_bad: float = 0.01

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> DataPlan:
        """Return the plan among the options of a command, by their names."""
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def read(self) -> Dataset:
        """Return the data set as it lies there with its groups: nothing decoded, nothing cut.

        Raises:
            DataError: The folder or table cannot be used, or there are no such groups.
        """
        return self._listed().grouped(self.group_by)

    def _listed(self) -> Dataset:
        source = Path(self.source)
        if self.root is not None and source.is_dir():
            raise UsageError(
                "root (--root) does nothing for a folder of pictures",
                path=source,
                why="it is where the paths in a CSV table begin",
                hint="leave it out",
            )
        if self.label_from_name is not None:
            return Dataset.from_names(source, pattern=self.label_from_name)
        if self._is_written_split():
            return Split.read(source, root=self.root or source.parent).joined()
        if source.suffix.lower() in {".csv", ".tsv"} and source.is_file():
            return Dataset.from_csv(source, root=self.root, **self._known_columns(source))
        return Dataset.from_folder(
            source, allow_empty=self.allow_empty_class, follow_outside=self.follow_links
        )

    def _known_columns(self, table: Path) -> dict[str, str]:
        """Return which columns of a table beside path and label mean something."""
        names = set(column_names(table)) | ({"group"} if self.group_by == "column" else set())
        return {name: name for name in ("part", "group") if name in names}

    def _is_written_split(self) -> bool:
        source = Path(self.source)
        return source.suffix == ".csv" and source.is_file() and is_manifest(source)

    def prepare(self, *, shared: PreparedData | None = None, verbose: bool = False) -> PreparedData:
        """Read, check and split the pictures.

        Args:
            shared: What a plan on the same pictures has prepared before; then nothing is decoded
                again, and the pictures are only cut.
            verbose: Whether to show progress on standard error.

        Raises:
            DataError: The folder cannot be used or split as asked.
            BadImagesError: Pictures cannot be used and ``skip_bad`` is off or they are too many.
        """
        if shared is None:
            data = self.read()
            stamps = {path: _stamp(path) for path in data.paths}
            report = check(data, verbose=verbose)
            data = report.hashed(usable(data, report, skip_bad=self.skip_bad, max_bad=self.max_bad))
        else:
            data, report, stamps = shared._data, shared.report, shared._stamps  # noqa: SLF001
        as_written = self._is_written_split() and not self.regroup  # also where it lacks a part
        split = data.split(
            val=0.0 if as_written else self.val,
            test=0.0 if as_written else self.test,
            seed=self.seed,
            group_by=self.group_by,
            regroup=self.regroup,
            keep_parts=self.keep_parts,
            folds=self.folds,
            fold=self.fold,
            small_classes=self.small_classes,
            alike=report.near_duplicates,
        )
        train = self._chosen(split.train)
        return PreparedData(split, train, report.across(split), data, stamps)

    def _chosen(self, train: Dataset) -> Dataset:
        if self.per_class is None and self.size is None and self.fraction is None:
            return train
        return train.subset(
            per_class=self.per_class,
            size=self.size,
            fraction=self.fraction,
            seed=self.seed if self.draw is None else self.draw,
        )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return (0, 0)
    return (facts.st_size, facts.st_mtime_ns)
