"""What a notebook shows of values: an HTML element each, small, escaped and without any script."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np

from regraft.data.dataset import Dataset, Split
from regraft.data.images import thumbnail
from regraft.errors import RegraftError
from regraft.report import text
from regraft.report.comparison_page import comparison_table
from regraft.report.gallery import data_address
from regraft.report.tables import Cell, Table, confused_table, parts_table
from regraft.report.text import count, render
from regraft.results import metrics
from regraft.results.comparison import Comparison
from regraft.results.predictions import Predictions
from regraft.results.run import PART_TITLES, REPORT, Run

_IMAGES, _SIDE = 16, 96
_MOST_ROWS = 30
_MOST_CELLS = 12  # classes that still fit into a table of true by predicted


@singledispatch
def html(value: Any) -> str:
    """Return what a notebook shows of a value.

    Args:
        value: A ``Dataset``, ``Split``, ``Predictions``, ``Run`` or ``Comparison``.

    Raises:
        TypeError: It is something else.

    Example:
        >>> "0 images of 2 classes" in html(Dataset((), (), ("lily", "rose")))
        True
    """
    raise TypeError(f"nothing is said here of {type(value).__name__}")


@html.register
def _dataset(data: Dataset) -> str:
    title = f"{count(len(data), 'image')} of {count(len(data.classes), 'class')}"
    counts = Table(("class", "images"), tuple(data.counts().items()))
    each = ("Images of each class", counts)
    return _shown(title, said=data.notes, images=list(_sheet(data)), tables=[each])


@html.register
def _split(split: Split) -> str:
    counts = {PART_TITLES[part]: data.counts() for part, data in split.parts().items()}
    sizes = [len(data) for data in split.parts().values()]
    each: Iterator[tuple[Cell, ...]] = (
        (name, *(found[name] for found in counts.values())) for name in split.classes
    )
    parts = ("Images of each part", Table(("class", *counts), (("all", *sizes), *each)))
    title = f"{count(sum(sizes), 'image')}, split by seed {split.seed}"
    return _shown(title, images=list(_sheet(split.train)), tables=[parts])


@html.register
def _predictions(p: Predictions) -> str:
    measured = {
        title: metrics.measures(p.part(part))
        for part, title in PART_TITLES.items()
        if part in p.parts
    }
    accuracies = ("Accuracy on each part", parts_table(measured))
    return _shown(f"Predictions of {count(len(p), 'image')}", tables=[accuracies], p=p)


@html.register
def _run(run: Run) -> str:
    p = None
    with contextlib.suppress(RegraftError):  # predictions that are lost or damaged
        p = run.predictions
    page = f"Its page: {run.folder / REPORT}"
    said = [text.what_was_done(run.record), *text.remarks(run), page]
    accuracies = ("Accuracy on each part", parts_table(run.metrics))
    return _shown(run.description, said=said, tables=[accuracies], p=p)


@html.register
def _comparison(comparison: Comparison) -> str:
    table = comparison_table(comparison)
    return _shown(comparison.title, said=table.notes, tables=[("Methods side by side", table)])


def _shown(
    title: str,
    *,
    said: Sequence[str] = (),
    images: Sequence[tuple[str, str]] = (),
    tables: Sequence[tuple[str, Table]] = (),
    p: Predictions | None = None,
) -> str:
    """Return the element: a title, sentences, images, tables, and what was taken for what."""
    matrix, shown = None, list(tables)
    if p is not None and len(p):
        part = next(name for name in ("test", "val", "train") if name in p.parts)
        one, of = p.part(part), f"on the {PART_TITLES[part]} part"
        shown.append((f"Most confused pairs {of}", confused_table(metrics.most_confused(one))))
        if len(p.classes) <= _MOST_CELLS:
            _, matrix = shown.pop(), (p.classes, metrics.confusion(one).tolist(), f"Confusion {of}")
    return render(
        "notebook.html.j2",
        title=title,
        said=said[:_MOST_ROWS],
        images=images,
        tables=[(_caption(name, table), _cut(table)) for name, table in shown],
        matrix=matrix,
    )


def _caption(name: str, table: Table) -> str:
    more = len(table.rows) - _MOST_ROWS
    return f"{name}; {count(more, 'more row')} not shown" if more > 0 else name


def _cut(table: Table) -> Table:
    return replace(table, rows=table.rows[:_MOST_ROWS])


def _sheet(data: Dataset) -> Iterator[tuple[str, str]]:
    """Yield class and address of some images, spread over all; damaged ones are left out."""
    for at in np.unique(np.linspace(0, len(data) - 1, _IMAGES).astype(int)) if len(data) else ():
        with contextlib.suppress(RegraftError):
            yield data.labels[at], data_address(thumbnail(data.paths[at], _SIDE))
