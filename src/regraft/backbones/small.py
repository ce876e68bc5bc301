"""Two small networks to be trained from nothing: the plain baseline and a compact residual one."""

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


class _Residual(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation, added to their input; may halve the map."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, batch: Tensor) -> Tensor:
        inner = self.act(self.bn1(self.conv1(batch)))
        summed: Tensor = self.act(self.bn2(self.conv2(inner)) + self.shortcut(batch))
        return summed


class SmallCNN(nn.Module):
    """A residual network of 0.3 million parameters that trains in minutes on a processor.

    Args:
        num_classes: Width of the head.

    Example:
        >>> sum(parameter.numel() for parameter in SmallCNN(6).parameters()) // 1000
        303
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        widths = (16, 32, 64, 128)
        self.blocks = nn.Sequential(
            *[_Residual(before, width, 2) for before, width in pairwise(widths)]
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of a normalised batch (n, 3, height, width)."""
        logits: Tensor = self.head(average(self.blocks(self.stem(batch))))
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


def build_small_cnn(arguments: Mapping[str, Any]) -> Network:
    """Return `SmallCNN` with random weights.

    Args:
        arguments: ``num_classes``, or nothing.

    Example:
        >>> build_small_cnn({"num_classes": 3}).size
        96
    """
    module = SmallCNN(**arguments)
    return Network(
        module=module,
        last_map=lambda batch: module.blocks(module.stem(batch)),
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=96,
    )
