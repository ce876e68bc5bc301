"""What the parameters of a network classifier must fulfil, and what they say about its work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from regraft.backbones.loading import state_sha256
from regraft.classifiers.feature_classifier import Labelled, refuse_unknown_classes
from regraft.data.images import Decoding
from regraft.errors import UsageError
from regraft.settings import to_json
from regraft.system import choose_device, has_bf16
from regraft.training.augment import find_augmentation
from regraft.training.heads import find_head, head_to_json
from regraft.training.network import TransferNetwork
from regraft.training.optim import ClassWeight
from regraft.training.phases import Phase
from regraft.training.regularize import Regularization, find_regularization
from regraft.training.sources import Source

if TYPE_CHECKING:
    from regraft.classifiers.network_classifier import NetworkClassifier


def check_settings(
    learner: NetworkClassifier,
    phases: Sequence[Phase],
    classes: list[str],
    validation: Labelled | None,
) -> None:
    """Refuse what cannot be fitted, before anything is read or built.

    Args:
        learner: Its parameters are looked at.
        phases: What is trained.
        classes: What is to be told apart.
        validation: Pictures that decide which epoch was best, or None.

    Raises:
        UsageError: There is one class only, or a parameter is impossible.
        DataError: A validation class is unknown.
    """
    choose_device(learner.compute.device)  # refuses one that is not here
    if len(classes) < 2:
        raise UsageError("a classifier needs two classes or more", why=f"found {classes}")
    if validation is not None:
        refuse_unknown_classes(validation.labels, classes)
    needs = [p for p in phases if p.patience is not None or p.schedule == "plateau"]
    if needs and (validation is None or not len(validation.labels)):
        raise UsageError(
            "patience and the schedule plateau need validation pictures",
            hint="give fit(..., validation=...), or choose another schedule and no patience",
        )
    checks = {
        "output": (learner.output in {"softmax", "sigmoid"}, "softmax or sigmoid"),
        "sampling": (learner.sampling in {None, "balanced"}, "balanced, or None"),
        "views": (learner.views is None or _is_whole(learner.views, 1), "1 or more, or None"),
        "batch_size": (_is_whole(learner.batch_size, 2), "a whole number, two pictures or more"),
        "seed": (_is_whole(learner.seed, 0, 2**32), "a whole number from 0 to 4294967295"),
        "time_budget": (learner.time_budget is None or learner.time_budget > 0, "above 0 minutes"),
    }
    for name, (right, hint) in checks.items():
        if not right:
            raise UsageError(f"unknown {name}", why=repr(getattr(learner, name)), hint=hint)
    if learner.output == "sigmoid" and len(classes) != 2:
        raise UsageError(
            "a sigmoid output tells two classes apart",
            why=f"there are {len(classes)}",
            hint="take the output softmax",
        )
    if learner.views is not None and find_augmentation(learner.augment) is None:
        raise UsageError("views of pictures need an augmentation", hint="give augment, too")


def usable_precision(
    asked: Literal["fp32", "bf16"], device: str
) -> tuple[Literal["fp32", "bf16"], list[str]]:
    """Return the precision to compute in, and what a reader should know about it.

    Args:
        asked: What was asked for.
        device: Where the network is trained.

    Example:
        >>> usable_precision("fp32", "cpu")
        ('fp32', [])
    """
    if asked == "bf16" and not has_bf16(device):
        return "fp32", [f"this {device} has no bf16 arithmetic; training computes in fp32"]
    return asked, []


def described_work(
    learner: NetworkClassifier,
    phases: Sequence[Phase],
    classes: Sequence[str],
    network: TransferNetwork,
    parts: tuple[Source, Source | None],
) -> dict[str, Any]:
    """Return what a training is, as JSON has it: only the same work is gone on with.

    Args:
        learner: Its parameters.
        phases: What is trained.
        classes: In the order of the outputs.
        network: Before its first step.
        parts: Training and validation.
    """
    augment = find_augmentation(learner.augment)
    regularization = find_regularization(learner.regularize)
    spec = learner.backbone
    return {
        "phases": [to_json(phase) for phase in phases],
        "arguments": [] if isinstance(spec, str) else [list(pair) for pair in spec.arguments],
        "weights": state_sha256(network),
        "head": _head_work(learner),
        "preprocessing": network.preprocessing.to_json(),
        "classes": list(classes),
        "pictures": [None if part is None else part.fingerprint() for part in parts],
        "augment": None if augment is None else to_json(augment),
        "views": learner.views and int(learner.views),
        "regularize": None if regularization is None else to_json(regularization),
        "class_weight": _plain_weights(learner.class_weight),
        "sampling": learner.sampling,
        "output": learner.output,
        "batch_size": int(learner.batch_size),
        "seed": int(learner.seed),
        "precision": learner.compute.precision,
        "boundary": learner.compute.boundary,
        "engine": learner.compute.engine,
        "decoding": learner.compute.decoding.to_json(),
    }


def _head_work(learner: NetworkClassifier) -> dict[str, Any]:
    """Return what tells a head from others whose tensors have the same shapes."""
    regularization = find_regularization(learner.regularize) or Regularization()
    head = regularization.head(find_head(learner.head))
    try:
        return head_to_json(head)
    except UsageError:  # of somebody's own only the class is known
        return {"kind": type(head).__qualname__}


def saved_parameters(learner: NetworkClassifier) -> dict[str, Any]:
    """Return the parameters that a saved network is described with, as they are now.

    Args:
        learner: Fitted or not.
    """
    names = ("head", "regularize", "output", "start", "batch_size", "seed")
    return {
        **{name: getattr(learner, name) for name in names},
        "phases": None if learner.phases is None else tuple(learner.phases),
        "precision": learner.compute.precision,
        "decoding": replace(
            learner.compute.decoding, limits=Decoding().limits
        ),  # they shape no number
    }


def _is_whole(value: object, least: int, beyond: float = math.inf) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and least <= int(value) < beyond  # type: ignore[call-overload]


def _plain_weights(spec: ClassWeight) -> ClassWeight:
    """Return weights as JSON has them, whatever kind of number they are."""
    if spec is None or isinstance(spec, str):
        return spec
    return {name: float(weight) for name, weight in spec.items()}


def complaints(phases: Sequence[dict[str, Any]], batchnorm: bool) -> list[str]:
    """Return what went otherwise than one would expect, phase by phase.

    Args:
        phases: The records of all phases.
        batchnorm: Whether the trunk has batch norm.

    Example:
        >>> same = {"frozen": {"before": "ab", "after": "ab"}, "trained": {"batchnorm": "frozen"}}
        >>> record = {"phase": 1, "micro_batch": None, "stopped": "time budget", "last_epoch": 3}
        >>> complaints([{**record, **same}], batchnorm=True)
        ['phase 1 was ended by the time budget after 3 epochs']
    """
    found = []
    for record in phases:
        name = f"phase {record['phase']}"
        if record["micro_batch"] is not None:
            found.append(
                f"{name}: the memory was not enough for whole batches; "
                f"{record['micro_batch']} pictures at a time passed the network"
            )
        asked, made = record["trained"].get("steps"), record.get("steps_per_epoch")
        if asked is not None and made is not None and made < asked:
            found.append(
                f"{name}: {asked} steps per epoch were asked for, the training part fills {made}; "
                "more epochs show the pictures more often"
            )
        if record["stopped"] == "time budget":
            found.append(f"{name} was ended by the time budget after {record['last_epoch']} epochs")
        moving = record["trained"]["batchnorm"] == "batch_statistics"
        if batchnorm and moving and record["share_of_stages"] < 1:
            found.append(
                f"{name}: frozen batch norm moved with the statistics of each batch, so the head "
                "learned from other features than it predicts with; leave "
                'batchnorm="batch_statistics" out unless this is meant'
            )
        if record["frozen"]["before"] != record["frozen"]["after"]:
            found.append(f"{name}: frozen tensors have changed; this should never happen")
    return found
