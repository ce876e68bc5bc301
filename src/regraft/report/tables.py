"""Tables as values: one content, printed for a terminal, Markdown, a spreadsheet or a machine."""

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
from regraft.report.verdict import Verdict, judge
from regraft.results.metrics import ClassScores, Confused
from regraft.results.run import PART_TITLES, Run
from regraft.results.statistics import Estimate, percent

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


Cell = str | int | float | Estimate | Duration | None


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
        return bool(kinds) and all(isinstance(cell, int | float | Duration) for cell in kinds)

    def compact(self) -> list[list[str]]:
        """Return head and cells as text; an n that a whole column shares stands in its head."""
        head, rows = list(self.columns), self.shown()
        for index, column in enumerate(zip(*self.rows, strict=True)):
            sizes = {cell.n for cell in column if isinstance(cell, Estimate)}
            if len(sizes) == 1 and len(self.rows) > 1:
                tail = f", n = {sizes.pop():,}"
                head[index] += f" ({tail[2:]})"
                for row in rows:
                    row[index] = row[index].removesuffix(tail)
        return [head, *rows]

    def to_text(self) -> str:
        """Return the table aligned for a terminal."""
        rows = [[printable(cell) for cell in row] for row in self.compact()]
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        right = [self.numeric(index) for index in range(len(self.columns))]
        lines = []
        for row in rows:
            cells = [
                " " * (width - _width(cell)) + cell
                if flush
                else cell + " " * (width - _width(cell))
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

    def to_csv(self) -> str:
        """Return the table as CSV for a spreadsheet; an estimate fills four columns."""
        wide = [
            any(isinstance(row[index], Estimate) for row in self.rows)
            for index in range(len(self.columns))
        ]
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)  # \r\n ends a line, so that both are quoted within cells
        head: list[str] = []
        for name, is_wide in zip(self.columns, wide, strict=True):
            head += [name, f"{name} low", f"{name} high", f"{name} n"] if is_wide else [name]
        writer.writerow([safe_cell(name) for name in head])
        for row in self.rows:
            cells: list[Any] = []
            for cell, is_wide in zip(row, wide, strict=True):
                cells += _wide(cell) if is_wide else [_plain(cell)]
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
            that are missing or ``None`` are left out.

    Example:
        >>> share = {"accuracy": 0.94, "n": 500, "interval": [0.916, 0.958]}
        >>> print(parts_table({"test": share}).to_text())
        part  accuracy                      errors
        test  94.0 % [91.6, 95.8], n = 500      30
    """
    rows = []
    for title in PART_TITLES.values():
        share = accuracy_of(metrics.get(title))
        if share.known:
            rows.append((title, share, share.n - round(share.value * share.n)))
    return Table(("part", "accuracy", "errors"), tuple(rows))


def class_table(scores: Sequence[ClassScores]) -> Table:
    """Return precision, recall, F1 and support of every class."""
    columns = ("class", "precision", "recall", "F1", "pictures")
    return Table(columns, tuple((s.name, s.precision, s.recall, s.f1, s.support) for s in scores))


def confused_table(pairs: Sequence[Confused]) -> Table:
    """Return the most confused pairs with their share of the true class."""
    columns = ("true", "named", "pictures", "share of the true class")
    return Table(columns, tuple((p.true, p.predicted, p.count, p.share) for p in pairs))


def comparison(runs: Sequence[Run]) -> Table:
    """Return several runs side by side: description, data, epochs, accuracies and time.

    A best row is marked only when it can be told from every other one on the same test pictures.
    Where the runs used different splits, a column shows which, and nothing is marked.
    """
    verdict = judge(runs)
    columns = ["description", "data", "epochs", "train", "validation", "test", "time"]
    rows: list[tuple[Cell, ...]] = [_comparison_row(run) for run in runs]
    if not verdict.same_split:
        columns.append("split")
        rows = [(*row, run.split_hash[:8]) for row, run in zip(rows, runs, strict=True)]
    return Table(tuple(columns), tuple(rows), notes=_notes(verdict), best=verdict.best)


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
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _comparison_row(run: Run) -> tuple[Cell, ...]:
    shares = [accuracy_of(run.metrics.get(title)) for title in PART_TITLES.values()]
    accuracies = [share if share.known else None for share in shares]
    data = run.data["data"]
    name = f"{data.get('root_name') or 'pictures'} ({data.get('images', 0):,})"
    return (run.description, name, run.data.get("epochs"), *accuracies, Duration(run.seconds))


def _notes(verdict: Verdict) -> tuple[str, ...]:
    return tuple(note for note in verdict.notes if note)


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        return cell.to_json()
    return cell.seconds if isinstance(cell, Duration) else cell


def _wide(cell: Cell) -> list[Any]:
    if isinstance(cell, Estimate) and cell.known:
        return [cell.value, cell.low, cell.high, cell.n]
    return [None, None, None, 0 if isinstance(cell, Estimate) else None]


def _width(text: str) -> int:
    """Return how many places a terminal gives to ``text``: two for wide letters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "\\|<>*_`[]" else c for c in printable(text))


def _below(notes: tuple[str, ...]) -> list[str]:
    return ["", *notes] if notes else []
