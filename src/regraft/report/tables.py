"""Tables as values: one content, for a terminal, Markdown, LaTeX or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.data.tables import safe_cell
from regraft.errors import printable
from regraft.results.comparison import Repeated
from regraft.results.intervals import Estimate, percent, points, wilson
from regraft.results.metrics import MEASURES, Confused, Scores
from regraft.results.run import PART_TITLES, DataFacts
from regraft.settings import to_json

NOTHING = "\N{EN DASH}"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": r"\textendash{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "★": r"$\star$",
    '"': r"\char34{}",
} | {letter: "\\" + letter for letter in "&%$#_{}"}
_CSV = {"": "value", " low": "low", " high": "high", " n": "n"}


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
    """A share of which neither n nor interval is known, such as a published one.

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
        best: The row to mark, if one is better than all the others.

    Example:
        >>> print(Table(("class", "images"), (("rose", 12), ("lily", 7))).to_text())
        class  images
        rose       12
        lily        7
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    best: int | None = None

    def numeric(self, column: int) -> bool:
        """Return whether a column holds numbers, which stand to the right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, NUMBERS) for cell in cells)

    def compact(self) -> list[list[str]]:
        """Return head and cells as text; an n that a whole column shares stands in its head."""
        head, rows = list(self.columns), [[show(cell) for cell in row] for row in self.rows]
        if self.best is not None:
            rows[self.best][0] += " *"
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
        lines = []
        for row in rows:
            cells = []
            for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
                room = " " * (width - width_of(cell))
                cells.append(room + cell if self.numeric(index) else cell + room)
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *_below(self.notes)])

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        head, *body = [[escaped(cell) for cell in row] for row in self.compact()]
        rules = ["---:" if self.numeric(index) else "---" for index in range(len(head))]
        lines = ["| " + " | ".join(row) + " |" for row in (head, rules, *body)]
        return "\n".join([*lines, *_below(tuple(map(escaped, self.notes)))])

    def to_latex(self) -> str:
        """Return the table for a paper, with the rules of the package booktabs."""
        head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in self.compact())
        columns = ("r" if self.numeric(index) else "l" for index in range(len(self.columns)))
        lines = [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{''.join(columns)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"),
        ]
        return "\n".join([*lines, *("\n" + _latex(note) for note in self.notes)])

    def to_csv(self) -> str:
        """Return the table as CSV for a spreadsheet; an estimate fills four columns.

        With repeats there is a fifth, the standard deviation.
        """
        columns: list[list[Any]] = []
        for at, name in enumerate(self.columns):
            columns += _csv_columns(name, [row[at] for row in self.rows])
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)  # \r\n ends a line, so that both are quoted within cells
        for row in zip(*columns, strict=True):
            writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
        return stream.getvalue().replace("\r\n", "\n").rstrip("\n")


def parts_table(measured: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Return the accuracy of each part.

    Args:
        measured: At least the accuracy of each part, as a run holds it.

    Example:
        >>> share = Estimate(0.94, 0.916, 0.958, 500)
        >>> print(parts_table({"test": {"accuracy": share}}).to_text())
        part  accuracy                      errors
        test  94.0 % [91.6, 95.8], n = 500      30
    """
    shares = [(title, found["accuracy"]) for title, found in measured.items()]
    rows = tuple((title, s, s.n - round(s.value * s.n)) for title, s in shares)
    return Table(("part", "accuracy", "errors"), rows)


