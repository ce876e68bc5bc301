"""The page of a run: one self-contained HTML file.

A new section is a block of ``templates/run.html.j2`` with its entry in the list at the top of it,
and its values in :func:`write_page`; a new measure is an entry of ``results.metrics.MEASURES``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.data.tables import table_line
from regraft.files import write_text
from regraft.report import figures, text
from regraft.report.confidence import confidence
from regraft.report.data_map import data_map, shapes
from regraft.report.gallery import Gallery, Thumbnails, gallery
from regraft.report.tables import (
    NOTHING,
    Cell,
    Duration,
    Table,
    class_table,
    confused_table,
    counts_table,
    measures_table,
    parts_table,
    size,
)
from regraft.results import metrics
from regraft.results.inspection import Inspection
from regraft.results.intervals import percent
from regraft.results.metrics import Scores
from regraft.results.predictions import Predictions, part_name
from regraft.results.run import CLEAN, REPORT, THUMBNAILS, Run
from regraft.settings import to_json
from regraft.system import __version__

Phase = Mapping[str, Any]

_MOST_CELLS = 30  # classes that still fit into a table of true by predicted
_MOST_CURVES = 10  # classes that have a curve each
_MOST_HEAT = 400  # classes that still make a heat map: a pixel each
_MOST_ROWS = 300  # classes that a table shows; predictions.csv has them all
_MOST_PAIRS = 12
_MOST_FINDINGS = 100
_FINDING_KEYS = ("severity", "message", "path", "advice")
_GRID = {"parameters", "mean", "sd"}
_EPOCH_COLUMNS = {
    "phase": "phase",
    "epoch": "epoch",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
    "lr": "learning rate",
    "seconds": "time",
}


def write_page(run: Run, *, data_root: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run into its folder.

    Args:
        run: A finished run.
        data_root: The folder of the images, or the table that lists them. Without it the
            thumbnails of the last time are shown.

    Returns:
        The path of the page.
    """
    root = None if data_root is None else Path(data_root)
    if root is not None and root.is_file():
        root = root.parent
    part, inspection = run.shown_part, Inspection.read(run.folder)
    p = run.predictions.part(part_name(part))
    scores, confused = metrics.per_class(p), metrics.most_confused(p)
    hashes = {row.path: row.sha256 for row in run.rows()}
    images = gallery(p, Thumbnails(run.folder / THUMBNAILS, root, hashes), inspection)
    remarks = text.remarks(run)
    html = text.render(
        "run.html.j2",
        version=__version__,
        run=run,
        record=run.record,
        part=part,
        done=text.what_was_done(run.record),
        found=text.what_was_found(p, part),
        remarks=remarks,
        accuracy=metrics.accuracy(p),
        baseline=metrics.majority_baseline(p),
        clean=run.metrics.get(CLEAN),
        errors=int((~p.correct).sum()),
        parts=parts_table(run.metrics),
        measures=measures_table(run.metrics),
        confusion=_matrix(p),
        heat=_heat(p),
        pairs=confused_table(confused[:_MOST_PAIRS]),
        all_pairs=len(confused),
        scores=class_table(_worst(scores)),
        averages=class_table([replace(a, name=f"{a.name} average") for a in metrics.averages(p)]),
        ranking=_ranking(p),
        confidence=confidence(
            p,
            run.calibration if part == "test" else None,
            temperature=run.record.temperature,
        ),
        fewest=min((score.support for score in scores if score.support), default=0),
        without_images=[score.name for score in scores if score.support == 0],
        gallery=images,
        linked=_linked(images, p),
        pair_links=[f"#pair-{pair.cell[0]}-{pair.cell[1]}" for pair in images.pairs],
        place_of={name: place for place, name in enumerate(p.classes)},
        with_maps=any(one.maps for one in inspection.images.values()) if inspection else False,
        inspection=inspection,
        map=data_map(p, inspection),
        shapes=shapes,
        class_cells=[(name, table_line((name,))) for name in p.classes],
        fitting=fitting(run.record.history, len(run.predictions.part("val"))),
        findings=_findings(run.check, remarks),
        counts=counts_table(run.record.data, most=_MOST_ROWS),
        facts=_facts(run),
    )
    path = run.folder / REPORT
    write_text(path, html)
    return path


# ---- results and confusion ----------------------------------------------------------------------


def _matrix(p: Predictions) -> list[tuple[str, list[tuple[int, float, bool, str]], int]]:
    """Return each true class with its cells and its number of images; nothing for many classes.

    A cell is a count, its share of the row, whether it is right, and the same in words.
    """
    if len(p.classes) > _MOST_CELLS:
        return []
    rows = []
    for i, (true, counts) in enumerate(zip(p.classes, metrics.confusion(p).tolist(), strict=True)):
        support, cells = sum(counts), []
        for j, (predicted, n) in enumerate(zip(p.classes, counts, strict=True)):
            share = n / support if support else 0.0
            spoken = f"{n} of {support} “{true}” predicted as “{predicted}” ({percent(share)})"
            cells.append((n, share, i == j, spoken))
        rows.append((true, cells, support))
    return rows


