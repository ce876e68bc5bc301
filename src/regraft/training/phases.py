"""A strategy is a list of phases: what is trained, for how long, and how. Plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from regraft.backbones.network import Stage
from regraft.errors import UsageError

OptimizerName = Literal["sgd", "rmsprop", "adam", "adamw", "nadam"]
ScheduleName = Literal["constant", "cosine", "one_cycle", "plateau"]
BatchNorm = Literal["frozen", "batch_statistics"]
HeadPart = Literal["all", "last"]
KeptEpoch = Literal["best", "last"]
_OPTIMIZERS = get_args(OptimizerName)
_SCHEDULES = get_args(ScheduleName)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training. The head is always trained; the rest is named by one ``unfreeze``.

    Frozen batch norm normalises with the averages that came with its weights. Keras 2.2 normalised
    with each batch's statistics there while it trained, and with the averages when it predicted;
    ``batchnorm="batch_statistics"`` does the same, so that its results can be repeated.

    Args:
        unfreeze: Share of the trunk's stages that is trained, counted from the head, 0 to 1.
        unfreeze_from: The first stage that is trained, by its name, for example ``"features.24"``.
        unfreeze_last: How many of the last stages are trained.
        unfreeze_matching: A regular expression; parameters whose names match are trained.
        head: ``"all"`` of the head, or its ``"last"`` layer alone; the rest of it is then frozen.
        batchnorm: What frozen batch norm of the trunk normalises with while training: its averages
            (``"frozen"``) or each batch's statistics (``"batch_statistics"``). The averages never
            move.
        epochs: Passes over the training part.
        steps: Batches per epoch at most; by default as many as the training part fills.
        optimizer: ``"sgd"``, ``"rmsprop"``, ``"adam"``, ``"adamw"`` or ``"nadam"``.
        momentum: Of sgd and rmsprop.
        betas: Of adam, adamw and nadam.
        lr: Learning rate at the head.
        layer_decay: What the rate is multiplied with per stage away from the head, above 0 to 1.
        schedule: How the rate runs: ``"constant"``, ``"cosine"``, ``"one_cycle"`` (Smith, 2018) or
            ``"plateau"`` (a tenth after two epochs without a better validation loss).
        warmup: Share of the phase in which the rate rises from 0, for ``"cosine"``.
        weight_decay: L2 penalty; decoupled for adamw.
        patience: Stop after this many epochs without a better validation accuracy.
        keep: The epoch whose weights stay: the ``"best"`` on validation, or the ``"last"``, as in
            most published tables.

    Raises:
        UsageError: A value is out of range, or what to train is named twice.

    Example:
        >>> Phase(unfreeze=0.5, epochs=3, optimizer="sgd", lr=0.01).epochs
        3
    """

    unfreeze: float = 0.0
    unfreeze_from: str | None = None
    unfreeze_last: int | None = None
    unfreeze_matching: str | None = None
    head: HeadPart = "all"
    batchnorm: BatchNorm = "frozen"
    epochs: int = 30
    steps: int | None = None
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    lr: float = 1e-3
    layer_decay: float = 1.0
    schedule: ScheduleName = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    patience: int | None = None
    keep: KeptEpoch = "best"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # a list, where JSON was read
        for name, value in list(vars(self).items()):
            if isinstance(value, np.generic):  # which JSON would not take
                object.__setattr__(self, name, value.item())
        ways = (self.unfreeze_from, self.unfreeze_last, self.unfreeze_matching)
        if (self.unfreeze != 0) + sum(way is not None for way in ways) > 1:
            raise UsageError(
                "what to train is named twice", hint="give one of the unfreeze options"
            )
        checks = {
            "unfreeze": 0 <= self.unfreeze <= 1,
            "unfreeze_last": self.unfreeze_last is None or _counts(self.unfreeze_last, 0),
            "unfreeze_matching": _is_pattern(self.unfreeze_matching),
            "head": self.head in get_args(HeadPart),
            "batchnorm": self.batchnorm in get_args(BatchNorm),
            "epochs": _counts(self.epochs, 0),
            "steps": self.steps is None or _counts(self.steps, 1),
            "optimizer": self.optimizer in _OPTIMIZERS,
            "momentum": 0 <= self.momentum < 1,
            "betas": len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "lr": 0 < self.lr < math.inf,
            "layer_decay": 0 < self.layer_decay <= 1,
            "schedule": self.schedule in _SCHEDULES,
            "warmup": 0 <= self.warmup < 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "patience": self.patience is None or _counts(self.patience, 1),
            "keep": self.keep in get_args(KeptEpoch),
        }
        for name, right in checks.items():
            if not right:
                raise UsageError(
                    f"phase: {name} is out of range",
                    why=f"{getattr(self, name)!r}",
                    hint=_HINTS[name],
                )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``Phase(**values)`` is the phase again.

        Example:
            >>> Phase(**Phase(epochs=3).to_json()) == Phase(epochs=3)
            True
        """
        return {**vars(self), "betas": list(self.betas)}


_HINTS = {
    "unfreeze": "a share of the stages, 0 to 1; unfreeze_last counts stages",
    "unfreeze_last": "a whole number of stages, 0 or more",
    "unfreeze_matching": "a regular expression",
    "head": f"one of {', '.join(get_args(HeadPart))}",
    "batchnorm": f"one of {', '.join(get_args(BatchNorm))}",
    "epochs": "a whole number, 0 or more",
    "steps": "1 or more batches",
    "optimizer": f"one of {', '.join(_OPTIMIZERS)}",
    "momentum": "0 to below 1",
    "betas": "two numbers, each 0 to below 1",
    "lr": "above 0",
    "layer_decay": "above 0 to 1",
    "schedule": f"one of {', '.join(_SCHEDULES)}",
    "warmup": "a share of the phase, 0 to below 1",
    "weight_decay": "0 or more",
    "patience": "1 or more epochs",
    "keep": f"one of {', '.join(get_args(KeptEpoch))}",
}


def _counts(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_pattern(text: str | None) -> bool:
    try:
        re.compile(text or "")
    except re.error:
        return False
    return True


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
    epochs: int = 30,
    *,
    unfreeze: float = 1.0,
    lr: float = 1e-4,
    optimizer: OptimizerName = "adamw",
) -> list[Phase]:
    """Train the head and the upper part of the trunk together, in one stage.

    Example:
        >>> [phase.unfreeze for phase in fine_tune(10, unfreeze=0.5)]
        [0.5]
    """
    return [
        Phase(
            unfreeze=unfreeze,
            epochs=epochs,
            lr=lr,
            optimizer=optimizer,
            schedule="cosine",
            warmup=0.1,
        )
    ]


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


@dataclass(frozen=True)
class Trained:
    """What a phase trains of a trunk.

    Attributes:
        parameters: Names of the trained parameters of the trunk.
        first: Index of the first stage with a trained parameter; the number of stages if none has.
        stages: Share of the stages that have one, 0 to 1.
    """

    parameters: frozenset[str]
    first: int
    stages: float


def choose_trained(phase: Phase, stages: Sequence[Stage]) -> Trained:
    """Return what a phase trains of a trunk with these stages.

    A share is rounded to the nearest number of stages, a half upwards: half of 13 stages are 7. It
    is at least one where the share is not 0.

    Raises:
        UsageError: There is no such stage, or no parameter matches.

    Example:
        >>> stages = [Stage(name=n, modules=(n,), parameters=(f"{n}.weight",)) for n in "abcd"]
        >>> choose_trained(Phase(unfreeze=0.5), stages).first
        2
    """
    if phase.unfreeze_matching is not None:
        pattern = re.compile(phase.unfreeze_matching)
        named = frozenset(n for stage in stages for n in stage.parameters if pattern.search(n))
        if not named:
            raise UsageError(
                "no parameter of the trunk matches",
                why=phase.unfreeze_matching,
                hint=f"names look like {stages[0].parameters[0]!r}" if stages else "",
            )
    else:
        named = frozenset(
            n for stage in stages[_first_stage(phase, stages) :] for n in stage.parameters
        )
    touched = [index for index, stage in enumerate(stages) if named & set(stage.parameters)]
    return Trained(
        named, touched[0] if touched else len(stages), len(touched) / max(len(stages), 1)
    )


def _first_stage(phase: Phase, stages: Sequence[Stage]) -> int:
    names = [stage.name for stage in stages]
    if phase.unfreeze_from is not None:
        if phase.unfreeze_from not in names:
            raise UsageError(
                f"there is no stage {phase.unfreeze_from!r}", hint=f"stages: {', '.join(names)}"
            )
        return names.index(phase.unfreeze_from)
    if phase.unfreeze_last is not None:
        if phase.unfreeze_last > len(stages):
            raise UsageError(
                f"cannot train the last {phase.unfreeze_last} stages",
                why=f"there are {len(stages)}",
            )
        return len(stages) - phase.unfreeze_last
    count = math.floor(phase.unfreeze * len(stages) + 0.5)
    return len(stages) - (max(count, 1) if phase.unfreeze and stages else 0)


def rate_factor(phase: Phase, step: int, total: int) -> float:
    """Return what the learning rate is multiplied with at a step, 0 to 1; plateaus come on top.

    Args:
        phase: Its schedule and warm-up.
        step: The batch, counted from 0 over the whole phase.
        total: How many batches the phase has.

    Example:
        >>> round(rate_factor(Phase(schedule="cosine"), 50, 100), 3)
        0.5
    """
    if phase.schedule in {"constant", "plateau"}:
        return 1.0
    warmup = phase.warmup if phase.schedule == "cosine" else 0.3
    rise = warmup * total
    if step < rise:
        start = 0.0 if phase.schedule == "cosine" else 0.04  # one_cycle starts at a 25th
        return start + (1 - start) * (step + 1) / (rise + 1)
    done = (step - rise) / max(total - rise, 1)
    return 0.5 * (1 + math.cos(math.pi * done))
