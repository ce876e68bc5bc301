"""The parameters of a network classifier that a saved model is described with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from regraft.data.images import Decoding

if TYPE_CHECKING:
    from regraft.classifiers.network_classifier import NetworkClassifier


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
