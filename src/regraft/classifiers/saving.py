"""Saving a fitted learner as data and getting it back; see ``model_folder`` for the files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field
from sklearn.utils.validation import check_is_fitted

import regraft
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.classifiers import conversion
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.fitting import FittedShallow
from regraft.classifiers.kinds import KINDS, ArrayClassifier
from regraft.classifiers.model_folder import RECORD, corrupt, read_model, write_model
from regraft.classifiers.scaling import Scaling
from regraft.classifiers.shallow import find_shallow
from regraft.data.images import Decoding
from regraft.errors import BackboneError, ModelError, RegraftError

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone

_LARGEST_ARGUMENT = (
    10_000  # in a network's arguments; beyond it somebody wants to exhaust the memory
)


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _WeightsRecord(_Strict):
    sha256: str
    licence: str
    source: str


class _SpecRecord(_Strict):
    name: str
    weights: Literal["default", "given"] | None
    arguments: dict[str, Any]
    preprocessing: dict[str, Any] | None
    pooling: str
    seed: int


class _BackboneRecord(_Strict):
    spec: _SpecRecord
    fingerprint: str
    preprocessing: dict[str, Any]
    feature_dim: int = Field(ge=1, le=10_000_000)
    weights: _WeightsRecord
    engine: Literal["auto", "torch", "openvino"]
    precision: Literal["fp32", "bf16"]


class _ClassifierRecord(_Strict):
    name: str
    scaling: str
    kind: str
    settings: dict[str, str | int]


class _ModelRecord(_Strict):
    """The content of ``model.json``, format 1."""

    format: int
    learner: str
    regraft: str
    classes: list[Any] = Field(min_length=2, max_length=100_000)
    backbone: _BackboneRecord
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(min_length=3, max_length=3)
    float_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    classifier: _ClassifierRecord
    history: dict[str, Any]
    warnings: list[str]


def can_save(classifier: Any) -> bool:
    """Say, before any fitting, whether a learner with this classifier can be saved.

    Args:
        classifier: A name of ``shallow.NAMED`` or a scikit-learn classifier.

    Raises:
        UsageError: The name is unknown, or the object is no classifier.

    Example:
        >>> from sklearn.svm import SVC
        >>> can_save("random_forest"), can_save(SVC())
        (True, False)
    """
    return not conversion.obstacle(find_shallow(classifier)[0])


def save_model(
    learner: FeatureClassifier, folder: str | os.PathLike[str], *, with_backbone: bool = True
) -> None:
    """Write a fitted learner into a folder as data, with its preprocessing and its classes.

    Args:
        learner: A fitted learner.
        folder: Where the model shall stand; an older model there is replaced, anything else is not.
        with_backbone: Whether the network's weights go with it, so that the model predicts on any
            machine. Without them the folder holds a few kilobytes to megabytes, and the same
            weights must be found where it is loaded.

    Raises:
        ModelError: The classifier cannot be saved as data (``MODEL-UNSAVEABLE``), or a value is not
            finite (``MODEL-NAN``).
        RegraftError: The folder holds something else (``FILE-EXISTS``) or cannot be written.

    Example:
        >>> import tempfile
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("small_cnn", weights=None), classifier="knn")
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> save_model(learner.fit([dark, light], ["night", "day"]), folder)
        >>> load_model(folder).predict([light]).tolist()
        ['day']
    """
    check_is_fitted(learner)
    named, backbone = learner.classifier, learner.backbone_
    fitted = learner._fitted  # noqa: SLF001 - the other half of it
    if fitted.arrays is None:
        raise conversion.unsaveable(conversion.obstacle(fitted.estimator))
    arrays = {f"classifier.{name}": array for name, array in fitted.arrays.arrays.items()}
    arrays |= {f"scaling.{name}": array for name, array in fitted.scaling.arrays.items()}
    spec, portable = _portable(backbone)
    record = {
        "learner": "FeatureClassifier",
        "regraft": regraft.__version__,
        "classes": [str(name) for name in learner.classes_],
        "backbone": {
            "spec": spec.to_json(),
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.to_json(),
            "feature_dim": backbone.feature_dim,
            "weights": dataclasses.asdict(backbone.weights),
            "engine": learner.engine,
            "precision": learner.precision,
        },
        "background": list(learner.decoding.background),
        "float_range": learner.decoding.float_range and list(learner.decoding.float_range),
        "classifier": {
            "name": named if isinstance(named, str) else type(named).__name__,
            "scaling": fitted.scaling.name,
            "kind": fitted.arrays.kind,
            "settings": dict(fitted.arrays.settings),
        },
        "history": learner.history_,
        "warnings": list(learner.warnings_),
    }
    state = backbone.module.state_dict() if with_backbone and portable else None
    write_model(folder, record, arrays, state=state)


def load_model(
    folder: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> FeatureClassifier:
    """Read a saved learner; it predicts exactly what it predicted when it was saved.

    Every file is verified before it is read, and nothing is read that could hold code.

    Args:
        folder: Where the model stands.
        preprocessing: What the caller believes to be the model's preprocessing, if anything.
        weights: The file of the network's weights, for a model that was saved without them.

    Raises:
        ModelError: ``MODEL-MISSING``, ``MODEL-UNSAFE``, ``MODEL-CHECKSUM``, ``MODEL-VERSION``,
            ``MODEL-UNKNOWN`` (of a kind that is not known), ``MODEL-CORRUPT``, ``MODEL-NAN``,
            ``MODEL-PREPROCESSING`` (another than the saved one) or ``MODEL-WEIGHTS`` (the network
            is not there, or is not the one that was saved).
    """
    place = Path(folder)
    files = read_model(place)
    record = _parse(files.record, place)
    arrays, scaling = _shallow(record, files.arrays, place)
    try:
        saved = Preprocessing.from_json(record.backbone.preprocessing)
        spec = BackboneSpec.from_json(record.backbone.spec.model_dump())
        own = {"background": record.background, "float_range": record.float_range}
        # The limits on what one picture may cost are those of the machine that reads it.
        decoding = Decoding.from_json(Decoding().to_json() | own)
    except (BackboneError, TypeError, ValueError) as error:
        raise corrupt(place / RECORD, str(error)) from error
    if preprocessing is not None and preprocessing != saved:
        raise ModelError(
            "this model was fitted under another preprocessing",
            path=place,
            why=f"asked for {preprocessing}; the model's own is {saved}",
            hint="leave the preprocessing out: the model brings its own",
            code="MODEL-PREPROCESSING",
        )
    spec = _located(dataclasses.replace(spec, preprocessing=saved), files.backbone, weights, place)
    learner = FeatureClassifier(
        spec,
        classifier=record.classifier.name,
        scale=scaling.name,
        engine=record.backbone.engine,
        precision=record.backbone.precision,
        decoding=decoding,
    )
    _check_backbone(learner, record.backbone, place)
    learner.classes_ = np.array(record.classes)
    learner.history_ = record.history
    learner.warnings_ = tuple(record.warnings)
    learner._fitted = FittedShallow(  # noqa: SLF001 - the other half of save_model
        None, scaling, arrays, record.history, learner.warnings_
    )
    return learner


# ---- writing -----------------------------------------------------------------------------------


def _portable(backbone: Backbone) -> tuple[BackboneSpec, bool]:
    """Return a spec that means the same on another machine, and whether weights can go with it."""
    from regraft.backbones.catalog import find

    spec, entry = backbone.spec, find(backbone.spec.name)
    if entry.path is not None:  # imported weights: their name means nothing elsewhere
        name = entry.identifier if entry.source == "regraft" else backbone.identifier
        arguments = tuple(sorted({**dict(entry.arguments), **dict(spec.arguments)}.items()))
        spec = dataclasses.replace(spec, name=name, arguments=arguments, weights="given")
    elif spec.weights not in {None, "default"}:
        spec = dataclasses.replace(spec, weights="given")  # a path of this machine helps nobody
    return spec, entry.source != "registered"


# ---- reading -----------------------------------------------------------------------------------


def _parse(content: Mapping[str, Any], place: Path) -> _ModelRecord:
    kind = content.get("learner")
    if kind != "FeatureClassifier":
        raise _unknown("learner", kind, "FeatureClassifier", place)
    try:
        record = _ModelRecord.model_validate(dict(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise corrupt(place / RECORD, f"{where}: {first['msg']}") from error
    if record.classifier.kind not in KINDS:
        raise _unknown("classifier", record.classifier.kind, ", ".join(KINDS), place)
    names = record.classes
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise corrupt(place / RECORD, "the classes are not different names")
    return record


def _shallow(
    record: _ModelRecord, arrays: Mapping[str, NDArray[Any]], place: Path
) -> tuple[ArrayClassifier, Scaling]:
    parts: dict[str, dict[str, NDArray[Any]]] = {"classifier": {}, "scaling": {}}
    for full, array in arrays.items():
        part, _, name = full.partition(".")
        if part not in parts:
            raise corrupt(place / RECORD, f"unknown array {full!r:.80}")
        parts[part][name] = array
    scaling = Scaling(record.classifier.scaling, parts["scaling"])
    classifier = ArrayClassifier(
        record.classifier.kind, parts["classifier"], record.classifier.settings
    )
    width = record.backbone.feature_dim
    why = scaling.problem(width)
    why = why or classifier.problem(scaling.width(width), len(record.classes))
    if why:
        raise corrupt(place, why)
    return classifier, scaling


def _located(
    spec: BackboneSpec,
    beside: Path | None,
    given: str | os.PathLike[str] | None,
    place: Path,
) -> BackboneSpec:
    """Return the spec with the file of its weights: beside the model, given, or where it says."""
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


def _check_backbone(learner: FeatureClassifier, saved: _BackboneRecord, place: Path) -> None:
    """Build the network and refuse it unless it is the one that was saved."""
    _refuse_extravagance(saved.spec.arguments, place)
    try:
        backbone = learner.backbone_
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


def _refuse_extravagance(value: Any, place: Path) -> None:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_extravagance(item, place)
    elif isinstance(value, int | float) and abs(value) > _LARGEST_ARGUMENT:
        raise corrupt(place / RECORD, f"an argument of the network is {value!r:.40}")


def _unknown(what: str, found: object, known: str, place: Path) -> ModelError:
    return ModelError(
        f"this kind of {what} is not known",
        path=place,
        why=f"found {found!r:.80}; known: {known}",
        hint="the model may be of a newer Regraft: pip install --upgrade regraft",
        code="MODEL-UNKNOWN",
    )