def measures_table(measured: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Return what else was measured on each part; see :func:`parts_table`."""
    titles = [title for title in PART_TITLES.values() if title in measured]
    present = [key for key in MEASURES if any(key in measured[title] for title in titles)]
    rows: list[tuple[Cell, ...]] = [
        (title, *(measured[title].get(key) for key in present)) for title in titles
    ]
    return Table(("part", *(MEASURES[key] for key in present)), tuple(rows))


def class_table(scores: Sequence[Scores]) -> Table:
    """Return precision, recall, F1 and support of every class, or of the averages."""
    columns = ("class", "precision", "recall", "F1", "images")
    return Table(columns, tuple((s.name, s.precision, s.recall, s.f1, s.support) for s in scores))


def confused_table(pairs: Sequence[Confused]) -> Table:
    """Return the most confused pairs with their share of the true class."""
    columns = ("true", "predicted", "images", "share of the true class")
    return Table(columns, tuple((p.true, p.predicted, p.count, p.share) for p in pairs))


def counts_table(data: DataFacts, *, most: int) -> Table:
    """Return how many images each class has in each part, of the first classes and of all."""
    body: list[tuple[Cell, ...]] = [
        (name, *(part.get(name, 0) for part in data.counts.values()))
        for name in data.classes[:most]
    ]
    total: tuple[Cell, ...] = ("all", *(sum(part.values()) for part in data.counts.values()))
    return Table(("class", *data.counts), (*body, total))


def network_table(networks: Iterable[tuple[Any, bool]]) -> Table:
    """Return the facts of networks: catalogue entries, each with whether its weights are here."""
    rows = []
    for entry, here in networks:
        known, top1 = entry.facts, None if entry.top1 is None else Share(entry.top1)
        counts: tuple[Cell, ...] = (None, None, None, None)
        if known is not None:
            millions = f"{known.parameters / 1e6:.2f}", f"{known.multiply_adds / 1e9:.2f}"
            counts = (*millions, known.size, known.width)
        licence = entry.licence + ("" if entry.permissive else " *")
        names = (entry.name, entry.title, entry.group, str(entry.year or ""))
        rows.append((*names, *counts, top1, licence, "yes" if here else ""))
    counted = ("M parameters", "G multiply-adds", "input", "features", "ImageNet top-1")
    columns = ("name", "network", "group", "year", *counted, "licence", "here")
    note = "* the licence of the weights does not allow every use; top-1 as published"
    return Table(columns, tuple(rows), notes=(note,))


def error_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return the top-1 and top-5 error of each network on the images whose class is known.

    Args:
        rows: What ``experiment.evaluate.classify_images`` yields, at least five classes of each.
    """
    places: dict[str, list[int]] = {}
    for row in rows:
        if row["truth"] is not None:
            names = [entry["wnid"] for entry in row["top"][:5]]
            place = names.index(row["truth"]) if row["truth"] in names else len(names)
            places.setdefault(row["backbone"], []).append(place)
    body: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(wilson(sum(at >= k for at in found), len(found)) for k in (1, 5)))
        for name, found in places.items()
    )
    return Table(("network", "top-1 error", "top-5 error"), body)


def show(cell: Cell) -> str:
    """Return a cell as a person reads it.

    Example:
        >>> show(1200), show(0.12345), show(None)
        ('1,200', '0.1235', '–')
        >>> show(Repeated(Estimate(0.912, 0.901, 0.922, 850), 0.008, 3))
        '91.2 % ± 0.8 [90.1, 92.2], n = 850'
    """
    if cell is None:
        return NOTHING
    if isinstance(cell, Repeated):
        value, whole = percent(cell.estimate, parts=""), percent(cell.estimate)
        return whole if cell.sd is None else value + spread(cell.sd) + whole.removeprefix(value)
    if isinstance(cell, Estimate):
        return percent(cell)
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def size(count: float) -> str:
    """Return a number of bytes as people say it.

    Example:
        >>> size(512), size(1_200_000), size(123_456_789), size(5e9)
        ('512 bytes', '1.2 MB', '123 MB', '5 GB')
    """
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:{'.2g' if count < 100 * step else '.0f'}} {unit}"
    return f"{count:.0f} bytes"


def spread(sd: float) -> str:
    """Return a standard deviation as it stands behind a percentage: `` ± 0.8``."""
    return f" ± {points(sd, signed=False).removesuffix(' points')}"


def width_of(text: str) -> int:
    """Return how many places a terminal gives to ``text``: two for wide letters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _estimate(cell: Cell) -> Estimate | None:
    if isinstance(cell, Repeated):
        return cell.estimate
    return cell if isinstance(cell, Estimate) else None


def _csv_columns(name: str, cells: Sequence[Cell]) -> list[list[Any]]:
    """Return the columns, name first, that a spreadsheet needs for one of ours."""
    if all(_estimate(cell) is None for cell in cells):
        plain = {Duration: "seconds", Share: "value"}
        return [[name, *(getattr(c, plain[type(c)]) if type(c) in plain else c for c in cells)]]
    values = [to_json(found) if (found := _estimate(cell)) else {} for cell in cells]
    columns = [[name + end, *(v.get(key) for v in values)] for end, key in _CSV.items()]
    spreads = [getattr(cell, "sd", None) for cell in cells]
    return (
        [*columns, [f"{name} sd", *spreads]] if any(sd is not None for sd in spreads) else columns
    )


def escaped(text: str) -> str:
    r"""Return text so that Markdown prints every character of it as it stands.

    Example:
        >>> print(escaped("a_b"))
        a\_b
    """
    return "".join("\\" + c if c in "\\|<>*_`[]" else c for c in printable(text))


def _latex(text: str) -> str:
    """Return text so that LaTeX prints every character of it as it stands."""
    shown = "".join(_LATEX.get(letter, letter) for letter in printable(text))
    shown = re.sub(r"(?<=\d) \\%", r"\\,\\%", shown)
    # Two of these in a row would melt into another character: a dash, a quotation mark.
    shown = re.sub(r"([-',])(?=\1)", r"\1{}", shown)
    # After the end of a row LaTeX takes a bracket or a star for an argument.
    return f"{{{shown[0]}}}{shown[1:]}" if shown[:1] in {"[", "*"} else shown


def _below(notes: tuple[str, ...]) -> list[str]:
    return ["", *notes] if notes else []
