"""The one training loop: a phase runs from its first epoch, or from a checkpoint, to its last.

Everything random (order, augmentation, dropout, mixing) is drawn from (seed, phase, epoch, step):
an epoch can be repeated exactly, and a run that was killed and resumed ends with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import RegraftError
from regraft.training.batches import Inputs, epoch_batches, generator, prefetched
from regraft.training.phases import Phase, rate_factor

_PLATEAU_EPOCHS = 2
_PLATEAU_FACTOR = 0.1

# From inputs, soft targets (n, classes) and a generator to mixed inputs and targets.
Mix = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


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
        clip: Largest norm of the gradient; None for no clipping.
        mix: Mixes the pictures and targets of a training batch, such as MixUp.
    """

    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    clip: float | None = None
    mix: Mix | None = None


@dataclass
class State:
    """Where a phase stands; together with the network all that a checkpoint needs.

    Attributes:
        epoch: Epochs that are finished.
        best: The best validation accuracy so far and its epoch, or None.
        best_weights: The weights of that epoch.
        plateau: The factor that plateaus have brought the rate to.
        stale: Epochs since the validation loss was last better.
        lowest: The lowest validation loss so far.
        records: One record per finished epoch.
    """

    epoch: int = 0
    best: tuple[float, int] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    plateau: float = 1.0
    stale: int = 0
    lowest: float = math.inf
    records: list[dict[str, Any]] = field(default_factory=list)


def run_phase(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    train: Part,
    validation: Part | None,
    *,
    loss: Loss,
    settings: Settings,
    number: int = 0,
    state: State | None = None,
    set_mode: Callable[[], None],
    after_epoch: Callable[[State], None] = lambda _state: None,
) -> State:
    """Train until the phase is over; the best weights on validation are restored at its end.

    Args:
        network: From what ``inputs`` give to logits (n, classes).
        optimizer: Holds the parameters to train; its rates are those at factor 1.
        phase: Epochs, schedule and patience.
        train: What is learned from.
        validation: What decides when to stop and which epoch was best; None: the last epoch stays.
        loss: From logits and soft targets to a number.
        settings: What stays the same over all phases.
        number: Which phase of the run this is; part of what everything random is drawn from.
        state: Where an interrupted phase stood; it is continued.
        set_mode: Puts what is trained into training mode and leaves what is frozen in eval mode.
        after_epoch: Called after each epoch, for progress and checkpoints.

    Raises:
        RegraftError: The loss is no number any more (code ``TRAIN-NAN``).
    """
    state = state or State()
    rates = [group["lr"] for group in optimizer.param_groups]
    while state.epoch < phase.epochs and not _is_over(state, phase):
        start = time.perf_counter()
        order = generator(settings.seed, "order", number, state.epoch).permutation(len(train))
        batches = epoch_batches(order, settings.batch_size, phase.steps)
        set_mode()
        sums = np.zeros(3)
        for step, inputs in enumerate(prefetched(train.inputs, batches, state.epoch)):
            done = state.epoch * len(batches) + step
            factor = rate_factor(phase, done, phase.epochs * len(batches)) * state.plateau
            _set_rates(optimizer, [rate * factor for rate in rates])
            place = (number, state.epoch, step)
            targets = train.targets[batches[step]]
            sums += _step(network, optimizer, inputs, targets, place, loss=loss, settings=settings)
        record = {
            "epoch": state.epoch + 1,
            "train_loss": float(sums[0] / sums[2]),
            "train_accuracy": float(sums[1] / sums[2]),
            **_validate(network, validation, loss=loss, settings=settings),
            "lr": max(group["lr"] for group in optimizer.param_groups),
            "seconds": time.perf_counter() - start,
        }
        if not (_is_finite(network) and math.isfinite(record.get("val_loss", 0.0))):
            raise _no_number(place, optimizer)  # the last step did it; such an epoch is never best
        _set_rates(optimizer, rates)  # a checkpoint must hold the rates at factor 1
        _advance(state, record, network, phase)
        after_epoch(state)
    if state.best_weights:
        network.load_state_dict(state.best_weights)
    return state


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    place: tuple[int, int, int],
    *,
    loss: Loss,
    settings: Settings,
) -> NDArray[np.float64]:
    """Take one step; return the summed loss, the number of right answers and of samples."""
    draw = generator(settings.seed, "step", *place)
    inputs, targets = inputs.to(settings.device), targets.to(settings.device)
    if settings.mix is not None:
        inputs, targets = settings.mix(inputs, targets, draw)
    optimizer.zero_grad(set_to_none=True)
    with _own_randomness(settings, int(draw.integers(2**62))), _autocast(settings):
        logits = network(inputs)
    value = loss(logits.float(), targets)
    if not torch.isfinite(value):
        raise _no_number(place, optimizer)
    value.backward()  # type: ignore[no-untyped-call]
    if settings.clip is not None:
        nn.utils.clip_grad_norm_(
            (p for g in optimizer.param_groups for p in g["params"]), settings.clip
        )
    optimizer.step()
    right = (answers(logits) == targets.argmax(1)).sum()
    return np.array([float(value.detach()) * len(targets), float(right), len(targets)])


