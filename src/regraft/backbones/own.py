"""Networks of this package, trained from scratch, and those that users register."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from regraft.backbones import catalog
from regraft.backbones.catalog import Entry
from regraft.backbones.network import Network, average, child_groups, tap
from regraft.backbones.spec import Preprocessing
from regraft.errors import BackboneError


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


class SeluCNN(nn.Module):
    """Four convolutions with SELU, dropout of whole channels and pooling, then a linear head.

    The trunk is that of a well-known laboratory on images of fruit: 128 and 128 filters of 5 × 5,
    64 and 32 of 3 × 3, without padding. There images of 77 × 96 pixels give a last feature map of
    32 × 2 × 3; no square does, so the network's own input is 96 pixels, which give 32 × 3 × 3, and
    a head then has 96 more inputs.

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


class AlexNet(nn.Module):
    """AlexNet as it was published, with its filters together instead of on two processors.

    96, 256, 384, 384 and 256 filters, with local response normalisation behind the first two
    layers, then 4096 and 4096 units with dropout: Krizhevsky et al., ImageNet Classification with
    Deep Convolutional Neural Networks, 2012. Images of 227 pixels give a last feature map of
    256 × 6 × 6; the whole has 62,378,344 parameters.

    Args:
        num_classes: Width of the last layer.

    Example:
        >>> sum(parameter.numel() for parameter in AlexNet().features.parameters())
        3747200
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()

        def normalised_pool() -> list[nn.Module]:
            # Torch divides alpha by the size of the window, the paper does not.
            return [nn.ReLU(), nn.LocalResponseNorm(5, alpha=5e-4, k=2.0), nn.MaxPool2d(3, 2)]

        self.features = nn.Sequential(
            *(nn.Conv2d(3, 96, 11, stride=4), *normalised_pool()),
            *(nn.Conv2d(96, 256, 5, padding=2), *normalised_pool()),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(6),  # changes nothing at 227 pixels
            nn.Flatten(),
            *(nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(4096, num_classes),
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of a normalised batch (n, 3, height, width)."""
        logits: Tensor = self.head(self.features(batch))
        return logits


_BUILDERS: dict[str, type[nn.Module]] = {}
_BUILDERS |= {"simple_cnn": SimpleCNN, "selu_cnn": SeluCNN, "alexnet_lrn": AlexNet}
RESERVED: frozenset[str] = frozenset()


def names() -> tuple[str, ...]:
    """Return the names of the networks that are defined here."""
    return tuple(_BUILDERS)


def entry(identifier: str, *, name: str) -> Entry | None:
    """Return the entry of a network that is defined here or registered, or None.

    Example:
        >>> entry("simple_cnn", name="regraft:simple_cnn").name
        'simple_cnn'
    """
    del name  # it has one already
    own = {*_BUILDERS, *catalog.registered}
    return catalog.known(identifier) if identifier in own else None


def preprocessing(identifier: str) -> Preprocessing:
    """Return the preprocessing that the entry of the network states."""
    found = entry(identifier, name=identifier)
    if found is None or found.preprocessing is None:
        raise BackboneError("unknown backbone", why=repr(identifier), code="BACKBONE-UNKNOWN")
    return found.preprocessing


def build(identifier: str, arguments: Mapping[str, Any]) -> Network:
    """Return a network of this package or one that was registered.

    Example:
        >>> build("selu_cnn", {}).size
        96
    """
    given = catalog.registered.get(identifier)
    module: nn.Module = (given.build if given else _BUILDERS[identifier])(**arguments)
    return Network(
        module=module,
        last_map=tap(module, given.features if given else "features"),
        pooled=average,
        groups=child_groups(module, (nn.Sequential,)),
        size=preprocessing(identifier).size,
    )


def rename_keys(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors as they are: files of these networks have one form."""
    del own
    return dict(state)
