"""A fitted ``NetworkClassifier`` as data: the head as a plain value with its tensors, the trunk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone
from regraft.backbones.catalog import find
from regraft.backbones.loading import load_state, misfit, state_sha256
from regraft.backbones.resolving import WeightsFacts
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.state import read_state
from regraft.classifiers.feature_classifier import refuse_changes
from regraft.classifiers.model_folder import RECORD, ModelFiles, corrupt, write_model
from regraft.classifiers.model_record import (
    LearnerRecord,
    learner_facts,
    located,
    parse,
    portable,
    read_spec,
    refuse_extravagance,
    verified,
)
from regraft.classifiers.network_classifier import NetworkClassifier, restore
from regraft.classifiers.network_settings import saved_parameters
from regraft.errors import BackboneError, ModelError, RegraftError, UsageError
from regraft.settings import to_json
from regraft.training.heads import Head, Pool, find_head, head_from_json, head_to_json
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase
from regraft.training.regularize import find_regularization

_HEAD = "head."
_WIDEST_HEAD = 1_000_000  # units of one layer


class _Cut(pydantic.BaseModel):
    stage: str
    dtype: Literal["float32", "float16", "bfloat16"]


class _Reason(pydantic.BaseModel):
    why: str


class _CachedPhase(pydantic.BaseModel):
    mode: Literal["cached"]
    boundary: _Cut


class _LivePhase(pydantic.BaseModel):
    mode: Literal["live"]
    boundary: _Reason | None


class _History(pydantic.BaseModel):
    """What of a history decides how pictures reach the head."""

    phases: list[_CachedPhase | _LivePhase]
    epochs: list[dict[str, Any]]


class _NetworkRecord(LearnerRecord):
    head: dict[str, Any]
    output: Literal["softmax", "sigmoid"]
    phases: list[dict[str, Any]] | None
    trunk_trained: bool
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


def write_network_model(
    learner: NetworkClassifier, folder: str | os.PathLike[str], *, with_backbone: bool
) -> None:
    """Write a fitted learner; see ``saving.save_model``.

    Raises:
        ModelError: The head is not one of Regraft's own (``MODEL-UNSAVEABLE``).
        UsageError: The weights of a trained trunk would be left out, or parameters were changed
            since the fit (``USAGE-REFIT``).
    """
    head, trained = head_record(learner), trunk_was_trained(learner)
    fitted = learner._fitted_with  # noqa: SLF001 - the other half of the class
    refuse_changes(fitted, saved_parameters(learner))
    if trained and not with_backbone:
        raise UsageError(
            "a trunk that was trained cannot be left out of its model",
            path=folder,
            why="its weights exist nowhere else",
            hint="save it with its backbone",
            code="MODEL-WEIGHTS",
        )
    backbone = learner.backbone_
    spec, can_travel = portable(backbone)
    if trained:
        spec = dataclasses.replace(spec, weights="given")  # no name stands for these weights
    phases = None if learner.phases is None else [to_json(phase) for phase in learner.phases]
    record = {
        **learner_facts(learner, spec),
        "head": head,
        "output": learner.output,
        "phases": phases,
        "trunk_trained": trained,
        "batch_size": int(learner.batch_size),
        "seed": int(learner.seed),
    }
    tensors = learner.network_.head.state_dict()
    arrays = {f"{_HEAD}{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}
    goes_with = trained or (with_backbone and can_travel)
    write_model(folder, record, arrays, state=backbone.module.state_dict() if goes_with else None)


def head_record(learner: NetworkClassifier) -> dict[str, Any]:
    """Return the head that a learner trains, as a record holds it.

    Raises:
        ModelError: It is not one of Regraft's own (``MODEL-UNSAVEABLE``).

    Example:
        >>> head_record(NetworkClassifier("vgg16", head="conv_1x1", regularize="dropout=0.5"))
        {'kind': 'conv', 'dropout': 0.5}
    """
    chosen = find_head(learner.head)
    try:
        regularization = find_regularization(learner.regularize)
        head_to_json(chosen)
        return head_to_json(chosen if regularization is None else regularization.head(chosen))
    except UsageError as error:
        raise ModelError(
            "this head cannot be saved",
            why=f"{type(chosen).__name__} is not one of Regraft's own",
            hint=f"model files hold data only, never code; {error.hint}",
            code="MODEL-UNSAVEABLE",
        ) from error


def trunk_was_trained(learner: NetworkClassifier) -> bool:
    """Return whether the trunk's weights are other than those that its spec names."""
    phases = learner.history_["phases"]
    trained = any(phase["share_of_stages"] and phase["last_epoch"] for phase in phases)
    return trained or learner.start is not None


