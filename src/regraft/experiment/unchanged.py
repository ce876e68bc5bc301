"""Whether the pictures and the weights of a finished run are still those that it was fitted on."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from regraft.backbones.spec import BackboneSpec
from regraft.backbones.weights import stored_hash
from regraft.classifiers.model_files import MANIFEST
from regraft.data.check import check
from regraft.data.dataset import Dataset
from regraft.data.split import division
from regraft.errors import RunError
from regraft.files import sha256_file
from regraft.results.run import MODEL, RECORD, Run

_HINT = "choose another folder with out (--out), or delete this one"
_SOURCES = {
    "stored_weights_sha256": "the store under the name {spec.name}",
    "weights_file_sha256": "{spec.weights}",
    "start_sha256": "{start}",
}


@dataclass(frozen=True)
class Listing:
    """The pictures that lie there now.

    Args:
        data: The pictures; what is known of their content is kept for all runs.
        places: Their places by relative path.
        touched: When each of them was last written, moved or copied, in seconds since 1970.
    """

    data: Dataset
    places: Mapping[str, int]
    touched: tuple[float, ...]

    @classmethod
    def of(cls, data: Dataset) -> Listing:
        """Return the listing of a data set; no file is opened."""
        places = {name: place for place, name in enumerate(data.relative_paths())}
        return cls(data, places, tuple(map(_touched, data.paths)))

    def changed(self, hashes: Mapping[str, str], *, since: float) -> set[str]:
        """Return which pictures, of these SHA-256 by path, have other content since a time."""
        names = self._touched_since(hashes, since)
        found = self._taken(names).hashes()
        return {name for name, now in zip(names, found, strict=True) if now != hashes[name]}

    def repaired(self, names: Iterable[str], *, since: float) -> set[str]:
        """Return which pictures, of these that could not be used, can be since a time."""
        touched = self._touched_since(names, since)
        return set(touched) - {file.name for file in check(self._taken(touched)).bad_files}

    def _touched_since(self, names: Iterable[str], time: float) -> list[str]:
        return [name for name in names if self.touched[self.places[name]] > time]

    def _taken(self, names: Iterable[str]) -> Dataset:
        return self.data.take(self.places[name] for name in names)


def refuse_changed_pictures(run: Run, now: Listing) -> None:
    """Refuse a finished run whose pictures are not the ones that lie there now.

    Paths and classes are compared with the run's. Only files that were written, moved or copied
    since are opened: the content decides, and what could not be used then is decoded again.

    Args:
        run: The run.
        now: The pictures that lie there.

    Raises:
        RunError: Pictures are new, gone, changed, of another class or repaired, or came with other
            parts or groups (``RUN-DATA-CHANGED``).
        DataError: A file cannot be read.
    """
    then = {row.path: row for row in run.rows()}
    bad = {str(entry.get("path", "")) for entry in (run.check or {}).get("bad_files", [])}
    both = now.places.keys() & then.keys()
    labels = now.data.labels
    written = (run.folder / RECORD).stat().st_mtime
    kinds = {
        "new": now.places.keys() - then.keys() - bad,
        "gone": then.keys() - now.places.keys(),
        "changed": now.changed({name: then[name].sha256 for name in both}, since=written),
        "of another class": {name for name in both if labels[now.places[name]] != then[name].label},
        "repaired": now.repaired(now.places.keys() & bad - then.keys(), since=written),
    }
    told = [f"{len(names)} {what} ({min(names)})" for what, names in kinds.items() if names]
    settings = run.record.split.settings
    divided = division(now.data, regroup=settings.get("regroup", False), among=then)
    if not told and divided != settings.get("division", divided):
        told.append("their own parts or groups are others")
    if told:
        raise RunError(
            "the pictures are not the ones of this run any more",
            path=run.folder,
            why=", ".join(told),
            hint=_HINT,
            code="RUN-DATA-CHANGED",
        )


def initial_weights(spec: BackboneSpec, start: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return the SHA-256 of each thing a training begins with that can give way to another.

    Args:
        spec: Its file of weights counts, or what is stored under its name.
        start: The folder of a run or model to go on from.

    Raises:
        BackboneError: The network is unknown.
        ModelError: The record of its stored weights is damaged.
    """
    found: dict[str, str | None] = {}
    if spec.weights == "default":
        found["stored_weights_sha256"] = stored_hash(spec.name)
    elif spec.weights is not None and (file := Path(spec.weights)).is_file():
        found["weights_file_sha256"] = _digest(file, _stamp(file))
    if start is not None:
        places = (Path(start) / MODEL / MANIFEST, Path(start) / MANIFEST)
        manifest = next((place for place in places if place.is_file()), None)
        found["start_sha256"] = None if manifest is None else sha256_file(manifest)
    return {name: digest for name, digest in found.items() if digest is not None}


@functools.lru_cache(maxsize=64)
def _digest(file: Path, _when: tuple[int, int]) -> str:
    """Return the SHA-256 of a file; many rows of a plan begin with the same large one."""
    return sha256_file(file)


def _stamp(file: Path) -> tuple[int, int]:
    facts = file.stat()
    return facts.st_mtime_ns, facts.st_ctime_ns


def refuse_changed_weights(
    run: Run, spec: BackboneSpec, start: str | os.PathLike[str] | None
) -> None:
    """Refuse a finished run that began with other weights than it would begin with now.

    Args:
        run: The run.
        spec: The network of its recipe.
        start: What its recipe goes on from; what is no folder is passed over.

    Raises:
        RunError: They are others (``RUN-WEIGHTS-CHANGED``).
    """
    then = run.record.backbone.initial
    for name, now in initial_weights(spec, start).items():
        if then.get(name, now) != now:
            raise RunError(
                "the weights are not the ones of this run any more",
                path=run.folder,
                why=f"{_SOURCES[name].format(spec=spec, start=start)} has other content now",
                hint=_HINT,
                code="RUN-WEIGHTS-CHANGED",
            )


def _touched(file: Path) -> float:
    """Return the latest time of a file: a copy or a move may keep when its content was written."""
    try:
        facts = file.stat()
    except OSError:  # whoever opens it says what is wrong
        return math.inf
    return max(facts.st_mtime, facts.st_ctime)
