"""The one training loop: a phase runs from its first step, or from a checkpoint, to its last.

Everything random (order, augmentation, dropout, mixing) is drawn from (seed, phase, epoch, step):
a step can be repeated exactly, and a run that was killed and resumed ends with the same bits. That
holds on processors; CUDA's kernels add in any order, so there the last digits differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import RegraftError
from regraft.training.batches import epoch_batches, generator, prefetched
from regraft.training.optim import rate_factor
from regraft.training.phases import Phase
from regraft.training.state import Part, Settings, State, advance, averaged, is_over
from regraft.training.steps import take_step, validate

Order = Callable[[np.random.Generator], NDArray[np.int64]]


class Loop:
    """One phase of training.

    Args:
        network: From what ``inputs`` give to logits (n, classes).
        optimizer: Holds the parameters to train; its rates are those at factor 1.
        phase: Epochs, schedule and patience.
        train: What is learned from.
        validation: What decides when to stop and which epoch was best; None: the last epoch stays.
        settings: What stays the same over all phases.
        number: Which phase of the run this is; part of what everything random is drawn from.
        set_mode: Puts what is trained into training mode and leaves what is frozen in eval mode.
        tensors: Returns the tensors that training may change; by default all of the network's.
        order: From a generator to the samples of an epoch in their order; by default each once.

    Example:
        >>> class Points:
        ...     def take(self, samples, epoch):
        ...         return torch.tensor(samples)[:, None].float()
        >>> part = Part(Points(), nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 2).float())
        >>> net = nn.Linear(1, 2)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> loop = Loop(net, sgd, Phase(epochs=2), part, None, settings=Settings())
        >>> loop.run(State()).epoch
        2
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        phase: Phase,
        train: Part,
        validation: Part | None,
        *,
        settings: Settings,
        number: int = 0,
        set_mode: Callable[[], object] | None = None,
        tensors: Callable[[], dict[str, Tensor]] | None = None,
        order: Order | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.phase = phase
        self.train = train
        self.validation = validation
        self.settings = settings
        self.number = number
        self._set_mode = set_mode or network.train
        self._tensors = tensors or network.state_dict
        self._order = order or (lambda draw: draw.permutation(len(train)))
        for group in optimizer.param_groups:  # a checkpoint of the optimizer keeps them
            group.setdefault("initial_lr", group["lr"])

    def run(
        self,
        state: State,
        *,
        after_step: Callable[[State], object] = lambda _state: None,
        after_epoch: Callable[[State], object] = lambda _state: None,
        between: Callable[[], object] = lambda: None,
    ) -> State:
        """Train until the phase is over; then restore the weights of the epoch that it keeps.

        Args:
            state: Where the phase stands: a new state, or that of a checkpoint.
            after_step: Called when a step is entered into the state.
            after_epoch: Called when an epoch is entered into the state.
            between: Called after each step and each batch of validation; may raise to stop there.
                Network, optimizer and state then belong together and can be continued.

        Raises:
            RegraftError: The loss is no number any more (``TRAIN-NAN``), or the memory is not
                enough for two samples (``TRAIN-MEMORY``).
        """
        while state.epoch < self.phase.epochs and not is_over(state, self.phase):
            finished = state.epoch
            self._epoch(state, after_step, between)
            if state.epoch > finished:
                after_epoch(state)
        best = state.best_weights if self.phase.keep == "best" else {}
        with torch.no_grad():
            for name, value in (best or state.average).items():
                self._tensors()[name].copy_(value)
        return state

    def steps_per_epoch(self) -> int:
        """Return how many steps an epoch has."""
        every = np.arange(len(self.train))
        return len(epoch_batches(every, self.settings.batch_size, self.phase.steps))

    def _epoch(
        self, state: State, after_step: Callable[[State], object], between: Callable[[], object]
    ) -> None:
        settings, start, before = self.settings, time.perf_counter(), state.seconds
        order = self._order(generator(settings.seed, "order", self.number, state.epoch))
        batches = epoch_batches(order, settings.batch_size, self.phase.steps)
        self._set_mode()
        rest = prefetched(self.train.inputs, batches[state.step :], state.epoch)
        for step, inputs in zip(range(state.step, len(batches)), rest, strict=True):
            if settings.time_budget is not None and state.seconds >= settings.time_budget:
                state.stopped = "time budget"
                break
            self._set_rates(state, step, len(batches))
            state.sums += self._step(state, inputs, self.train.targets[batches[step]])
            state.step = step + 1
            state.seconds = before + time.perf_counter() - start
            after_step(state)
            between()
        if state.step:  # none where the time was over before the first
            self._finish_epoch(state, start, before, between)

    def _step(self, state: State, inputs: Tensor, targets: Tensor) -> NDArray[np.float64]:
        place = (self.number, state.epoch, state.step)
        sums = take_step(self.network, self.optimizer, inputs, targets, state, place, self.settings)
        if not np.isfinite(sums[0]):
            raise self._no_number(state, state.step + 1)
        if self.settings.average is not None:
            averaged(state, self._tensors(), self.settings.average)
        return sums

    def _finish_epoch(
        self, state: State, start: float, before: float, between: Callable[[], object]
    ) -> None:
        """Validate, with the averaged weights where there are any, and enter the epoch."""
        tensors = self._tensors()
        if not _all_finite(tensors):  # the last step did it: such an epoch is never best
            raise self._no_number(state, state.step)
        own = {name: value.detach().clone() for name, value in tensors.items() if state.average}
        _set(tensors, state.average)
        try:
            measured = validate(
                self.network,
                self.validation,
                self.settings,
                micro_batch=state.micro_batch,
                between=between,
            )
            if not np.isfinite(measured.get("val_loss", 0.0)):
                raise self._no_number(state, state.step)
            record: dict[str, Any] = {
                "epoch": state.epoch + 1,
                "train_loss": float(state.sums[0] / state.sums[2]),
                "train_accuracy": float(state.sums[1] / state.sums[2]),
                **measured,
                "lr": max(group["lr"] for group in self.optimizer.param_groups),
            }
            state.seconds = before + time.perf_counter() - start
            record["seconds"] = state.seconds - sum(r["seconds"] for r in state.records)
            advance(state, record, tensors, self.phase)
        finally:
            _set(tensors, own)

    def _set_rates(self, state: State, step: int, steps: int) -> None:
        done, total = state.epoch * steps + step, self.phase.epochs * steps
        factor = rate_factor(self.phase, done, total) * state.plateau
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _no_number(self, state: State, batch: int) -> RegraftError:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return RegraftError(
            "the loss is no number any more",
            why=f"phase {self.number + 1}, epoch {state.epoch + 1}, batch {batch}, "
            f"learning rate {rate:g}",
            hint="lower the learning rate, or clip the gradient",
            code="TRAIN-NAN",
        )


def _set(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)


def _all_finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())
