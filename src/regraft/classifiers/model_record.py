"""What the record of every saved learner holds, and how its network is found and verified."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field

from regraft.backbones.catalog import find
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.classifiers.model_folder import RECORD, corrupt
from regraft.data.images import Decoding
from regraft.errors import BackboneError, ModelError, RegraftError, UsageError
from regraft.settings import from_json, to_json
from regraft.version import __version__

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone
    from regraft.classifiers.feature_classifier import FeatureClassifier
    from regraft.classifiers.network_classifier import NetworkClassifier

_LARGEST_ARGUMENT = (
    10_000  # in a network's arguments; beyond it somebody wants to exhaust the memory
)


class Strict(pydantic.BaseModel):
    """A part of a record: exactly these fields, of exactly these types, all numbers finite."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _WeightsRecord(Strict):
    sha256: str
    licence: str
    source: str
    classifier: bool


class _SpecRecord(Strict):
    name: str
    weights: Literal["default", "given"] | None
    arguments: dict[str, Any]
    preprocessing: dict[str, Any] | None
    pooling: str
    seed: int


class BackboneRecord(Strict):
    """The network of a learner: what to build, and what it must turn out to be."""

    spec: _SpecRecord
    fingerprint: str
    preprocessing: dict[str, Any]
    feature_dim: int = Field(ge=1, le=10_000_000)
    weights: _WeightsRecord
    engine: Literal["auto", "torch", "openvino"]
    precision: Literal["fp32", "bf16"]


class LearnerRecord(Strict):
    """What ``model.json`` holds whatever the learner, format 1."""

    format: int
    learner: str
    regraft: str
    classes: list[Any] = Field(min_length=2, max_length=100_000)
    backbone: BackboneRecord
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(min_length=3, max_length=3)
    float_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    history: dict[str, Any]
    warnings: list[str]


Record = TypeVar("Record", bound=LearnerRecord)


# ---- writing -----------------------------------------------------------------------------------


def learner_facts(
    learner: FeatureClassifier | NetworkClassifier, spec: BackboneSpec
) -> dict[str, Any]:
    """Return the fields of :class:`LearnerRecord` for a fitted learner.

    Args:
        learner: Fitted.
        spec: Its network in a form that means the same on another machine; see :func:`portable`.
    """
    backbone, decoding = learner.backbone_, learner.compute.decoding
    return {
        "learner": type(learner).__name__,
        "regraft": __version__,
        "classes": [str(name) for name in learner.classes_],
        "backbone": {
            "spec": spec.to_json(),
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.to_json(),
            "feature_dim": backbone.feature_dim,
            "weights": dataclasses.asdict(backbone.weights),
            "engine": learner.compute.engine,
            "precision": learner.compute.precision,
        },
        "background": list(decoding.background),
        "float_range": decoding.float_range and list(decoding.float_range),
        "history": learner.history_,
        "warnings": list(learner.warnings_),
    }


def portable(backbone: Backbone) -> tuple[BackboneSpec, bool]:
    """Return a spec that means the same on another machine, and whether weights can go with it."""
    spec, entry = backbone.spec, find(backbone.spec.name)
    if entry.path is not None:  # imported weights: their name means nothing elsewhere
        name = entry.identifier if entry.source == "regraft" else backbone.identifier
        arguments = tuple(sorted({**dict(entry.arguments), **dict(spec.arguments)}.items()))
        spec = dataclasses.replace(spec, name=name, arguments=arguments, weights="given")
    elif spec.weights not in {None, "default"}:
        spec = dataclasses.replace(spec, weights="given")  # a path of this machine helps nobody
    return spec, entry.source != "registered"


# ---- reading -----------------------------------------------------------------------------------


