"""Whether a finished run is still it: its images and weights are those that it was fitted on.

That its settings are the same is told by ``RunConfig.key``: all fields but those that change
nothing of what is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from regraft.backbones.sources import stored_hash
from regraft.classifiers.model_files import MANIFEST
from regraft.data.check import check
from regraft.data.dataset import Dataset
from regraft.data.split import division
from regraft.errors import RunError
from regraft.experiment.config import MethodConfig
from regraft.files import sha256_file
from regraft.results.run import MODEL, RECORD, Run

_HINT = "choose another folder with out (--out), or delete this one"


@dataclass(frozen=True)
class FolderState:
    """The images that lie there now.

    Args:
        data: The images; what is known of their content is kept for all runs.
        places: Their places by relative path.
        touched: When each of them was last written, moved or copied, in seconds since 1970.
    """

    data: Dataset
    places: Mapping[str, int]
    touched: tuple[float, ...]

    @classmethod
    def of(cls, data: Dataset) -> FolderState:
        """Return the state of a data set; no file is opened."""
        places = {name: place for place, name in enumerate(data.relative_paths())}
        return cls(data, places, tuple(map(_touched, data.paths)))

    def changed(self, hashes: Mapping[str, str], *, since: float) -> set[str]:
        """Return which images, of these SHA-256 by path, have other content since a time."""
        names = self._touched_since(hashes, since)
        found = self._taken(names).hashes()
        return {name for name, now in zip(names, found, strict=True) if now != hashes[name]}

    def repaired(self, names: Iterable[str], *, since: float) -> set[str]:
        """Return which images, of these that could not be used, can be since a time."""
        touched = self._touched_since(names, since)
        return set(touched) - {file.name for file in check(self._taken(touched)).bad_files}

    def _touched_since(self, names: Iterable[str], time: float) -> list[str]:
        return [name for name in names if self.touched[self.places[name]] > time]

    def _taken(self, names: Iterable[str]) -> Dataset:
        return self.data.take(self.places[name] for name in names)


def refuse_changed_images(run: Run, now: FolderState) -> None:
    """Refuse a finished run whose images are not the ones that lie there now.

    Paths and classes are compared with the run's. Only files that were written, moved or copied
    since are opened: the content decides, and what could not be used then is decoded again.

    Raises:
        RunError: Images are new, gone, changed, of another class or repaired, or came with other
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
            "the images are not the ones of this run any more",
            path=run.folder,
            why=", ".join(told),
            hint=_HINT,
            code="RUN-DATA-CHANGED",
        )


def initial_weights(method: MethodConfig) -> dict[str, str]:
    """Return the SHA-256 of each thing a run begins with that can give way to another, by its name.

    These are its file of weights, or what is stored under the name of its network, and the model of
    the run that it starts from; a ``start`` that is no folder is passed over.

    Raises:
        BackboneError: The network is unknown.
        ModelError: The record of its stored weights is damaged.
    """
    found: dict[str, str | None] = {}
    spec = method.spec
    if spec.weights == "default":
        found["stored weights"] = stored_hash(spec.name)
    elif spec.weights is not None and (file := Path(spec.weights)).is_file():
        facts = file.stat()
        found["file of weights"] = _digest(file, facts.st_mtime_ns, facts.st_ctime_ns)
    if method.start is not None:
        places = (method.start / MODEL / MANIFEST, method.start / MANIFEST)
        manifest = next((place for place in places if place.is_file()), None)
        found["run to start from"] = None if manifest is None else sha256_file(manifest)
    return {name: digest for name, digest in found.items() if digest is not None}


def refuse_changed_weights(run: Run, method: MethodConfig) -> None:
    """Refuse a finished run that began with other weights than it would begin with now.

    Raises:
        RunError: They are others (``RUN-WEIGHTS-CHANGED``).
    """
    then = run.record.backbone.initial
    for name, now in initial_weights(method).items():
        if then.get(name, now) != now:
            raise RunError(
                "the weights are not the ones of this run any more",
                path=run.folder,
                why=f"the {name} ({method.start or method.weights}) has other content now",
                hint=_HINT,
                code="RUN-WEIGHTS-CHANGED",
            )


@functools.lru_cache(maxsize=64)
def _digest(file: Path, *_when: int) -> str:
    """Return the SHA-256 of a file; many rows of a plan begin with the same large one."""
    return sha256_file(file)


def _touched(file: Path) -> float:
    """Return the latest time of a file: a copy or a move may keep when its content was written."""
    try:
        facts = file.stat()
    except OSError:  # whoever opens it says what is wrong
        return math.inf
    return max(facts.st_mtime, facts.st_ctime)
