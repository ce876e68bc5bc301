"""A comparison as a table and as one self-contained page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from regraft.errors import RegraftError, UsageError
from regraft.files import write_text
from regraft.report import comparison_figures as figures
from regraft.report.conclusions import conclude, looks
from regraft.report.rendering import render
from regraft.report.tables import Cell, Duration, Share, Table, accuracy_of, show
from regraft.report.wording import count
from regraft.results import metrics
from regraft.results.comparison import Comparison, Row
from regraft.results.intervals import Estimate, points
from regraft.results.paired import Verdict
from regraft.results.run import PART_TITLES, REPORT, Run
from regraft.version import __version__

_MOST_SIDE_BY_SIDE = 5
_GOAL = 0.95  # how many pictures it takes is said for this accuracy
_PRINTED = (*PART_TITLES.values(), "time")


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Return runs as a comparison, each a way of its own.

    Where several have one description, the name of their folder, or else a number tells them apart.

    Args:
        runs: At least one run.

    Raises:
        UsageError: There is no run.
    """
    if not runs:
        raise UsageError("there is no run to compare")
    rows = [Row(line, (run,)) for line, run in zip(_lines(runs), runs, strict=True)]
    return Comparison.of(rows, title=f"{count(len(runs), 'run')} side by side")


def _lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each run that no other one has."""
    described = Counter(run.description for run in runs)
    named = Counter((run.description, run.name) for run in runs)
    lines = []
    for number, run in enumerate(runs, 1):
        told = [run.name] if described[run.description] > 1 else []
        told += [f"run {number}"] if named[run.description, run.name] > 1 else []
        lines.append(f"{run.description} ({', '.join(told)})" if told else run.description)
    return lines


def comparison_table(comparison: Comparison) -> Table:
    """Return a row per way: description, data, epochs, accuracies and time.

    A best row is marked only when it can be told from every other one on the same test pictures.
    Published figures stand beside the measured ones where a row has them, a column tells the runs
    where there are repeats, and another the split where the splits differ.
    """
    conclusion = conclude(comparison)
    columns: dict[str, list[Cell]] = {
        "description": [row.description for row in comparison.rows],
        "data": [_data(row) for row in comparison.rows],
        "epochs": [row.epochs for row in comparison.rows],
    }
    if any(row.seeds > 1 for row in comparison.rows):
        columns["runs"] = [row.seeds for row in comparison.rows]
    for part in _PRINTED:
        columns[part] = [_measured(row, part) for row in comparison.rows]
        if part == "test" and any(_clean(row) is not None for row in comparison.rows):
            columns["test without leaks"] = [_clean(row) for row in comparison.rows]
        published: list[Cell] = [_published(row, part) for row in comparison.rows]
        if any(cell is not None for cell in published):
            columns[f"{part} published"] = published
    splits = [sorted({run.split_hash[:8] for run in row.runs}) for row in comparison.rows]
    if any(hashes != splits[0] for hashes in splits):
        columns["split"] = [", ".join(hashes) for hashes in splits]
    body = tuple(zip(*columns.values(), strict=True))
    left_out = (f"Left out: {sentence}" for sentence in comparison.left_out)
    failed = (f"Not finished: {sentence}" for sentence in comparison.failures)
    notes = (*conclusion.sentences, *left_out, *failed, *comparison.warnings)
    return Table(tuple(columns), body, notes=notes, best=conclusion.best)


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a row per pair of ways: how they differ, how surely, and what follows.

    Where one way stands against all others, as it does unless all pairs are judged, only the others
    are named.
    """
    rows: list[tuple[Cell, ...]] = [
        (
            v.b,
            v.a,
            points(v.difference, interval=v.interval),
            f"{v.p:.2g}",
            {"b": "better", "a": "worse"}.get(v.better or "", "not distinguishable"),
            points(v.detectable, signed=False),
        )
        for v in verdicts
    ]
    columns = ("way", "against", "difference", "p", "verdict", "could be seen from")
    if len({v.b for v in verdicts}) == 1:
        return Table(columns[1:], tuple(row[1:] for row in rows))
    return Table(columns, tuple(rows))


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Write one page that shows a comparison, with links to the pages of its runs.

    Args:
        comparison: At least one row.
        path: The HTML file to write.

    Returns:
        The path of the page.

    Raises:
        UsageError: There is no row.
    """
    if not comparison.rows:
        raise UsageError("there is nothing to compare", path=path)
    target = Path(path)
    conclusion = conclude(comparison)
    tested = [row for row in comparison.rows if row.test is not None]
    runs = [run for row in comparison.rows for run in row.runs]
    html = render(
        "comparison.html.j2",
        comparison=comparison,
        conclusion=conclusion,
        lines=[_line(number, row, target) for number, row in enumerate(comparison.rows, 1)],
        parts=tuple(PART_TITLES.values()),
        sizes_of={part: _shared_n(comparison.rows, part) for part in PART_TITLES.values()},
        baseline=_baseline(tested),
        bars=figures.bars(comparison.rows) if tested else None,
        sizes=figures.size_curves(comparison.curves) if comparison.curves else None,
        goal=_GOAL,
        cost=figures.cost(comparison.rows) if len(tested) > 1 else None,
        verdicts=verdicts_table(comparison.verdicts),
        chosen=comparison.verdicts[0].b if comparison.verdicts else "",
        by_class=_by_class(tested),
        looks=looks(runs),
        commands=list(dict.fromkeys(run.record.command for run in runs if run.record.command)),
        version=__version__,
    )
    write_text(target, html)
    return target


@dataclass(frozen=True)
class Line:
    """A row of the page's table.

    Args:
        number: From 1; the figures name rows by it.
        row: What was measured.
        data: The data and how many pictures.
        links: A name and an address for the page of each run that has one.
        published: What was published of each part and the time, as text.
        clean: The test accuracy without leaks as text; nothing where there are none.
    """

    number: int
    row: Row
    data: str
    links: tuple[tuple[str, str], ...]
    published: dict[str, str]
    clean: str


def _line(number: int, row: Row, target: Path) -> Line:
    links = [(f"run {at}", _link(run, target)) for at, run in enumerate(row.runs, 1)]
    published = {part: _published(row, part) for part in _PRINTED}
    return Line(
        number,
        row,
        _data(row),
        tuple((name, link) for name, link in links if link is not None),
        {part: str(cell) for part, cell in published.items() if cell is not None},
        "" if (clean := _clean(row)) is None else show(clean),
    )


def _data(row: Row) -> str:
    data = row.runs[0].record.data
    return f"{data.root_name or 'pictures'} ({data.images:,})"


def _measured(row: Row, part: str) -> Cell:
    if part == "time":
        return Duration(row.seconds)
    measured: Cell = getattr(row, part)
    return measured


def _clean(row: Row) -> Estimate | Share | None:
    """Return the test accuracy on pictures that no training picture gives away, if some do."""
    found = [accuracy_of((run.metrics.get("test") or {}).get("without_leaks")) for run in row.runs]
    if not all(share.known for share in found):
        return None
    return found[0] if len(found) == 1 else Share(sum(s.value for s in found) / len(found))


def _published(row: Row, part: str) -> Share | Duration | None:
    value = row.published.get("seconds" if part == "time" else part)
    if value is None:
        return None
    return Duration(float(value)) if part == "time" else Share(float(value))


def _shared_n(rows: Sequence[Row], part: str) -> int | None:
    """Return how many pictures a part has, where it is one number for all rows."""
    found = {measured.estimate.n for row in rows if (measured := getattr(row, part)) is not None}
    return found.pop() if len(found) == 1 else None


def _baseline(tested: Sequence[Row]) -> float | None:
    """Return the score of always answering the most frequent class, where it is one for all."""
    found = {
        (run.metrics["test"].get("majority_baseline") or {}).get("value")
        for row in tested
        for run in row.runs
    }
    return found.pop() if len(found) == 1 else None


def _link(run: Run, target: Path) -> str | None:
    """Return the relative address of a run's own page, if there is one."""
    page = run.folder / REPORT
    if not page.is_file():
        return None
    try:
        relative = os.path.relpath(page.resolve(), target.resolve().parent)
    except ValueError:  # another drive
        return None
    return quote(Path(relative).as_posix())


def _by_class(tested: Sequence[Row]) -> Table | None:
    """Return the F1 score of every class for the ways with the highest accuracies, of one split."""
    best = sorted(tested, key=lambda row: row.test.estimate.value if row.test else 0.0)
    shown = [row for row in tested if row in best[-_MOST_SIDE_BY_SIDE:]]
    first = [row.runs[0] for row in shown]
    if len(first) < 2 or len({run.split_hash for run in first}) > 1:
        return None
    try:
        scores = [
            {s.name: s for s in metrics.per_class(run.predictions.part("test"))} for run in first
        ]
    except RegraftError:  # a table of predictions that is lost or damaged
        return None
    names = list(dict.fromkeys(name for by_name in scores for name in by_name))
    rows: list[tuple[Cell, ...]] = [
        (name, *(by_name[name].f1 if name in by_name else None for by_name in scores))
        for name in names
    ]
    return Table(("class", *(row.description for row in shown)), tuple(rows))
