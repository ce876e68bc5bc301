"""What a trainer needs to know beyond the settings of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.backbones.spec import BoundaryChoice, EngineName
from regraft.data.images import Decoding
from regraft.features.cache import FeatureCache
from regraft.training.augment import Augmentation


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures become batches, and what is kept where.

    Args:
        augment: How training pictures are changed; None for not at all.
        views: How many augmented views of each picture are kept; None for a new one in each epoch.
        sampling: ``"balanced"`` draws every class equally often; None takes every picture once.
        boundary: Whether and how activations of the frozen part are kept.
        disk_budget: The most bytes that these may take; None for half of what is free.
        time_budget: Seconds after which training ends; None for no end.
        engine: What computes activations that are kept.
        cache: Where rows behind the whole trunk are kept.
        workspace: Where other activations are kept.
        decoding: How files become pixels.
    """

    augment: Augmentation | None = None
    views: int | None = None
    sampling: Literal["balanced"] | None = None
    boundary: BoundaryChoice = "auto"
    disk_budget: int | None = None
    time_budget: float | None = None
    engine: EngineName = "auto"
    cache: FeatureCache
    workspace: FeatureCache
    decoding: Decoding = Decoding()
