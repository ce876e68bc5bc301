"""One step of the optimizer, and one pass over the validation part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import RegraftError
from regraft.system import is_out_of_memory
from regraft.training.batches import generator, prefetched
from regraft.training.optim import answers
from regraft.training.state import Part, Settings, State


def take_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    state: State,
    place: tuple[int, int, int],
    settings: Settings,
) -> NDArray[np.float64]:
    """Take one step; where the memory is not enough, in smaller parts with the same mean gradient.

    Args:
        network: From inputs to logits.
        optimizer: Moves the parameters.
        inputs: What enters the network, one row per sample.
        targets: Soft targets, (n, classes).
        state: Remembers the size of the parts, if the batch had to be cut.
        place: Phase, epoch and step, that everything random is drawn from.
        settings: Device, precision, loss, clipping and mixing.

    Returns:
        The summed loss, the number of right answers, and the number of samples. Where the loss is
        no number, no step was taken.

    Raises:
        RegraftError: Not even two samples fit into the memory (``TRAIN-MEMORY``).
    """
    draw = generator(settings.seed, "step", *place)
    inputs, targets = inputs.to(settings.device), targets.to(settings.device)
    if settings.mix is not None:
        inputs, targets = settings.mix(inputs, targets, draw)
    seed = int(draw.integers(2**62))
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            with _own_randomness(settings, seed):
                sums = _gradients(network, inputs, targets, state.micro_batch, settings)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error)
        # Outside of the handler: the exception holds the tensors of the failed pass.
        state.micro_batch = _halved(state.micro_batch or len(inputs), settings, problem)
    if np.isfinite(sums[0]):
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(
                [p for g in optimizer.param_groups for p in g["params"]], settings.clip
            )
        optimizer.step()
    return sums


def validate(
    network: nn.Module,
    part: Part | None,
    settings: Settings,
    *,
    micro_batch: int | None = None,
    between: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Return loss and accuracy on a part, ``val_loss`` and ``val_accuracy``; nothing without one.

    Args:
        network: From inputs to logits; in eval mode afterwards.
        part: What is measured.
        settings: Batch size, device, precision and loss.
        micro_batch: Samples that pass at once where the memory holds no batch.
        between: Called after each batch; may raise to stop there.

    Raises:
        RegraftError: The memory is not enough (``TRAIN-MEMORY``).
    """
    if part is None or not len(part):
        return {}
    network.eval()
    total, right = 0.0, 0
    size = micro_batch or settings.batch_size
    batches = np.array_split(np.arange(len(part)), -(-len(part) // size))
    with torch.inference_mode():
        for batch, inputs in zip(batches, prefetched(part.inputs, batches, 0), strict=True):
            try:
                with autocast(settings):
                    logits = network(inputs.to(settings.device)).float()
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise _no_memory(f"validation in batches of {size}", str(error)) from error
                raise
            targets = part.targets[batch].to(settings.device)
            total += float(settings.validation_loss(logits, targets)) * len(targets)
            right += int((answers(logits) == targets.argmax(1)).sum())
            between()
    return {"val_loss": total / len(part), "val_accuracy": right / len(part)}


def autocast(settings: Settings) -> torch.autocast:
    """Return the context in which a network computes in the precision that the settings ask for."""
    kind = torch.device(settings.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=settings.precision == "bf16")


def _gradients(
    network: nn.Module, inputs: Tensor, targets: Tensor, micro_batch: int | None, settings: Settings
) -> NDArray[np.float64]:
    sums, whole = np.zeros(3), _weight(targets, settings)
    # Batch norm cannot work on one sample: of three with room for two, all pass at once.
    parts = max(min(-(-len(inputs) // (micro_batch or len(inputs))), len(inputs) // 2), 1)
    for some, wanted in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
        with autocast(settings):
            logits = network(some)
        loss = settings.loss(logits.float(), wanted) * (_weight(wanted, settings) / whole)
        if not torch.isfinite(loss):
            return np.array([np.nan, 0.0, 1.0])
        loss.backward()  # type: ignore[no-untyped-call]
        right = (answers(logits) == wanted.argmax(1)).sum()
        sums += (float(loss.detach()) * len(inputs), float(right), len(some))
    return sums


def _weight(targets: Tensor, settings: Settings) -> float:
    """Return what the loss of these samples was divided by: as much they count in the batch."""
    if settings.class_weights is None:
        return len(targets)
    return float((targets @ settings.class_weights.to(targets)).sum())


def _halved(size: int, settings: Settings, why: str) -> int:
    if size < 4:  # batch norm cannot work on one sample
        raise _no_memory("two pictures at a time", why)
    if torch.device(settings.device).type == "cuda":
        torch.cuda.empty_cache()
    return size // 2


def _no_memory(wanted: str, why: str) -> RegraftError:
    return RegraftError(
        f"the memory is not enough for {wanted}",
        why=why.splitlines()[0][:200] if why else "out of memory",
        hint="take smaller pictures or batches, freeze more of the network, or another device",
        code="TRAIN-MEMORY",
    )


@contextmanager
def _own_randomness(settings: Settings, seed: int) -> Iterator[None]:
    """Draw dropout from this seed, and leave the program's own random numbers as they were."""
    device = torch.device(settings.device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
