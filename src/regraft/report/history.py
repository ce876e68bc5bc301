"""What happened while fitting, arranged for a page whatever the learner recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.report import figures, training
from regraft.report.tables import NOTHING, Cell, Table, accuracy_of
from regraft.results.intervals import percent

_GRID = {"parameters", "mean", "sd"}


@dataclass(frozen=True)
class History:
    """What happened while fitting.

    Args:
        grids: Titled tables: a grid of parameters, a row per epoch.
        facts: Names and values of the rest.
        curves: Accuracy and loss after each epoch as an ``<svg>`` element, if there were epochs.
        sentences: What a reader should take from it.
    """

    grids: tuple[tuple[str, Table], ...]
    facts: tuple[tuple[str, str], ...]
    curves: str | None
    sentences: tuple[str, ...] = ()


def arrange(history: Any, metrics: Mapping[str, Any] | None = None) -> History:
    """Arrange a learner's history: rows become tables, epochs curves, the rest facts.

    Args:
        history: ``None``, a list with one mapping per epoch, or a mapping of lists and values. Rows
            with ``parameters``, ``mean`` and ``sd`` are a grid of cross-validated accuracies;
            ``phases`` and ``epochs`` are those of a trained network.
        metrics: What was measured on each part, for what is said of a trained network.

    Example:
        >>> arrange({"folds": 3, "best": {"C": 1.0}}).facts
        (('folds', '3'), ('best', 'C 1'))
    """
    if training.is_training(history):
        return _training(history, metrics or {})
    entries = dict(history) if isinstance(history, Mapping) else {"epochs": history}
    grids: list[tuple[str, Table]] = []
    facts: list[tuple[str, str]] = []
    drawn = None
    for key, value in entries.items():
        if not _is_rows(value):
            if value not in (None, [], {}):
                facts.append((str(key), flat(value)))
        elif set(value[0]) >= _GRID:
            grids.append((str(key), _grid_table(value, entries.get("best"))))
        else:
            grids.append((str(key), _rows_table(value)))
            if len(value) > 1 and any("loss" in name for name in value[0]):
                drawn = figures.curves(value, alt="Accuracy and loss after each epoch.")
    return History(tuple(grids), tuple(facts), drawn)


def _training(history: Mapping[str, Any], metrics: Mapping[str, Any]) -> History:
    phases, epochs = history["phases"], history["epochs"]
    grids = []
    if phases:
        grids.append(("What was trained, phase by phase", training.phases_table(phases)))
    if epochs:
        held = accuracy_of(metrics.get("validation"))
        measured = f", on {held.n:,} validation pictures" if held.known else ""
        grids.append((f"After each epoch{measured}", training.epochs_table(epochs)))
    said = training.gap(metrics)
    drawn = training.training_curves(phases, epochs)
    facts = tuple(
        (str(key), flat(value))
        for key, value in history.items()
        if key not in {"phases", "epochs"} and value not in (None, [], {})
    )
    return History(tuple(grids), facts, drawn, (said,) if said else ())


def flat(value: Any) -> str:
    """Return a JSON value on one line.

    Example:
        >>> flat({"size": 224, "mean": [0.5, 0.25]})
        'size 224 · mean 0.5, 0.25'
    """
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {flat(item)}" for key, item in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value)) or NOTHING
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cell(value: Any) -> Cell:
    """Return a JSON value as a cell of a table."""
    if value is None or isinstance(value, str | float) or type(value) is int:
        return value
    return flat(value)


def _is_rows(value: Any) -> bool:
    rows = value if isinstance(value, list | tuple) else ()
    return bool(rows) and all(isinstance(row, Mapping) and row for row in rows)


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(str(key) for row in rows for key in row))
    body = tuple(tuple(cell(row.get(name)) for name in columns) for row in rows)
    return Table(tuple(name.replace("_", " ") for name in columns), body)


def _grid_table(rows: Sequence[Mapping[str, Any]], best: Any) -> Table:
    """Return a column per parameter and the accuracy; the chosen point is marked."""
    names = tuple(dict.fromkeys(str(name) for row in rows for name in row["parameters"]))
    body: list[tuple[Cell, ...]] = [
        (
            *(flat(row["parameters"].get(name)) for name in names),
            percent(float(row["mean"])),
            percent(float(row["sd"])),
        )
        for row in rows
    ]
    chosen = [index for index, row in enumerate(rows) if row["parameters"] == best]
    columns = (*names, "cross-validated accuracy", "standard deviation over folds")
    return Table(columns, tuple(body), best=chosen[0] if chosen else None)
