"""What a classifier predicted for each image, and the table that keeps it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.dataset import Dataset
from regraft.data.sources import PARTS
from regraft.data.tables import plain_cell, safe_cell
from regraft.errors import DataError, list_names
from regraft.files import write_text
from regraft.notebook import ShownInNotebook
from regraft.results.intervals import Indices

_COLUMNS = ("path", "part", "truth", "predicted", "confidence")
_CLASS = "p:"


@dataclass(frozen=True, eq=False)
class Predictions(ShownInNotebook):
    """The probabilities of every class for every image, with the truth.

    Args:
        paths: One path per image, relative to the data set's folder.
        truth: The true class of each image, by name.
        classes: All classes the classifier knows, in the order of the columns.
        probabilities: Shape (n, k), 0 to 1, kept as float32.
        parts: Which part each image belongs to: ``train``, ``val`` or ``test``.

    Raises:
        DataError: The lengths differ, a probability is not a number from 0 to 1, or a true class is
            unknown.

    Example:
        >>> p = Predictions(("a.jpg",), ("cat",), ("cat", "dog"), np.array([[0.2, 0.8]]), ("test",))
        >>> p.predicted, p.correct.tolist()
        (('dog',), [False])
    """

    paths: tuple[str, ...]
    truth: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        probabilities = np.array(self.probabilities, dtype=np.float32)
        probabilities.setflags(write=False)
        object.__setattr__(self, "probabilities", probabilities)
        n, k = len(self.paths), len(self.classes)
        if probabilities.shape != (n, k) or not n == len(self.truth) == len(self.parts):
            columns = f"{n} paths, {len(self.truth)} labels, {len(self.parts)} parts, {k} classes"
            why = f"{columns} and probabilities of shape {probabilities.shape}"
            raise DataError("predictions do not fit together", why=why)
        low, high = (probabilities.min(), probabilities.max()) if probabilities.size else (0, 1)
        if not (low >= 0 and high <= 1 + 1e-6):  # NaN is neither
            raise DataError("probabilities must be numbers from 0 to 1")
        if len(set(self.classes)) != len(self.classes):
            raise DataError("a class occurs twice", why=list_names(self.classes))
        refuse_unknown(self.truth, self.classes)
        if unknown := sorted(set(self.parts) - set(PARTS)):
            why = f"{list_names(unknown)}; known: {list_names(PARTS)}"
            raise DataError("unknown part", why=why)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def truth_index(self) -> npt.NDArray[np.int64]:
        """Column of the true class of each image, shape (n,)."""
        column = {name: index for index, name in enumerate(self.classes)}
        return np.array([column[name] for name in self.truth], dtype=np.int64)

    @cached_property
    def predicted_index(self) -> npt.NDArray[np.int64]:
        """Column of the most probable class of each image, shape (n,); the first one on a tie."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def predicted(self) -> tuple[str, ...]:
        """The most probable class of each image, by name."""
        return tuple(self.classes[index] for index in self.predicted_index)

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the predicted class of each image, shape (n,)."""
        return self.probabilities[np.arange(len(self)), self.predicted_index]

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each image was predicted correctly, shape (n,)."""
        return np.asarray(self.truth_index == self.predicted_index)

    def part(self, name: str) -> Predictions:
        """Return the predictions of one part: ``train``, ``val`` or ``validation``, ``test``."""
        wanted = part_name(name)
        return self.take([i for i, part in enumerate(self.parts) if part == wanted])

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Predictions:
        """Return the predictions of some images, in the order of ``indices``."""
        chosen = [int(index) for index in indices]
        paths, truth, parts = (
            tuple(column[i] for i in chosen) for column in (self.paths, self.truth, self.parts)
        )
        rows = self.probabilities[np.array(chosen, dtype=np.int64)]
        return Predictions(paths, truth, self.classes, rows, parts)

    def without(self, paths: Collection[str]) -> Predictions:
        """Return the predictions of all but some images, such as copies of training images.

        Where the classes have other shares in what is left, its accuracy cannot be compared with
        that of all images; the macro recall can, for there the classes count the same.
        """
        out = set(paths)
        return self.take([place for place, path in enumerate(self.paths) if path not in out])

    def joined(self, *others: Predictions) -> Predictions:
        """Return these predictions followed by ``others``, which must know the same classes."""
        tables = (self, *others)
        for other in others:
            if other.classes != self.classes:
                why = f"{list_names(self.classes)} and {list_names(other.classes)}"
                raise DataError("predictions of different classes cannot be joined", why=why)
        paths, truth, parts = (
            tuple(item for table in tables for item in getattr(table, name))
            for name in ("paths", "truth", "parts")
        )
        rows = np.concatenate([table.probabilities for table in tables])
        return Predictions(paths, truth, self.classes, rows, parts)

    def classification_report(self, *, digits: int = 2) -> str:
        """Return the scores of every class as text, by scikit-learn; of no sample they are nan.

        Args:
            digits: Digits after the point.
        """
        from sklearn import metrics

        given: Any = {"labels": self.classes, "digits": digits, "zero_division": np.nan}
        return str(metrics.classification_report(self.truth, self.predicted, **given))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV table: path, part, truth, predicted, confidence, ``p:<class>`` per class.

        Opened in a spreadsheet no cell runs as a formula: one that would is led by an apostrophe,
        which :meth:`read` takes away. Probabilities carry all digits of a float32.
        """
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)  # \r\n ends a line, so that both are quoted within cells
        writer.writerow([*_COLUMNS, *(safe_cell(_CLASS + name) for name in self.classes)])
        numbers = self.probabilities.astype(str)
        confidence = self.confidence.astype(str)
        for index in range(len(self)):
            names = (self.paths[index], self.parts[index], self.truth[index], self.predicted[index])
            writer.writerow([*map(safe_cell, names), confidence[index], *numbers[index]])
        write_text(path, stream.getvalue())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read a table that :meth:`write` wrote.

        Raises:
            DataError: The file is missing or is not such a table; the message names the line.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
        except OSError as error:
            why = error.strerror or ""
            raise DataError("cannot read the predictions", path=path, why=why) from error
        rows = csv.reader(io.StringIO(text, newline=""))
        try:
            classes, table = _parsed(rows)
        except (csv.Error, ValueError) as error:
            why, code = f"line {rows.line_num}: {error}", "DATA-PREDICTIONS"
            raise DataError("not a table of predictions", path=path, why=why, code=code) from error
        paths, parts, truth, shares = zip(*table, strict=True) if table else ((), (), (), ())
        probabilities = np.array(shares, dtype=np.float32).reshape(len(table), len(classes))
        return cls(paths, truth, classes, probabilities, parts)


def evaluate(learner: Any, data: Dataset, part: str = "test", *, views: int = 1) -> Predictions:
    """Let a fitted classifier predict every image of a data set.

    Args:
        learner: Anything with ``predict_proba(paths)`` and ``classes_``.
        data: The images with their true classes; classes that the learner knows and the data lack
            are fine.
        part: What the images are to the learner: ``train``, ``val`` or ``test``.
        views: How many views of each image it takes the mean of.

    Raises:
        DataError: There is no image, or a class that the learner does not know
            (``DATA-CLASSES``).

    Example:
        >>> from types import SimpleNamespace
        >>> learner = SimpleNamespace(classes_=["a", "b"], predict_proba=lambda X: [[0.9, 0.1]])
        >>> data = Dataset(paths=(Path("one.jpg"),), labels=("a",), classes=("a",))
        >>> evaluate(learner, data).correct.tolist()
        [True]
    """
    if len(data) == 0:
        raise DataError("there is no image to evaluate", path=data.root)
    classes = tuple(str(name) for name in learner.classes_)
    refuse_unknown(data.labels, classes)
    more = {} if views == 1 else {"views": views}
    probabilities = np.asarray(learner.predict_proba(data.paths, **more))
    where = (part_name(part),) * len(data)
    return Predictions(data.relative_paths(), data.labels, classes, probabilities, where)


def tally(truth: Indices, predicted: Indices, k: int) -> tuple[Indices, Indices, Indices]:
    """Return per class how many are predicted correctly, how many there are, how many predicted."""
    hits = np.bincount(truth[truth == predicted], minlength=k)
    return hits, np.bincount(truth, minlength=k), np.bincount(predicted, minlength=k)


def average_scores(hits: Indices, support: Indices, predicted: Indices) -> npt.NDArray[np.float64]:
    """Return macro precision, recall and F1 of a :func:`tally`, then the weighted ones."""
    scores = np.stack(
        [
            hits / np.maximum(predicted, 1),
            hits / np.maximum(support, 1),
            2 * hits / np.maximum(support + predicted, 1),
        ]
    )
    macro = scores @ (support > 0) / max(1, int((support > 0).sum()))
    weighted = scores @ support / max(1, int(support.sum()))
    return np.concatenate([macro, weighted])


def part_name(name: str) -> str:
    """Return the short name of a part: ``validation`` is ``val``.

    Raises:
        DataError: There is no such part.

    Example:
        >>> part_name("validation")
        'val'
    """
    short = "val" if name == "validation" else name
    if short not in PARTS:
        raise DataError(f"unknown part {name!r}", why=f"known: {list_names(PARTS)}")
    return short


def refuse_unknown(labels: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse labels that the classifier does not know, naming both lists.

    Raises:
        DataError: Code ``DATA-CLASSES``.
    """
    if unknown := sorted(set(labels) - set(classes)):
        what = f"{len(unknown)} of the labels are unknown to the model: {list_names(unknown)}"
        why = f"it knows {list_names(classes)}"
        hint = "rename the labels, leave these images out or fit a model with them"
        raise DataError(what, why=why, hint=hint, code="DATA-CLASSES")


def _parsed(rows: Iterator[list[str]]) -> tuple[tuple[str, ...], list[Any]]:
    """Return the classes of a table, and path, part, truth and probabilities of each row."""
    header = [plain_cell(cell) for cell in next(rows, [])]
    fixed, names = tuple(header[: len(_COLUMNS)]), header[len(_COLUMNS) :]
    if fixed != _COLUMNS or not all(name.startswith(_CLASS) for name in names):
        raise ValueError(f"it must read {','.join(_COLUMNS)},p:<class>,…")
    table = []
    for cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells instead of {len(header)}")
        shares = [float(cell) for cell in cells[len(_COLUMNS) :]]
        table.append((*map(plain_cell, cells[:3]), shares))
    return tuple(name.removeprefix(_CLASS) for name in names), table