def parse(kind: type[Record], content: Mapping[str, Any], place: Path) -> Record:
    """Return the content of ``model.json`` as a record of a kind.

    Raises:
        ModelError: It is none (``MODEL-CORRUPT``).
    """
    try:
        record = kind.model_validate(dict(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise corrupt(place / RECORD, f"{where}: {first['msg']}") from error
    names = record.classes
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise corrupt(place / RECORD, "the classes are not different names")
    return record


def unknown(what: str, found: object, known: str, place: Path) -> ModelError:
    """Return the error for a kind of learner or classifier that this Regraft does not know."""
    return ModelError(
        f"this kind of {what} is not known",
        path=place,
        why=f"found {found!r:.80}; known: {known}",
        hint="the model may be of a newer Regraft: pip install --upgrade regraft",
        code="MODEL-UNKNOWN",
    )


def read_spec(
    record: LearnerRecord, place: Path, *, preprocessing: Preprocessing | None
) -> tuple[BackboneSpec, Decoding]:
    """Return the network that a record names, with its preprocessing, and how files are decoded.

    Args:
        record: The record.
        place: The model's folder, for messages.
        preprocessing: What the caller believes to be the model's preprocessing, if anything.

    Raises:
        ModelError: ``MODEL-CORRUPT``, or ``MODEL-PREPROCESSING`` where the caller believes wrongly.
    """
    try:
        saved = Preprocessing.from_json(record.backbone.preprocessing)
        spec = BackboneSpec.from_json(record.backbone.spec.model_dump())
        own = {"background": record.background, "float_range": record.float_range}
        # The limits on what one picture may cost are those of the machine that reads it.
        decoding = from_json(Decoding, to_json(Decoding()) | own)
    except (BackboneError, UsageError, TypeError, ValueError) as error:
        raise corrupt(place / RECORD, str(error)) from error
    if preprocessing is not None and preprocessing != saved:
        raise ModelError(
            "this model was fitted under another preprocessing",
            path=place,
            why=f"asked for {preprocessing}; the model's own is {saved}",
            hint="leave the preprocessing out: the model brings its own",
            code="MODEL-PREPROCESSING",
        )
    return dataclasses.replace(spec, preprocessing=saved), decoding


def located(
    spec: BackboneSpec,
    beside: Path | None,
    given: str | os.PathLike[str] | None,
    place: Path,
) -> BackboneSpec:
    """Return the spec with the file of its weights: beside the model, given, or where it says.

    Raises:
        ModelError: The weights are nowhere (``MODEL-WEIGHTS``).
    """
    if beside is not None:
        return dataclasses.replace(spec, weights=str(beside))
    if given is not None:
        return dataclasses.replace(spec, weights=os.fspath(given))
    if spec.weights == "given":
        raise ModelError(
            "this model was saved without its network's weights",
            path=place,
            why=f"it needs those of {spec.name}",
            hint="load_model(folder, weights=FILE), or save it with them",
            code="MODEL-WEIGHTS",
        )
    return spec


def verified(build: Callable[[], Backbone], saved: BackboneRecord, place: Path) -> Backbone:
    """Build the network and return it, unless it is not the one that was saved.

    Args:
        build: Builds the network.
        saved: What it must turn out to be.
        place: The model's folder, for messages.

    Raises:
        ModelError: ``MODEL-WEIGHTS`` or ``MODEL-CORRUPT``.
    """
    refuse_extravagance(saved.spec.arguments, place)
    try:
        backbone = build()
    except RegraftError as error:
        raise ModelError(
            "the network of this model cannot be built",
            path=place,
            why=f"{error.code}: {error}",
            code="MODEL-WEIGHTS",
        ) from error
    except Exception as error:
        # Arguments from a file reach the constructors of any network of timm or torchvision, and
        # what those raise on nonsense is theirs to choose.
        raise corrupt(place / RECORD, f"the network cannot be built: {error}") from error
    found = (backbone.weights.sha256, backbone.feature_dim)
    if found != (saved.weights.sha256, saved.feature_dim):
        raise ModelError(
            "the network's weights are not those that the model was fitted with",
            path=place,
            why=f"{found[1]} features, SHA-256 {found[0][:12]}…; "
            f"saved with {saved.feature_dim} and {saved.weights.sha256[:12]}…",
            hint=f"the model was fitted with {saved.weights.source}",
            code="MODEL-WEIGHTS",
        )
    return backbone


def refuse_extravagance(value: Any, place: Path, *, largest: int = _LARGEST_ARGUMENT) -> None:
    """Refuse a record with a number that could only exhaust the memory.

    Raises:
        ModelError: ``MODEL-CORRUPT``.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            refuse_extravagance(item, place, largest=largest)
    elif isinstance(value, int | float) and abs(value) > largest:
        raise corrupt(place / RECORD, f"an argument of the network is {value!r:.40}")
