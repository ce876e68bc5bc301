"""A page that follows runs while they are trained, and the server that it comes from.

Everything is read from the folders of the runs, so that a run may be started anywhere, and what a
killed one has left is shown. The server speaks to this machine only and gives nothing but the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from regraft.data.images import thumbnail
from regraft.errors import RegraftError, UsageError
from regraft.files import read_json, sha256_bytes
from regraft.report.gallery import Shown, data_address
from regraft.report.run_page import fitting
from regraft.report.tables import Duration, Table
from regraft.report.text import count, render
from regraft.results import metrics
from regraft.results.intervals import Estimate, wilson
from regraft.results.predictions import part_name
from regraft.results.run import EPOCHS, LIVE, RECORD, REPORT, Run, is_running, unfinished
from regraft.system import __version__

Epochs = Sequence[Mapping[str, Any]]

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'nonce-{}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MOST_CELLS = 30  # classes that still fit into a table of true by predicted
_MOST_PAIRS = 12
_LAST = 3  # epochs whose time says how long the others will take
_DAMAGED = (RegraftError, OSError, AttributeError, LookupError, TypeError, ValueError)
_NOTHING: dict[str, Any] = {"tables": ()}
_NOTHING |= dict.fromkeys(("name", "said", "curves", "matrix", "pairs", "counted", "images"))


@dataclass(frozen=True)
class Watched:
    """A run as it is at this moment.

    Args:
        folder: Where it stands.
        state: What becomes of it.
        changed: When it was written to, as ``time.time`` has it.
        epochs: What was measured in each finished epoch.
        live: What it takes the validation images for: ``live.json``, or nothing.
        run: The run where it is finished.
    """

    folder: Path
    state: Literal["running", "stopped", "finished"]
    changed: float
    epochs: Epochs
    live: Mapping[str, Any]
    run: Run | None

    @property
    def key(self) -> str:
        """What it is called in addresses; no path stands there."""
        return sha256_bytes(os.fsencode(self.folder.absolute()))[:12]


def find_runs(places: Sequence[Path]) -> list[Watched]:
    """Return all runs in folders, looked for as by ``open_runs``, also those not finished.

    Args:
        places: Folders of runs, or runs; they need not exist yet.

    Returns:
        Those at work first, then the one that was written to last.

    Example:
        >>> find_runs([Path("nowhere")])
        []
    """
    folders = [
        folder
        for place in places
        for folder in (place, *place.glob("*/"), *place.glob("runs/*/"))
        if (folder / RECORD).is_file() or unfinished(folder)
    ]
    found = [look(folder) for folder in dict.fromkeys(folders)]
    return sorted(found, key=lambda each: (each.state != "running", -each.changed))


def look(folder: Path) -> Watched:
    """Return how a run stands; of what is damaged only the folder is known."""
    finished = (folder / RECORD).is_file()
    state: Any = "finished" if finished else "running" if is_running(folder) else "stopped"
    changed, epochs, live, run = 0.0, [], {}, None
    with contextlib.suppress(*_DAMAGED):
        changed = max(_written(folder / name) for name in (".", RECORD, EPOCHS, LIVE))
        with contextlib.suppress(RegraftError):
            live = dict(read_json(folder / LIVE))
        if finished:
            run = _opened(folder, _written(folder / RECORD))
            epochs = list((run.record.training or {}).get("epochs", ()))
        elif (folder / EPOCHS).is_file():
            lines = (folder / EPOCHS).read_text(encoding="utf-8").split("\n")
            epochs = [json.loads(line) for line in lines[:-1]]  # behind the last is half a line
    return Watched(folder, state, changed, epochs, live, run)


def seconds_left(
    epochs: Epochs, planned: Sequence[int], budget: float | None = None, since: float = 0.0
) -> float:
    """Return how long a training takes on, if the epochs to come take as long as the last ones.

    Args:
        epochs: At least one that is finished.
        planned: Epochs of each phase.
        budget: Minutes after which the training ends anyway.
        since: Seconds since the last epoch ended.

    Example:
        >>> seconds_left([{"phase": 1, "epoch": 2, "seconds": 3.0}], [4, 10], since=1.0)
        35.0
    """
    phase, epoch = epochs[-1]["phase"], epochs[-1]["epoch"]
    last = [each["seconds"] for each in epochs[-_LAST:] if each["phase"] == phase]
    left = (sum(planned[phase - 1 :]) - epoch) * sum(last) / len(last)
    if budget is not None:
        left = min(left, 60 * budget - sum(each["seconds"] for each in epochs))
    return max(float(left) - since, 0.0)


def page(places: Sequence[Path], asked: Mapping[str, str], nonce: str = "") -> str:
    """Return the page: a table of all runs, and all that is known of one of them.

    Args:
        places: Folders of runs.
        asked: ``run``, the key of a run (by default the first), and ``epoch``, of which the sample
            images are shown (by default the last).
        nonce: What the page's script may run by.
    """
    runs = find_runs(places)
    chosen = next((run for run in runs if run.key == asked.get("run")), runs[0] if runs else None)
    number = int(asked["epoch"]) if asked.get("epoch", "").isdecimal() else None
    return render(
        "watch.html.j2",
        version=__version__,
        places=[str(place) for place in places],
        runs=[_row(run) for run in runs],
        chosen=chosen and chosen.key,
        details=_details(chosen, number) if chosen else _NOTHING,
        asked=number,
        nonce=nonce,
    )


def make_server(places: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """Return a server of the page at 127.0.0.1; ``serve_forever`` runs it.

    A page of another address that this name is made to lead to is refused, for it would read along.

    Args:
        places: Folders of runs.
        port: Where it listens; 0 for any port that is free.

    Raises:
        UsageError: The port is taken.
    """
    making = threading.Lock()  # matplotlib draws one figure at a time

    class Handler(BaseHTTPRequestHandler):
        server: ThreadingHTTPServer
        timeout = 60

        def do_GET(self) -> None:
            own = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
            url, nonce = urlsplit(self.path), secrets.token_urlsafe(16)
            status, text = 404, "there is nothing but /"
            if self.headers.get("Host") not in own:
                status, text = 403, "this server answers to 127.0.0.1 and localhost only"
            elif url.path == "/":
                with making:
                    status, text = 200, page(places, dict(parse_qsl(url.query)), nonce)
            data = text.encode("utf-8", "replace")
            self.send_response(status)
            kind = "html" if status == 200 else "plain"
            for name, value in (
                ("Content-Type", f"text/{kind}; charset=utf-8"),
                ("Content-Length", str(len(data))),
                ("Content-Security-Policy", _POLICY.format(nonce)),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            with contextlib.suppress(ConnectionError):  # whoever asked has left
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_arguments: Any) -> None:
            """Keep the terminal clear."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        hint = "choose another --port, or 0 for any that is free"
        raise UsageError(f"cannot listen at port {port}", why=str(error), hint=hint) from error


