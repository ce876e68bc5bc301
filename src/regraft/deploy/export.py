"""A fitted model written as ONNX, and compared with itself before anybody relies on it."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.shallow_files import ONNX_OPSET
from regraft.data.images import ImageLike
from regraft.deploy import graph
from regraft.deploy.likeness import Likeness, write_training
from regraft.deploy.modules import Learner, Scaled, as_module, refused
from regraft.deploy.predictor import (
    FEATURES,
    NETWORK,
    PROBABILITIES,
    RECORD,
    VIEWS,
    Agreement,
    DeployRecord,
    Predictor,
    load,
    record_json,
)
from regraft.errors import ModelError
from regraft.explain.neighbours import TrainingFeatures
from regraft.files import atomic_folder, sha256_bytes, write_bytes, write_json
from regraft.results.calibration import Calibration
from regraft.settings import to_json

TOLERANCE = 1e-4  # of a probability
_TRACED = 2  # images


def write_deployed(
    learner: Learner,
    folder: str | os.PathLike[str],
    images: Sequence[ImageLike],
    *,
    provenance: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    likeness: Likeness | None = None,
    training: TrainingFeatures | None = None,
) -> Agreement:
    """Write a fitted learner as a model that predicts without torch; an older one gives way.

    Args:
        learner: A fitted learner.
        folder: Where to.
        images: On which both must agree: the test part.
        provenance: Where the model comes from.
        calibration: What its promises rest on.
        likeness: What is known of the images that it has learned from.
        training: The features of these images.

    Raises:
        ModelError: It cannot be written as ONNX, or that answers differently
            (``MODEL-UNSAVEABLE``).

    Example:
        >>> import tempfile
        >>> from regraft.backbones.spec import BackboneSpec
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("simple_cnn", weights=None))
        >>> _ = learner.fit([dark, light], ["night", "day"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     agreement = write_deployed(learner, f"{folder}/deploy", [dark, light])
        ...     answers = load(folder).predict([light])
        >>> agreement.changed, answers.tolist()
        (0, ['day'])
    """
    network = network_onnx(learner).SerializeToString()
    facts: dict[str, Any] = {
        "classes": tuple(map(str, learner.classes_)),
        "preprocessing": learner.backbone_.preprocessing,
        "decoding": learner.compute.decoding,
        "sha256": sha256_bytes(network),
        "provenance": dict(provenance or {}),
        "calibration": calibration,
        "likeness": likeness,
    }
    first = DeployRecord(**facts, agreement=Agreement(images=0, difference=0.0, changed=0))
    agreement = compare(learner, Predictor(first, network).predict_proba, images)
    write_folder(folder, DeployRecord(**facts, agreement=agreement), network, training)
    return agreement


def write_folder(
    folder: str | os.PathLike[str],
    record: DeployRecord,
    network: bytes,
    training: TrainingFeatures | None = None,
) -> None:
    """Write a deployed model of its parts; an older one gives way.

    Args:
        folder: Where to.
        record: What is known of it; the SHA-256 of the network is put in.
        network: The content of ``network.onnx``.
        training: The features of the images that ``record.likeness`` tells of.
    """
    with atomic_folder(Path(folder), replace=True) as part:
        write_bytes(part / NETWORK, network)
        if training is not None:
            write_training(training, part)
        write_json(part / RECORD, record_json(replace(record, sha256=sha256_bytes(network))))


def write_onnx(deployed: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write a deployed model as one ONNX file that takes an image of any size.

    Its input ``image`` is (height, width, 3) in RGB of 8 bits, its output ``probabilities`` (k,).
    The metadata hold ``labels`` as a JSON list, and where the model comes from.

    Args:
        deployed: The folder that :func:`write_deployed` wrote.
        file: The file to write.

    Raises:
        ModelError: There is no deployed model, or it is damaged.
    """
    write_bytes(Path(file), whole_onnx(deployed))


def whole_onnx(deployed: str | os.PathLike[str]) -> bytes:
    """Return what :func:`write_onnx` writes."""
    record = load(deployed).record
    network = onnx.load(str(Path(deployed) / NETWORK))
    whole = graph.whole_model(network, record.preprocessing)
    known = {"labels": list(record.classes), "preprocessing": to_json(record.preprocessing)}
    graph.describe(whole, {**known, **record.provenance})
    return bytes(whole.SerializeToString())


def network_onnx(learner: Learner) -> onnx.ModelProto:
    """Return what a fitted learner does to views, (n, size, size, 3) in 8 bits, as ONNX.

    Raises:
        ModelError: It cannot be written as ONNX (``MODEL-UNSAVEABLE``).
    """
    size = learner.backbone_.preprocessing.size
    if isinstance(learner, FeatureClassifier):
        model = learner.shallow_.model
        if model is None or model.record.kind == "xgboost":
            why = "XGBoost has no ONNX form here" if model else learner.shallow_.obstacle
            raise refused("ONNX", why)
        if model.record.kind == "onnx":
            rows = Scaled(learner.backbone_.embedder, learner.shallow_.scaling)
            classifier = onnx.load_from_string(model.content)
            return graph.join(_traced(rows, size, graph.ROWS), classifier, learner.temperature_)
    return _traced(as_module(learner), size, PROBABILITIES)


def compare(
    learner: Learner,
    predict: Callable[[Sequence[ImageLike]], NDArray[np.float64]],
    images: Sequence[ImageLike],
) -> Agreement:
    """Say how far from a learner is what is made of it.

    Args:
        learner: A fitted learner.
        predict: From images to probabilities, (n, k), with what was made.
        images: On which both are asked.

    Raises:
        ModelError: A probability differs by more than ``TOLERANCE`` (``MODEL-UNSAVEABLE``).
    """
    expected, found = learner.predict_proba(images), predict(images)
    agreement = agreement_of(expected, found)
    if not agreement.difference <= TOLERANCE:
        what, hint = "the exported model would answer differently", "use the model as it is"
        raise ModelError(what, why=str(agreement), hint=hint, code="MODEL-UNSAVEABLE")
    return agreement


def agreement_of(expected: NDArray[np.float64], found: NDArray[np.float64]) -> Agreement:
    """Say how far probabilities (n, k) are from those expected.

    Example:
        >>> rows = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> agreement_of(rows, rows[::-1]).changed
        2
    """
    difference = float(np.abs(found - expected).max(initial=0.0))
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    return Agreement(images=len(expected), difference=difference, changed=changed)


def _traced(module: nn.Module, size: int, output: str) -> onnx.ModelProto:
    device = next(module.parameters()).device
    views = torch.randint(0, 256, (_TRACED, size, size, 3), dtype=torch.uint8, device=device)
    content = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about every shape that Python looks at
        try:
            torch.onnx.export(
                module.eval(),
                (views,),
                content,  # type: ignore[arg-type] # without dynamo it may be a stream
                dynamo=False,
                opset_version=ONNX_OPSET,
                input_names=[VIEWS],
                output_names=[output, FEATURES],
                dynamic_axes={name: {0: "n"} for name in (VIEWS, output, FEATURES)},
            )
        except Exception as error:
            raise refused("ONNX", f"{type(error).__name__}: {error}") from error
    made = onnx.load_from_string(content.getvalue())
    made.ir_version = graph.IR
    return made
