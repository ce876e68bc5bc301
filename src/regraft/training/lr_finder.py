"""The learning-rate finder: how the loss answers to a rate that rises from step to step.

From Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from regraft.errors import RegraftError, UsageError
from regraft.system import exact_float32, progress_bar
from regraft.training.batches import epoch_batches
from regraft.training.loop import Loop, State
from regraft.training.trainer import Trainer

_EXPLODED = 4  # times the best loss
_MEMORY = 0.9  # what stays per step of the running mean that finds an explosion
_SPREAD = 0.03  # standard deviation of the smoothing, as a share of all steps
_FALL = 0.9  # the loss must fall to this share of what it was, or no rate was any good


@dataclass(frozen=True)
class RateSearch:
    """What a search has found.

    Attributes:
        rates: The learning rate of each step that was taken, rising.
        losses: The training loss at each of them, smoothed.
        suggestion: The rate at which the loss falls most steeply; None where no rate lowers it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None


def search_rate(
    trainer: Trainer, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100
) -> RateSearch:
    """Train for some steps of the first phase with a rate that rises, and suggest a rate.

    Only the rate is another than in the training itself: the activations, batches and augmentation
    are the same. The same seed gives the same result.

    Args:
        trainer: What a learner would run, ``NetworkClassifier.trainer(X, y)``; it is used up.
        lowest: The rate of the first step, above 0.
        highest: The rate of the last step.
        steps: How many steps, unless the loss grows to four times its best before.

    Raises:
        UsageError: The rates do not rise.
        ImageError: An image cannot be read.
        RegraftError: The loss is NaN from the beginning (``TRAIN-NAN``).
    """
    if not 0 < lowest < highest < math.inf:
        why, hint = f"from {lowest:g} to {highest:g}", "give a lowest one above 0"
        raise UsageError("the rates of a search must rise", why=why, hint=hint)
    rates, phase = np.geomspace(lowest, highest, steps), trainer.phases[0]
    batches = epoch_batches(np.arange(len(trainer.train)), trainer.config.batch_size, phase.steps)
    epochs = -(-steps // len(batches))
    trainer.phases[0] = replace(phase, epochs=epochs, schedule="constant", patience=None)
    title = f"{steps} steps at rates from {lowest:g} to {highest:g}"
    with exact_float32(trainer.runtime.compute.device):
        loop = trainer.prepare(0, title)[0]
        loop.validation = None
        bar = progress_bar("Searching a learning rate", steps, visible=trainer.runtime.verbose)
        with bar as advance:
            losses = _losses(loop, rates, advance)
    smooth = smoothed(losses, spread=_SPREAD * steps)
    taken = tuple(rates[: len(losses)].tolist())
    return RateSearch(taken, tuple(smooth.tolist()), suggest(taken, smooth))


def smoothed(losses: Sequence[float], *, spread: float) -> NDArray[np.float64]:
    """Return the mean of each loss and its neighbours on both sides, weighted by a Gaussian.

    Its standard deviation is ``spread`` steps. What has exploded counts as four times what the loss
    was at first, so that it does not hide what was before it.
    """
    values = np.asarray(losses, dtype=np.float64)
    values = np.minimum(values, _EXPLODED * values[: max(len(values) // 4, 1)].mean())
    place = np.arange(len(values))
    weights = np.exp(-0.5 * ((place[:, None] - place) / max(spread, 1e-9)) ** 2)
    found: NDArray[np.float64] = weights @ values / weights.sum(1)
    return found


def suggest(rates: Sequence[float], losses: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Return the rate at which the loss falls most steeply, before it is lowest.

    The slope is that over the logarithm of the rate. It is the common rule for reading Smith's
    curve: below, training is slow; where the loss is lowest, the rate is already too high. None
    where the loss falls by less than a tenth.

    Example:
        >>> suggest([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.9, 1.0, 0.5, 4.0])
        0.01
    """
    values = np.asarray(losses, dtype=np.float64)
    lowest = int(values.argmin()) if len(values) else 0
    if lowest < 2 or values[lowest] > _FALL * values[0]:
        return None
    slopes = np.gradient(values, np.log(rates))
    return float(rates[int(slopes[: lowest + 1].argmin())])


class _EnoughError(Exception):
    """The last step was taken, or the loss has exploded."""


def _losses(loop: Loop, rates: NDArray[np.float64], advance: Callable[[int], None]) -> list[float]:
    """Return the loss of each step at a rising rate, until the last or until it explodes."""
    losses: list[float] = []
    mean, best, before = 0.0, math.inf, np.zeros(3)

    def on_step(state: State) -> None:
        nonlocal mean, best, before
        taken = state.sums - (before if state.step > 1 else 0)
        before = state.sums.copy()
        losses.append(float(taken[0] / taken[2]))
        advance(1)
        mean = _MEMORY * mean + (1 - _MEMORY) * losses[-1]
        now = mean / (1 - _MEMORY ** len(losses))
        best = min(best, now)
        if len(losses) == len(rates) or now > _EXPLODED * best:
            raise _EnoughError

    loop.factor = lambda step, _total: float(rates[step]) / loop.phase.lr
    try:
        loop.run(State(), on_step=on_step)
    except _EnoughError:
        pass
    except RegraftError as error:
        if error.code != "TRAIN-NAN" or len(losses) < 2:
            raise  # NaN from the beginning: it is not the rate
    return losses