def _written(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0


@lru_cache(maxsize=512)
def _opened(folder: Path, _written: float) -> Run:
    return Run.open(folder)


def _row(run: Watched) -> dict[str, Any]:
    """Return a line of the table of runs."""
    row: dict[str, Any] = {"key": run.key, "name": run.folder.resolve().name, "state": run.state}
    row |= {"description": "", "epochs": None, "time": "", "validation": None, "test": None}
    with contextlib.suppress(*_DAMAGED):
        if run.run is not None:
            record = run.run.record
            row |= {"description": record.description, "epochs": record.epochs}
            row |= {part: found["accuracy"] for part, found in record.metrics.items()}
            row["time"] = f"took {Duration(run.run.seconds)}"
        elif run.epochs:
            planned, budget = run.live["planned"], run.live["time_budget"]
            row |= {"epochs": f"{len(run.epochs)} of {sum(planned)}", "validation": _accuracy(run)}
            left = seconds_left(run.epochs, planned, budget, time.time() - run.changed)
            if run.state == "running":
                row["time"] = f"about {Duration(left)} left" if left else "ends at any moment"
    return row


def _accuracy(run: Watched) -> Estimate | None:
    """Return the validation accuracy of the last epoch, by the number of images counted."""
    share, n = run.epochs[-1].get("val_accuracy"), sum(n for *_, n in run.live["counts"])
    return None if share is None or not n else wilson(round(share * n), n)


def _details(run: Watched, number: int | None) -> dict[str, Any]:
    """Return all that is known of a run, drawn anew only where something was written."""
    files = tuple(_written(run.folder / name) for name in (RECORD, EPOCHS, LIVE))
    return _drawn(run.folder, number, run.state, files)


@lru_cache(maxsize=8)
def _drawn(folder: Path, number: int | None, _state: str, _files: Any) -> dict[str, Any]:
    run = look(folder)
    said = {
        "running": "It is being trained; after each epoch this page has more.",
        "stopped": "It was stopped before it was finished: this is what it had. Repeat its command "
        f"with --out {folder} to go on.",
        "finished": f"It is finished. Its own page: {folder.absolute() / REPORT}",
    }
    found = {**_NOTHING, "name": folder.resolve().name, "said": said[run.state]}
    with contextlib.suppress(*_DAMAGED):
        history = {"epochs": run.epochs} if run.run is None else run.run.record.history
        fitted = fitting(history, sum(n for *_, n in run.live.get("counts", ())))
        found |= {"curves": fitted.curves, "tables": fitted.tables}
    with contextlib.suppress(*_DAMAGED):
        found |= _confusion(run)
    with contextlib.suppress(*_DAMAGED):
        found |= _samples(run.live, number)
    return found


def _confusion(run: Watched) -> dict[str, Any]:
    """Return what was taken for what: by the finished network, or in the last epoch so far."""
    if run.run is not None:
        part = "test" if "test" in run.run.metrics else "validation"
        p = run.run.predictions.part(part_name(part))
        classes, counts = list(p.classes), metrics.confusion(p)
        counted = f"The finished model on the {part} images"
    else:
        classes = list(run.live["classes"])
        counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        for true, predicted, n in run.live["counts"]:
            counts[true, predicted] = n
        counted = "The validation images after the last epoch"
    counted += f", {count(int(counts.sum()), 'image')}"
    if not counts.any():
        return {}
    if len(classes) <= _MOST_CELLS:
        return {"matrix": (classes, counts.tolist()), "counted": counted}
    return {"pairs": _pairs(classes, counts), "counted": counted}


def _pairs(classes: Sequence[str], counts: NDArray[np.int64]) -> Table:
    wrong = counts * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    cells = [divmod(int(at), len(classes)) for at in order if wrong.flat[at]]
    rows = [
        (classes[i], classes[j], int(counts[i, j]), wilson(int(counts[i, j]), int(counts[i].sum())))
        for i, j in cells
    ]
    return Table(("true", "predicted", "images", "share of the true class"), tuple(rows))


def _samples(live: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    """Return some validation images with what an epoch took them for."""
    known = {epoch["number"]: epoch["answers"] for epoch in live["epochs"]}
    if not known:
        return {}
    shown = number if number in known else max(known)
    images = [
        Shown(path or "", str(true), live["classes"][code], float(share), 0.0, _thumbnail(path))
        for (path, true), (code, share) in zip(live["images"], known[shown], strict=True)
    ]
    return {"images": images, "numbers": list(known), "epoch": shown}


@lru_cache(maxsize=512)
def _thumbnail(path: str | None) -> str | None:
    """Return a small copy of an image that a run has named; None for what is no image."""
    try:
        return None if path is None else data_address(thumbnail(Path(path).expanduser()))
    except (RegraftError, OSError, RuntimeError):
        return None
