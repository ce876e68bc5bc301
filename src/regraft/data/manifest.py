"""A split on disk: ``split.csv`` says what stands where, ``split.json`` how that came about."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from regraft.data.sources import PARTS, is_below
from regraft.data.tables import plain_cell, read_table, write_table
from regraft.errors import DataError, RegraftError, list_names
from regraft.files import locked, make_folder, read_json, sha256_json, write_json
from regraft.settings import from_json, settings_class, to_json

_LOCK_SECONDS = 60
_FACTS = "split.json"
_COLUMNS = ("path", "sha256", "class", "part")


class Row(NamedTuple):
    """One image of a split; ``path`` is relative, with ``/`` between folders."""

    path: str
    sha256: str
    label: str
    part: str


@settings_class(DataError, code="SPLIT-INVALID", kw_only=True)
class Facts:
    """What ``split.json`` holds.

    Args:
        format: The version of the format.
        hash: The SHA-256 of what stands where, see :func:`manifest_hash`.
        classes: The classes in their order.
        seed: The seed of the cut.
        settings: How it was cut.
        counts: How many images each part has of each class.
        test_looks: How often the test part was looked at.
    """

    format: Literal[1] = 1
    hash: str
    classes: tuple[str, ...]
    seed: int
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    test_looks: Annotated[int, Field(ge=0)] = 0


def manifest_hash(rows: Iterable[Row], classes: Sequence[str]) -> str:
    """Return the SHA-256 over the sorted rows and the order of the classes.

    Example:
        >>> manifest_hash([Row("a.jpg", "00", "rose", "train")], ["rose"])[:8]
        '4b0c1fad'
    """
    return sha256_json({"classes": list(classes), "rows": sorted(rows)})


def write_manifest(folder: Path, rows: Sequence[Row], facts: Facts) -> None:
    """Write both files of a split, each atomically, the JSON with the hash last.

    The number of looks at the test part is kept when the same split is written again.
    """
    make_folder(folder)
    with _lock(folder):
        try:
            before = _read_facts(folder)
        except RegraftError:  # none yet, or a damaged one that is about to be replaced
            before = facts
        looks = before.test_looks if before.hash == facts.hash else 0
        write_table(folder / "split.csv", _COLUMNS, sorted(rows))
        facts = dataclasses.replace(facts, test_looks=looks)
        write_json(folder / _FACTS, to_json(facts))


def read_manifest(source: Path) -> tuple[tuple[Row, ...], Facts]:
    """Read a split, without looking for its images, and verify its hash.

    Args:
        source: The folder, or the CSV file in it.

    Raises:
        RegraftError: Codes ``SPLIT-MISSING``, ``SPLIT-INVALID``, ``SPLIT-HASH`` and ``FILE-JSON``.
    """
    folder = source.parent if source.suffix == ".csv" else source
    facts = _read_facts(folder)
    table = source if source.suffix == ".csv" else folder / "split.csv"
    if not table.is_file():
        raise DataError("split not found", path=table, code="SPLIT-MISSING")
    try:
        rows = tuple(Row(*map(plain_cell, cells)) for _, cells in read_table(table, _COLUMNS))
    except DataError as error:
        what = "the table of the split is damaged"
        raise DataError(what, path=table, why=error.why, code="SPLIT-INVALID") from error
    digest = manifest_hash(rows, facts.classes)
    if digest != facts.hash:
        what, hint = "the split is not the one that was written", "restore both files, or cut anew"
        why = f"hash {digest[:12]}…, written {facts.hash[:12]}…"
        raise DataError(what, path=table, why=why, hint=hint, code="SPLIT-HASH")
    if strange := {row.part for row in rows} - set(PARTS):
        why = list_names(sorted(strange))
        raise DataError("unknown parts in the split", path=table, why=why, code="SPLIT-INVALID")
    return rows, facts


def is_manifest(table: Path) -> bool:
    """Tell whether a table is the ``split.csv`` of a written split, by its header."""
    header = ",".join(_COLUMNS)
    with table.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline(len(header) + 1).rstrip("\n") == header


def refuse_missing_files(rows: Iterable[Row], root: Path) -> None:
    """Refuse paths that lead out of ``root`` (``SPLIT-INVALID``) or to no file there."""
    paths = [row.path for row in rows]
    outside = [p for p in paths if p.startswith("/") or not is_below("/root", f"/root/{p}")]
    if outside:
        why = list_names(outside)
        raise DataError("paths of the split lead out of its folder", why=why, code="SPLIT-INVALID")
    if missing := [path for path in paths if not (root / path).is_file()]:
        what = f"{len(missing)} of the {len(paths)} files of the split are missing"
        why, hint = list_names(missing, most=5), "give the folder of the images as root"
        raise DataError(what, path=root, why=why, hint=hint, code="SPLIT-FILE-MISSING")


def refuse_changed_files(rows: Sequence[Row], hashes: Sequence[str], root: Path) -> None:
    """Refuse images whose SHA-256 is no longer the one that their row has."""
    changed = [row.path for row, now in zip(rows, hashes, strict=True) if now != row.sha256]
    if changed:
        what = f"{len(changed)} of the {len(rows)} files of the split have changed"
        why, hint = list_names(changed, most=5), "restore them, or cut a new split"
        raise DataError(what, path=root, why=why, hint=hint, code="SPLIT-FILE-CHANGED")


def count_test_look(folder: Path) -> int:
    """Raise the counter of looks at the test part by one, safely between processes.

    Returns:
        The new count.

    Raises:
        DataError: There is no split in ``folder`` (``SPLIT-MISSING``).
    """
    _read_facts(folder)  # before the lock, which would leave a file in a folder that has no split
    with _lock(folder):
        facts = _read_facts(folder)
        facts = dataclasses.replace(facts, test_looks=facts.test_looks + 1)
        write_json(folder / _FACTS, to_json(facts))
    return facts.test_looks


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    busy = DataError("another process uses the split", path=folder, hint="wait for it")
    with locked(folder / ".split.lock", busy=busy, seconds=_LOCK_SECONDS):
        yield


def _read_facts(folder: Path) -> Facts:
    file = folder / _FACTS
    if not file.is_file():
        hint = "give the folder that holds split.csv and split.json"
        raise DataError("split not found", path=file, hint=hint, code="SPLIT-MISSING")
    return from_json(Facts, read_json(file), path=file)
