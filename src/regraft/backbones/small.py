"""The plain baseline, a small network to be trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from regraft.backbones.network import Network, average, child_groups


class SimpleCNN(nn.Module):
    """Four plain convolutions with pooling between them, then a linear head.

    The trunk is the convolutional part of a well-known teaching example: 224 pixels give a last
    feature map of 128 × 12 × 12, flattened 18,432 columns. With a head of 512, 512 and 5 units the
    whole has 9,934,085 parameters.

    Args:
        num_classes: Width of the head.

    Example:
        >>> sum(parameter.numel() for parameter in SimpleCNN().features.parameters())
        231168
    """

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        widths = (3, 16, 64, 128, 128)
        blocks = [
            nn.Sequential(nn.Conv2d(before, width, 3), nn.ReLU(), nn.MaxPool2d(2))
            for before, width in pairwise(widths)
        ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of a normalised batch (n, 3, height, width)."""
        logits: Tensor = self.head(average(self.features(batch)))
        return logits


def build_simple_cnn(arguments: Mapping[str, Any]) -> Network:
    """Return `SimpleCNN` with random weights.

    Args:
        arguments: ``num_classes``, or nothing.

    Example:
        >>> build_simple_cnn({}).size
        224
    """
    module = SimpleCNN(**arguments)
    return Network(
        module=module,
        last_map=module.features,
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=224,
    )