def answers(logits: Tensor) -> Tensor:
    """Return the index of the class that logits stand for; a single logit is a sigmoid output.

    Example:
        >>> answers(torch.tensor([[2.0], [-1.0]])).tolist()
        [1, 0]
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def _validate(
    network: nn.Module, part: Part | None, *, loss: Loss, settings: Settings
) -> dict[str, float]:
    if part is None or not len(part):
        return {}
    network.eval()
    total, right = 0.0, 0
    batches = [
        np.arange(start, min(start + settings.batch_size, len(part)))
        for start in range(0, len(part), settings.batch_size)
    ]
    with torch.inference_mode():
        for batch, inputs in zip(batches, prefetched(part.inputs, batches, 0), strict=True):
            with _autocast(settings):
                logits = network(inputs.to(settings.device)).float()
            targets = part.targets[batch].to(settings.device)
            total += float(loss(logits, targets)) * len(targets)
            right += int((answers(logits) == targets.argmax(1)).sum())
    return {"val_loss": total / len(part), "val_accuracy": right / len(part)}


@contextmanager
def _own_randomness(settings: Settings, seed: int) -> Iterator[None]:
    """Draw dropout from this seed, and leave the program's own random numbers as they were."""
    device = torch.device(settings.device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _is_finite(network: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def _autocast(settings: Settings) -> torch.autocast:
    kind = torch.device(settings.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=settings.precision == "bf16")


def _advance(state: State, record: dict[str, Any], network: nn.Module, phase: Phase) -> None:
    """Enter a finished epoch into the state."""
    state.epoch += 1
    state.records.append(record)
    if "val_loss" not in record:
        return
    if state.best is None or record["val_accuracy"] > state.best[0]:
        state.best = (record["val_accuracy"], state.epoch)
        state.best_weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
    if record["val_loss"] < state.lowest:
        state.lowest, state.stale = record["val_loss"], 0
    else:
        state.stale += 1
    if phase.schedule == "plateau" and state.stale >= _PLATEAU_EPOCHS:
        state.plateau, state.stale = state.plateau * _PLATEAU_FACTOR, 0


def _is_over(state: State, phase: Phase) -> bool:
    """Whether the validation accuracy was last better ``patience`` epochs ago."""
    if phase.patience is None or state.best is None:
        return False
    return state.epoch - state.best[1] >= phase.patience


def _no_number(place: tuple[int, int, int], optimizer: torch.optim.Optimizer) -> RegraftError:
    number, epoch, step = place
    rate = max(group["lr"] for group in optimizer.param_groups)
    return RegraftError(
        "the loss is no number any more",
        why=f"phase {number + 1}, epoch {epoch + 1}, batch {step + 1}, learning rate {rate:g}",
        hint="lower the learning rate, or clip the gradient",
        code="TRAIN-NAN",
    )
