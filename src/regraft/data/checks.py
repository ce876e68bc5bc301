"""What is wrong with a data set, found by decoding every picture before anything is learned."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regraft.data.dataset import PARTS, Dataset
from regraft.data.findings import Evidence, Finding, findings_of
from regraft.data.images import Decoding
from regraft.data.inspection import Pictures, inspect_all
from regraft.data.labels import list_names
from regraft.data.split import Split
from regraft.data.tables import safe_cell
from regraft.errors import BadImagesError, ImageError, printable
from regraft.files import write_json, write_text

_COLUMNS = ("path", "class", "part", "code", "reason", "advice")

__all__ = ["BadFile", "CheckReport", "Finding", "check", "usable"]


@dataclass(frozen=True)
class BadFile:
    """One picture that cannot be used, and where it stands.

    Args:
        name: Its path relative to the data folder.
        label: Its class.
        part: ``train``, ``val`` or ``test``; None if the set is not cut.
        error: Why it cannot be used.
    """

    name: str
    label: str
    part: str | None
    error: ImageError


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        findings: What a reader should know, errors first, one finding of a kind.
        images: How many pictures were checked.
        bad_files: All pictures that cannot be used.
        counts: Usable pictures for each part (``all`` if the set is not cut) and class.
        duplicates: Pictures with the same content, group by group, relative to the data folder.
        near_duplicates: Pictures that look alike but differ in content, group by group.
        notes: How many pictures are unusual in which way.

    Example:
        >>> report = check(Dataset(("no-such.jpg",), ("x",), ("x",)))
        >>> report.bad[0].code
        'IMG-UNREADABLE'
    """

    findings: tuple[Finding, ...]
    images: int
    bad_files: tuple[BadFile, ...]
    counts: dict[str, dict[str, int]]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    notes: dict[str, int]
    _evidence: Evidence = field(repr=False, compare=False)

    @property
    def bad(self) -> tuple[ImageError, ...]:
        """The error of each picture that cannot be used."""
        return tuple(file.error for file in self.bad_files)

    @property
    def has_errors(self) -> bool:
        """Whether something makes results wrong if nothing is done about it."""
        return any(finding.severity == "error" for finding in self.findings)

    def across(self, split: Split) -> CheckReport:
        """Return the same check with the parts of a split: what stands in two of them is found.

        Nothing is decoded again.

        Args:
            split: A cut of the pictures that were checked; bad ones may be missing. Groups that
                its parts know are looked at, too.
        """
        cut = Pictures.of(split)
        parts = dict(zip(cut.paths, cut.parts or (), strict=True))
        groups = None if cut.groups is None else dict(zip(cut.paths, cut.groups, strict=True))
        paths = self._evidence.pictures.paths
        pictures = dataclasses.replace(
            self._evidence.pictures,
            parts=tuple(parts.get(path, "") for path in paths),
            groups=None if groups is None else tuple(groups.get(path, "") for path in paths),
            settled=True,
        )
        return _report(dataclasses.replace(self._evidence, pictures=pictures))

    def leaked(self, part: str = "test") -> tuple[str, ...]:
        """Return the pictures of a part that something in an earlier part gives away.

        That is a copy, a picture that looks alike, or one of the same group.

        Args:
            part: ``"test"``, whose partners are looked for in train and val, or ``"val"``, whose
                partners are looked for in train.

        Returns:
            Their paths relative to the data folder, in order.
        """
        pictures = self._evidence.pictures
        earlier = set(PARTS[: PARTS.index(part)])
        ties = [*self._evidence.duplicates, *self._evidence.near_duplicates]
        places = set()
        for members in [*ties, *pictures.torn(pictures.groups).values()]:
            if earlier & {pictures.part(place) for place in members}:
                places |= {place for place in members if pictures.part(place) == part}
        return tuple(pictures.names[place] for place in sorted(places))

    def hashed(self, dataset: Dataset) -> Dataset:
        """Return a checked data set that knows the SHA-256 of its files from this check."""
        inspection = self._evidence.inspection
        hashes = {
            path: inspection.sha256[place].hex()
            for place, path in enumerate(self._evidence.pictures.paths)
            if inspection.sha256[place]
        }
        return dataset.knowing(hashes)

    def summary(self) -> dict[str, Any]:
        """Return numbers and findings, without the full lists, as values that JSON can hold."""
        return {
            "images": self.images,
            "usable": self.images - len(self.bad_files),
            "bad": dict(Counter(error.code for error in self.bad)),
            "counts": self.counts,
            "duplicate_groups": len(self.duplicates),
            "near_duplicate_groups": len(self.near_duplicates),
            "notes": self.notes,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary and all lists, as values that JSON can hold."""
        return self.summary() | {
            "bad_files": [dict(zip(_COLUMNS, _row(file), strict=True)) for file in self.bad_files],
            "duplicates": self.duplicates,
            "near_duplicates": self.near_duplicates,
        }

    def to_text(self) -> str:
        """Return the findings, and every picture that cannot be used, as lines to read.

        Example:
            >>> check(Dataset((), (), ())).to_text()
            '0 pictures, nothing to report'
        """
        if not self.findings:
            return f"{self.images} pictures, nothing to report"
        lines = [f"{self.images} pictures, {len(self.bad_files)} of them cannot be used"]
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.message} [{finding.code}]")
            lines.append(f"    {finding.advice}")
        for file in self.bad_files:
            name, label, part, code, reason, advice = map(printable, _row(file))
            place = f"{label}, {part}" if part else label
            lines.append(f"{name} ({place}): {reason} - {advice} [{code}]")
        return "\n".join(lines)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``check.json`` (summary and all lists) and ``bad_files.csv`` into ``folder``."""
        write_json(Path(folder) / "check.json", self.to_json())
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(_COLUMNS)
        writer.writerows([safe_cell(cell) for cell in _row(file)] for file in self.bad_files)
        write_text(Path(folder) / "bad_files.csv", table.getvalue())


def check(
    data: Dataset | Split,
    *,
    decoding: Decoding = Decoding(),
    near_distance: int = 4,
    verbose: bool = False,
) -> CheckReport:
    """Decode every picture in full and report everything that is wrong, all at once.

    Nothing is changed, and nothing is written into the data folder.

    Args:
        data: Pictures with their classes; parts and groups are looked at where they are known.
        decoding: How pixels become RGB where a file leaves it open.
        near_distance: In how many of 64 bits the hashes of like pictures may differ.
        verbose: Whether to show the progress.

    Raises:
        UsageError: ``near_distance`` is not between 0 and 63.

    Example:
        >>> [finding.code for finding in check(Dataset(("no.jpg",), ("x",), ("x",))).findings]
        ['DATA-BAD-IMAGES', 'DATA-FEW']
    """
    pictures = Pictures.of(data)
    inspection = inspect_all(pictures.paths, decoding, verbose=verbose)
    duplicates = inspection.duplicates()
    near_duplicates = inspection.near_duplicates(near_distance)
    return _report(Evidence(pictures, inspection, duplicates, near_duplicates))


def usable(
    dataset: Dataset, report: CheckReport, *, skip_bad: bool = False, max_bad: float = 0.01
) -> Dataset:
    """Return the data set if all its pictures can be used, or on request without the bad ones.

    Args:
        dataset: What was checked, or a part of it.
        report: What the check found.
        skip_bad: Whether to leave bad pictures out; they are listed in the notes of the result.
        max_bad: The largest share of bad pictures, 0 to 1, that may be left out.

    Raises:
        BadImagesError: There are bad pictures and they are not to be skipped, are more than
            ``max_bad`` allows, or are all that a class has.

    Example:
        >>> data = Dataset(("no-such.jpg",), ("x",), ("x",))
        >>> usable(data, check(data))
        Traceback (most recent call last):
        regraft.errors.BadImagesError: 1 picture cannot be used - no-such.jpg - ...
    """
    errors = {error.path: error for error in report.bad}
    bad = [place for place, path in enumerate(dataset.paths) if os.fspath(path) in errors]
    if not bad:
        return dataset
    found = [errors[os.fspath(dataset.paths[place])] for place in bad]
    if not skip_bad:
        hint = (
            "`regraft data check` lists them all; repair or remove them, or go on without them"
            " with skip_bad=True (--skip-bad)"
        )
        raise BadImagesError(found, hint=hint)
    if len(bad) > max_bad * len(dataset):
        hint = (
            f"{len(bad)} of {len(dataset)} are more than max_bad={max_bad} allows;"
            " repair them, or raise it (--max-bad)"
        )
        raise BadImagesError(found, hint=hint)
    left_out = set(bad)
    kept = dataset.take(place for place in range(len(dataset)) if place not in left_out)
    lost = set(dataset.labels) - set(kept.labels)
    if lost:
        hint = f"no picture would be left of: {list_names(sorted(lost))}"
        raise BadImagesError(found, hint=hint)
    names = dataset.relative_paths()
    listed = list_names((names[place] for place in bad), most=len(bad))
    note = f"{len(bad)} of {len(dataset)} pictures cannot be used and were left out: {listed}"
    return dataclasses.replace(kept, notes=(*dataset.notes, note))


def _report(evidence: Evidence) -> CheckReport:
    pictures, inspection = evidence.pictures, evidence.inspection
    return CheckReport(
        findings=findings_of(evidence),
        images=len(pictures.paths),
        bad_files=tuple(
            BadFile(pictures.names[place], pictures.labels[place], pictures.part(place), error)
            for place, error in inspection.bad.items()
        ),
        counts=pictures.counts(inspection.usable()),
        duplicates=_named(evidence.duplicates, pictures),
        near_duplicates=_named(evidence.near_duplicates, pictures),
        notes=dict(sorted(inspection.notes.items())),
        _evidence=evidence,
    )


def _named(groups: list[list[int]], pictures: Pictures) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pictures.names[place] for place in group) for group in groups)


def _row(file: BadFile) -> tuple[str, ...]:
    error = file.error
    return file.name, file.label, file.part or "", error.code, _reason(error), error.hint


def _reason(error: ImageError) -> str:
    return ": ".join(part for part in (error.what, error.why) if part)