def _linked(images: Gallery, p: Predictions) -> set[tuple[int, int]]:
    """Return the cells of the confusion matrix that images are shown of."""
    right = {p.classes.index(name) for name in images.right}
    return {pair.cell for pair in images.pairs} | {(k, k) for k in right}


def _heat(p: Predictions) -> str | None:
    if not _MOST_CELLS < len(p.classes) <= _MOST_HEAT:
        return None
    alt = "Confusion matrix as a heat map; the table of the most confused pairs says the same."
    return figures.heat_map(metrics.confusion(p), p.classes, alt=alt)


def _ranking(p: Predictions) -> tuple[str, Table] | None:
    """Return the curves of each class against all others, and their areas; of many the average."""
    found = metrics.rankings(p) if len(p.classes) <= _MOST_CELLS else []
    shown = found if len(p.classes) <= _MOST_CURVES else found[-1:]
    if not shown:
        return None
    rows: list[tuple[Cell, ...]] = [(each.name, *each.areas) for each in shown]
    columns = ("class", "area under the ROC curve", "average precision")
    return figures.rankings(shown), Table(columns, tuple(rows))


def _worst(scores: Sequence[Scores]) -> Sequence[Scores]:
    """Return all classes in their order, or of too many those with the lowest F1."""
    if len(scores) <= _MOST_ROWS:
        return scores
    return sorted(scores, key=lambda s: s.f1.value if s.f1.known else 2.0)[:_MOST_ROWS]


