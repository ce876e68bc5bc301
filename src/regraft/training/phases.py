"""A strategy is a list of phases: what is trained, for how long, and how. Plain values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regraft.errors import UsageError
from regraft.settings import settings_class

OptimizerName = Literal["sgd", "rmsprop", "adam", "adamw", "nadam"]
ScheduleName = Literal["constant", "cosine"]
BatchNorm = Literal["frozen", "batch_statistics"]
Watched = Literal["val_accuracy", "val_loss"]
# For each name torch's class, the fields of a phase that shape it, and what is always the same.
OPTIMIZERS: Mapping[OptimizerName, tuple[str, tuple[str, ...], Mapping[str, Any]]] = {
    "sgd": ("SGD", ("momentum",), {}),
    "rmsprop": ("RMSprop", ("momentum",), {"alpha": 0.9}),
    "adam": ("Adam", ("betas",), {}),
    "adamw": ("AdamW", ("betas",), {}),
    "nadam": ("NAdam", ("betas",), {}),
}
BelowOne = Annotated[float, Field(ge=0, lt=1)]
AboveZero = Annotated[float, Field(gt=0)]


@settings_class(kw_only=True)
class Phase:
    """One stretch of training. The head is always trained; the rest is named by one ``unfreeze``.

    Args:
        unfreeze: Share of the trunk's stages that is trained, counted from the head, 0 to 1.
        unfreeze_from: The first stage that is trained, by its name, for example ``"features.24"``.
        unfreeze_last: How many of the last stages are trained.
        unfreeze_matching: A regular expression; parameters whose names match are trained.
        batchnorm: What frozen batch norm of the trunk normalises with while training: its averages
            (``"frozen"``) or each batch's statistics (``"batch_statistics"``), as in Keras 2.2. The
            averages never move.
        epochs: Passes over the training part.
        steps: Batches per epoch at most; by default as many as the training part fills.
        optimizer: ``"sgd"``, ``"rmsprop"``, ``"adam"``, ``"adamw"`` or ``"nadam"``.
        momentum: Of sgd and rmsprop.
        betas: Of adam, adamw and nadam.
        lr: Learning rate.
        schedule: How the rate runs: ``"constant"``, or ``"cosine"``, which falls to 0.
        warmup: Share of the phase in which the rate rises from 0, for ``"cosine"``.
        weight_decay: L2 penalty; decoupled for adamw.
        patience: Stop after this many epochs in which what is watched did not get better.
        watch: What tells how good an epoch is: ``"val_accuracy"`` or ``"val_loss"``.
        keep: The epoch whose weights stay: the ``"best"`` by what is watched, or the ``"last"``, as
            in most published tables.

    Raises:
        UsageError: A value is out of range, or what to train is named twice.

    Example:
        >>> Phase(unfreeze=0.5, epochs=3, optimizer="sgd", lr=0.01).epochs
        3
    """

    unfreeze: Annotated[float, Field(ge=0, le=1)] = 0.0
    unfreeze_from: str | None = None
    unfreeze_last: Annotated[int, Field(ge=0)] | None = None
    unfreeze_matching: str | None = None
    batchnorm: BatchNorm = "frozen"
    epochs: Annotated[int, Field(ge=0)] = 30
    steps: Annotated[int, Field(ge=1)] | None = None
    optimizer: OptimizerName = "adamw"
    momentum: BelowOne = 0.0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    lr: AboveZero = 1e-3
    schedule: ScheduleName = "constant"
    warmup: BelowOne = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    patience: Annotated[int, Field(ge=1)] | None = None
    watch: Watched = "val_accuracy"
    keep: Literal["best", "last"] = "best"

    @property
    def opens_trunk(self) -> bool:
        """Whether anything but the head is trained."""
        names = (self.unfreeze_from, self.unfreeze_last, self.unfreeze_matching)
        return bool(self.unfreeze or any(names))

    def __post_init__(self) -> None:
        others = (self.unfreeze_from, self.unfreeze_last, self.unfreeze_matching)
        if (self.unfreeze != 0) + sum(other is not None for other in others) > 1:
            hint = "give one of the unfreeze options"
            raise UsageError("what to train is named twice", hint=hint)
        try:
            re.compile(self.unfreeze_matching or "")
        except re.error as error:
            what = f"unfreeze_matching cannot be {self.unfreeze_matching!r}"
            why = f"it is not a regular expression: {error}"
            raise UsageError(what, why=why) from error


def frozen(
    epochs: int = 30, *, lr: float = 1e-3, optimizer: OptimizerName = "adamw"
) -> list[Phase]:
    """Train a new head on a trunk that stays as it is.

    Example:
        >>> [phase.unfreeze for phase in frozen(10)]
        [0.0]
    """
    return [Phase(epochs=epochs, lr=lr, optimizer=optimizer, schedule="cosine")]


def fine_tune(
    epochs: int = 30, *, unfreeze: float = 1.0, lr: float = 1e-4, optimizer: OptimizerName = "adamw"
) -> list[Phase]:
    """Train the head and the upper part of the trunk together, in one stage.

    Example:
        >>> [phase.unfreeze for phase in fine_tune(10, unfreeze=0.5)]
        [0.5]
    """
    (phase,) = frozen(epochs, lr=lr, optimizer=optimizer)
    return [dataclasses.replace(phase, unfreeze=unfreeze, warmup=0.1)]


def two_stage(
    epochs: int = 20,
    *,
    head_epochs: int = 10,
    unfreeze: float = 0.5,
    lr: float = 1e-4,
    head_lr: float = 1e-3,
    optimizer: OptimizerName = "adamw",
) -> list[Phase]:
    """Train the head first, then the head and the upper part of the trunk at a lower rate.

    Example:
        >>> [(phase.unfreeze, phase.epochs) for phase in two_stage()]
        [(0.0, 10), (0.5, 20)]
    """
    return [
        *frozen(head_epochs, lr=head_lr, optimizer=optimizer),
        *fine_tune(epochs, unfreeze=unfreeze, lr=lr, optimizer=optimizer),
    ]


def from_scratch(
    epochs: int = 30, *, lr: float = 1e-3, optimizer: OptimizerName = "adamw"
) -> list[Phase]:
    """Train everything from random weights, the baseline for every transfer.

    Example:
        >>> [phase.unfreeze for phase in from_scratch(60)]
        [1.0]
    """
    return fine_tune(epochs, unfreeze=1.0, lr=lr, optimizer=optimizer)
