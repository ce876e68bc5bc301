"""One finished run: a folder with what was done, on which data, what came out, and the model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from regraft.data import manifest
from regraft.data.provenance import Source, read_source
from regraft.errors import DataError, RegraftError, RunError
from regraft.files import read_json, write_json
from regraft.results import metrics
from regraft.results.predictions import Predictions
from regraft.results.privacy import without_secrets
from regraft.results.reservation import (
    CHECK,
    MODEL,
    PREDICTIONS,
    RECORD,
    SPLIT,
    no_run,
    reserve,
)
from regraft.version import __version__

if TYPE_CHECKING:
    from regraft.data.checks import CheckReport
    from regraft.data.dataset import Dataset
    from regraft.data.split import Split

FORMAT = "regraft-run"
VERSION = 1
PART_TITLES = {"train": "train", "val": "validation", "test": "test"}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "description": str,
    "learner": str,
    "parameters": dict,
    "data": dict,
    "split": dict,
    "backbone": dict,
    "metrics": dict,
    "seconds": dict,
    "environment": dict,
    "warnings": list,
    "command": str,
}


class Savable(Protocol):
    """A fitted classifier that can write itself into a folder."""

    def save(self, folder: Path) -> Any:
        """Write the model into ``folder``."""
        ...


@dataclass(frozen=True)
class RunRecord:
    """What was done, as far as neither the split nor the predictions say it.

    Args:
        description: One line that tells this run from others.
        learner: The class of the learner, such as ``FeatureClassifier``.
        parameters: All its parameters, JSON values.
        backbone: name, weights, weights_sha256, licence, preprocessing, feature_dim, parameters.
        seconds: Seconds per step.
        images: How many pictures went into the run.
        images_embedded: How many of them passed through the backbone; the others were cached.
        epochs: Passes over the training part; ``None`` for a classifier that has none.
        history: What happened while fitting: the learner's ``history_``.
        environment: Versions and threads.
        warnings: What the reader should know before trusting a number.
        command: The command that repeats the run.
        plan: The run as a plan of one row, so that ``run.json`` can be run again.
        leaked: Test pictures that something in train or validation gives away; the test accuracy is
            recorded without them, too.

    Example:
        >>> RunRecord("svm on vgg16", learner="FeatureClassifier").epochs is None
        True
    """

    description: str
    learner: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    images_embedded: int | None = None
    epochs: int | None = None
    history: Any = None
    environment: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    command: str | Sequence[str] = ""
    plan: dict[str, Any] = field(default_factory=dict)
    leaked: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run in its folder: made by :meth:`create` or :meth:`write`, read by :meth:`open`.

    Args:
        folder: Where it stands.
        data: The content of ``run.json``.
    """

    folder: Path
    data: dict[str, Any]

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        record: RunRecord,
        predictions: Predictions,
        *,
        split: Split,
        check: CheckReport | None = None,
        learner: Savable | None = None,
    ) -> Run:
        """Write a run into a new folder; see :meth:`write`.

        Raises:
            RunError: ``RUN-EXISTS`` or ``RUN-LOCKED``: the folder is taken.
        """
        with reserve(folder) as place:
            return cls.write(place, record, predictions, split=split, check=check, learner=learner)

    @classmethod
    def write(
        cls,
        place: Path,
        record: RunRecord,
        predictions: Predictions,
        *,
        split: Split,
        check: CheckReport | None = None,
        learner: Savable | None = None,
        test_looks: int | None = None,
    ) -> Run:
        """Write a run into a reserved folder; ``run.json`` comes last and makes it a run.

        Args:
            place: What :func:`~regraft.results.reservation.reserve` gave.
            record: What was done.
            predictions: The predictions of all the parts, one after the other.
            split: The split that was used; its manifest is written beside.
            check: What the data check found.
            learner: The fitted classifier, written to ``model/``.
            test_looks: How often the test part was looked at, this time included; by default
                counted in the manifest that is written here.
        """
        split.write(place)
        if test_looks is None:
            test_looks = split.count_test_look(place) if "test" in predictions.parts else 0
        predictions.write(place / PREDICTIONS)
        if check is not None:
            check.write(place)
        if learner is not None:
            learner.save(place / MODEL)
        data = _document(record, predictions, split, test_looks)
        write_json(place / RECORD, without_secrets(data))
        return cls.open(place)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Open a finished run.

        Raises:
            RunError: ``RUN-FOREIGN``: there is no run; ``RUN-INCOMPLETE``: it was begun and not
                finished;
                ``RUN-NEWER``: a newer Regraft wrote it; ``RUN-INVALID``: its record is damaged.
        """
        place = Path(folder)
        if not (place / RECORD).is_file():
            raise no_run(place)
        try:
            data = read_json(place / RECORD)
        except RegraftError as error:
            raise RunError(
                "the run's record is damaged", path=place / RECORD, why=error.why
            ) from error
        _validate(data, place)
        return cls(place, data)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def description(self) -> str:
        """One line that tells this run from others; the folder's name if there is none."""
        return str(self.data["description"]) or self.name

    @property
    def split_hash(self) -> str:
        """The hash of the split; accuracies can be compared case by case where it is equal."""
        return str(self.data["split"].get("hash", ""))

    @property
    def created(self) -> str:
        """When the run was written: ISO 8601, UTC."""
        return str(self.data.get("created", ""))

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured on ``train``, ``validation`` and ``test``, as far as there are."""
        return dict(self.data["metrics"])

    @property
    def images(self) -> int:
        """How many pictures were fitted on or predicted, each time counted."""
        return int(self.data.get("images") or 0)

    @property
    def images_embedded(self) -> int:
        """How many of them passed through the backbone; the others came from the cache."""
        return int(self.data.get("images_embedded") or 0)

    @property
    def warnings(self) -> list[str]:
        """What the reader should know before trusting a number."""
        return [str(warning) for warning in self.data["warnings"]]

    def result(self) -> dict[str, Any]:
        """Return the run in short for a machine: accuracies, what it took and where it is.

        A trained network has ``phases`` and ``history`` too, one mapping per phase and epoch.
        """
        keys = ("accuracy", "n", "interval")
        parts = {
            title: {key: self.metrics[title][key] for key in keys}
            if title in self.metrics
            else None
            for title in PART_TITLES.values()
        }
        history = self.data.get("history")
        trained = {}
        if isinstance(history, dict) and {"phases", "epochs"} <= set(history):
            trained = {"phases": history["phases"], "history": history["epochs"]}
        return {
            **parts,
            **trained,
            "images": self.images,
            "images_embedded": self.images_embedded,
            "seconds": round(self.seconds, 3),
            "run": str(self.folder),
        }

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return float(sum(self.data["seconds"].values()))

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions of all the parts.

        Raises:
            DataError: The table is missing or damaged.
        """
        return Predictions.read(self.folder / PREDICTIONS)

    def pictures(self) -> tuple[manifest.Row, ...]:
        """Return what the split says of each picture: path, SHA-256, class and part.

        Raises:
            DataError: The manifest is missing or damaged.
            RunError: It is that of another split (``SPLIT-HASH``).
        """
        stored = manifest.read(self.folder)
        digest = manifest.manifest_hash(stored.rows, stored.classes)
        if digest != self.split_hash:
            raise RunError(
                "the manifest is not that of this run",
                path=self.folder / SPLIT[0],
                why=f"hash {digest[:12]}…, the run's {self.split_hash[:12]}…",
                hint="restore split.csv and split.json, or repeat the run into another folder",
                code="SPLIT-HASH",
            )
        return stored.rows

    @cached_property
    def check(self) -> dict[str, Any] | None:
        """What the data check found, as JSON has it, or ``None`` when there was no check."""
        file = self.folder / CHECK
        return dict(read_json(file)) if file.is_file() else None

    @property
    def test_looks(self) -> int:
        """How often the test part was looked at, later evaluations included."""
        file = self.folder / SPLIT[1]
        written = read_json(file).get("test_looks") if file.is_file() else None
        return int(self.data["split"].get("test_looks") or 0 if written is None else written)