# ---- fitting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitting:
    """What happened while fitting.

    Args:
        tables: Titled tables: a grid of parameters, the phases, a row per epoch.
        facts: Names and values of the rest.
        curves: Accuracy and loss after each epoch as an ``<svg>`` element, if there were epochs.
    """

    tables: tuple[tuple[str, Table], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    curves: str | None = None


def fitting(history: Mapping[str, Any] | None, held: int = 0) -> Fitting:
    """Arrange a learner's history: a grid or the phases and epochs of a training, and the rest.

    Args:
        history: The learner's ``history_``, or None.
        held: The number of validation images.

    Example:
        >>> fitting({"folds": 3, "best": {"C": 1.0}}).facts
        (('folds', '3'), ('best', 'C 1'))
    """
    rest = {key: value for key, value in (history or {}).items() if value not in (None, [], {})}
    tables, curves = [], None
    phases, epochs = rest.pop("phases", []), rest.pop("epochs", [])
    if phases:
        tables.append(("What was trained, phase by phase", _phases_table(phases)))
    if epochs:
        on = f", on {held:,} validation images" if held else ""
        tables.append((f"After each epoch{on}", _epochs_table(epochs)))
        curves = _training_curves(phases, epochs)
    for key, value in list(rest.items()):
        if isinstance(value, list | tuple) and all(
            isinstance(row, Mapping) and set(row) >= _GRID for row in value
        ):
            tables.append((str(key), _grid_table(rest.pop(key), rest.get("best"))))
    facts = tuple((str(key), text.flat(value)) for key, value in rest.items())
    return Fitting(tuple(tables), facts, curves)


def _grid_table(rows: Sequence[Mapping[str, Any]], best: Any) -> Table:
    """Return a column per parameter and the accuracy; the chosen point is marked."""
    names = tuple(dict.fromkeys(str(name) for row in rows for name in row["parameters"]))
    body: list[tuple[Cell, ...]] = [
        (
            *(text.flat(row["parameters"].get(name)) for name in names),
            *(percent(float(row[key])) for key in ("mean", "sd")),
        )
        for row in rows
    ]
    chosen = [index for index, row in enumerate(rows) if row["parameters"] == best]
    columns = (*names, "cross-validated accuracy", "standard deviation over folds")
    return Table(columns, tuple(body), best=chosen[0] if chosen else None)


def _epochs_table(epochs: Sequence[Mapping[str, Any]]) -> Table:
    def cell(name: str, value: Any) -> Cell:
        if value is not None and name.endswith("accuracy"):
            return percent(float(value))
        return Duration(float(value)) if value is not None and name == "seconds" else value

    names = [name for name in _EPOCH_COLUMNS if any(name in epoch for epoch in epochs)]
    rows = tuple(tuple(cell(name, epoch.get(name)) for name in names) for epoch in epochs)
    return Table(tuple(_EPOCH_COLUMNS[name] for name in names), rows)


def _training_curves(phases: Sequence[Phase], epochs: Sequence[Mapping[str, Any]]) -> str:
    """Draw all phases; dashed lines stand between them, rings at their best epochs."""
    lines = [
        {k: v for k, v in epoch.items() if k.endswith(("accuracy", "loss")) and v is not None}
        for epoch in epochs
    ]
    places = {(e.get("phase"), e.get("epoch")): at for at, e in enumerate(epochs, start=1)}
    last = {phase: at for (phase, _), at in places.items()}
    best = [places.get((phase.get("phase"), phase.get("best_epoch"))) for phase in phases]
    return figures.curves(
        lines,
        alt="Accuracy and loss after each epoch. Dashed lines stand between phases, rings at the "
        "best epoch of a phase.",
        borders=[at + 0.5 for at in list(last.values())[:-1]],
        rings=[at for at in best if at is not None],
    )


def _phases_table(phases: Sequence[Phase]) -> Table:
    """Return what was trained and how it ran, a column per phase."""
    columns = [_phase_cells(phase) for phase in phases]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    told = tuple(row for row in rows if any(cell is not None for cell in row[1:]))
    return Table(("", *(f"Phase {number}" for number in range(1, len(phases) + 1))), told)


def _phase_cells(phase: Phase) -> dict[str, Cell]:
    """Return what the table says of a phase, by row; add yours here."""
    trained, boundary = phase["trained"], phase["boundary"] or {}
    trunk = text.trained_stages(phase)
    watched = _EPOCH_COLUMNS[trained["watch"]]
    told = {key: trained[key] for key in ("momentum", "weight_decay") if trained[key]}
    if trained["optimizer"] not in {"sgd", "rmsprop"}:
        told.pop("momentum", None)
    rate = f"{trained['lr']:g}, {trained['schedule'].replace('_', ' ')}"
    if trained["warmup"] and trained["schedule"] == "cosine":
        rate += f", warm-up for {percent(trained['warmup'], digits=0)} of the phase"
    run = phase["last_epoch"]
    epochs = f"{run}" if trained["epochs"] == run else f"{run} of {trained['epochs']}"
    if phase["stopped"] == "patience":
        epochs += f"; stopped after {trained['patience']} without a better {watched}"
    elif phase["stopped"]:
        epochs += f"; stopped by the {phase['stopped']}"
    best = "the last; there were no validation images to choose by"
    if phase["best_epoch"] is not None:
        kept = "the last one's" if trained["keep"] == "last" else "its"
        best = f"{phase['best_epoch']}, by {watched}; {kept} weights were kept"
    unchanged = "NO: they changed, which must not happen"
    if phase["share_of_parameters"] == 1:
        unchanged = "nothing was frozen"
    elif phase["frozen"]["before"] == phase["frozen"]["after"]:
        unchanged = "yes, bit for bit"
    return {
        "trained": f"the new head and {trunk}" if trunk else "the new head alone",
        "parameters": f"{phase['parameters']:,}, {percent(phase['share_of_parameters'])} of all",
        "optimizer": f"{trained['optimizer']}, {text.flat(told)}".removesuffix(f", {NOTHING}"),
        "learning rate": rate,
        "epochs": epochs,
        "best epoch": best,
        "execution": _execution(phase["mode"], boundary),
        "frozen tensors unchanged": unchanged,
        "time": str(Duration(phase["seconds"])),
    }


def _execution(mode: str, boundary: Mapping[str, Any]) -> str:
    """Return whether the activations of what is frozen were kept, and where, or why not."""
    if mode == "live":
        why = f" ({boundary['why']})" if boundary else ""
        return f"live: each image went through the whole network in every epoch{why}"
    return (
        "cached: each image went through the frozen part once; kept: the activation at "
        f"{boundary['stage']}, {size(boundary['bytes'])}"
    )


# ---- data and settings --------------------------------------------------------------------------


def _findings(check: Mapping[str, Any] | None, remarks: Sequence[str]) -> dict[str, Any]:
    """Return what the data check found and no remark says already: a table, and how many."""
    every = [entry for entry in (check or {}).get("findings") or [] if isinstance(entry, Mapping)]
    found = [e for e in every if not any(str(e.get("message")) in remark for remark in remarks)]
    rows = [tuple(e.get(key) or None for key in _FINDING_KEYS) for e in found[:_MOST_FINDINGS]]
    return {
        "checked": check is not None,
        "table": Table(("", "found", "file", "advice"), tuple(rows)),
        "total": len(found),
        "remarked": len(every) - len(found),
        "names": [entry["names"] for entry in every if entry.get("names")],
    }


def _facts(run: Run) -> dict[str, list[tuple[str, str]]]:
    """Return the settings as titled lists of names and values."""
    record, data = run.record, run.record.data
    split = {key: value for key, value in record.split.settings.items() if key != "division"}
    method = dict(record.method)
    if isinstance(method.get("phases"), list):
        method["phases"] = f"{len(method['phases'])}, see Fitting; run.json has them whole"
    looked = {"test part looked at": f"{run.test_looks} ×"}
    groups: dict[str, dict[str, Any]] = {
        "Method": method,
        "Backbone": to_json(record.backbone),
        "Split": {"hash": run.split_hash, "seed": record.split.seed, **split, **looked},
        "Data": {"folder": data.root_name, "images": data.images},
        "Environment": {"regraft": record.regraft, **record.environment},
        "Time": {k: Duration(v) for k, v in (record.seconds | {"all": run.seconds}).items()},
    }
    return {
        title: [(key, text.flat(v)) for key, v in facts.items() if v not in (None, "", [], {})]
        for title, facts in groups.items()
    }
