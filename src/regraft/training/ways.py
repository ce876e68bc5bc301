"""Which way a phase runs: from activations that are kept at a boundary, or live from pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from regraft.backbones.spec import BoundaryChoice
from regraft.errors import UsageError
from regraft.files import free_bytes
from regraft.training.activations import Keeper, needed_bytes
from regraft.training.network import Trained, TransferNetwork
from regraft.training.phases import Phase
from regraft.training.split_point import (
    Boundary,
    behind_trunk,
    choose_precision,
    find_boundary,
    named_boundary,
)

BOUNDARIES = get_args(BoundaryChoice)


@dataclass(frozen=True)
class Way:
    """How a phase gets from pictures to logits.

    Attributes:
        keeper: Computes and keeps activations; None where every step runs the whole network.
        why: Why it is run live, as half a sentence; empty where activations are kept.
        error: The relative error of the gradient that storing brings, where it was measured.
        size: Bytes that the activations take.
    """

    keeper: Keeper | None
    why: str = ""
    error: float | None = None
    size: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what a reader of the run should know, as JSON values."""
        if self.keeper is None:
            return {"way": "live", "boundary": {"why": self.why} if self.why else None}
        return {
            "way": "cached",
            "boundary": {
                "stage": self.keeper.boundary.name,
                "shape": list(self.keeper.boundary.shape),
                "dtype": self.keeper.stored,
                "bytes": self.size,
                "gradient_error": self.error,
            },
        }


def recalled(
    found: Mapping[str, Any], network: TransferNetwork, make_keeper: Callable[[Boundary], Keeper]
) -> Way:
    """Return the way that `Way.to_json` has described: a phase goes on as it has begun.

    Args:
        found: The description.
        network: Frozen for the phase.
        make_keeper: Makes what computes and keeps activations at a boundary.
    """
    kept = found["boundary"] or {}
    if found["way"] == "live":
        return Way(None, why=kept.get("why", ""))
    keeper = make_keeper(named_boundary(network, kept["stage"]))
    keeper.stored = kept["dtype"]
    return Way(keeper, error=kept.get("gradient_error"), size=kept.get("bytes", 0))


def why_live(
    network: TransferNetwork, phase: Phase, trained: Trained, *, choice: str, changing: str
) -> str:
    """Return why a phase must run the whole network in every step, or nothing.

    Args:
        network: Frozen for the phase.
        phase: Its batch norm.
        trained: What it trains.
        choice: ``"off"`` for never keeping activations.
        changing: How pictures differ from epoch to epoch, as half a sentence; empty if not at all.

    Raises:
        UsageError: The choice is unknown.
    """
    if choice not in BOUNDARIES:
        raise UsageError(f"unknown boundary {choice!r}", hint=f"one of {', '.join(BOUNDARIES)}")
    if choice == "off":
        return "no activations were to be kept"
    if trained.first == 0:
        return "the whole trunk is trained"
    if changing:
        return changing
    moving = phase.batchnorm == "batch_statistics"
    if moving and network.has_batchnorm:
        return "frozen batch norm works with the statistics of each batch"
    return ""


def choose_way(
    network: TransferNetwork,
    trained: Trained,
    *,
    few: Callable[[], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    samples: int,
    make_keeper: Callable[[Boundary], Keeper],
    choice: BoundaryChoice = "auto",
    budget: int | None = None,
) -> Way:
    """Return where a network is cut for a phase, and in how many bits activations are kept.

    Behind the whole trunk rows are float32: classifiers on features read the same ones. Elsewhere
    16 bits are enough where they change the gradient by no more than 1 %.

    Args:
        network: Frozen for the phase.
        trained: What it trains.
        few: Returns some prepared pictures and their targets, to compare gradients with.
        loss: From logits and targets to a number.
        samples: How many activations are to be kept.
        make_keeper: Makes what computes and keeps activations at a boundary.
        choice: ``"auto"``, or in how many bits activations are kept.
        budget: The most bytes they may take; by default half of what is free.
    """
    device = next(network.parameters()).device
    whole = trained.first == len(network.stages)
    boundary: Boundary | None = behind_trunk(network) if whole else None
    if not whole:
        pictures, targets = (tensor.to(device) for tensor in few())
        boundary = find_boundary(network, trained.first, pictures, lambda x: loss(x, targets))
    if boundary is None:
        return Way(None, why="this network cannot be cut in front of what is trained")
    keeper, error = make_keeper(boundary), None
    if choice != "auto":
        keeper.stored = choice  # type: ignore[assignment]
    elif not whole:
        rows = torch.from_numpy(keeper.built_engine(pictures.cpu().numpy())).to(device)
        keeper.stored, error = choose_precision(
            network, boundary, pictures, rows, lambda x: loss(x, targets)
        )
    size = needed_bytes(boundary, keeper.stored, samples)
    allowed = free_bytes(keeper.cache.folder) // 2 if budget is None else budget
    if size > allowed:
        return Way(None, f"its activations would take {size:,} bytes, and {allowed:,} are allowed")
    return Way(keeper, error=error, size=size)
