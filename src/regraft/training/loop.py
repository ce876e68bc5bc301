"""The one training loop: a phase runs from its first step, or from a checkpoint, to its last.

Everything random (order, augmentation, dropout, mixing) is drawn from (seed, phase, epoch, step):
a step can be repeated exactly, and a run that was killed and resumed ends with the same bits. That
holds on processors; CUDA's kernels add in any order, so there the last digits differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import RegraftError
from regraft.system import is_out_of_memory
from regraft.training.batches import Part, epoch_batches, generator, prefetched
from regraft.training.optim import Loss, answers, rate_factor
from regraft.training.phases import Phase
from regraft.training.regularize import Mix

Order = Callable[[np.random.Generator], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What stays the same over all phases: what the loop needs of a ``TrainingConfig``.

    ``loss`` is for training; ``validation_loss`` smooths and weights nothing. ``mix`` changes the
    inputs and targets of a batch; ``clip`` is the largest norm of the gradient.
    """

    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    loss: Loss = nn.functional.cross_entropy
    validation_loss: Loss = nn.functional.cross_entropy
    clip: float | None = None
    mix: Mix | None = None


@dataclass(eq=False)
class State:
    """Where a phase stands: with the network's and the optimizer's tensors, all a checkpoint needs.

    Attributes:
        epoch: Epochs that are finished.
        step: Steps that are finished in the epoch after these.
        sums: Over these steps the loss, the right answers and the samples.
        best: How good the best epoch so far was (the accuracy, or the loss negated), and which.
        best_weights: The tensors of that epoch.
        records: One record per finished epoch.
        seconds: How long the phase has run.
        stopped: Why it ended before its last epoch: ``"time budget"`` or ``"patience"``.
    """

    epoch: int = 0
    step: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    best: tuple[float, int] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None


@dataclass(eq=False)
class Loop:
    """One phase of training.

    Args:
        network: From what ``inputs`` give to logits (n, classes).
        optimizer: Holds the parameters to train.
        phase: Epochs, schedule and patience.
        train: What is learned from.
        validation: What decides when to stop and which epoch was best; None: the last epoch stays.
        config: What stays the same over all phases.
        number: Which phase of the run this is; part of what everything random is drawn from.
        set_mode: Puts what is trained into training mode and leaves what is frozen in eval mode.
        tensors: Returns the tensors that training may change; by default all of the network's.
        order: From a generator to the samples of an epoch in their order; by default each once.
        factor: What the rate is multiplied with at a step of so many; by default as the phase says.
        time_budget: Seconds after which the phase ends.

    Example:
        >>> class Points:
        ...     def take(self, samples, epoch):
        ...         return torch.tensor(samples)[:, None].float()
        >>> part = Part(Points(), nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 2).float())
        >>> net = nn.Linear(1, 2)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> Loop(net, sgd, Phase(epochs=2), part).run(State()).epoch
        2
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    phase: Phase
    train: Part
    validation: Part | None = None
    config: LoopConfig = LoopConfig()
    number: int = 0
    set_mode: Callable[[], object] | None = None
    tensors: Callable[[], dict[str, Tensor]] | None = None
    order: Order | None = None
    factor: Callable[[int, int], float] | None = None
    time_budget: float | None = None

    def run(
        self,
        state: State,
        *,
        on_step: Callable[[State], object] = lambda _state: None,
        on_epoch: Callable[[State], object] = lambda _state: None,
        on_validation: Callable[[Tensor], object] = lambda _logits: None,
        check_stop: Callable[[], object] = lambda: None,
    ) -> State:
        """Train until the phase is over; then restore the weights of the epoch that it keeps.

        Args:
            state: Where the phase stands: a new state, or that of a checkpoint.
            on_step: Called when a step is entered into the state.
            on_epoch: Called when an epoch is entered into the state.
            on_validation: Called with the logits of each batch of validation, in its order.
            check_stop: Called after each step and each batch of validation; may raise to stop.

        Raises:
            RegraftError: The loss is NaN (``TRAIN-NAN``) or the memory full (``TRAIN-MEMORY``).
        """
        phase, tensors = self.phase, self.tensors or self.network.state_dict
        while state.epoch < phase.epochs and not state.stopped:
            start, before = time.perf_counter(), state.seconds
            batches = self._batches(state.epoch)
            left = batches[state.step :]
            (self.set_mode or self.network.train)()
            inputs_ahead = prefetched(self.train.inputs, left, state.epoch)
            for batch, inputs in zip(left, inputs_ahead, strict=True):
                if self.time_budget is not None and state.seconds >= self.time_budget:
                    state.stopped = "time budget"
                    break
                self._set_rate(state, len(batches))
                state.sums += self._step(state, inputs, self.train.targets[batch])
                state.step += 1
                state.seconds = before + time.perf_counter() - start
                on_step(state)
                check_stop()
            if not state.step:  # the time was over before the first of the epoch
                break
            own = tensors()
            if not all(bool(tensor.isfinite().all()) for tensor in own.values()):
                raise self._not_finite(state, state.step)  # by the last step: it is never best
            record = self._measured(state, on_validation, check_stop)
            state.seconds = before + time.perf_counter() - start
            record["seconds"] = state.seconds - sum(r["seconds"] for r in state.records)
            end_epoch(state, record, own, phase)
            on_epoch(state)
        if phase.keep == "best" and state.best_weights:
            own = tensors()
            with torch.no_grad():
                for name, value in state.best_weights.items():
                    own[name].copy_(value)
        return state

    def steps_per_epoch(self) -> int:
        """Return how many steps an epoch has."""
        return len(self._batches(0))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        draw = generator(self.config.seed, "order", self.number, epoch)
        order = self.order(draw) if self.order else draw.permutation(len(self.train))
        return epoch_batches(order, self.config.batch_size, self.phase.steps)

    def _set_rate(self, state: State, steps: int) -> None:
        done, total = state.epoch * steps + state.step, self.phase.epochs * steps
        factor = self.factor(done, total) if self.factor else rate_factor(self.phase, done, total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.phase.lr * factor

    def _step(self, state: State, inputs: Tensor, targets: Tensor) -> NDArray[np.float64]:
        draw = generator(self.config.seed, "step", self.number, state.epoch, state.step)
        sums = take_step(self.network, self.optimizer, inputs, targets, self.config, random=draw)
        if not np.isfinite(sums[0]):
            raise self._not_finite(state, state.step + 1)
        return sums

    def _measured(
        self,
        state: State,
        on_validation: Callable[[Tensor], object],
        check_stop: Callable[[], object],
    ) -> dict[str, Any]:
        """Validate, and return the record of an epoch."""
        tell: Any = {"on_batch": on_validation, "check_stop": check_stop}
        measured = validate(self.network, self.validation, self.config, **tell)
        if not np.isfinite(measured.get("val_loss", 0.0)):
            raise self._not_finite(state, state.step)
        return {
            "phase": self.number + 1,
            "epoch": state.epoch + 1,
            "train_loss": float(state.sums[0] / state.sums[2]),
            "train_accuracy": float(state.sums[1] / state.sums[2]),
            **measured,
            "lr": self.optimizer.param_groups[0]["lr"],
        }

    def _not_finite(self, state: State, batch: int) -> RegraftError:
        rate = self.optimizer.param_groups[0]["lr"]
        place = f"phase {self.number + 1}, epoch {state.epoch + 1}, batch {batch}"
        what, why = "the loss is NaN or infinite", f"{place}, learning rate {rate:g}"
        hint = "lower the learning rate, or clip the gradient"
        return RegraftError(what, why=why, hint=hint, code="TRAIN-NAN")


def end_epoch(
    state: State, record: dict[str, Any], tensors: Mapping[str, Tensor], phase: Phase
) -> None:
    """Enter a finished epoch, measured with these tensors; of equally good ones the first wins."""
    state.epoch += 1
    state.step = 0
    state.sums = np.zeros(3)
    state.records.append(record)
    if "val_loss" not in record:
        return
    good = -record["val_loss"] if phase.watch == "val_loss" else record["val_accuracy"]
    if state.best is None or good > state.best[0]:
        state.best = (good, state.epoch)
        state.best_weights = {k: v.detach().clone() for k, v in tensors.items()}
    waited = state.epoch - state.best[1]
    if phase.patience is not None and waited >= phase.patience and state.epoch < phase.epochs:
        state.stopped = "patience"


def take_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    config: LoopConfig,
    *,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Take one step; mixing and dropout are drawn from ``random``.

    Returns:
        The summed loss, the number of right answers, and the number of samples. Where the loss is
        not finite, no step was taken.

    Raises:
        RegraftError: The batch does not fit into the memory (``TRAIN-MEMORY``).
    """
    inputs, targets = inputs.to(config.device), targets.to(config.device)
    if config.mix is not None:
        inputs, targets = config.mix(inputs, targets, random)
    optimizer.zero_grad(set_to_none=True)
    with _in_memory(len(inputs)), _own_randomness(config.device, int(random.integers(2**62))):
        with autocast(config.device, config.precision):
            logits = network(inputs)
        loss = config.loss(logits.float(), targets)
        if not torch.isfinite(loss):
            return np.array([np.nan, 0.0, 1.0])
        loss.backward()  # type: ignore[no-untyped-call]
    if config.clip is not None:
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(moved, config.clip)
    optimizer.step()
    right = (answers(logits) == targets.argmax(1)).sum()
    return np.array([float(loss.detach()) * len(inputs), float(right), len(inputs)])