def read_network_model(
    files: ModelFiles,
    place: Path,
    *,
    preprocessing: Preprocessing | None,
    weights: str | os.PathLike[str] | None,
) -> NetworkClassifier:
    """Return the learner that verified files hold; see ``saving.load_model``.

    Raises:
        ModelError: Its parts do not fit together, or its network is not to be had.
    """
    record = parse(_NetworkRecord, files.record, place)
    spec, decoding = read_spec(record, place, preprocessing=preprocessing)
    head = _head(record, place)
    phases = _phases(record, place)
    if record.output == "sigmoid" and len(record.classes) != 2:
        raise corrupt(place / RECORD, "one sigmoid output tells two classes apart, not more")
    tensors = _head_tensors(files.arrays, place)
    spec = _with_weights(spec, files.backbone, weights, place)
    backbone = verified(lambda: _built(spec, files.backbone, record), record.backbone, place)
    learner = NetworkClassifier(
        spec,
        head=head,
        phases=phases,
        output=record.output,
        batch_size=record.batch_size,
        seed=record.seed,
        compute=Compute(
            engine=record.backbone.engine,
            precision=record.backbone.precision,
            decoding=decoding,
        ),
    )
    outputs = 1 if record.output == "sigmoid" else len(record.classes)
    network = _grafted(backbone, _SavedHead(head, tensors), outputs, place)
    _check_history(record, place)
    try:
        restore(
            learner,
            classes=record.classes,
            network=network,
            backbone=backbone,
            history=record.history,
            warnings=tuple(record.warnings),
        )
    except RegraftError as error:
        raise corrupt(place / RECORD, f"history: {error}") from error
    return learner


class _SavedHead:
    """A head whose tensors are known; it is built only where they fit."""

    def __init__(self, head: Head, tensors: Mapping[str, Tensor]) -> None:
        self._head = head
        self._tensors = tensors

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the head with its tensors.

        Raises:
            ValueError: The tensors are not those of this head.
        """
        width = pool(torch.zeros(1, *shape)).shape[1]
        with torch.device("meta"):  # costs no memory, whatever sizes a damaged record names
            empty = self._head.build(
                shape, outputs, pool=lambda maps: maps.new_empty(len(maps), width)
            )
        if found := misfit(empty.state_dict(), self._tensors):
            raise ValueError(f"the tensors are not those of the head: {found}")
        module = self._head.build(shape, outputs, pool=pool)
        module.load_state_dict(dict(self._tensors), strict=True)
        return module


def _grafted(backbone: Backbone, head: _SavedHead, outputs: int, place: Path) -> TransferNetwork:
    try:
        # In this order in memory the network was trained; another one would change the last bits.
        return TransferNetwork(backbone, head, outputs=outputs).to(
            memory_format=torch.channels_last
        )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise corrupt(place, str(e)) from e  # fields of a head that no layer can be built with
    except RegraftError as error:
        raise corrupt(place / RECORD, f"head: {error}") from error


def _head(record: _NetworkRecord, place: Path) -> Head:
    refuse_extravagance(record.head, place, largest=_WIDEST_HEAD)
    try:
        head = head_from_json(record.head)
    except RegraftError as error:
        raise corrupt(place / RECORD, f"head: {error.why or error.what}") from error
    widths = getattr(head, "widths", ())
    if not isinstance(widths, tuple) or len(widths) > 100:
        raise corrupt(place / RECORD, "head: the widths are no short list of numbers")
    return head


def _phases(record: _NetworkRecord, place: Path) -> list[Phase] | None:
    try:
        return None if record.phases is None else [Phase(**phase) for phase in record.phases]
    except (RegraftError, TypeError, ValueError) as error:
        raise corrupt(place / RECORD, f"phases: {error}") from error


def _check_history(record: _NetworkRecord, place: Path) -> None:
    """Refuse a history that does not say on which way pictures reach the head."""
    try:
        _History.model_validate(record.history)
    except pydantic.ValidationError as error:
        raise corrupt(place / RECORD, f"history: {str(error).splitlines()[0]}") from error


def _head_tensors(arrays: Mapping[str, NDArray[Any]], place: Path) -> dict[str, Tensor]:
    strange = [name for name in arrays if not name.startswith(_HEAD)]
    if strange:
        raise corrupt(place, f"unknown array {strange[0]!r:.80}")
    return {
        name.removeprefix(_HEAD): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
    }


def _with_weights(
    spec: BackboneSpec, beside: Path | None, given: str | os.PathLike[str] | None, place: Path
) -> BackboneSpec:
    """Return the spec with the file of its weights; a network of the user's own builds itself."""
    if beside is not None and _is_own(spec):
        return spec
    return located(spec, beside, given, place)


def _is_own(spec: BackboneSpec) -> bool:
    try:
        return find(spec.name).source == "registered"
    except BackboneError:
        return False  # the name is refused where the network is built


def _built(spec: BackboneSpec, beside: Path | None, record: _NetworkRecord) -> Backbone:
    """Build the network; what is said of its weights is what was known when they were saved."""
    backbone = spec.build()
    if beside is not None and _is_own(spec):
        load_state(backbone.network, read_state(beside), path=beside, entry=find(spec.name))
    said = record.backbone.weights
    backbone.weights = WeightsFacts(
        sha256=state_sha256(backbone.module), licence=said.licence, source=said.source
    )
    return backbone
