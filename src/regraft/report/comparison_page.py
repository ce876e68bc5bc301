"""A comparison as a table and as one self-contained page.

A new section is a block of ``templates/comparison.html.j2`` with its entry in the list at the top
of it, and its values in :func:`write_comparison`.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regraft.errors import RegraftError, UsageError
from regraft.files import write_text
from regraft.report import figures
from regraft.report.shared_images import shared_images
from regraft.report.tables import Cell, Duration, Share, Table, class_table, show
from regraft.report.text import conclude, count, looks, render, write_tables
from regraft.results import metrics
from regraft.results.comparison import Comparison, Row
from regraft.results.intervals import Estimate, points
from regraft.results.paired import Verdict
from regraft.results.run import CLEAN, PART_TITLES, REPORT, Run
from regraft.system import __version__

Report = tuple[str, dict[str, tuple[Cell, ...]]]  # a method, and what was measured of each class

_MOST_SIDE_BY_SIDE = 5
_GOAL = 0.95  # the accuracy for which the number of images needed is said
_PARTS = tuple(PART_TITLES.values())


def compare_runs(runs: Sequence[Run], *, title: str = "") -> Comparison:
    """Return runs as a comparison, each a method of its own.

    Where several have one description, the name of their folder, or else a number tells them apart.

    Args:
        runs: At least one run.
        title: What is compared; by default how many runs.

    Raises:
        UsageError: There is no run.
    """
    if not runs:
        raise UsageError("there is no run to compare")
    described = Counter(run.description for run in runs)
    same_name = Counter((run.description, run.name) for run in runs)
    rows = []
    for number, run in enumerate(runs, 1):
        told = [run.name] if described[run.description] > 1 else []
        told += [f"run {number}"] if same_name[run.description, run.name] > 1 else []
        line = f"{run.description} ({', '.join(told)})" if told else run.description
        rows.append(Row(line, (run,), run.record.method.get("published") or {}))
    found = Comparison.of(rows, title=title or f"{count(len(runs), 'run')} side by side")
    return replace(found, faithful=False)  # of a small size, perhaps


def comparison_table(comparison: Comparison) -> Table:
    """Return a row per method: description, data, epochs, accuracies and time.

    A best row is marked only when it is better than every other one on the same test images.
    Published figures stand beside the measured ones where a row has them, a column tells the runs
    where there are repeats, and another the split where the splits differ.
    """
    rows, conclusion = comparison.rows, conclude(comparison)
    splits = [", ".join(sorted({run.split_hash[:8] for run in row.runs})) for row in rows]
    columns: dict[str, list[Cell]] = {
        "description": [row.description for row in rows],
        "data": [_data(row) for row in rows],
        "epochs": [row.cut_short or row.epochs for row in rows],
        "runs": [row.seeds for row in rows],
    }
    for part in _PARTS:
        columns[part] = [getattr(row, part) for row in rows]
        if part == "test":
            columns[CLEAN] = [_clean(row) for row in rows]
        if part == "train":
            columns["train, last epoch"] = [_last_epoch(row) for row in rows]
        columns[f"{part} published"] = [_published(row, part) for row in rows]
    columns["time"] = [Duration(row.seconds) for row in rows]
    columns["time published"] = [_published(row, "time") for row in rows]
    columns["split"] = list(splits)
    if all(row.seeds == 1 for row in rows):
        del columns["runs"]
    if len(set(splits)) == 1:
        del columns["split"]
    columns = {
        name: cells
        for name, cells in columns.items()
        if not name.endswith(("published", "leaks", "last epoch"))
        or any(cell is not None for cell in cells)
    }
    notes = (
        *conclusion.sentences,
        *(f"Left out: {sentence}" for sentence in comparison.left_out),
        *(f"Not finished: {sentence}" for sentence in comparison.failures),
        *comparison.warnings,
    )
    body = tuple(zip(*columns.values(), strict=True))
    return Table(tuple(columns), body, notes=notes, best=conclusion.best)


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a row per pair of methods: how they differ, how sure that is, and what follows.

    Where one method stands against all others, it has no column.
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
    columns = ("method", "against", "difference", "p", "verdict", "detectable")
    if len({v.b for v in verdicts}) == 1:
        return Table(columns[1:], tuple(row[1:] for row in rows))
    return Table(columns, tuple(rows))


def write_tables_of(comparisons: Sequence[Comparison], path: str | os.PathLike[str]) -> Path:
    """Write one page of several comparisons: a list of contents, and the tables of each.

    Args:
        comparisons: Their titles are the headings; where several methods were tested on one split,
            their reports by class follow.
        path: The HTML file to write.
    """
    sections: list[tuple[str, Table | str, str]] = []
    for each in comparisons:
        sections.append((each.title, comparison_table(each), ""))
        if len(reports := class_reports(each.rows)) > 1:
            sections.append((f"{each.title}, class by class", reports_table(reports), ""))
    return write_tables(path, f"{count(len(comparisons), 'comparison')} on one page", sections)


def class_reports(rows: Sequence[Row]) -> list[Report]:
    """Return precision, recall, F1 and number of images of every class and their averages.

    Of the methods with the highest test accuracies on one split, those with a published report
    first, which stands behind what was measured; of repeats the first run.

    Args:
        rows: Rows without a test part are left out.
    """
    tested = [(row, row.test.estimate.value) for row in rows if row.test is not None]
    best = sorted(tested, key=lambda found: ("report" in found[0].published, found[1]))
    best = best[-_MOST_SIDE_BY_SIDE:]
    shown = [each for each in tested if each in best]
    return [
        report
        for row, _ in shown
        if row.runs[0].split_hash == best[-1][0].runs[0].split_hash
        for report in _shown_report(row)
    ]


def reports_table(reports: Sequence[Report]) -> Table:
    """Return the reports of several methods as one table, the methods below each class."""
    rows = [
        (name, method, *found[name])
        for name in _names(reports)
        for method, found in reports
        if name in found
    ]
    return Table(("class", "method", "precision", "recall", "F1", "images"), tuple(rows))


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
    target, rows = Path(path), comparison.rows
    tested = [row for row in rows if row.test is not None]
    runs, reports = [run for row in rows for run in row.runs], class_reports(rows)
    html = render(
        "comparison.html.j2",
        version=__version__,
        comparison=comparison,
        conclusion=conclude(comparison),
        looks=looks(runs),
        baseline=_baseline(tested),
        parts=_PARTS,
        sizes_of={part: _shared_n(rows, part) for part in _PARTS},
        lines=[_line(row, target) for row in rows],
        bars=figures.bars(rows) if tested else None,
        cost=figures.cost(rows) if len(tested) > 1 else None,
        sizes=figures.learning_curves(comparison.curves) if comparison.curves else None,
        goal=_GOAL,
        verdicts=verdicts_table(comparison.verdicts),
        chosen=comparison.verdicts[0].b if comparison.verdicts else "",
        images=shared_images(rows),
        reports=reports if len(reports) > 1 else [],
        report_names=_names(reports),
        commands=list(dict.fromkeys(run.record.command for run in runs if run.record.command)),
    )
    write_text(target, html)
    return target


def _line(row: Row, target: Path) -> dict[str, Any]:
    """Return a row of the page's table: measured, published, and links to the runs' own pages."""
    links = [(f"run {at}", _link(run, target)) for at, run in enumerate(row.runs, 1)]
    published = {part: _published(row, part) for part in (*_PARTS, "time")}
    last_epoch = _last_epoch(row)
    clean = _clean(row)
    return {
        "row": row,
        "data": _data(row),
        "links": [(name, link) for name, link in links if link is not None],
        "published": {part: str(cell) for part, cell in published.items() if cell is not None},
        "last_epoch": "" if last_epoch is None else str(last_epoch),
        "clean": "" if clean is None else show(clean),
    }


def _data(row: Row) -> str:
    """Return the data set with its images; and how many were learned from, if not all could be."""
    run = row.runs[0]
    data = run.record.data
    trained = run.metrics["train"]["accuracy"].n
    fewer = trained < sum(data.counts.get("train", {}).values())
    size = f"{trained:,} learned from, of {data.images:,}" if fewer else f"{data.images:,}"
    return f"{data.root_name or 'images'} ({size})"


def _last_epoch(row: Row) -> Share | None:
    return None if row.last_epoch is None else Share(row.last_epoch)


def _clean(row: Row) -> Estimate | Share | None:
    """Return the test accuracy without leaked images, if there are some."""
    found = [run.metrics[CLEAN]["accuracy"] for run in row.runs if CLEAN in run.metrics]
    if len(found) < len(row.runs):
        return None
    return found[0] if len(found) == 1 else Share(sum(s.value for s in found) / len(found))


def _published(row: Row, part: str) -> Share | Duration | None:
    value = row.published.get("seconds" if part == "time" else part)
    if value is None:
        return None
    return Duration(float(value)) if part == "time" else Share(float(value))


def _shared_n(rows: Sequence[Row], part: str) -> int | None:
    """Return how many images a part has, where it is one number for all rows."""
    found = {measured.estimate.n for row in rows if (measured := getattr(row, part)) is not None}
    return found.pop() if len(found) == 1 else None


def _baseline(tested: Sequence[Row]) -> float | None:
    """Return the score of always predicting the most frequent class, where it is one for all."""
    runs = [run for row in tested for run in row.runs]
    found = {run.metrics["test"]["majority_baseline"].value for run in runs}
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


def _names(reports: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(name for _, found in reports for name in found))


def _shown_report(row: Row) -> Iterator[Report]:
    """Yield what was measured by class on the test part of a row, and what was published."""
    with contextlib.suppress(RegraftError):  # a table of predictions that is lost or damaged
        p = row.runs[0].predictions.part("test")
        averages = [replace(a, name=f"{a.name} average") for a in metrics.averages(p)]
        table = class_table([*metrics.per_class(p), *averages])
        yield row.description, {str(name): tuple(cells) for name, *cells in table.rows}
    if printed := row.published.get("report"):
        cells = {name: (*map(Share, shares), n) for name, (*shares, n) in printed.items()}
        yield f"{row.description}, published", cells
