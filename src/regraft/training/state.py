"""Where a phase of training stands: with the network's tensors all that a checkpoint needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.training.batches import Inputs
from regraft.training.optim import Loss
from regraft.training.phases import Phase
from regraft.training.regularize import Mix

_PLATEAU_EPOCHS = 2
_PLATEAU_FACTOR = 0.1


@dataclass(frozen=True)
class Part:
    """Inputs and targets of one part of the data.

    Attributes:
        inputs: What enters the network, by sample and epoch.
        targets: Soft targets, (n, classes), rows sum to 1.
    """

    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stays the same over all phases.

    Args:
        batch_size: Samples per step.
        seed: Everything random is drawn from it.
        device: Where the network stands.
        precision: ``"fp32"`` or ``"bf16"`` for automatic mixed precision.
        loss: From logits and soft targets to a number, for training.
        class_weights: What that loss weights classes with, (classes,); None: all the same.
        validation_loss: The same for validation, where nothing is smoothed or weighted.
        clip: Largest norm of the gradient; None for no clipping.
        mix: Mixes the pictures and targets of a training batch, such as MixUp.
        average: Decay of the exponential moving average of the weights, 0 to 1 (Polyak and
            Juditsky, 1992); validation and the result use it. None for no average.
        time_budget: Seconds after which the phase ends; None for no end.
    """

    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    loss: Loss = nn.functional.cross_entropy
    class_weights: Tensor | None = None
    validation_loss: Loss = nn.functional.cross_entropy
    clip: float | None = None
    mix: Mix | None = None
    average: float | None = None
    time_budget: float | None = None


@dataclass(eq=False)
class State:
    """Where a phase stands.

    Attributes:
        epoch: Epochs that are finished.
        step: Steps that are finished in the epoch after these.
        sums: Over these steps the loss, the right answers and the samples.
        best: The best validation accuracy so far and its epoch, or None.
        best_weights: The tensors of that epoch.
        average: The moving average of the tensors, empty without one.
        averages: How many steps the average has seen.
        plateau: The factor that plateaus have brought the rate to.
        stale: Epochs since the validation loss was last better.
        lowest: The lowest validation loss so far.
        records: One record per finished epoch.
        micro_batch: Samples that pass the network at once where the memory holds no batch.
        seconds: How long the phase has run.
        stopped: Why it ended before its last epoch: ``"time budget"``, or None.
    """

    epoch: int = 0
    step: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    best: tuple[float, int] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    averages: int = 0
    plateau: float = 1.0
    stale: int = 0
    lowest: float = math.inf
    records: list[dict[str, Any]] = field(default_factory=list)
    micro_batch: int | None = None
    seconds: float = 0.0
    stopped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as JSON values.

        Example:
            >>> State.from_json(State(epoch=3).to_json()).epoch
            3
        """
        values = {k: v for k, v in vars(self).items() if k not in {"best_weights", "average"}}
        lowest = None if math.isinf(self.lowest) else self.lowest
        return {**values, "sums": self.sums.tolist(), "lowest": lowest}

    @classmethod
    def from_json(
        cls,
        values: Mapping[str, Any],
        *,
        best_weights: dict[str, Tensor] | None = None,
        average: dict[str, Tensor] | None = None,
    ) -> State:
        """Return the state that was written, with its tensors."""
        best, lowest = values["best"], values["lowest"]
        changed = {
            "sums": np.array(values["sums"], dtype=np.float64),
            "best": None if best is None else (float(best[0]), int(best[1])),
            "lowest": math.inf if lowest is None else lowest,
        }
        return cls(**{**values, **changed}, best_weights=best_weights or {}, average=average or {})


def advance(
    state: State, record: dict[str, Any], tensors: Mapping[str, Tensor], phase: Phase
) -> None:
    """Enter a finished epoch into the state; of equally good epochs the first is the best.

    Args:
        state: Where the phase stood.
        record: What was measured.
        tensors: What validation was measured with; copied if it was the best.
        phase: Its schedule.
    """
    state.epoch += 1
    state.step = 0
    state.sums = np.zeros(3)
    state.records.append(record)
    if "val_loss" not in record:
        return
    if state.best is None or record["val_accuracy"] > state.best[0]:
        state.best = (record["val_accuracy"], state.epoch)
        state.best_weights = {k: v.detach().clone() for k, v in tensors.items()}
    if record["val_loss"] < state.lowest:
        state.lowest, state.stale = record["val_loss"], 0
    else:
        state.stale += 1
    if phase.schedule == "plateau" and state.stale >= _PLATEAU_EPOCHS:
        state.plateau, state.stale = state.plateau * _PLATEAU_FACTOR, 0


def is_over(state: State, phase: Phase) -> bool:
    """Return whether a phase ends before its last epoch: its time or its patience is spent."""
    if state.stopped == "time budget":
        return True
    if phase.patience is None or state.best is None:
        return False
    if state.epoch - state.best[1] >= phase.patience:
        state.stopped = "patience"
        return True
    return False


def averaged(state: State, tensors: Mapping[str, Tensor], decay: float) -> None:
    """Move the average towards the tensors; early on it follows them more closely.

    Args:
        state: Its average is moved, or begun.
        tensors: The weights and buffers after a step.
        decay: What stays of the old average per step in the long run, 0 to 1.
    """
    state.averages += 1
    decay = min(decay, (1 + state.averages) / (10 + state.averages))
    with torch.no_grad():
        for name, value in tensors.items():
            if name not in state.average or not value.is_floating_point():
                state.average[name] = value.detach().clone()
            else:
                state.average[name].lerp_(value.detach(), 1 - decay)
