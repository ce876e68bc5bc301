"""What keeps a network from learning its training images by heart, all in one value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from regraft.errors import UsageError
from regraft.settings import parse_settings, settings_class
from regraft.training.heads import Head
from regraft.training.phases import AboveZero, BelowOne, Phase

if TYPE_CHECKING:
    from torch import Tensor

# From inputs, soft targets (n, classes) and a generator to mixed inputs and targets.
Mix = Callable[["Tensor", "Tensor", np.random.Generator], tuple["Tensor", "Tensor"]]


@settings_class(kw_only=True)
class Regularization:
    """What is regularized, and how strongly; what is None stays as head and phases have it.

    Args:
        dropout: Share of the head's units that is dropped while training, 0 to below 1.
        weight_decay: L2 penalty of all phases, 0 or more; decoupled for adamw.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et
            al., 2016), 0 to below 1.
        mixing: ``"mixup"`` (Zhang et al., 2018) or ``"cutmix"`` (Yun et al., 2019).
        clip: Largest norm of the gradient, above 0.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> Regularization(weight_decay=0.05).phases([Phase()])[0].weight_decay
        0.05
    """

    dropout: BelowOne | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    label_smoothing: BelowOne = 0.0
    mixing: Literal["mixup", "cutmix"] | None = None
    clip: AboveZero | None = None

    def head(self, head: Head) -> Head:
        """Return a head with its dropout replaced.

        Raises:
            UsageError: The head is one of somebody's own and has no field ``dropout``.
        """
        if self.dropout is None:
            return head
        if "dropout" not in getattr(head, "__dataclass_fields__", {}):
            why, hint = type(head).__name__, "give it its own, and regularize with dropout=None"
            raise UsageError("this head has no dropout that could be replaced", why=why, hint=hint)
        replaced: Head = dataclasses.replace(head, dropout=self.dropout)  # type: ignore[type-var]
        return replaced

    def phases(self, phases: Sequence[Phase]) -> list[Phase]:
        """Return phases with their weight decay replaced."""
        if self.weight_decay is None:
            return list(phases)
        return [dataclasses.replace(phase, weight_decay=self.weight_decay) for phase in phases]

    def mix(self) -> Mix | None:
        """Return what mixes the images of a training batch, or None."""
        return None if self.mixing is None else {"mixup": mix_up, "cutmix": cut_mix}[self.mixing]


REGULARIZATIONS: Mapping[str, Regularization] = {
    "standard": Regularization(dropout=0.3, weight_decay=1e-4, label_smoothing=0.1),
    "dropout": Regularization(dropout=0.3),
}
"""Regularizations with a name.

``"standard"`` costs no time and harms no optimizer: the dropout of the teaching material
(``"dropout"``), the label smoothing of Szegedy et al. (2016), and the weight decay that He et al.
(2016) used with SGD; with AdamW ``"standard,weight_decay=0.05"`` is usual.
"""


def find_regularization(regularize: str | Regularization | None) -> Regularization | None:
    """Return a regularization by its name, by its settings, or the regularization itself.

    Settings such as ``"dropout=0.5,clip=1"`` may begin with a name of ``REGULARIZATIONS``; None and
    ``"none"`` stand for none.

    Raises:
        UsageError: The name or a setting is unknown, or a value is out of range.
    """
    return parse_settings(regularize, Regularization, REGULARIZATIONS)


def mix_up(
    inputs: Tensor, targets: Tensor, random: np.random.Generator, *, alpha: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Lay each image of a batch transparently over another one; mix the targets alike.

    Source: Zhang, Cissé, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR
    2018. As in their code the proportion is drawn once per batch, from Beta(alpha, alpha): small
    values seldom mix much. The mixed images are float32, 0 to 255.
    """
    import torch

    share = float(random.beta(alpha, alpha))
    partners = torch.from_numpy(random.permutation(len(inputs))).to(inputs.device)
    images = inputs.float()
    mixed = torch.lerp(images[partners], images, share)
    return mixed, torch.lerp(targets[partners], targets, share)


def cut_mix(
    inputs: Tensor, targets: Tensor, random: np.random.Generator, *, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into each one; mix the targets alike.

    Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019. As in their code the rectangle is drawn once per batch, the share that
    stays from Beta(alpha, alpha), and what is cut off at the edge counts for the targets.
    """
    import torch

    height, width = inputs.shape[1:3]
    side = math.sqrt(1 - float(random.beta(alpha, alpha)))
    top, bottom = _stretch(height, side, random)
    left, right = _stretch(width, side, random)
    partners = torch.from_numpy(random.permutation(len(inputs))).to(inputs.device)
    images = inputs.clone(memory_format=torch.contiguous_format)
    images[:, top:bottom, left:right] = inputs[partners, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return images, torch.lerp(targets[partners], targets, share)


def _stretch(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return the ends of a stretch around a random centre, cut off at 0 and ``length``."""
    centre, half = int(random.integers(length)), int(length * share) // 2
    return max(centre - half, 0), min(centre + half, length)