def validate(
    network: nn.Module,
    part: Part | None,
    config: LoopConfig,
    *,
    on_batch: Callable[[Tensor], object] = lambda _logits: None,
    check_stop: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Return loss and accuracy on a part, ``val_loss`` and ``val_accuracy``; nothing without one.

    The network is in eval mode afterwards. After each batch ``on_batch`` is called with its logits,
    and ``check_stop``.

    Raises:
        RegraftError: The memory is not enough (``TRAIN-MEMORY``).
    """
    if part is None or not len(part):
        return {}
    network.eval()
    total, right = 0.0, 0
    batches = np.array_split(np.arange(len(part)), -(-len(part) // config.batch_size))
    with torch.inference_mode():
        for batch, inputs in zip(batches, prefetched(part.inputs, batches, 0), strict=True):
            with _in_memory(len(inputs)), autocast(config.device, config.precision):
                logits = network(inputs.to(config.device)).float()
            targets = part.targets[batch].to(config.device)
            total += float(config.validation_loss(logits, targets)) * len(targets)
            right += int((answers(logits) == targets.argmax(1)).sum())
            on_batch(logits)
            check_stop()
    return {"val_loss": total / len(part), "val_accuracy": right / len(part)}


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the context in which a network computes in a precision, ``"fp32"`` or ``"bf16"``."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def _in_memory(images: int) -> Iterator[None]:
    """Say what to do where the memory is not enough for so many images at once."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"the memory is not enough for a batch of {images} images"
        why = str(error).partition("\n")[0][:200] or "out of memory"
        hint = "take a smaller batch size or smaller images, or freeze more of the network"
        raise RegraftError(what, why=why, hint=hint, code="TRAIN-MEMORY") from error


@contextmanager
def _own_randomness(device: str, seed: int) -> Iterator[None]:
    """Draw dropout from this seed, and leave the program's own random numbers as they were."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