def data_facts(split: Split) -> dict[str, Any]:
    """Return what a run records of its data: no path but the folder's own name."""
    parts = split.parts()
    root = next((part.root for part in parts.values() if part.root is not None), None)
    origin = None if root is None else _origin(root)
    return {
        "origin": None if origin is None else origin.to_json(),
        "root_name": None if root is None else root.resolve().name,
        "images": sum(len(part) for part in parts.values()),
        "classes": list(split.classes),
        "counts": {PART_TITLES[name]: part.counts() for name, part in parts.items()},
        "fingerprint": {PART_TITLES[name]: _fingerprint(part) for name, part in parts.items()},
    }


def _fingerprint(part: Dataset) -> str | None:
    return part.fingerprint if len(part) else None


def _origin(root: Path) -> Source | None:
    """Return where pictures came from; a file of that name that is not ours costs no run."""
    try:
        return read_source(root)
    except DataError:
        return None


def _document(
    record: RunRecord, predictions: Predictions, split: Split, test_looks: int
) -> dict[str, Any]:
    present = [name for name in PART_TITLES if name in predictions.parts]
    measured = {PART_TITLES[name]: metrics.details(predictions.part(name)) for name in present}
    if record.leaked and "test" in measured:
        left = metrics.without(predictions.part("test"), record.leaked)
        measured["test"]["without_leaks"] = left
    command = record.command
    return {
        "format": FORMAT,
        "version": VERSION,
        "regraft": __version__,
        "description": record.description,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "learner": record.learner,
        "parameters": record.parameters,
        "data": data_facts(split),
        "split": {
            "hash": split.hash,
            "seed": split.seed,
            "settings": split.settings,
            "test_looks": test_looks,
        },
        "backbone": record.backbone,
        "metrics": measured,
        "seconds": {step: round(seconds, 3) for step, seconds in record.seconds.items()},
        "images": record.images,
        "images_embedded": record.images_embedded,
        "epochs": record.epochs,
        "history": record.history,
        "environment": record.environment,
        "warnings": list(record.warnings),
        "command": command if isinstance(command, str) else shlex.join(command),
        "plan": record.plan,
    }


def _validate(data: Any, place: Path) -> None:
    file = place / RECORD
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise RunError("this run.json is not Regraft's", path=file, code="RUN-FOREIGN")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise RunError(
            "a newer Regraft wrote this run",
            path=file,
            why=f"version {version} of the format, this Regraft reads up to {VERSION}",
            hint="update Regraft",
            code="RUN-NEWER",
        )
    wrong = [key for key, kind in _KINDS.items() if not isinstance(data.get(key), kind)]
    if wrong:
        raise RunError("the run's record is damaged", path=file, why=f"wrong: {', '.join(wrong)}")
