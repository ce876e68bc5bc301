"""Tables as values: one content, for a terminal, Markdown, LaTeX, a spreadsheet or a machine."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.data.tables import safe_cell
from regraft.errors import printable
from regraft.report.latex import tabular
from regraft.results.comparison import Repeated
from regraft.results.intervals import Estimate, percent, points
from regraft.results.metrics import Confused, Scores
from regraft.results.run import PART_TITLES
from regraft.settings import to_json

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Duration:
    """A time in seconds, printed as people say it.

    Example:
        >>> str(Duration(81)), str(Duration(0.42)), str(Duration(19920))
        ('1 min 21 s', '0.4 s', '5 h 32 min')
    """

    seconds: float

    def __str__(self) -> str:
        if self.seconds < 59.95:
            return f"{self.seconds:.1f} s"
        minutes, seconds = divmod(round(self.seconds), 60)
        if minutes < 60:
            return f"{minutes} min {seconds} s"
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min"


@dataclass(frozen=True)
class Share:
    """A share of which neither n nor interval is known, such as one that others printed.

    Args:
        value: 0 to 1; shown with the digits it has, one after the point at least and two at most.

    Example:
        >>> str(Share(0.8882)), str(Share(0.94))
        ('88.82 %', '94.0 %')
    """

    value: float

    def __str__(self) -> str:
        return percent(self.value, digits=1 if round(self.value, 3) == self.value else 2)


NUMBERS = (int, float, Duration, Share)
Cell = str | int | float | Estimate | Repeated | Duration | Share | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    Args:
        columns: The names of the columns.
        rows: One tuple per row, a cell per column.
        notes: Sentences that belong below the table.
        best: The row to mark, if one can be told from all the others.

    Example:
        >>> print(Table(("class", "pictures"), (("rose", 12), ("lily", 7))).to_text())
        class  pictures
        rose         12
        lily          7
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    best: int | None = None

    def shown(self) -> list[list[str]]:
        """Return every cell as text, the best row's first cell with a star."""
        rows = [[show(cell) for cell in row] for row in self.rows]
        if self.best is not None:
            rows[self.best][0] += " *"
        return rows

    def numeric(self, column: int) -> bool:
        """Return whether a column holds numbers, which stand to the right."""
        kinds = [row[column] for row in self.rows if row[column] is not None]
        return bool(kinds) and all(
            isinstance(cell, int | float | Duration | Share) for cell in kinds
        )

    def compact(self) -> list[list[str]]:
        """Return head and cells as text; an n that a whole column shares stands in its head."""
        head, rows = list(self.columns), self.shown()
        for index, column in enumerate(zip(*self.rows, strict=True)):
            sizes = {found.n for cell in column if (found := _estimate(cell)) is not None}
            if len(sizes) == 1 and len(self.rows) > 1:
                tail = f", n = {sizes.pop():,}"
                head[index] += f" ({tail[2:]})"
                for row in rows:
                    row[index] = row[index].removesuffix(tail)
        return [head, *rows]

    def to_text(self) -> str:
        """Return the table aligned for a terminal."""
        rows = [[printable(cell) for cell in row] for row in self.compact()]
        widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
        right = [self.numeric(index) for index in range(len(self.columns))]
        lines = []
        for row in rows:
            cells = [
                " " * (width - width_of(cell)) + cell
                if flush
                else cell + " " * (width - width_of(cell))
                for cell, width, flush in zip(row, widths, right, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *_below(self.notes)])

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        head, *body = [[_escaped(cell) for cell in row] for row in self.compact()]
        rules = ["---:" if self.numeric(index) else "---" for index in range(len(head))]
        lines = ["| " + " | ".join(row) + " |" for row in (head, rules, *body)]
        return "\n".join([*lines, *_below(tuple(map(_escaped, self.notes)))])

    def to_latex(self) -> str:
        """Return the table for a paper, with the rules of booktabs."""
        right = [self.numeric(index) for index in range(len(self.columns))]
        return tabular(*self.compact(), right=right, notes=self.notes)

    def to_csv(self) -> str:
        """Return the table as CSV for a spreadsheet; an estimate fills four columns.

        With repeats there is a fifth, the standard deviation.
        """
        wide = [_endings([row[at] for row in self.rows]) for at in range(len(self.columns))]
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)  # \r\n ends a line, so that both are quoted within cells
        head: list[str] = []
        for name, endings in zip(self.columns, wide, strict=True):
            head += [name + ending for ending in endings]
        writer.writerow([safe_cell(name) for name in head])
        for row in self.rows:
            cells: list[Any] = []
            for cell, endings in zip(row, wide, strict=True):
                cells += _wide(cell)[: len(endings)] if len(endings) > 1 else [_plain(cell)]
            writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])
        return stream.getvalue().replace("\r\n", "\n").rstrip("\n")

    def to_json(self) -> str:
        """Return the table as JSON: ``rows`` as objects and ``notes``; estimates as objects."""
        rows: list[dict[str, Any]] = [
            {name: _plain(cell) for name, cell in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]
        if self.best is not None:
            for index, row in enumerate(rows):
                row["best"] = index == self.best
        return json.dumps({"rows": rows, "notes": list(self.notes)}, indent=2)


def parts_table(metrics: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Return the accuracy of each part.

    Args:
        metrics: For ``train``, ``validation`` and ``test`` at least accuracy, n and interval; parts
            that are missing or ``None`` are left out. Where the test part has ``without_leaks``, a
            row shows it.

    Example:
        >>> share = {"accuracy": 0.94, "n": 500, "interval": [0.916, 0.958]}
        >>> print(parts_table({"test": share}).to_text())
        part  accuracy                      errors
        test  94.0 % [91.6, 95.8], n = 500      30
    """
    rows = []
    shown = {title: metrics.get(title) for title in PART_TITLES.values()}
    shown["test without leaks"] = (shown["test"] or {}).get("without_leaks")
    for title, found in shown.items():
        share = accuracy_of(found)
        if share.known:
            rows.append((title, share, share.n - round(share.value * share.n)))
    return Table(("part", "accuracy", "errors"), tuple(rows))


def class_table(scores: Sequence[Scores]) -> Table:
    """Return precision, recall, F1 and support of every class."""
    columns = ("class", "precision", "recall", "F1", "pictures")
    return Table(columns, tuple((s.name, s.precision, s.recall, s.f1, s.support) for s in scores))


def confused_table(pairs: Sequence[Confused]) -> Table:
    """Return the most confused pairs with their share of the true class."""
    columns = ("true", "named", "pictures", "share of the true class")
    return Table(columns, tuple((p.true, p.predicted, p.count, p.share) for p in pairs))


def accuracy_of(metrics: Mapping[str, Any] | None) -> Estimate:
    """Return the accuracy that a part's metrics hold, unknown where there are none.

    Example:
        >>> accuracy_of({"accuracy": 0.5, "n": 4, "interval": [0.15, 0.85]}).low
        0.15
    """
    if not metrics or not metrics.get("n"):
        return Estimate.unknown()
    low, high = metrics["interval"]
    return Estimate(float(metrics["accuracy"]), float(low), float(high), int(metrics["n"]))


def show(cell: Cell) -> str:
    """Return a cell as a person reads it.

    Example:
        >>> show(1200), show(0.12345), show(None)
        ('1,200', '0.1235', '–')
    """
    if cell is None:
        return NOTHING
    if isinstance(cell, Estimate):
        return percent(cell)
    if isinstance(cell, Repeated):
        return _repeated(cell)
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _repeated(cell: Repeated) -> str:
    """Return ``91.2 % ± 0.8 [90.1, 92.2], n = 850``: mean, standard deviation, interval."""
    whole = percent(cell.estimate)
    if cell.sd is None:
        return whole
    value = percent(cell.estimate, parts="")
    spread = points(cell.sd, signed=False).removesuffix(" points")
    return f"{value} ± {spread}{whole.removeprefix(value)}"


def _estimate(cell: Cell) -> Estimate | None:
    if isinstance(cell, Repeated):
        return cell.estimate
    return cell if isinstance(cell, Estimate) else None


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        return to_json(cell)
    if isinstance(cell, Repeated):
        return to_json(cell.estimate) | {"sd": cell.sd, "repeats": cell.repeats}
    if isinstance(cell, Share):
        return cell.value
    return cell.seconds if isinstance(cell, Duration) else cell


def _endings(column: Sequence[Cell]) -> tuple[str, ...]:
    """Return what the names of the columns end in that a spreadsheet needs for one of ours."""
    if not any(_estimate(cell) is not None for cell in column):
        return ("",)
    spread = any(isinstance(cell, Repeated) and cell.sd is not None for cell in column)
    return ("", " low", " high", " n", " sd")[: 5 if spread else 4]


def _wide(cell: Cell) -> list[Any]:
    found = _estimate(cell)
    if found is None:
        return [None] * 5
    spread = cell.sd if isinstance(cell, Repeated) else None
    if not found.known:
        return [None, None, None, 0, None]
    return [found.value, found.low, found.high, found.n, spread]


def width_of(text: str) -> int:
    """Return how many places a terminal gives to ``text``: two for wide letters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "\\|<>*_`[]" else c for c in printable(text))


def _below(notes: tuple[str, ...]) -> list[str]:
    return ["", *notes] if notes else []
