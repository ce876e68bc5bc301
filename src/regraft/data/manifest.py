"""A split on disk: ``split.csv`` says what stands where, ``split.json`` how that came about."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from regraft.data.labels import list_names
from regraft.data.scan import is_below
from regraft.data.tables import plain_cell, read_table, safe_cell
from regraft.errors import DataError, RegraftError
from regraft.files import locked, make_folder, read_json, sha256_json, write_json, write_text

FORMAT = 1
_LOCK_SECONDS = 60
COLUMNS = ("path", "sha256", "class", "part")


class Row(NamedTuple):
    """One picture of a split; ``path`` is relative, with ``/`` between folders."""

    path: str
    sha256: str
    label: str
    part: str


@dataclass(frozen=True)
class Manifest:
    """A split as it stands on disk, its hash verified."""

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    seed: int
    settings: dict[str, Any]
    test_looks: int


def manifest_hash(rows: Iterable[Row], classes: Sequence[str]) -> str:
    """Return the SHA-256 over the sorted rows and the order of the classes.

    Example:
        >>> manifest_hash([Row("a.jpg", "00", "rose", "train")], ["rose"])[:8]
        '4b0c1fad'
    """
    return sha256_json({"classes": list(classes), "rows": sorted(rows)})


def write(folder: Path, rows: Sequence[Row], classes: Sequence[str], facts: dict[str, Any]) -> None:
    """Write both files of a split, each atomically, the JSON with the hash last.

    Args:
        folder: Where to; made if missing.
        rows: The pictures.
        classes: The classes in their order.
        facts: What else ``split.json`` shall hold.
    """
    make_folder(folder)
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its line end, CR LF, is what makes it quote both of them in names
    writer.writerow(COLUMNS)
    writer.writerows([safe_cell(cell) for cell in row] for row in sorted(rows))
    digest = manifest_hash(rows, classes)
    with _lock(folder):
        looks = _looks_so_far(folder, digest)
        write_text(folder / "split.csv", text.getvalue())
        head = {"format": FORMAT, "hash": digest, "classes": list(classes)}
        write_json(folder / "split.json", head | facts | {"test_looks": looks})


def read(source: Path) -> Manifest:
    """Read a split and verify its hash.

    Args:
        source: The folder, or the CSV file in it.

    Raises:
        DataError: Codes ``SPLIT-MISSING``, ``SPLIT-INVALID`` and ``SPLIT-HASH``.
    """
    folder = source.parent if source.suffix == ".csv" else source
    facts = _read_facts(folder)
    table = source if source.suffix == ".csv" else folder / "split.csv"
    if not table.is_file():
        raise DataError("split not found", path=table, code="SPLIT-MISSING")
    try:
        rows = tuple(Row(*map(plain_cell, cells)) for _, cells in read_table(table, COLUMNS))
    except DataError as error:
        raise DataError(
            "the table of the split is damaged", path=table, why=error.why, code="SPLIT-INVALID"
        ) from error
    digest = manifest_hash(rows, facts["classes"])
    if digest != facts["hash"]:
        raise DataError(
            "the split is not the one that was written",
            path=table,
            why=f"hash {digest[:12]}…, written {str(facts['hash'])[:12]}…",
            hint="restore both files, or cut a new split",
            code="SPLIT-HASH",
        )
    strange = {row.part for row in rows} - {"train", "val", "test"}
    if strange:
        why = list_names(sorted(strange))
        raise DataError("unknown parts in the split", path=table, why=why, code="SPLIT-INVALID")
    classes = tuple(map(str, facts["classes"]))
    return Manifest(rows, classes, facts["seed"], facts["settings"], facts["test_looks"])


def is_manifest(table: Path) -> bool:
    """Tell whether a table is the ``split.csv`` of a written split, by its header."""
    header = ",".join(COLUMNS)
    with table.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline(len(header) + 1).rstrip("\n") == header


def refuse_missing_files(stored: Manifest, root: Path) -> None:
    """Raise an error unless every picture of the split lies in ``root``.

    Raises:
        DataError: Codes ``SPLIT-INVALID`` (a path leads out) and ``SPLIT-FILE-MISSING``.
    """
    outside = [row.path for row in stored.rows if not _stays_inside(row.path)]
    if outside:
        why = list_names(outside)
        raise DataError("paths of the split lead out of its folder", why=why, code="SPLIT-INVALID")
    missing = [row.path for row in stored.rows if not (root / row.path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(stored.rows)} files of the split are missing",
            path=root,
            why=list_names(missing, most=5),
            hint="give the folder of the pictures as root",
            code="SPLIT-FILE-MISSING",
        )


def refuse_changed_files(stored: Manifest, hashes: dict[str, str], root: Path) -> None:
    """Raise an error unless every picture has the content it had.

    Args:
        stored: The split.
        hashes: The SHA-256 that each path has now.
        root: The folder of the pictures.

    Raises:
        DataError: Code ``SPLIT-FILE-CHANGED``.
    """
    changed = [row.path for row in stored.rows if hashes[row.path] != row.sha256]
    if changed:
        raise DataError(
            f"{len(changed)} of the {len(stored.rows)} files of the split have changed",
            path=root,
            why=list_names(changed, most=5),
            hint="restore them, or cut a new split",
            code="SPLIT-FILE-CHANGED",
        )


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
        facts["test_looks"] += 1
        write_json(folder / "split.json", facts)
    return int(facts["test_looks"])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    busy = DataError("another process uses the split", path=folder, hint="wait for it")
    with locked(folder / ".split.lock", busy=busy, seconds=_LOCK_SECONDS):
        yield


def _looks_so_far(folder: Path, digest: str) -> int:
    try:
        facts = _read_facts(folder)
    except DataError:  # none yet, or a damaged one that is about to be replaced
        return 0
    return int(facts["test_looks"]) if facts["hash"] == digest else 0


def _read_facts(folder: Path) -> dict[str, Any]:
    file = folder / "split.json"
    if not file.is_file():
        hint = "give the folder that holds split.csv and split.json"
        raise DataError("split not found", path=file, hint=hint, code="SPLIT-MISSING")
    try:
        facts = read_json(file)
    except RegraftError as error:
        raise DataError(
            "the split is damaged", path=file, why=error.why, code="SPLIT-INVALID"
        ) from error
    kinds = {"hash": str, "classes": list, "seed": int, "settings": dict, "test_looks": int}
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        why = f"not of format {FORMAT}"
        raise DataError("the split cannot be read", path=file, why=why, code="SPLIT-INVALID")
    wrong = [key for key, kind in kinds.items() if not isinstance(facts.get(key), kind)]
    if wrong:
        why = f"missing or malformed: {list_names(wrong)}"
        raise DataError("the split is damaged", path=file, why=why, code="SPLIT-INVALID")
    return facts


def _stays_inside(path: str) -> bool:
    return is_below("/root", f"/root/{path}") and not path.startswith("/")
