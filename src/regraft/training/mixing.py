"""Two pictures in one, with their targets in the same proportion: MixUp and CutMix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regraft.errors import UsageError


@dataclass(frozen=True)
class MixUp:
    """Lay each picture of a batch transparently over another one of it.

    Source: Zhang, Cissé, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR
    2018. As in their code the proportion is drawn once per batch.

    Args:
        alpha: The proportion is drawn from Beta(alpha, alpha); above 0. Small values seldom mix
            much; 1 draws every proportion equally often.

    Raises:
        UsageError: alpha is not above 0.

    Example:
        >>> black, white = torch.zeros(1, 2, 2, 3), torch.full((1, 2, 2, 3), 255.0)
        >>> targets = torch.eye(2)
        >>> pictures, mixed = MixUp(1.0)(
        ...     torch.cat([black, white]), targets, np.random.default_rng(1)
        ... )
        >>> bool(torch.allclose(pictures[:, 0, 0, 0] / 255, mixed[:, 1]))
        True
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check(self.alpha)

    def __call__(
        self, inputs: Tensor, targets: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return mixed pictures in float32, 0 to 255, and mixed targets.

        Args:
            inputs: Pictures (n, height, width, 3), 0 to 255.
            targets: Soft targets (n, classes), rows sum to 1.
            random: Where the proportion and the partners are drawn from.
        """
        share = float(random.beta(self.alpha, self.alpha))
        partners = _partners(inputs, random)
        pictures = inputs.float()
        return (
            torch.lerp(pictures[partners], pictures, share),
            torch.lerp(targets[partners], targets, share),
        )


@dataclass(frozen=True)
class CutMix:
    """Paste a rectangle of another picture of the batch into each one.

    Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019. As in their code the rectangle is drawn once per batch, and what is cut off
    at the edge counts for the targets.

    Args:
        alpha: The share of the picture that stays is drawn from Beta(alpha, alpha); above 0.

    Raises:
        UsageError: alpha is not above 0.

    Example:
        >>> pictures = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 8, 8, 3)
        >>> mixed, targets = CutMix()(pictures, torch.eye(2), np.random.default_rng(0))
        >>> bool(torch.allclose(mixed.float().mean((1, 2, 3)), targets[:, 1]))
        True
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check(self.alpha)

    def __call__(
        self, inputs: Tensor, targets: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return pictures of the same kind with a rectangle of another one, and mixed targets.

        Args:
            inputs: Pictures (n, height, width, 3), 0 to 255.
            targets: Soft targets (n, classes), rows sum to 1.
            random: Where the rectangle and the partners are drawn from.
        """
        height, width = inputs.shape[1:3]
        side = math.sqrt(1 - float(random.beta(self.alpha, self.alpha)))
        top, bottom = _stretch(height, side, random)
        left, right = _stretch(width, side, random)
        partners = _partners(inputs, random)
        pictures = inputs.clone(memory_format=torch.contiguous_format)
        pictures[:, top:bottom, left:right] = inputs[partners, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return pictures, torch.lerp(targets[partners], targets, share)


def _check(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise UsageError("alpha of a Beta distribution is above 0", why=repr(alpha))


def _partners(inputs: Tensor, random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.permutation(len(inputs))).to(inputs.device)


def _stretch(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return the ends of a stretch around a random centre, cut off at 0 and ``length``."""
    centre, half = int(random.integers(length)), int(length * share) // 2
    return max(centre - half, 0), min(centre + half, length)
