"""The files of a saved model, data only, each with its SHA-256 in a manifest.

    model.json               what the model is: a `ModelRecord`
    arrays.safetensors       what the scaling, the classifier or the head learned
    classifier.onnx, .json   a shallow classifier that is kept as ONNX, or as XGBoost's own JSON
    backbone.safetensors     the network's weights, unless they were left out
    manifest.json            the SHA-256 of each of the others

Nothing else is ever read, and nothing is read that could run code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from regraft.backbones.backbone import Backbone, WeightsFacts
from regraft.backbones.checkpoint_files import may_hold_code, read_state, write_state
from regraft.backbones.sources import find
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing, read_arguments
from regraft.classifiers.shallow_files import ShallowRecord
from regraft.errors import ModelError, RegraftError
from regraft.files import atomic_folder, read_json, sha256_file, write_bytes, write_json
from regraft.settings import from_json, settings_class, to_json
from regraft.system import __version__
from regraft.training.heads import AnyHead
from regraft.training.phases import Phase

FORMAT = 1
RECORD, MANIFEST = "model.json", "manifest.json"
ARRAYS, BACKBONE = "arrays.safetensors", "backbone.safetensors"
CONTENTS = {"onnx": "classifier.onnx", "xgboost": "classifier.json"}
_NAMES = {RECORD, ARRAYS, BACKBONE, *CONTENTS.values()}
_GIVEN = "given"  # weights that no name stands for

Name = Annotated[str, Field(min_length=1)]


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class BackboneRecord:
    """What network to build, and what it must turn out to be."""

    spec: BackboneSpec  # its weights are a name, none, or "given"
    preprocessing: Preprocessing
    feature_dim: Annotated[int, Field(ge=1, le=10_000_000)]
    weights: WeightsFacts


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class ShallowPart:
    """The classifier of a ``FeatureClassifier``."""

    name: Name  # of a named classifier, or its class
    scaling: str
    model: ShallowRecord


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class NetworkPart:
    """The head of a ``NetworkClassifier``, and how it was trained."""

    head: AnyHead
    output: Literal["softmax", "sigmoid"]
    phases: tuple[Phase, ...] | None
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class ModelRecord:
    """What ``model.json`` holds."""

    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=100_000)]
    backbone: BackboneRecord
    compute: Compute
    history: dict[str, Any]
    warnings: tuple[str, ...]
    temperature: Annotated[float, Field(gt=0)] = 1.0
    shallow: ShallowPart | None = None
    network: NetworkPart | None = None
    regraft: str = __version__

    def __post_init__(self) -> None:
        one_kind = (self.shallow is None) != (self.network is None)
        sigmoid = self.network is not None and self.network.output == "sigmoid"
        twice = len(set(self.classes)) < len(self.classes)
        if not one_kind or twice or (sigmoid and len(self.classes) != 2):
            why = "it needs a classifier or a head, and classes that it can tell apart, each once"
            raise ModelError("not a model", why=why, code="MODEL-CORRUPT")


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class _Manifest:
    format: Literal[1]
    files: dict[str, str]


@dataclass(frozen=True)
class ModelFiles:
    """What a folder holds, verified."""

    place: Path
    record: ModelRecord
    arrays: dict[str, NDArray[Any]]
    content: bytes
    backbone: Path | None


# ---- writing -----------------------------------------------------------------------------------


def portable_compute(compute: Compute) -> Compute:
    """Return what of a computation means the same on another machine."""
    return Compute(engine=compute.engine, precision=compute.precision, decoding=compute.decoding)


def backbone_record(backbone: Backbone, *, trained: bool = False) -> BackboneRecord:
    """Return a network in terms of any machine; no name stands for weights that were trained."""
    spec, entry = backbone.spec, find(backbone.spec.name)
    if entry.stored:  # imported weights: their name means nothing elsewhere
        arguments = read_arguments({**dict(entry.arguments), **dict(spec.arguments)})
        name = backbone.identifier
        spec = dataclasses.replace(spec, name=name, arguments=arguments, weights=_GIVEN)
    elif trained or spec.weights not in {None, "default"}:
        spec = dataclasses.replace(spec, weights=_GIVEN)  # a path of this machine helps nobody
    return BackboneRecord(
        spec=spec,
        preprocessing=backbone.preprocessing,
        feature_dim=backbone.feature_dim,
        weights=backbone.weights,
    )


def write_model(
    folder: str | os.PathLike[str],
    record: ModelRecord,
    arrays: Mapping[str, NDArray[Any]],
    *,
    content: bytes = b"",
    backbone: Backbone | None = None,
) -> None:
    """Write a model's folder, whole or not at all; an older model there is replaced.

    Raises:
        ModelError: A value is NaN or infinite (``MODEL-NAN``).
        RegraftError: The folder holds something else (``FILE-EXISTS``) or cannot be written.
    """
    target = Path(folder)
    is_model = (target / RECORD).is_file() and (target / MANIFEST).is_file()
    is_empty = target.is_dir() and not any(target.iterdir())
    with atomic_folder(target, replace=is_model or is_empty) as part:
        write_json(part / RECORD, to_json(record))
        if arrays:
            tensors = {k: torch.from_numpy(np.array(v, order="C")) for k, v in arrays.items()}
            write_state(part / ARRAYS, tensors)
        if content:
            assert record.shallow is not None
            write_bytes(part / CONTENTS[record.shallow.model.kind], content)
        if backbone is not None:
            write_state(part / BACKBONE, backbone.module.state_dict())
        hashes = {file.name: sha256_file(file) for file in sorted(part.iterdir())}
        write_json(part / MANIFEST, {"format": FORMAT, "files": hashes})


# ---- reading -----------------------------------------------------------------------------------


def read_model(
    folder: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None
) -> ModelFiles:
    """Read a model's folder after every file has been verified.

    Args:
        folder: Where the model stands.
        preprocessing: What the caller believes to be the model's preprocessing, if anything.

    Raises:
        ModelError: ``MODEL-MISSING``, ``MODEL-UNSAFE`` (a file could hold code), ``MODEL-CHECKSUM``
            (changed since it was written), ``MODEL-CORRUPT``, ``MODEL-NAN`` or
            ``MODEL-PREPROCESSING``.
    """
    place = Path(folder)
    _refuse_code(place)
    if not (place / RECORD).exists() or not (place / MANIFEST).exists():
        why = f"a model is a folder with {RECORD} and {MANIFEST}"
        raise ModelError("no saved model", path=place, why=why, code="MODEL-MISSING")
    names = _verified_names(place)
    with reading(place / RECORD):
        record = from_json(ModelRecord, read_json(place / RECORD))
    saved = record.backbone.preprocessing
    if preprocessing is not None and preprocessing != saved:
        what = "this model was fitted under another preprocessing"
        why = f"asked for {preprocessing}; the model's own is {saved}"
        hint = "leave the preprocessing out: the model brings its own"
        raise ModelError(what, path=place, why=why, hint=hint, code="MODEL-PREPROCESSING")
    kind = "" if record.shallow is None else record.shallow.model.kind
    file = CONTENTS.get(kind, "")
    if {*names} - {RECORD, ARRAYS, BACKBONE} != ({file} if file else set()):
        raise corrupt(place, f"a model of this kind has not the files {names}")
    tensors = read_state(place / ARRAYS) if ARRAYS in names else {}
    return ModelFiles(
        place=place,
        record=record,
        arrays={name: tensor.numpy() for name, tensor in tensors.items()},
        content=(place / file).read_bytes() if file else b"",
        backbone=place / BACKBONE if BACKBONE in names else None,
    )


def open_backbone(
    files: ModelFiles,
    build: Callable[[BackboneSpec], Backbone],
    *,
    weights: str | os.PathLike[str] | None = None,
) -> Backbone:
    """Build the network of a model and return it, unless it is not the one that was saved.

    Raises:
        ModelError: ``MODEL-WEIGHTS`` or ``MODEL-CORRUPT``.
    """
    saved, place = files.record.backbone, files.place
    try:
        backbone = build(_located(files, weights))
    except RegraftError as error:
        what, why = "the network of this model cannot be built", f"{error.code}: {error}"
        hint = error.hint if error.code == "MODEL-WEIGHTS" else ""
        raise ModelError(what, path=place, why=why, hint=hint, code="MODEL-WEIGHTS") from error
    found, known = (
        f"{one.feature_dim} features, SHA-256 {one.weights.sha256}" for one in (backbone, saved)
    )
    if found != known:
        what = "the network's weights are not those that the model was fitted with"
        why = f"{found}, saved with {known}"
        hint = f"the model was fitted with {saved.weights.source}"
        raise ModelError(what, path=place, why=why, hint=hint, code="MODEL-WEIGHTS")
    backbone.weights = saved.weights  # a file does not say where it came from
    return backbone


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a saved model makes fail into one error that names the file."""
    try:
        yield
    except ModelError as error:
        if error.code != "MODEL-CORRUPT" or error.path is not None:
            raise
        raise corrupt(path, f"{error.what}: {error.why}") from error
    except Exception as error:
        # What is read reaches constructors and readers of other libraries, and what those raise on
        # nonsense is theirs to choose. A package that is not installed is no damage.
        if isinstance(error, RegraftError) and error.code == "USAGE-EXTRA":
            raise
        raise corrupt(path, str(error)) from error


