"""The network `regraft_mini`: a small residual network that is quick on a processor.

Depthwise convolutions save arithmetic but not time in eager PyTorch; dense 3×3 convolutions at low
resolution use a processor well. So the stem halves the picture twice at once, every stage halves it
again, and most parameters stand where the maps are smallest.

What the middle of a network sees - colours, textures, parts - tells photographs apart that its end
has learned to call the same. So the last two stages hand on what they were given beside what they
made of it, and the features hold three depths. The last layer guesses what a far larger network
would see: with few labels, few numbers that mean much are better than many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from regraft.backbones.network import Network, average
from regraft.errors import BackboneError

WIDTHS = (32, 64, 128, 256)
DEEPEST = 512
GUESSED = 176  # of the 192 features of ViT-Tiny; with all of them it would pass 6 MB
FEATURE_DIM = GUESSED + WIDTHS[3] + WIDTHS[2]


def convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation and ReLU that keeps the size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; with stride 2 the shortcut averages first.

    Averaging before the 1×1 convolution lets the shortcut see every pixel, where a strided 1×1
    convolution would drop three of four.

    Example:
        >>> ResidualBlock(8, 16, stride=2)(torch.zeros(1, 8, 7, 7)).shape
        torch.Size([1, 16, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n, outputs, ⌈h/stride⌉, ⌈w/stride⌉) of maps (n, inputs, h, w)."""
        return torch.relu(self.second(self.first(maps)) + self.shortcut(maps))


class Carrying(nn.Sequential):
    """Layers that hand on what they were given, halved like their own maps, behind what they made.

    Example:
        >>> Carrying(ResidualBlock(8, 16, stride=2))(torch.zeros(1, 8, 7, 7)).shape
        torch.Size([1, 24, 4, 4])
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n, outputs + inputs, ⌈h/2⌉, ⌈w/2⌉) of maps (n, inputs, h, w)."""
        made, given = maps, avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False)
        for layer in self:
            made = layer(made)
        return torch.cat([made, given], dim=1)


class CarryingHead(nn.Sequential):
    """Layers for the first maps alone; all that was given is handed on behind what they made.

    Args:
        inputs: How many maps the layers take.
        layers: They keep height and width.

    Example:
        >>> CarryingHead(8, convolution(8, 16, kernel=1))(torch.zeros(1, 12, 7, 7)).shape
        torch.Size([1, 28, 7, 7])
    """

    def __init__(self, inputs: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.inputs = inputs

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n, outputs + carried, h, w) of maps (n, carried, h, w)."""
        made = maps[:, : self.inputs]
        for layer in self:
            made = layer(made)
        return torch.cat([made, maps], dim=1)


class RegraftMini(nn.Module):
    """The backbone `regraft_mini`: 3 million parameters, 560 features, no classifier.

    Children stand in depth order: `stem` (1/4 of the input's side), `stage1` (1/8), `stage2`
    (1/16), `stage3` (1/32) and `head`, a 1×1 convolution to 512 maps and a linear one from there to
    guesses of ViT-Tiny's features. Of the features 176 are these guesses, 256 come from `stage3`
    and 128 from `stage2`.

    Example:
        >>> network = RegraftMini().eval()
        >>> network.forward_features(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 560, 2, 2])
        >>> network(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 560])
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.feature_dim = FEATURE_DIM
        self.stem = nn.Sequential(convolution(3, 24, stride=2), convolution(24, first, stride=2))
        self.stage1 = self._stage(first, second)
        self.stage2 = self._stage(second, third)
        self.stage3 = Carrying(*self._stage(third, fourth))
        widened = convolution(fourth, DEEPEST, kernel=1)
        self.head = CarryingHead(fourth, *widened, nn.Conv2d(DEEPEST, GUESSED, 1))
        for module in self.modules():
            # On "meta" nothing is drawn; drawing there makes torch load its compiler for seconds.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            ResidualBlock(inputs, outputs, stride=2), ResidualBlock(outputs, outputs)
        )

    def forward_features(self, images: Tensor) -> Tensor:
        """Return maps (n, 560, ⌈h/32⌉, ⌈w/32⌉) of normalised images (n, 3, h, w)."""
        maps = self.stage1(self.stem(images))
        maps = self.stage3(self.stage2(maps))
        result: Tensor = self.head(maps)
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Return features (n, 560), the maps averaged over their places."""
        return self.forward_features(images).mean(dim=(2, 3))


def build_regraft_mini(arguments: Mapping[str, Any]) -> Network:
    """Return `RegraftMini` with random weights.

    Args:
        arguments: Nothing; the network has no head of its own.

    Raises:
        BackboneError: An argument was given (``BACKBONE-ARGUMENT``).

    Example:
        >>> build_regraft_mini({}).size
        160
    """
    if arguments:
        raise BackboneError(
            "regraft_mini has no head of its own",
            why=f"found {sorted(arguments)}",
            hint="leave the arguments out; a classifier stands on its features",
            code="BACKBONE-ARGUMENT",
        )
    module = RegraftMini()
    names = [name for name, _ in module.named_parameters()]
    depth = ("stem", "stage1", "stage2", "stage3", "head")
    groups = tuple(tuple(n for n in names if n.startswith(f"{stage}.")) for stage in depth)
    return Network(
        module=module,
        last_map=module.forward_features,
        pooled=average,
        groups=groups,
        size=160,
    )
