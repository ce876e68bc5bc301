"""A fitted ``FeatureClassifier`` as data: its shallow classifier and scaling as named arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regraft.backbones.spec import Compute, Preprocessing
from regraft.classifiers import conversion
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.fitting import FittedShallow
from regraft.classifiers.kinds import KINDS, ArrayClassifier
from regraft.classifiers.model_folder import ModelFiles, corrupt, write_model
from regraft.classifiers.model_record import (
    LearnerRecord,
    Strict,
    learner_facts,
    located,
    parse,
    portable,
    read_spec,
    unknown,
    verified,
)
from regraft.classifiers.scaling import Scaling


class _ClassifierRecord(Strict):
    name: str
    scaling: str
    kind: str
    settings: dict[str, str | int]


class _FeatureRecord(LearnerRecord):
    classifier: _ClassifierRecord


def write_feature_model(
    learner: FeatureClassifier, folder: str | os.PathLike[str], *, with_backbone: bool
) -> None:
    """Write a fitted learner; see ``saving.save_model``.

    Raises:
        ModelError: The classifier cannot be saved as data (``MODEL-UNSAVEABLE``).
        UsageError: Parameters that shape features have been changed since the fit.
    """
    learner._refuse_other_features()  # noqa: SLF001 - the other half of it
    named, backbone = learner.classifier, learner.backbone_
    fitted = learner._fitted  # noqa: SLF001 - the other half of it
    if fitted.arrays is None:
        raise conversion.unsaveable(conversion.obstacle(fitted.estimator))
    arrays = {f"classifier.{name}": array for name, array in fitted.arrays.arrays.items()}
    arrays |= {f"scaling.{name}": array for name, array in fitted.scaling.arrays.items()}
    spec, can_travel = portable(backbone)
    record = {
        **learner_facts(learner, spec),
        "classifier": {
            "name": named if isinstance(named, str) else type(named).__name__,
            "scaling": fitted.scaling.name,
            "kind": fitted.arrays.kind,
            "settings": dict(fitted.arrays.settings),
        },
    }
    state = backbone.module.state_dict() if with_backbone and can_travel else None
    write_model(folder, record, arrays, state=state)


def read_feature_model(
    files: ModelFiles,
    place: Path,
    *,
    preprocessing: Preprocessing | None,
    weights: str | os.PathLike[str] | None,
) -> FeatureClassifier:
    """Return the learner that verified files hold; see ``saving.load_model``.

    Raises:
        ModelError: Its parts do not fit together, or its network is not to be had.
    """
    record = parse(_FeatureRecord, files.record, place)
    if record.classifier.kind not in KINDS:
        raise unknown("classifier", record.classifier.kind, ", ".join(KINDS), place)
    arrays, scaling = _shallow(record, files.arrays, place)
    spec, decoding = read_spec(record, place, preprocessing=preprocessing)
    learner = FeatureClassifier(
        located(spec, files.backbone, weights, place),
        classifier=record.classifier.name,
        scale=scaling.name,
        compute=Compute(
            engine=record.backbone.engine,
            precision=record.backbone.precision,
            decoding=decoding,
        ),
    )
    verified(lambda: learner.backbone_, record.backbone, place)
    warnings = tuple(record.warnings)
    fitted = FittedShallow(None, scaling, arrays, record.history, warnings)
    learner._become(fitted, record.classes, record.history, warnings)  # noqa: SLF001 - as in fit
    return learner


def _shallow(
    record: _FeatureRecord, arrays: Mapping[str, NDArray[Any]], place: Path
) -> tuple[ArrayClassifier, Scaling]:
    parts: dict[str, dict[str, NDArray[Any]]] = {"classifier": {}, "scaling": {}}
    for full, array in arrays.items():
        part, _, name = full.partition(".")
        if part not in parts:
            raise corrupt(place, f"unknown array {full!r:.80}")
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
