"""What keeps a network from learning its training pictures by heart, all in one value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from regraft.errors import UsageError
from regraft.training.heads import Head
from regraft.training.mixing import CutMix, MixUp
from regraft.training.named_values import Range, find_settings, settle_fields, to_json
from regraft.training.phases import Phase
from regraft.training.state import Mix

Mixing = Literal["mixup", "cutmix"]

_ALLOWED: Mapping[str, Range | tuple[Any, ...]] = {
    "dropout": Range(0, 1, "a share", below=True),
    "weight_decay": Range(0, math.inf, below=True),
    "label_smoothing": Range(0, 1, "a share", below=True),
    "mixing": (None, "mixup", "cutmix"),
    "mixing_alpha": Range(0, math.inf, above=True, below=True),
    "average": Range(0, 1, "a decay per step", above=True, below=True),
    "clip": Range(0, math.inf, "a norm", above=True, below=True),
}


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """What is regularized, and how strongly; what is None stays as head and phases have it.

    Args:
        dropout: Share of the head's units that is dropped while training, 0 to below 1.
        weight_decay: L2 penalty of all phases, 0 or more; decoupled for adamw.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et
            al., 2016), 0 to below 1.
        mixing: ``"mixup"`` (Zhang et al., 2018) or ``"cutmix"`` (Yun et al., 2019).
        mixing_alpha: Its Beta distribution, above 0; by default that of the papers' ImageNet
            experiments, 0.2 for MixUp and 1 for CutMix.
        average: Validate and keep an exponential moving average of the weights (Polyak and
            Juditsky, 1992) with this decay per step, between 0 and 1, for example 0.999.
        clip: Largest norm of the gradient, above 0.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> Regularization(mixing="cutmix").mix()
        CutMix(alpha=1.0)
    """

    dropout: float | None = None
    weight_decay: float | None = None
    label_smoothing: float = 0.0
    mixing: Mixing | None = None
    mixing_alpha: float | None = None
    average: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        settle_fields(self, "regularization", _ALLOWED)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``Regularization(**values)`` is the same again.

        Example:
            >>> Regularization(**Regularization(clip=1).to_json()) == Regularization(clip=1)
            True
        """
        return to_json(self)

    def head(self, head: Head) -> Head:
        """Return a head with its dropout replaced.

        Raises:
            UsageError: The head is one of somebody's own and has no field ``dropout``.

        Example:
            >>> from regraft.training.heads import HEADS
            >>> Regularization(dropout=0.3).head(HEADS["linear"]).dropout
            0.3
        """
        if self.dropout is None:
            return head
        if not dataclasses.is_dataclass(head) or isinstance(head, type) or not _has_dropout(head):
            raise UsageError(
                "this head has no dropout that could be replaced",
                why=type(head).__name__,
                hint="give the head its own dropout, and regularize with dropout=None",
            )
        replaced: Head = dataclasses.replace(head, dropout=self.dropout)
        return replaced

    def phases(self, phases: Sequence[Phase]) -> list[Phase]:
        """Return phases with their weight decay replaced.

        Example:
            >>> [p.weight_decay for p in Regularization(weight_decay=0.05).phases([Phase()])]
            [0.05]
        """
        if self.weight_decay is None:
            return list(phases)
        return [dataclasses.replace(phase, weight_decay=self.weight_decay) for phase in phases]

    def mix(self) -> Mix | None:
        """Return what mixes the pictures of a training batch, or None."""
        given = () if self.mixing_alpha is None else (self.mixing_alpha,)
        if self.mixing == "mixup":
            return MixUp(*given)
        return CutMix(*given) if self.mixing == "cutmix" else None


def _has_dropout(head: Any) -> bool:
    return any(field.name == "dropout" for field in dataclasses.fields(head))


REGULARIZATIONS: Mapping[str, Regularization] = MappingProxyType(
    {
        "standard": Regularization(dropout=0.3, weight_decay=1e-4, label_smoothing=0.1),
        "dropout": Regularization(dropout=0.3),
    }
)
"""Regularizations with a name.

``"standard"`` is what costs no time and harms no optimizer: the dropout of the teaching material;
the label smoothing of 0.1 that Szegedy et al. (2016) introduced and most later ImageNet recipes
kept; and the weight decay of 1e-4 of He et al. (2016). That decay is meant for SGD. AdamW
multiplies it with its small learning rate, where ``"standard,weight_decay=0.05"`` is usual.

``"dropout"`` is the regularization of the teaching material, 0.3 behind the hidden layers.
"""


def find_regularization(regularize: str | Regularization | None) -> Regularization | None:
    """Return a regularization by its name, by its settings, or the regularization itself.

    Args:
        regularize: A name of ``REGULARIZATIONS``; settings such as ``"dropout=0.5,clip=1"``, which
            may begin with a name; a regularization; None or ``"none"`` for none.

    Raises:
        UsageError: The name or a setting is unknown, or a value is out of range.

    Example:
        >>> find_regularization("dropout=0.5,mixing=mixup").mixing
        'mixup'
    """
    return find_settings(regularize, Regularization, REGULARIZATIONS)
