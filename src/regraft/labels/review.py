"""A review of labels: a table to decide in, and the table of images that comes of it."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.data.dataset import Dataset
from regraft.data.sources import class_name
from regraft.data.tables import plain_cell, read_table, write_table
from regraft.errors import DataError, list_names
from regraft.features.hdf5 import refuse_existing
from regraft.files import write_text
from regraft.labels.suspects import Suspects

_COLUMNS = ("path", "given", "suggested", "label")


@dataclass(frozen=True)
class Reviewed:
    """What a review has changed.

    Attributes:
        file: The table that was written.
        images: How many images stand there.
        changes: How many labels were changed from one class (first) to another (second).
    """

    file: Path
    images: int
    changes: Mapping[tuple[str, str], int]

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        changes = [{"from": a, "to": b, "count": n} for (a, b), n in self.changes.items()]
        return {"manifest": str(self.file), "images": self.images, "changes": changes}


def write_review(found: Suspects, file: str | os.PathLike[str]) -> None:
    """Write suspects, and copies with different labels, as a table to decide in.

    Its last column, ``label``, is empty: whoever looks at the images writes the right class there.

    Raises:
        DataError: The file exists (``DATA-EXISTS``): somebody's decisions may stand there.
    """
    refuse_existing(file)
    rows = {s.path: (s.path, s.given, s.suggested, "") for s in found.suspects}
    for conflict in found.conflicts:
        for image in conflict.images:
            rows.setdefault(image.path, (image.path, image.label, "", ""))
    write_table(Path(file), _COLUMNS, rows.values())


def apply_review(
    images: Dataset, review: str | os.PathLike[str], out: str | os.PathLike[str]
) -> Reviewed:
    """Write all images as a table, with the labels that a review has decided.

    Nothing else is written: the images and the table that they came from stay as they are. Where
    ``label`` is empty the given one stays.

    Args:
        images: The images, as they were when the suspects were found.
        review: The table of :func:`write_review`, filled in.
        out: The table to write: path (relative to the root of the images), label, and group and
            part where there are any. ``Dataset.from_csv`` reads it.

    Raises:
        DataError: Rows name no image of the data set, another label than it has, or no class
            (``REVIEW-ROWS``); or a file stands where the table shall be written (``DATA-EXISTS``).

    Example:
        >>> import tempfile
        >>> images = Dataset(("a.jpg", "b.jpg"), ("rose", "lily"), ("lily", "rose"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     review, table = Path(folder, "relabel.csv"), Path(folder, "images.csv")
        ...     write_table(review, _COLUMNS, [("a.jpg", "rose", "lily", "lily")])
        ...     apply_review(images, review, table).changes, table.read_text().split()
        ({('rose', 'lily'): 1}, ['path,label', 'a.jpg,lily', 'b.jpg,lily'])
    """
    refuse_existing(out)
    paths = images.relative_paths()
    decided = _decisions(images, dict(zip(paths, images.labels, strict=True)), Path(review))
    labels = [decided.get(path, label) for path, label in zip(paths, images.labels, strict=True)]
    columns = {"path": paths, "label": labels, "group": images.groups, "part": images.parts}
    kept = {name: column for name, column in columns.items() if column is not None}
    # Labels are read as they stand there: nothing may be put before them for spreadsheets.
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(kept)
    writer.writerows(zip(*kept.values(), strict=True))
    write_text(out, text.getvalue())
    pairs = zip(images.labels, labels, strict=True)
    changes = Counter((before, after) for before, after in pairs if before != after)
    return Reviewed(Path(out), len(images), dict(changes.most_common()))


def _decisions(images: Dataset, labels: Mapping[str, str], review: Path) -> dict[str, str]:
    """Return the labels that were decided, by path."""
    decided: dict[str, str] = {}
    seen: dict[str, int] = {}
    wrong = []
    for line, cells in read_table(review, _COLUMNS):
        path, given, _, label = map(plain_cell, cells)
        label = class_name(label.strip())
        if path not in labels:
            wrong.append(f"line {line}: {path!r} is no image of the data set")
        elif seen.setdefault(path, line) != line:
            wrong.append(f"line {line}: {path!r} stands in line {seen[path]}, too")
        elif class_name(given) != labels[path]:
            wrong.append(f"line {line}: {path!r} has the label {labels[path]!r}, not {given!r}")
        elif label and label not in images.classes:
            wrong.append(f"line {line}: {label!r} is no class")
        elif label:
            decided[path] = label
    if wrong:
        hint = f"correct them; the classes are {list_names(images.classes, most=30)}"
        what = f"{len(wrong)} rows of the review cannot be used"
        why = list_names(wrong, most=5)
        raise DataError(what, path=review, why=why, hint=hint, code="REVIEW-ROWS")
    return decided