def corrupt(path: str | os.PathLike[str], why: str) -> ModelError:
    """Return the error for a model whose parts do not fit together."""
    what, hint = "the saved model is damaged", "copy it again from where it was saved"
    return ModelError(what, path=path, why=why[:300], hint=hint, code="MODEL-CORRUPT")


def _located(files: ModelFiles, given: str | os.PathLike[str] | None) -> BackboneSpec:
    """Return the spec with the file of its weights: beside the model, given, or where it says."""
    saved = files.record.backbone
    spec = dataclasses.replace(saved.spec, preprocessing=saved.preprocessing)
    if file := files.backbone or given:
        return dataclasses.replace(spec, weights=os.fspath(file))
    if spec.weights == _GIVEN:
        what, why = "the network's weights are not in the model", f"it needs those of {spec.name}"
        hint = "load_model(folder, weights=FILE), or save it with them"
        raise ModelError(what, why=why, hint=hint, code="MODEL-WEIGHTS")
    return spec


def _refuse_code(place: Path) -> None:
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        if why := may_hold_code(file):
            what = "a file that could run code is no model and was not read"
            hint = "model files hold data only: JSON, safetensors and ONNX"
            raise ModelError(what, path=file, why=why, hint=hint, code="MODEL-UNSAFE")


def _verified_names(place: Path) -> list[str]:
    """Return the files that the manifest lists, each of them unchanged."""
    with reading(place / MANIFEST):
        listed = from_json(_Manifest, read_json(place / MANIFEST)).files
        there = {name for name in _NAMES if (place / name).exists()}
        if not there | {RECORD} <= listed.keys() <= _NAMES:
            raise ValueError(f"it lists {[*listed]!r:.200}, there are {sorted(there)}")
    for name, sha256 in listed.items():
        file = place / name
        if not file.is_file():  # a FIFO would block for ever
            raise corrupt(file, "not a regular file")
        if (found := sha256_file(file)) != sha256:
            what = "a file of the model has changed since it was saved"
            why = f"SHA-256 is {found[:12]}…, the manifest says {sha256[:12]}…"
            hint = "copy the model again from where it was saved, or fit it again"
            raise ModelError(what, path=file, why=why, hint=hint, code="MODEL-CHECKSUM")
    return list(listed)
