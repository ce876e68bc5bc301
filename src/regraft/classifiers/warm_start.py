"""Going on from an earlier run: its trunk, and its head where that means the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regraft.errors import UsageError
from regraft.training.network import TransferNetwork

if TYPE_CHECKING:
    from regraft.classifiers.network_classifier import NetworkClassifier


def start_from(
    folder: str | os.PathLike[str],
    network: TransferNetwork,
    learner: NetworkClassifier,
    classes: Sequence[str],
) -> list[str]:
    """Copy the weights of a saved model into a network.

    Args:
        folder: A run, or a model.
        network: Trunk and head; the head stays new where the model has other classes or another
            head.
        learner: Its head and output are compared with the model's.
        classes: The classes to be told apart.

    Returns:
        What a reader should know, one sentence each.

    Raises:
        UsageError: The model's network or preprocessing is another.
        ModelError: The model is missing, damaged or unsafe.
    """
    from regraft.classifiers.network_classifier import NetworkClassifier
    from regraft.classifiers.saving import load_model

    place = Path(folder)
    model = load_model(place / "model" if (place / "model").is_dir() else place)
    trunk = model.backbone_.module.state_dict()
    own = network.trunk.state_dict()
    if {k: v.shape for k, v in trunk.items()} != {k: v.shape for k, v in own.items()}:
        raise UsageError(
            "the model to start from has another network",
            path=place,
            why=f"it is {model.backbone_.spec.name} with other layers or sizes",
            hint="name the same backbone with the same arguments",
        )
    if model.backbone_.preprocessing != network.preprocessing:
        raise UsageError(
            "the model to start from has another preprocessing",
            path=place,
            why=f"its own is {model.backbone_.preprocessing}",
            hint="give the backbone this preprocessing: its weights have learned with it",
        )
    with torch.no_grad():
        network.trunk.load_state_dict(trunk)
    if not isinstance(model, NetworkClassifier):
        return [f"started from the trunk of {place.name}; the head is new"]
    head = model.network_.head.state_dict()
    mine = network.head.state_dict()
    same = {k: v.shape for k, v in head.items()} == {k: v.shape for k, v in mine.items()}
    if same and list(model.classes_) == list(classes) and model.output == learner.output:
        network.head.load_state_dict(head)
        return [f"started from trunk and head of {place.name}"]
    return [
        f"started from the trunk of {place.name}; the head is new, its classes or layers differ"
    ]
