"""A convolutional network of scaled exponential linear units, to be trained from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from regraft.backbones.network import Network, average, child_groups


class SeluCNN(nn.Module):
    """Four convolutions with SELU, dropout of whole channels and pooling, then a linear head.

    The trunk is that of a well-known laboratory on pictures of fruit: 128 and 128 filters of 5 × 5,
    64 and 32 of 3 × 3, without padding. Its pictures are 77 × 96 pixels, which gives a last feature
    map of 32 × 2 × 3, flattened 192 columns. The trunk has 511,712 parameters, a head of 264, 128,
    64, 32 and 22 units on 192 columns 95,934; together 607,646. No square has six positions at the
    end, so the network's own input is the square of the longer side: 96 pixels give 32 × 3 × 3, and
    the same head then has 96 more inputs.

    The weights start as Klambauer et al. (Self-Normalizing Neural Networks, 2017) ask for SELU:
    normal, with a variance of one over the number of inputs.

    Args:
        num_classes: Width of the head.

    Example:
        >>> sum(parameter.numel() for parameter in SeluCNN().features.parameters())
        511712
    """

    def __init__(self, num_classes: int = 22) -> None:
        super().__init__()
        widths, sides = (3, 128, 128, 64, 32), (5, 5, 3, 3)
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, width, side), nn.SELU(), nn.Dropout2d(0.2), nn.MaxPool2d(2)
            )
            for (before, width), side in zip(pairwise(widths), sides, strict=True)
        ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="linear")

    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of a normalised batch (n, 3, height, width)."""
        logits: Tensor = self.head(average(self.features(batch)))
        return logits


def build_selu_cnn(arguments: Mapping[str, Any]) -> Network:
    """Return `SeluCNN` with random weights.

    Args:
        arguments: ``num_classes``, or nothing.

    Example:
        >>> build_selu_cnn({}).size
        96
    """
    module = SeluCNN(**arguments)
    return Network(
        module=module,
        last_map=module.features,
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=96,
    )
