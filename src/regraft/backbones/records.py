"""What is known of stored weights, written beside them as ``weights.json``, read back strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError, ModelError, RegraftError, WeightsError
from regraft.files import read_json
from regraft.version import __version__

TENSORS = "weights.safetensors"
RECORD = "weights.json"
RECORD_BYTES = 8 << 20
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_MOST_CLASSES = 1_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Weights in the store and everything needed to use them.

    Args:
        name: The name they are used under.
        backbone: The network of the catalogue that they belong to.
        arguments: Names and values for its constructor.
        preprocessing: The preprocessing that they were trained with.
        preprocessing_from: ``"given"`` at import, ``"published"`` with the weights, or
            ``"assumed"`` to be that of the catalogue.
        licence: The licence they come under.
        source: What they were made from, without saying where that lay.
        sha256: The SHA-256 of the file of tensors.
        path: The file of tensors.
        num_classes: The width of the head, None where there is none.
        labels: The names of the classes, None where they are not known.
        notes: What the reader should know, one sentence each.

    Example:
        >>> stored = StoredWeights(
        ...     name="mine", backbone="simple_cnn", preprocessing=Preprocessing.tf(96)
        ... )
        >>> stored.to_json()["licence"]
        'unknown'
    """

    name: str
    backbone: str
    arguments: tuple[tuple[str, Any], ...] = ()
    preprocessing: Preprocessing
    preprocessing_from: str = "given"
    licence: str = "unknown"
    source: str = "unknown"
    sha256: str = ""
    path: Path = Path()
    num_classes: int | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        # The spec knows which arguments are plain values, and puts them in order.
        spec = BackboneSpec(self.backbone, arguments=self.arguments)
        object.__setattr__(self, "arguments", spec.arguments)
        if self.labels is not None:
            _check_labels(self.labels, self.num_classes)

    def to_json(self) -> dict[str, Any]:
        """Return what ``weights.json`` holds; it says nothing of this machine or its user."""
        return {
            "format": _FORMAT,
            "regraft": __version__,
            "name": self.name,
            "backbone": self.backbone,
            "arguments": dict(self.arguments),
            "preprocessing": self.preprocessing.to_json(),
            "preprocessing_from": self.preprocessing_from,
            "num_classes": self.num_classes,
            "labels": None if self.labels is None else list(self.labels),
            "licence": self.licence,
            "source": self.source,
            "sha256": self.sha256,
            "notes": list(self.notes),
        }


def check_name(name: str) -> str:
    """Return ``name`` if it can be the name of stored weights on every system.

    Raises:
        WeightsError: ``WEIGHTS-NAME``.

    Example:
        >>> check_name("my_mobilenet")
        'my_mobilenet'
    """
    fits = isinstance(name, str) and _NAME.fullmatch(name) and not name.endswith(".")
    if not fits or _WINDOWS_DEVICES.fullmatch(name):
        raise WeightsError(
            "not a name for weights",
            why=repr(name)[:200],
            hint="use letters, digits, '.', '_' and '-', at most 100, and begin with a letter",
            code="WEIGHTS-NAME",
        )
    return name


def read_record(folder: Path, *, name: str | None = None) -> StoredWeights:
    """Read the record of stored weights; the tensors are not looked at.

    Args:
        folder: A folder of the store.
        name: The name that must stand in the record; None for the folder's own.

    Raises:
        ModelError: ``MODEL-CORRUPT``, or ``MODEL-VERSION`` if a newer Regraft wrote it.
    """
    file = folder / RECORD
    try:
        record = read_json(file, limit=RECORD_BYTES)
        return _parsed(record, folder, name or folder.name)
    except ModelError:
        raise
    except RegraftError as error:
        why = f"{error.what}: {error.why}" if error.why else error.what
        raise _corrupt_record(file, why) from error
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt_record(file, f"{type(error).__name__}: {error}"[:200]) from error


def _parsed(record: Any, folder: Path, name: str) -> StoredWeights:
    if not isinstance(record, dict):
        raise TypeError("no JSON object")
    written, by = record["format"], record["regraft"]
    if written != _FORMAT:
        raise ModelError(
            "these weights were stored by another version of Regraft",
            path=folder / RECORD,
            why=f"format {written!r:.20}, written by {by!r:.40}; this one reads {_FORMAT}",
            hint="upgrade Regraft",
            code="MODEL-VERSION",
        )
    texts = ("name", "backbone", "preprocessing_from", "licence", "source", "sha256")
    _check_kinds(record, texts)
    if record["name"] != name:
        raise ValueError(f"it is the record of {record['name']!r:.100}")
    plain = {key: value for key, value in record.items() if key not in {"format", "regraft"}}
    return StoredWeights(
        **{
            **plain,
            "arguments": tuple(record["arguments"].items()),
            "preprocessing": Preprocessing.from_json(record["preprocessing"]),
            "labels": None if record["labels"] is None else tuple(record["labels"]),
            "notes": tuple(record["notes"]),
            "path": folder / TENSORS,
        }
    )


def _check_kinds(record: dict[str, Any], texts: tuple[str, ...]) -> None:
    wrong = [key for key in texts if not isinstance(record[key], str)]
    wrong += [] if isinstance(record["arguments"], dict) else ["arguments"]
    for key in ("labels", "notes"):
        listed = [] if key == "labels" and record[key] is None else record[key]
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            wrong.append(key)
    classes = record["num_classes"]
    whole = isinstance(classes, int) and not isinstance(classes, bool)
    if classes is not None and not (whole and 0 < classes <= _MOST_CLASSES):
        wrong.append("num_classes")
    if wrong:
        raise TypeError(f"unexpected value of {', '.join(wrong)}")
    if not _SHA256.fullmatch(record["sha256"]):
        raise ValueError("sha256 is no SHA-256")


def _check_labels(labels: tuple[str, ...], classes: int | None) -> None:
    twice = len(set(labels)) != len(labels)
    if twice or (classes is not None and len(labels) != classes):
        raise BackboneError(
            "the labels do not fit the head",
            why="a label stands twice" if twice else f"{len(labels)} labels, {classes} outputs",
            code="WEIGHTS-LABELS",
        )


def _corrupt_record(file: Path, why: str) -> ModelError:
    return ModelError(
        "the record of these weights is damaged",
        path=file,
        why=why,
        hint="remove the folder and import or fetch the weights again",
        code="MODEL-CORRUPT",
    )
