"""GoogLeNet as published in 2014: local response normalisation, no batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbones.network import Network, average, child_groups

# Filters of each module: 1×1; 3×3 reduction, 3×3; 5×5 reduction, 5×5; pool projection.
_INCEPTIONS = {
    "i3a": (64, 96, 128, 16, 32, 32),
    "i3b": (128, 128, 192, 32, 96, 64),
    "i4a": (192, 96, 208, 16, 48, 64),
    "i4b": (160, 112, 224, 24, 64, 64),
    "i4c": (128, 128, 256, 24, 64, 64),
    "i4d": (112, 144, 288, 32, 64, 64),
    "i4e": (256, 160, 320, 32, 128, 128),
    "i5a": (256, 160, 320, 32, 128, 128),
    "i5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four paths side by side: 1×1, 3×3, 5×5 and a pooling, each kept cheap by 1×1 convolutions.

    Args:
        before: Number of channels that come in.
        filters: Numbers of filters: 1×1, 3×3 reduction, 3×3, 5×5 reduction, 5×5, pool projection.

    Example:
        >>> Inception(192, (64, 96, 128, 16, 32, 32))(torch.zeros(1, 192, 4, 4)).shape
        torch.Size([1, 256, 4, 4])
    """

    def __init__(self, before: int, filters: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce_three, three, reduce_five, five, pool = filters
        self.c1 = nn.Conv2d(before, one, 1)
        self.r3 = nn.Conv2d(before, reduce_three, 1)
        self.c3 = nn.Conv2d(reduce_three, three, 3, padding=1)
        self.r5 = nn.Conv2d(before, reduce_five, 1)
        self.c5 = nn.Conv2d(reduce_five, five, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.pp = nn.Conv2d(before, pool, 1)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the four paths' feature maps, one behind the other."""
        paths = (
            self.c1(batch),
            self.c3(self.r3(batch).relu()),
            self.c5(self.r5(batch).relu()),
            self.pp(self.pool(batch)),
        )
        return torch.cat(paths, dim=1).relu()


class BvlcGoogLeNet(nn.Module):
    """GoogLeNet with the layer names of its Caffe release, without the auxiliary heads.

    Args:
        num_classes: Width of the head.

    Example:
        >>> sum(parameter.numel() for parameter in BvlcGoogLeNet().parameters())
        6998552
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        # Caffe rounds the size of a pooled map up, hence ceil_mode everywhere.
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.conv2r = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        width = 192
        for name, filters in _INCEPTIONS.items():
            setattr(self, name, Inception(width, filters))
            width = filters[0] + filters[2] + filters[4] + filters[5]
        self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool4 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc = nn.Linear(width, num_classes)

    def last_map(self, batch: Tensor) -> Tensor:
        """Return the last feature map (n, 1024, height / 32, width / 32) of a normalised batch."""
        stem = self.norm1(self.pool1(self.conv1(batch).relu()))
        maps = self.pool2(self.norm2(self.conv2(self.conv2r(stem).relu()).relu()))
        for name in _INCEPTIONS:
            maps = getattr(self, name)(maps)
            if name == "i3b":
                maps = self.pool3(maps)
            elif name == "i4e":
                maps = self.pool4(maps)
        last: Tensor = maps
        return last

    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of a normalised batch (n, 3, height, width)."""
        logits: Tensor = self.fc(average(self.last_map(batch)))
        return logits


def build_googlenet_bvlc(arguments: Mapping[str, Any]) -> Network:
    """Return `BvlcGoogLeNet` with random weights.

    Args:
        arguments: ``num_classes``, or nothing.

    Example:
        >>> build_googlenet_bvlc({}).size
        224
    """
    module = BvlcGoogLeNet(**arguments)
    return Network(
        module=module,
        last_map=module.last_map,
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=224,
    )
