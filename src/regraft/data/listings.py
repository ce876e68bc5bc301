"""Lists of labelled pictures taken from a table or from the names of the files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regraft.data.labels import class_name, group_name, list_names, ordered_classes
from regraft.data.scan import Walk, describe_ignored, drop_repeated_links, is_below
from regraft.data.tables import read_table
from regraft.errors import DataError, UsageError

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Row(NamedTuple):
    """One labelled picture; group and part are empty where the source does not give them."""

    path: str
    label: str
    group: str = ""
    part: str = ""


@dataclass
class Listing:
    """What a source says: its classes in order, its pictures, and what was left out."""

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


def list_table(
    table: Path, root: Path, columns: Columns, *, classes: Sequence[str] | None
) -> Listing:
    """List the pictures of a table; see ``Dataset.from_csv``.

    Raises:
        DataError: A row that cannot be used, with its line number.
    """
    named = [name for name in columns if name is not None]
    lines: list[int] = []
    rows: list[Row] = []
    raw_labels: list[str] = []
    for line, cells in read_table(table, named):
        row = dict(zip(named, cells, strict=True))
        raw_labels.append(_label(table, line, row[columns.label]))
        part = "" if columns.part is None else _part(table, line, row[columns.part])
        group = "" if columns.group is None else group_name(row[columns.group])
        path = _inside(table, line, root, row[columns.path])
        rows.append(Row(path, class_name(raw_labels[-1]), group, part))
        lines.append(line)
    if not rows:
        raise DataError("the table has no row below its header", path=table, code="DATA-CSV-EMPTY")
    _refuse_repeated(table, rows, lines)
    _refuse_missing(table, rows, lines)
    listing = Listing(
        ordered_classes(raw_labels, wanted=classes),
        rows,
        has_groups=columns.group is not None,
        has_parts=columns.part is not None,
    )
    _keep_classes(listing)
    _note_twin_groups(listing)
    return listing


def list_named_files(folder: Path, pattern: str) -> Listing:
    """List the pictures below a folder whose names tell their class; see ``Dataset.from_names``.

    Raises:
        DataError: No picture, or names that the pattern does not match (``DATA-NAMES``).
        UsageError: The pattern is no regular expression or has no group named ``label``.
    """
    expression = compile_pattern(pattern)
    if "label" not in expression.groupindex:
        hint = "write (?P<label>…) around the part of the name that is the class"
        raise UsageError("the pattern has no group named label", why=pattern, hint=hint)
    walk = Walk(folder)
    pairs = []
    strange = []
    for found in walk.pictures(folder):
        match = expression.search(Path(found.path).name)
        if match and match["label"]:
            pairs.append((found, match.groupdict()))
        else:
            strange.append(os.path.relpath(found.path, folder))
    if strange:
        raise DataError(
            f"{len(strange)} file names do not match the pattern",
            path=folder,
            why=f"{list_names(sorted(strange))}; pattern: {pattern}",
            hint="give a pattern that fits every name",
            code="DATA-NAMES",
        )
    if not pairs:
        why = f"found: {describe_ignored(walk.ignored)}"
        raise DataError("no picture", path=folder, why=why, code="DATA-NO-PICTURES")
    pairs = drop_repeated_links(pairs, walk.ignored, label=lambda groups: groups["label"])
    rows = [
        Row(found.path, class_name(groups["label"]), group_name(groups.get("group") or ""))
        for found, groups in sorted(pairs, key=lambda pair: pair[0].path)
    ]
    names = ordered_classes(groups["label"] for _, groups in pairs)
    listing = Listing(names, rows, has_groups="group" in expression.groupindex)
    listing.ignored = walk.ignored
    _note_twin_groups(listing)
    return listing


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled regular expression.

    Raises:
        UsageError: ``pattern`` is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            "not a regular expression", why=f"{pattern}: {error}", code="USAGE-PATTERN"
        ) from error


def _keep_classes(listing: Listing) -> None:
    wanted = set(listing.classes)
    kept = [row for row in listing.rows if row.label in wanted]
    if missing := wanted - {row.label for row in kept}:
        raise DataError(
            "no row of some of the classes asked for",
            why=f"missing: {list_names(sorted(missing))}",
            hint="check the spelling",
            code="DATA-CLASSES",
        )
    if left_out := len(listing.rows) - len(kept):
        listing.ignored["rows of classes that were not asked for"] = left_out
    listing.rows = kept


def _note_twin_groups(listing: Listing) -> None:
    spellings: dict[str, set[str]] = {}
    for row in listing.rows:
        spellings.setdefault(row.group.casefold(), set()).add(row.group)
    twins = [" and ".join(sorted(names)) for names in spellings.values() if len(names) > 1]
    if twins:
        listing.notes.append(f"groups that differ only by case are kept apart: {list_names(twins)}")


def _label(table: Path, line: int, text: str) -> str:
    if not text.strip():
        raise DataError("a row has no label", path=table, why=f"line {line}", code="DATA-CSV-LABEL")
    return text


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
        raise DataError(
            "a path leads out of the folder of the pictures",
            path=table,
            why=f"line {line}: {text!r}, folder: {root}",
            hint="give the folder that holds all of them as root",
            code="DATA-CSV-OUTSIDE",
        )
    return path


def _refuse_repeated(table: Path, rows: list[Row], lines: list[int]) -> None:
    first: dict[str, int] = {}
    for row, line in zip(rows, lines, strict=True):
        other = first.setdefault(row.path, line)
        if other != line:
            raise DataError(
                "a picture stands in the table twice",
                path=table,
                why=f"lines {other} and {line}: {row.path}",
                hint="delete one of the rows",
                code="DATA-CSV-TWICE",
            )


def _refuse_missing(table: Path, rows: list[Row], lines: list[int]) -> None:
    missing = [
        f"line {line}: {row.path}"
        for row, line in zip(rows, lines, strict=True)
        if not os.path.lexists(row.path)
    ]
    if missing:
        raise DataError(
            f"{len(missing)} files of the table do not exist",
            path=table,
            why=list_names(missing, most=5),
            hint="check root and write / between folders",
            code="DATA-CSV-FILE",
        )
