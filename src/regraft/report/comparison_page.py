"""A comparison as a table and as one self-contained page.

A new section is a block of ``templates/comparison.html.j2`` with its entry in the list at the top
of it, and its values in :func:`write_comparison`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regraft.errors import RegraftError, UsageError
from regraft.files import write_text
from regraft.report import figures
from regraft.report.tables import Cell, Duration, Share, Table, show
from regraft.report.text import conclude, count, looks, render
from regraft.results import metrics
from regraft.results.comparison import Comparison, Row
from regraft.results.intervals import Estimate, points
from regraft.results.paired import Verdict
from regraft.results.run import CLEAN, PART_TITLES, REPORT, Run
from regraft.system import __version__

_MOST_SIDE_BY_SIDE = 5
_GOAL = 0.95  # the accuracy for which the number of images needed is said
_PARTS = tuple(PART_TITLES.values())


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Return runs as a comparison, each a method of its own.

    Where several have one description, the name of their folder, or else a number tells them apart.

    Args:
        runs: At least one run.

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
        rows.append(Row(line, (run,)))
    return Comparison.of(rows, title=f"{count(len(runs), 'run')} side by side")


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
    runs = [run for row in rows for run in row.runs]
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
        by_class=_by_class(tested),
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


def _by_class(tested: Sequence[Row]) -> Table | None:
    """Return the F1 of every class for the methods with the highest accuracies, of one split."""
    best = sorted(tested, key=lambda row: row.test.estimate.value if row.test else 0.0)
    shown = [row for row in tested if row in best[-_MOST_SIDE_BY_SIDE:]]
    first = [row.runs[0] for row in shown]
    if len(first) < 2 or len({run.split_hash for run in first}) > 1:
        return None
    try:
        tests = [run.predictions.part("test") for run in first]
    except RegraftError:  # a table of predictions that is lost or damaged
        return None
    scores = [{s.name: s.f1 for s in metrics.per_class(p)} for p in tests]
    names = list(dict.fromkeys(name for f1 in scores for name in f1))
    rows: list[tuple[Cell, ...]] = [(name, *(f1.get(name) for f1 in scores)) for name in names]
    return Table(("class", *(row.description for row in shown)), tuple(rows))
