"""The page of a run: one self-contained HTML file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.files import write_text
from regraft.report import figures, tables
from regraft.report.gallery import Gallery, Thumbnails, gallery
from regraft.report.history import arrange, cell, flat
from regraft.report.rendering import render
from regraft.report.tables import Cell, Table
from regraft.report.wording import Headline, headline, part_titles
from regraft.results import metrics
from regraft.results.intervals import Estimate, percent
from regraft.results.metrics import Scores
from regraft.results.predictions import Predictions
from regraft.results.run import REPORT, THUMBNAILS, Run
from regraft.settings import to_json
from regraft.version import __version__

_MOST_CELLS = 30  # classes that still fit into a table of true by predicted
_MOST_HEAT = 400  # classes that still make a heat map: a pixel each
_MOST_ROWS = 300  # classes that a table shows; predictions.csv has them all
_MOST_PAIRS = 12
_MOST_FINDINGS = 100


def write_page(run: Run, *, data_root: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run into its folder.

    Args:
        run: A finished run.
        data_root: The folder of the pictures, or the table that names them. Without it the small
            pictures of the last time are shown.

    Returns:
        The path of the page.
    """
    root = None if data_root is None else Path(data_root)
    if root is not None and root.is_file():
        root = root.parent
    top = headline(run)
    p = top.predictions
    path = run.folder / REPORT
    scores = metrics.per_class(p)
    html = render(
        "run.html.j2",
        run=run,
        record=run.record,
        top=top,
        version=__version__,
        parts=tables.parts_table(run.metrics),
        extras=_extras(run),
        confusion=_matrix(p),
        heat=_heat(p),
        pairs=tables.confused_table(metrics.most_confused(p, _MOST_PAIRS)),
        all_pairs=len(metrics.most_confused(p, None)),
        scores=tables.class_table(_worst(scores)),
        averages=_averages(p),
        fewest=min((score.support for score in scores if score.support), default=0),
        unnamed=_without_samples(scores),
        gallery=_gallery(run, top, root),
        history=arrange(run.record.history, run.metrics),
        counts=_class_counts(run),
        findings=_findings(run.check, top.remarks),
        facts=_facts(run),
        seconds=_seconds(run),
    )
    write_text(path, html)
    return path


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the confusion matrix: how many pictures, their share of the row, what to say."""

    count: int
    share: float
    right: bool
    spoken: str


@dataclass(frozen=True)
class MatrixRow:
    """A row of the confusion matrix: a true class, its pictures and what they were named."""

    name: str
    support: int
    cells: tuple[MatrixCell, ...]


def _matrix(p: Predictions) -> list[MatrixRow]:
    """Return the confusion matrix for a table, nothing where there are too many classes for one."""
    if len(p.classes) > _MOST_CELLS:
        return []
    counts = metrics.confusion(p)
    rows = []
    for i, true in enumerate(p.classes):
        support = int(counts[i].sum())
        cells = []
        for j, named in enumerate(p.classes):
            n = int(counts[i, j])
            share = n / support if support else 0.0
            spoken = f"{n} of {support} “{true}” named “{named}” ({percent(share)})"
            cells.append(MatrixCell(n, share, i == j, spoken))
        rows.append(MatrixRow(true, support, tuple(cells)))
    return rows


def _heat(p: Predictions) -> str | None:
    if not _MOST_CELLS < len(p.classes) <= _MOST_HEAT:
        return None
    alt = "Confusion matrix as a heat map; the table of the most confused pairs says the same."
    return figures.heat_map(metrics.confusion(p), p.classes, alt=alt)


def _extras(run: Run) -> Table:
    """Return what else was measured on each part: top 5 and the macro averages."""
    titles = part_titles(run)
    measured = metrics.MEASURES.items()
    present = {key: name for key, name in measured if any(key in run.metrics[t] for t in titles)}
    rows: list[tuple[Cell, ...]] = [
        (title, *(_estimate(run.metrics[title].get(key)) for key in present)) for title in titles
    ]
    return Table(("part", *present.values()), tuple(rows))


def _estimate(value: Mapping[str, Any] | None) -> Estimate | None:
    if not value or value.get("value") is None:
        return None
    return Estimate(float(value["value"]), float(value["low"]), float(value["high"]), value["n"])


def _averages(p: Predictions) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (f"{a.name} average", a.precision, a.recall, a.f1, a.support) for a in metrics.averages(p)
    ]
    return Table(("class", "precision", "recall", "F1", "pictures"), tuple(rows))


def _worst(scores: Sequence[Scores]) -> Sequence[Scores]:
    """Return all classes in their order, or of too many those with the lowest F1."""
    if len(scores) <= _MOST_ROWS:
        return scores
    return sorted(scores, key=lambda s: s.f1.value if s.f1.known else 2.0)[:_MOST_ROWS]


def _without_samples(scores: Sequence[Scores]) -> list[str]:
    return [score.name for score in scores if score.support == 0]


def _gallery(run: Run, top: Headline, data_root: Path | None) -> Gallery:
    hashes = {row.path: row.sha256 for row in run.rows()}
    return gallery(top.predictions, Thumbnails(run.folder / THUMBNAILS, data_root, hashes))


def _class_counts(run: Run) -> Table:
    counts, classes = run.record.data.counts, run.record.data.classes
    body: list[tuple[Cell, ...]] = [
        (name, *(int(part.get(name, 0)) for part in counts.values()))
        for name in classes[:_MOST_ROWS]
    ]
    total: tuple[Cell, ...] = ("all", *(sum(part.values()) for part in counts.values()))
    return Table(("class", *counts), (*body, total))


@dataclass(frozen=True)
class Findings:
    """What the data check found and no remark tells already: a table, and how many there are."""

    checked: bool
    table: Table
    total: int
    remarked: int
    names: dict[str, tuple[str, ...]]


def _findings(check: Mapping[str, Any] | None, remarks: Sequence[str]) -> Findings:
    every = [entry for entry in (check or {}).get("findings") or [] if isinstance(entry, Mapping)]
    found = [e for e in every if not any(str(e.get("message")) in text for text in remarks)]
    rows: list[tuple[Cell, ...]] = [
        tuple(cell(entry.get(key)) for key in ("severity", "message", "path", "advice"))
        for entry in found[:_MOST_FINDINGS]
    ]
    return Findings(
        checked=check is not None,
        table=Table(("", "found", "file", "advice"), tuple(rows)),
        total=len(found),
        remarked=len(every) - len(found),
        names={str(e.get("code")): tuple(e["names"]) for e in every if e.get("names")},
    )


def _facts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the settings as titled lists of names and values."""
    record = run.record
    split = {
        "hash": run.split_hash,
        "seed": record.split.seed,
        **{name: value for name, value in record.split.settings.items() if name != "division"},
        "test part looked at": f"{run.test_looks} ×",
    }
    method = {name: value for name, value in record.method.items() if value not in (None, "", {})}
    if isinstance(method.get("phases"), list):
        method["phases"] = f"{len(method['phases'])}, see Fitting; run.json has them whole"
    groups = {
        "Method": method,
        "Backbone": to_json(record.backbone),
        "Split": split,
        "Data": {
            "folder": record.data.root_name,
            "pictures": record.data.images,
            "fingerprint": _shortened(record.data.fingerprint),
        },
        "Environment": {"regraft": record.regraft, **record.environment},
    }
    return [(title, [(k, flat(v)) for k, v in facts.items()]) for title, facts in groups.items()]


def _shortened(hashes: Any) -> Any:
    """Return hashes of the parts short enough to be compared by eye; run.json has them whole."""
    if isinstance(hashes, Mapping):
        return {part: None if value is None else str(value)[:12] for part, value in hashes.items()}
    return hashes


def _seconds(run: Run) -> Table:
    steps = run.record.seconds
    rows: list[tuple[Cell, ...]] = [(k, tables.Duration(float(v))) for k, v in steps.items()]
    rows.append(("all", tables.Duration(run.seconds)))
    return Table(("step", "time"), tuple(rows))
